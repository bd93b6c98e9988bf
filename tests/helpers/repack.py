"""Unpacked packages made packages again, hardly compressed: some tenths of a second each."""

import json
import os
import shutil

from numpy_feedstock import canonical


def copy(folder, to):
    """A copy that shares its files by hard links: replace them, do not write into them."""
    return shutil.copytree(folder, to, symlinks=True, copy_function=os.link)


def replace(file, data):
    """Give a file of such a copy other bytes or another text."""
    mode = file.stat().st_mode if file.exists() else 0o644
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    file.chmod(mode)


def edit_json(file, change):
    """Replace a JSON file by what ``change`` makes of its content, in place."""
    content = json.loads(file.read_text())
    change(content)
    replace(file, json.dumps(content, indent=2))


def pack(folder, path):
    """Make the .conda package ``path`` of a folder; its path."""
    canonical.pack(folder, path, path.name.removesuffix(".conda"), seconds=0, level=1)
    return path
