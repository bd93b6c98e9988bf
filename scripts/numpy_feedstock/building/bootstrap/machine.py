"""What of this machine ends up in the bootstrap channel: its Python, its glibc and its gcc."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError

_PYTHON_FACTS = """
import json, platform, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(),
    "abi": "cp%d%d" % sys.version_info[:2],
    "include": sysconfig.get_path("include"),
}))
"""
# up to this one, conda-forge's build strings of Python end in "_cpython"
_LAST_CPYTHON = (3, 12)


@dataclass(frozen=True)
class Machine:
    """The facts that decide what the channel's packages are made of."""

    interpreter: str  # path of the Python that is copied
    python_minor: str  # "3.11"
    python_version: str  # "3.11.7"
    python_abi: str  # "cp311"
    python_build: str  # end of the build string of conda-forge's python
    machine_glibc: str  # "2.36"
    machine_gcc: str  # "12.2.0"


def inspect(python: str) -> Machine:
    """Return the facts about this machine.

    python : the minor version that the packages are for, "3.11"

    Raises UsageError, which names what is missing.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise UsageError(
            "the bootstrap channel cannot be made here: the wheels of MKL and of OpenBLAS "
            "are for one platform",
            expected="Linux x86_64",
            found=f"{platform.system()} {platform.machine()}",
            remedy="name a conda channel with --channel",
        )
    interpreter = find_interpreter(python)
    command = [interpreter, "-I", "-c", _PYTHON_FACTS]
    facts = json.loads(subprocess.check_output(command, text=True))
    _refuse_missing(python, interpreter, Path(facts["include"]))
    version = tuple(map(int, python.split(".")))
    return Machine(
        interpreter=interpreter,
        python_minor=python,
        python_version=facts["version"],
        python_abi=facts["abi"],
        python_build="cpython" if version <= _LAST_CPYTHON else facts["abi"],
        machine_glibc=(os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1],
        machine_gcc=subprocess.check_output(["gcc", "-dumpfullversion"], text=True).strip(),
    )


def _refuse_missing(python: str, interpreter: str, include: Path) -> None:
    missing = {name: name for name in ("gcc", "g++") if not shutil.which(name)}
    if not Path(include, "Python.h").exists():
        package = f"python{python}-dev"
        missing[package] = f"{package} (the headers of {interpreter})"
    if missing:
        raise UsageError(
            f"missing on this machine: {', '.join(missing.values())}",
            remedy=f"on Debian: apt-get install {' '.join(missing)}",
        )


def find_interpreter(python: str) -> str:
    """Return the path of the base interpreter of a minor version: never a virtual environment's.

    Raises UsageError when there is none.
    """
    if python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return os.path.realpath(sys.executable)
    found = shutil.which(f"python{python}")
    if found:
        command = [found, "-Ic", "import sys; print(sys.base_prefix)"]
        # a version manager has programs that answer for Pythons that it does not have
        probe = subprocess.run(command, capture_output=True, text=True)
        if probe.returncode == 0:
            base = Path(probe.stdout.strip())
            return os.path.realpath(base / "bin" / f"python{python}")
    raise UsageError(
        f"no python{python} on PATH for the bootstrap channel to copy",
        remedy="install it, or name another --python",
    )
