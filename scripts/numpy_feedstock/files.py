"""What can be asked of any file, and how files are replaced."""

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
