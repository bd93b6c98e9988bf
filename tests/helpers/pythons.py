"""Pythons other than the one that runs the tests."""

import functools
import os
import shutil
import subprocess
from pathlib import Path


@functools.cache
def python36():
    """A Python 3.6, by its name or among pyenv's; None without one."""
    for python in filter(
        None,
        [
            *_of_pyenv("3.6"),
            shutil.which("python3.6"),
            "/usr/libexec/platform-python",
        ],
    ):
        try:
            shown = subprocess.run(
                [python, "-c", "import sys; print(*sys.version_info[:2])"],
                capture_output=True,
                text=True,
            )
        except OSError:
            continue
        if shown.stdout.split() == ["3", "6"]:
            return python
    return None


def _of_pyenv(version):
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    return list(folder.glob(f"{version}.*/bin/python{version}"))


def found(versions):
    """{version: program} of those Pythons that are there.

    versions : such as 3.13
    """
    programs = {}
    for version in versions:
        candidates = _of_pyenv(version)
        if version == "3.6":
            candidates = [python36()]
        if not candidates and shutil.which(f"python{version}"):
            candidates = [shutil.which(f"python{version}")]
        for candidate in filter(None, candidates):
            if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
                programs[version] = candidate
    return programs
