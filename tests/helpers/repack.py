"""Unpacked packages made packages again, hardly compressed: some tenths of a second each."""

import hashlib
import json
import os
import shutil
from importlib.util import source_hash

from numpy_feedstock.packages import canonical

SECONDS = 1_700_000_000  # the date of these packages, since 1970


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


def settle(folder):
    """Let paths.json say what is there, and remove the bytecode of sources that were changed.

    Without it a changed file is a finding of two more checks.
    """
    for bytecode in [*folder.rglob("__pycache__/*.pyc")]:
        source = bytecode.parents[1] / f"{bytecode.name.split('.')[0]}.py"
        if not source.exists() or bytecode.read_bytes()[8:16] != source_hash(source.read_bytes()):
            bytecode.unlink()
    content = json.loads((folder / "info/paths.json").read_text())
    known = {entry["_path"]: entry for entry in content["paths"]}
    content["paths"] = [
        {**known.get(name, {"_path": name}), **_entry(folder / name)}
        for name, _ in canonical.members(folder)
        if not name.startswith("info/")
    ]
    replace(folder / "info/paths.json", json.dumps(content, indent=2))


def _entry(file):
    if file.is_symlink():
        return {"path_type": "softlink"}
    data = file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return {"path_type": "hardlink", "sha256": sha256, "size_in_bytes": len(data)}


def filename(folder):
    """The name of the package file by its index."""
    index = json.loads((folder / "info/index.json").read_text())
    return "{name}-{version}-{build}.conda".format(**index)


def pack(folder, path):
    """Make the .conda package ``path`` of a folder; its path."""
    canonical.pack(folder, path, path.name.removesuffix(".conda"), SECONDS, level=1)
    return path
