"""What of this machine ends up in the bootstrap channel: its Pythons, its glibc and its gcc."""

import json
import operator
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError
from . import debian

_PYTHON_FACTS = """
import json, os, platform, sys, sysconfig
program = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
print(json.dumps({
    "program": os.path.realpath(program),
    "version": platform.python_version(),
    "soabi": sysconfig.get_config_var("SOABI"),
    "conda": os.path.isdir(os.path.join(sys.base_prefix, "conda-meta")),
    "include": sysconfig.get_path("include"),
}))
"""
# up to this one, conda-forge's build strings of Python end in "_cpython"
_LAST_CPYTHON = (3, 12)


@dataclass(frozen=True)
class Machine:
    """The facts that decide what the packages that all Pythons share are made of."""

    machine_glibc: str  # "2.36"
    machine_gcc: str  # "12.2.0"; "14.2.0 and g++ 12.2.0" where the two differ


@dataclass(frozen=True)
class Interpreter:
    """The Python that the channel gets: one of this machine, or Debian's."""

    python_minor: str  # "3.11"
    interpreter: str  # path of the program; "" for Debian's
    python_version: str  # "3.11.7"; "" for Debian's
    python_suite: str = ""  # suite of Debian that it is taken from

    @property
    def abi(self) -> str:
        """The ABI tag, "cp311"."""
        return f"cp{self.python_minor.replace('.', '')}"

    @property
    def build(self) -> str:
        """The end of the build string of conda-forge's python."""
        version = tuple(map(int, self.python_minor.split(".")))
        return "cpython" if version <= _LAST_CPYTHON else self.abi


def inspect() -> Machine:
    """Return the facts about this machine. Raises UsageError, which names what is missing."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise UsageError(
            "the bootstrap channel cannot be made here: the wheels of MKL and of OpenBLAS "
            "are for one platform",
            expected="Linux x86_64",
            found=f"{platform.system()} {platform.machine()}",
            remedy="name a conda channel with --channel",
        )
    _refuse_missing({name: name for name in ("gcc", "g++") if not shutil.which(name)})
    return Machine(
        machine_glibc=(os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1],
        machine_gcc=_version_of_compilers(),
    )


def _version_of_compilers() -> str:
    """Return the version of gcc, and g++'s beside it where that is another one."""
    gcc, gxx = (_answer([name, "-dumpfullversion"]).strip() for name in ("gcc", "g++"))
    if not gcc or not gxx:
        raise UsageError(
            "gcc or g++ does not say its version",
            command="gcc -dumpfullversion; g++ -dumpfullversion",
            remedy="put a working gcc and g++ first on PATH",
        )
    return gcc if gcc == gxx else f"{gcc} and g++ {gxx}"


def _answer(command: list[str | Path]) -> str:
    """Return what a program prints; "" when it cannot be started, and when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError:  # not a program of this machine, or a folder
        return ""
    return "" if done.returncode else done.stdout


def find_interpreter(python: str) -> Interpreter:
    """Return the Python of a minor version: this machine's, else Debian's.

    Of a virtual environment it is the Python that the environment was made with. Another
    implementation and another ABI (free-threaded, debug) do not stand in for it. Raises
    UsageError when there is none, and when the only ones lack their headers.
    """
    asked = map(_facts, _programs(python))
    found = [facts for facts in asked if facts.get("soabi") == _soabi(python)]
    without_headers = ""
    # a Python of conda comes last: it loads libraries of other packages, which its copy lacks
    for facts in sorted(found, key=operator.itemgetter("conda")):
        if Path(facts["include"], "Python.h").exists():
            return Interpreter(python, facts["program"], facts["version"])
        without_headers = without_headers or facts["program"]
    suites = debian.python_suites()
    if python in suites:
        return Interpreter(python, "", "", suites[python])
    if without_headers:
        package = f"python{python}-dev"
        _refuse_missing({package: f"{package} (the headers of {without_headers})"})
    raise UsageError(
        f"no python{python} on PATH for the bootstrap channel to copy",
        expected=f"a CPython with the ABI {_soabi(python)}",
        remedy="install it, or name another --python "
        f"({' and '.join(suites)} are taken from Debian where the machine has none)",
    )


def _facts(program: Path) -> dict[str, Any]:
    """Return what a Python says about itself; {} when the program is not one."""
    try:
        facts = json.loads(_answer([program, "-Ic", _PYTHON_FACTS]))
    except ValueError:
        # a version manager has programs that answer for Pythons that it does not have
        return {}
    return facts if isinstance(facts, dict) else {}


def _soabi(python: str) -> str:
    """Return the name of CPython's ABI. Each other Python of that minor version has another one.

    PyPy's starts with "pypy", a free-threaded one's has "313t" and a debug build's "313d".
    """
    return f"cpython-{python.replace('.', '')}-x86_64-linux-gnu"


def version_of(program: Path) -> str:
    """Return the version of a Python, "3.11.7"."""
    command = [str(program), "-Ic", "import platform; print(platform.python_version())"]
    answer: str = subprocess.check_output(command, text=True)
    return answer.strip()


def _programs(python: str) -> Iterator[Path]:
    """Yield the programs that may be a Python of the minor version, the best first."""
    if python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        yield Path(sys.executable)
    name = f"python{python}"
    # version managers have a folder for each version beside the others
    beside = {Path(os.path.realpath(sys.base_prefix)).parent}
    for folder in map(Path, os.get_exec_path()):
        if os.access(folder / name, os.X_OK):
            yield folder / name
        if folder.name == "shims":  # pyenv's programs that only choose a version
            beside.add(folder.parent / "versions")
    found = [program for folder in sorted(beside) for program in folder.glob(f"*/bin/{name}")]
    yield from sorted(found, key=_release, reverse=True)


def _release(program: Path) -> tuple[int, ...]:
    """The numbers in the name of a version manager's folder, "3.12.1"."""
    numbers = program.parents[1].name.replace("-", ".").split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())


def _refuse_missing(missing: dict[str, str]) -> None:
    """Raise UsageError when something is missing: {Debian's package: what is said about it}."""
    if missing:
        raise UsageError(
            f"missing on this machine: {', '.join(missing.values())}",
            remedy=f"on Debian: apt-get install {' '.join(missing)}",
        )
