"""The bootstrap channel: PyPI's wheels and a Python as a conda channel.

It stands in for conda-forge where no conda channel can be reached. It has the
packages that the recipe asks for, under conda-forge's names. ``recipes/`` says how
they are made, one folder for each source. Every other wheel of the lists becomes a
package by one rule.

What all Pythons share is made once, in build/bootstrap. The channel of each Python,
build/bootstrap-3.11, has hard links to those packages beside its own.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ... import child, files, paths, variant
from ...errors import FeedstockError
from ...progress import Say
from . import debian, machine
from .machine import Interpreter, Machine

HERE = Path(__file__).parent
MARKER = "made-from.json"
# in the order in which they are built: the later ones use the earlier
SHARED_RECIPES = ("tools", "mkl", "openblas", "netlib", "gcc", "sysroot", "compilers")
SHARED_WHEELS = ("wheels.txt", "mkl-2026.txt")
PYTHON_WHEELS = ("python-wheels.txt",)


def ensure(python: str, say: Say) -> Path:
    """Return the folder of a channel with everything that the recipe asks for.

    python : the minor version that the packages are for, "3.11"
    say : called with a line for a person, as work goes on

    The channel is made once for each machine and Python. It is there whole or not at
    all. Raises UsageError when the machine lacks the interpreter, its headers or a
    compiler, and FeedstockError when a download or a build fails.
    """
    facts = machine.inspect()
    interpreter = machine.find_interpreter(python)
    channel, identity = folder_of(python), _identity(facts, interpreter)
    if _is_made_from(channel, identity):
        return channel
    with _alone("bootstrap", say):
        # another process may have made it meanwhile
        if not _is_made_from(channel, identity):
            _check_debian(facts, interpreter)
            _make(channel, identity, facts, interpreter, say)
    return channel


def is_made(python: str) -> bool:
    """Return whether ensure() would return the channel as it is. Raises UsageError as it does."""
    identity = _identity(machine.inspect(), machine.find_interpreter(python))
    return _is_made_from(folder_of(python), identity)


def folder_of(python: str) -> Path:
    """Return the folder of the channel for a Python. It may not be there yet."""
    return paths.BUILD / f"bootstrap-{python}"


def check(python: str) -> None:
    """Raise UsageError when this machine lacks something that ensure() needs."""
    if not is_made(python):
        _check_debian(machine.inspect(), machine.find_interpreter(python))


def _check_debian(facts: Machine, interpreter: Interpreter) -> None:
    """Raise UsageError when Debian's packages are needed and this machine cannot get them."""
    gcc = debian.gcc_packages(facts.machine_gcc)
    if gcc and not _is_made_from(_shared_folder(), _shared_identity(facts)):
        gcc.check()
    if interpreter.python_suite:
        debian.python_packages(interpreter.python_minor).check()


@contextlib.contextmanager
def _alone(name: str, say: Say) -> Iterator[None]:
    """Hold a lock in the build folder: two processes would remove each other's work."""
    path = paths.BUILD / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(
    channel: Path, identity: dict[str, Any], facts: Machine, interpreter: Interpreter, say: Say
) -> None:
    """Make the channel of a Python."""
    python = interpreter.python_minor
    shared = _ensure_shared(facts, say)
    (made,) = made_from([shared])
    context, packages = _python_context(facts, interpreter, say)
    context["wheels"] = str(download_wheels(PYTHON_WHEELS, context["interpreter"], python, say))
    partial = _new_partial(channel)
    _link_packages(shared, partial)
    _fill(partial, ["python"], context, say)
    _finish(partial, channel, {**made, **identity, "debian_python": packages})
    say(f"bootstrap channel for Python {python}: {_describe(channel)}")


def _ensure_shared(facts: Machine, say: Say) -> Path:
    """Return the folder with the packages that all Pythons share."""
    channel, identity = _shared_folder(), _shared_identity(facts)
    # Debian's gcc is looked for when the channel is made, not each time
    if _is_made_from(channel, identity):
        return channel
    packages = debian.gcc_packages(facts.machine_gcc)
    gcc = packages.download(say) if packages else None
    running = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = download_wheels(SHARED_WHEELS, sys.executable, running, say)
    context = {
        **dataclasses.asdict(facts),
        **_gcc_context(facts, gcc),
        **_wheel_context(folder, identity["oldest_python"]),
    }
    partial = _new_partial(channel)
    _fill(partial, SHARED_RECIPES, context, say)
    debs = gcc.glob("*.deb") if gcc else []
    _finish(partial, channel, {**identity, "debian_gcc": sorted(deb.name for deb in debs)})
    say(f"bootstrap channel, what all Pythons share: {_describe(channel)}")
    return channel


def made_from(folders: Iterable[Path | str]) -> list[dict[str, Any]]:
    """Return what each finished bootstrap channel among the folders was made from.

    A channel whose marker is broken counts as unfinished.
    """
    markers = [files.json_object(Path(folder, MARKER)) for folder in folders]
    return [made for made in markers if made is not None]


def _is_made_from(channel: Path, identity: dict[str, Any]) -> bool:
    return any(identity.items() <= made.items() for made in made_from([channel]))


def _new_partial(channel: Path) -> Path:
    """Return the path of the folder that becomes the channel. Nothing is there any more."""
    partial = channel.with_name(f"{channel.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def _fill(partial: Path, names: Iterable[str], context: dict[str, Any], say: Say) -> None:
    """Build packages into a folder in a child process."""
    log = paths.LOGS / f"{partial.stem}.log"
    log.unlink(missing_ok=True)
    child.run(build_packages, str(partial), list(names), context, log=log, say=say)


def _finish(partial: Path, channel: Path, made: dict[str, Any]) -> None:
    """Say in the finished folder what it was made from, and move it into its place."""
    (partial / MARKER).write_text(json.dumps(made, indent=1))
    shutil.rmtree(channel, ignore_errors=True)
    partial.rename(channel)


def _link_packages(shared: Path, channel: Path) -> None:
    """Give a new channel the packages of another one and its index."""
    shutil.copytree(shared, channel, ignore=shutil.ignore_patterns(MARKER), copy_function=_link)


def _link(source: str, target: str) -> None:
    if source.endswith(".conda"):
        try:
            os.link(source, target)
            return
        except OSError:  # a file system without hard links
            pass
    shutil.copy2(source, target)


def download_wheels(lists: Iterable[str], interpreter: str, python: str, say: Say) -> Path:
    """Download the wheels of lists through pip, and check their hashes.

    lists : names of files in this folder
    interpreter : path of the Python that the wheels are for
    python : its minor version

    Returns the folder of the first list's. Those of each other list are in a folder in it,
    because one folder cannot hold two releases of a project.
    """
    files = [HERE / name for name in lists]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    # named after the lists, so that no wheel of older ones is in it
    folder = paths.WHEELS / f"{python}-{digest[:8]}"
    for number, pins in enumerate(files):
        target = folder / pins.stem if number else folder
        say(f"downloading the wheels of {pins.name} for Python {python}")
        pip = [sys.executable, "-m", "pip", "--python", interpreter, "download", "-qq"]
        strict = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
        command = [
            *pip,
            "--disable-pip-version-check",
            *strict,
            "--dest",
            str(target),
            "-r",
            str(pins),
        ]
        # pip removes a file that another pip has not finished
        with _alone("wheels", say):
            result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise FeedstockError(
                "pip could not download the wheels of the bootstrap channel",
                found=result.stderr.strip(),
            )
    return folder


def build_packages(channel: str, names: list[str], context: dict[str, Any], say: Say) -> None:
    """Build packages into a channel. Runs in a child process.

    channel : path of the channel's folder
    names : of the recipes
    context : variables for the recipes; the wheels of its folder ``wheels`` become packages, too
    """
    from packaging.utils import canonicalize_name, parse_wheel_filename

    from .. import builder
    from . import wheels

    for name in names:
        # the machine's own gcc needs no package
        if name == "gcc" and not context["debian_gcc"]:
            continue
        recipe = HERE / "recipes" / name / "recipe.yaml"
        for values in context["mkl"] if name == "mkl" else [{}]:
            builder.build_recipe(recipe, channel, {**context, **values}, say)
    for wheel in sorted(Path(context["wheels"]).glob("*.whl")):
        if canonicalize_name(parse_wheel_filename(wheel.name)[0]) not in wheels.TAKEN_APART:
            recipe_of_wheel = wheels.recipe(wheel, context["python_minor"])
            builder.build_recipe(recipe_of_wheel, channel, context, say)
    for leftover in ("bld", "src_cache", "test", "rattler-build-log.txt"):
        target = Path(channel, leftover)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _gcc_context(facts: Machine, gcc: Path | None) -> dict[str, str]:
    """Variables for the recipes of the compilers."""
    if gcc is None:
        command = ["gcc", "-print-file-name=libgcc_s.so.1"]
        library = subprocess.check_output(command, text=True).strip()
        return {
            "debian_gcc": "",
            "gcc_version": facts.machine_gcc,
            "libgcc_file": library,
            "libgcc_glibc": facts.machine_glibc,
        }
    (deb,) = gcc.glob("gcc-*-x86-64-linux-gnu_*.deb")
    return {
        "debian_gcc": str(gcc),
        "gcc_version": deb.name.split("_")[1].split("-")[0],
        "libgcc_file": "",
        "libgcc_glibc": debian.read(debian.GCC)["libgcc_glibc"],
    }


def _wheel_context(folder: Path, oldest_python: str) -> dict[str, Any]:
    """Variables for the recipes that take wheels apart, and for the wheels of pure Python."""
    from . import wheels

    versions = wheels.versions(folder)
    return {
        **versions,
        "wheels": str(folder),
        "interpreter": sys.executable,
        "python_minor": oldest_python,
        "openblas_version": versions["ngsolve_openblas_version"].split(".post")[0],
        "mkl": [
            {**wheels.versions(each), "mkl_wheels": str(each)}
            for each in (folder, folder / "mkl-2026")
        ],
    }


def _python_context(
    facts: Machine, interpreter: Interpreter, say: Say
) -> tuple[dict[str, str], list[str]]:
    """Variables for the recipe of Python, and the names of the packages of Debian's."""
    context = {
        **dataclasses.asdict(facts),
        **dataclasses.asdict(interpreter),
        "python_abi": interpreter.abi,
        "python_build": interpreter.build,
        "debian_libraries": "",
    }
    if interpreter.interpreter:
        return context, []
    packages = debian.python_packages(interpreter.python_minor).download(say)
    debs = sorted(deb.name for deb in packages.glob("*.deb"))
    program = debian.unpack_python(packages, interpreter.python_minor)
    context.update(
        interpreter=str(program),
        debian_libraries=str(program.parent / debian.LIBRARIES),
        python_version=machine.version_of(program),
    )
    return context, debs


def _identity(facts: Machine, interpreter: Interpreter) -> dict[str, Any]:
    """What a channel is made from: another machine, Python or list makes it anew."""
    return {
        **_shared_identity(facts),
        **dataclasses.asdict(interpreter),
        "python_recipes": _digest(["python"], PYTHON_WHEELS),
    }


def _shared_folder() -> Path:
    return paths.BUILD / "bootstrap"


def _shared_identity(facts: Machine) -> dict[str, Any]:
    """What the shared packages are made from: another machine or other lists make them anew."""
    return {
        **dataclasses.asdict(facts),
        # what wheels of pure Python require is decided for it
        "oldest_python": variant.known_pythons()[0],
        "recipes": _digest(SHARED_RECIPES, SHARED_WHEELS),
    }


def _digest(recipes: Iterable[str], lists: Iterable[str]) -> str:
    """Digest of recipes and lists of wheels, and of the modules that make packages of them."""
    folders = [HERE / "recipes" / name for name in recipes]
    files = [path for folder in folders for path in sorted(folder.rglob("*"))]
    files += [HERE / name for name in lists]
    files += [*sorted(HERE.glob("*.py")), HERE.with_name("builder.py")]
    digest = hashlib.sha256()
    for path in files:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _describe(folder: Path) -> str:
    packages = list(folder.glob("*/*.conda"))
    size = sum(path.stat().st_size for path in packages)
    return f"{len(packages)} packages, {size >> 20} MB"
