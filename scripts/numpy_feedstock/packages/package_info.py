"""Read what a package file says about itself, without unpacking all of it."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

import zstandard

from ..errors import UsageError
from .archive import INDEX

_MAX_BYTES = 16 << 20


def read_index(path: Path) -> dict[str, Any]:
    """Return the index.json of a .conda or .tar.bz2 file. Raises UsageError when there is none."""
    try:
        if path.name.endswith(".tar.bz2"):
            with open(path, "rb") as stream:
                return _index_in(stream, "r|bz2")
        return _read_conda(path)
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        StopIteration,
        RecursionError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zstandard.ZstdError,
    ) as error:
        raise UsageError(
            f"not a whole conda package: {path}", found=error or type(error).__name__
        ) from None


def _read_conda(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as package:
        names = [name for name in package.namelist() if name.startswith("info-")]
        with package.open(names[0] if names else "info-") as member:
            unpacked = zstandard.ZstdDecompressor().stream_reader(member)
            return _index_in(io.BufferedReader(unpacked), "r|")


def _index_in(stream: Any, mode: Any) -> dict[str, Any]:
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for member in tar:
            if member.name == INDEX and member.isfile() and member.size <= _MAX_BYTES:
                file: IO[bytes] | None = tar.extractfile(member)
                content = json.loads(file.read()) if file else None
                if isinstance(content, dict):
                    return content
    raise ValueError(f"no {INDEX}")
