"""Debian's packages of what the machine lacks: gcc of the pinned version, and Pythons."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import paths
from ...errors import FeedstockError
from ...progress import Say
from .. import apt

_RECIPES = Path(__file__).parent / "recipes"
GCC = _RECIPES / "gcc" / "debian.yaml"
PYTHON = _RECIPES / "python" / "debian.yaml"
# where Debian's packages have their loader and its libraries
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def download_gcc(machine_gcc: str, say: Say) -> Path | None:
    """Download Debian's packages of the gcc that conda_build_config.yaml pins.

    machine_gcc : the version of this machine's own gcc

    Returns their folder, or None where the machine's own gcc is of that major version.
    Raises FeedstockError when they cannot be had. Another compiler does not stand in:
    the package would have the name of one that gcc 14 compiled.
    """
    wanted = read(GCC)
    if int(machine_gcc.split(".")[0]) == wanted["gcc"]:
        return None
    try:
        return _download(f"gcc {wanted['gcc']}", wanted["packages"], wanted["suite"], say)
    except FeedstockError as error:
        raise FeedstockError(
            f"Debian's gcc {wanted['gcc']} cannot be downloaded: {error}",
            expected=f"gcc {wanted['gcc']}, which {paths.BUILD_CONFIG.name} pins",
            found=f"gcc {machine_gcc} on this machine",
            remedy=f"make gcc and g++ of version {wanted['gcc']} the first on PATH, "
            "or name a conda channel with --channel",
        ) from error


def download_python(python: str, say: Say) -> Path:
    """Download Debian's Python of a minor version, and return the folder of its packages.

    python : the minor version, one of python_suites()

    Raises FeedstockError when it cannot be had.
    """
    suite = python_suites()[python]
    packages = [name.format(python=python) for name in read(PYTHON)["packages"]]
    try:
        return _download(f"Python {python}", packages, suite, say)
    except FeedstockError as error:
        raise FeedstockError(
            f"Debian's Python {python} cannot be downloaded: {error}",
            expected=f"a python{python} for the bootstrap channel to copy",
            found="none on PATH",
            remedy=f"install python{python}, or name another --python",
        ) from error


def python_suites() -> dict[str, str]:
    """Return {minor version of Python: the suite of Debian that it is taken from}."""
    return dict(read(PYTHON)["suites"])


def unpack_python(packages: Path, python: str) -> Path:
    """Unpack Debian's Python, and return the path of a program that runs it.

    packages : folder of the packages

    The program runs on an older glibc than Python's own, because Debian's comes with it.
    """
    unpacked = packages / "unpacked"
    program = unpacked / f"python{python}"
    if program.exists():
        return program
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    for deb in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg", "-x", deb, unpacked], check=True)
    libraries = unpacked / LIBRARIES
    loader = libraries / "ld-linux-x86-64.so.2"
    script = (
        f'#!/bin/sh\nexec "{loader}" --library-path "{libraries}" '
        f'"{unpacked}/usr/bin/python{python}" "$@"\n'
    )
    # last: without it the rest was not finished
    program.write_text(script)
    program.chmod(0o755)
    return program


def _download(what: str, packages: Sequence[str], suite: str, say: Say) -> Path:
    """Return a folder with packages of a suite. They are downloaded at the first use."""
    name = what.split()[0].lower()
    digest = hashlib.sha256(json.dumps([suite, *packages]).encode()).hexdigest()
    # named after the list, so that no package of an older one is in it
    folder = paths.BUILD / f"{name}-{digest[:8]}"
    if folder.exists():
        return folder
    say(f"downloading Debian's {what}")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    apt.download(packages, suite, partial)
    partial.rename(folder)
    return folder


def read(path: Path) -> dict[str, Any]:
    """Return the content of one of the two lists."""
    import yaml

    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content
