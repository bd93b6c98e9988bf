"""Fetch wheels with pip and its configuration, check their sha256, and unpack them once."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from .. import paths
from ..errors import UsageError

TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"


def unpacked(name: str, version: str, sha256: str) -> Path:
    """Return the folder of a wheel for the running Python, which can be on sys.path.

    The wheel is fetched when the folder is not there. Raises UsageError when the wheel cannot be
    downloaded, or when its sha256 is another.
    """
    folder = paths.BUILD / "unpacked" / f"{name}-{version}-{sha256[:12]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as downloads:
            _download(name, version, sha256, Path(downloads))
            unpack(Path(downloads).glob("*.whl"), folder)
    return folder


def _download(name: str, version: str, sha256: str, folder: Path) -> None:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
    exactly_this = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command = [*pip, *exactly_this, "--dest", str(folder), "-r", str(requirement)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise UsageError(
            f"the wheel of {name} {version} for {TAG} could not be downloaded",
            expected=f"sha256 {sha256}",
            found=result.stderr.strip(),
            remedy="`pip config list` shows the index that pip asks",
        )


def unpack(wheels: Iterable[Path], folder: Path, part: str = "") -> None:
    """Unpack wheels into a new folder, completely or not at all.

    part : only members whose path contains it
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # in a folder of its own, because another process may unpack the same wheels
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        partial = Path(work, folder.name)
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                members = [member for member in archive.namelist() if part in member]
                archive.extractall(partial, members)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():
                raise
