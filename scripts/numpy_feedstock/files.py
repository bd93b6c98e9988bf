"""What can be asked of any file, and how files are replaced."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_can_write(folder: Path) -> None:
    """Raise OSError or ValueError when a folder cannot be written, or made. Writes nothing."""
    there = _nearest(folder)
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    system = os.statvfs(there)
    # /proc and /sys allow root to write and have room for no file
    if not os.access(there, os.W_OK | os.X_OK) or not (system.f_blocks or system.f_files):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest of those above it that is there."""
    for path in (folder, *folder.parents):
        try:
            path.lstat()
            return path
        except FileNotFoundError:
            continue
    return Path(folder.anchor)


def write_all(texts: Mapping[Path, str]) -> None:
    """Write texts into files. No file is changed when one of the texts cannot be written.

    Raises OSError.
    """
    partial: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            target = path.resolve()  # a link goes on being one
            beside = target.with_name(f".{target.name}.partial-{os.getpid()}")
            partial[beside] = target
            beside.write_text(text, encoding="utf-8")
            if target.exists():
                shutil.copymode(target, beside)
        for beside, target in partial.items():
            os.replace(beside, target)
    finally:
        for beside in partial:
            beside.unlink(missing_ok=True)


def json_object(path: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file holds; None when there is no such file or object."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
