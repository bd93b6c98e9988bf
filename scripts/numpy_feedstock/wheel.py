"""Wheels: fetched through pip's own configuration, their sha256 checked, unpacked once."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from . import paths
from .errors import UsageError

TAG = f"cp{sys.version_info[0]}{sys.version_info[1]}"


def unpacked(name, version, sha256):
    """The folder of a wheel for the running Python, as on sys.path; fetched if it is not there.

    Raises UsageError when the wheel cannot be had or has another sha256.
    """
    folder = paths.BUILD / "unpacked" / f"{name}-{version}-{sha256[:12]}"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as downloads:
            requirement = Path(downloads, "requirement.txt")
            requirement.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-qq",
                "--disable-pip-version-check",
                "--no-deps",
                "--require-hashes",
                "--only-binary",
                ":all:",
                "--dest",
                downloads,
                "-r",
                str(requirement),
            ]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                raise UsageError(
                    f"the wheel of {name} {version} for {TAG} could not be had",
                    expected=f"sha256 {sha256}",
                    found=result.stderr.strip(),
                    remedy="`pip config list` shows the index that pip asks",
                )
            unpack(Path(downloads).glob("*.whl"), folder)
    return folder


def unpack(wheels, folder, part=""):
    """The members of wheels whose path contains ``part``, into a new folder: all of them or none."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial, [member for member in archive.namelist() if part in member])
    partial.rename(folder)
