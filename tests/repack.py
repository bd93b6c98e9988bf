"""Unpacked packages made packages again, without compressing: some tenths of a second each."""

import io
import json
import os
import shutil
import tarfile
import zipfile


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
    stem = path.name.removesuffix(".conda")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        for part, names in (("info", ["info"]), ("pkg", sorted(entry.name for entry in folder.iterdir() if entry.name != "info"))):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as tar:
                for name in names:
                    tar.add(folder / name, name)
            archive.writestr(f"{part}-{stem}.tar.zst", _stored_zstd(stream.getvalue()))
    return path


def _stored_zstd(data, block=1 << 17):
    """A zstd frame of raw blocks (RFC 8878, 3.1.1): Python had no zstd before 3.14."""
    frame = [b"\x28\xb5\x2f\xfd\x00\x58"]
    for start in range(0, len(data), block):
        piece = data[start:start + block]
        last = start + block >= len(data)
        frame += [(last | len(piece) << 3).to_bytes(3, "little"), piece]
    return b"".join(frame)
