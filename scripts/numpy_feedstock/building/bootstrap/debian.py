"""Debian's packages of what the machine lacks: gcc of the pinned version, and Pythons."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ... import paths
from ...errors import FeedstockError, UsageError
from ...progress import Say
from .. import apt

_RECIPES = Path(__file__).parent / "recipes"
GCC = _RECIPES / "gcc" / "debian.yaml"
PYTHON = _RECIPES / "python" / "debian.yaml"
# where Debian's packages have their loader and its libraries
LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclasses.dataclass(frozen=True)
class Packages:
    """Debian's packages of one program, and what is said when they cannot be had."""

    what: str  # "gcc 14"
    suite: str  # "trixie"
    names: list[str]
    expected: str
    found: str
    remedy: str

    def check(self) -> None:
        """Raise UsageError when this machine lacks a program that gets or unpacks them."""
        programs = ["dpkg"] if self._folder().exists() else ["apt-get", "dpkg"]
        missing = [program for program in programs if not shutil.which(program)]
        if missing:
            raise self._refusal(UsageError, f"this machine has no {' and no '.join(missing)}")

    def download(self, say: Say) -> Path:
        """Return the folder with them. They are downloaded at the first use.

        Raises UsageError as check() does, and FeedstockError when they cannot be had.
        """
        self.check()
        folder = self._folder()
        if folder.exists():
            return folder
        say(f"downloading Debian's {self.what}")
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            apt.download(self.names, self.suite, partial)
        except FeedstockError as error:
            raise self._refusal(FeedstockError, str(error)) from error
        partial.rename(folder)
        return folder

    def _folder(self) -> Path:
        name = self.what.split()[0].lower()
        digest = hashlib.sha256(json.dumps([self.suite, *self.names]).encode()).hexdigest()
        # named after the list, so that no package of an older one is in it
        return paths.BUILD / f"{name}-{digest[:8]}"

    def _refusal(self, kind: type[FeedstockError], why: str) -> FeedstockError:
        return kind(
            f"Debian's {self.what} cannot be downloaded: {why}",
            expected=self.expected,
            found=self.found,
            remedy=self.remedy,
        )


def gcc_packages(machine_gcc: str) -> Packages | None:
    """Return Debian's packages of the gcc that conda_build_config.yaml pins.

    machine_gcc : the version of this machine's own gcc

    Returns None where the machine's own gcc is of that major version. Another compiler does
    not stand in: the package would have the name of one that gcc 14 compiled.
    """
    wanted = read(GCC)
    version = wanted["gcc"]
    if re.fullmatch(rf"{version}(\.\d+)*", machine_gcc):
        return None
    return Packages(
        f"gcc {version}",
        wanted["suite"],
        wanted["packages"],
        expected=f"gcc {version}, which {paths.BUILD_CONFIG.name} pins",
        found=f"gcc {machine_gcc} on this machine",
        remedy=f"make gcc and g++ of version {version} the first on PATH, "
        "or name a conda channel with --channel",
    )


def python_packages(python: str) -> Packages:
    """Return Debian's packages of a Python.

    python : the minor version, one of python_suites()
    """
    return Packages(
        f"Python {python}",
        python_suites()[python],
        [name.format(python=python) for name in read(PYTHON)["packages"]],
        expected=f"a python{python} for the bootstrap channel to copy",
        found="none on PATH",
        remedy=f"install python{python}, or name another --python",
    )


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
        done = subprocess.run(["dpkg", "-x", deb, unpacked], capture_output=True, text=True)
        if done.returncode:
            raise FeedstockError(
                f"dpkg cannot unpack {deb}",
                found=done.stderr.strip(),
                remedy=f"remove {packages} and run the same command again",
            )
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


def read(path: Path) -> dict[str, Any]:
    """Return the content of one of the two lists."""
    import yaml

    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content
