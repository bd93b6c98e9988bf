"""The bootstrap channel: PyPI's wheels and this machine's Python as a conda channel.

It stands in for conda-forge where no conda channel can be reached. It has the
packages that the recipe asks for, under conda-forge's names. ``recipes/`` says how
they are made, one folder for each source. Every other wheel of ``wheels.txt``
becomes a package by one rule.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ... import child, paths
from ...errors import FeedstockError
from .. import apt, compiler_cache
from . import machine
from .machine import Machine

HERE = Path(__file__).parent
MARKER = "made-from.json"
DEBIAN_GCC = HERE / "recipes" / "gcc" / "debian.yaml"
# in the order in which they are built: the later ones use the earlier
RECIPES = ("python", "tools", "mkl", "openblas", "netlib", "sysroot", "compilers")

Say = Callable[[str], None]


def ensure(python: str, say: Say) -> Path:
    """Return the folder of a channel with everything that the recipe asks for.

    python : the minor version that the packages are for, "3.11"
    say : called with a line for a person, as work goes on

    The channel is made once for each machine and Python. It is there whole or not at
    all. Raises UsageError when the machine lacks the interpreter, its headers or a
    compiler, and FeedstockError when a download or a build fails.
    """
    facts = machine.inspect(python)
    channel = paths.BUILD / f"bootstrap-{python}"
    identity = _identity(facts)
    # Debian's gcc is looked for when the channel is made, not each time
    if any(identity.items() <= made.items() for made in made_from([channel])):
        return channel

    gcc = download_gcc(facts.machine_gcc, say)
    folder = download_wheels(facts.interpreter, python, say)
    partial = channel.with_suffix(channel.suffix + ".partial")
    for leftover in (partial, channel):
        shutil.rmtree(leftover, ignore_errors=True)
    context = {
        **dataclasses.asdict(facts),
        **_gcc_context(facts, gcc),
        **_wheel_context(folder),
        "sccache": str(compiler_cache.program()),
    }
    log = paths.LOGS / f"bootstrap-{python}.log"
    log.unlink(missing_ok=True)
    made = child.run(build_packages, str(partial), context, log=log, say=say)
    debs = gcc.glob("*.deb") if gcc else []
    identity["debian_gcc"] = sorted(deb.name for deb in debs)
    (partial / MARKER).write_text(json.dumps(identity, indent=1))
    partial.rename(channel)
    say(f"bootstrap channel: {made} packages, {_size(channel) >> 20} MB")
    return channel


def made_from(folders: Iterable[Path | str]) -> list[dict[str, Any]]:
    """Return what each finished bootstrap channel among the folders was made from."""
    markers = [Path(folder, MARKER) for folder in folders]
    return [json.loads(marker.read_text()) for marker in markers if marker.exists()]


def download_wheels(interpreter: str, python: str, say: Say) -> Path:
    """Download the wheels of both lists through pip, and check their hashes.

    interpreter : path of the Python that the wheels are for
    python : its minor version

    Returns the folder of wheels.txt's. Those of mkl-2026.txt are in a folder in it,
    because one folder cannot hold two releases of a project.
    """
    lists = [HERE / "wheels.txt", HERE / "mkl-2026.txt"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in lists)).hexdigest()
    # named after the lists, so that no wheel of older ones is in it
    folder = paths.WHEELS / f"{python}-{digest[:8]}"
    for pins, target in zip(lists, [folder, folder / "mkl-2026"], strict=True):
        say(f"downloading the wheels of {pins.name}")
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
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise FeedstockError(
                "pip could not download the wheels of the bootstrap channel",
                found=result.stderr.strip(),
            )
    return folder


def download_gcc(machine_gcc: str, say: Say) -> Path | None:
    """Download Debian's packages of the gcc that conda_build_config.yaml pins.

    machine_gcc : the version of this machine's own gcc

    Returns their folder, or None where the machine's own gcc is of that major version.
    Raises FeedstockError when they cannot be had. Another compiler does not stand in:
    the package would have the name of one that gcc 14 compiled.
    """
    import yaml

    wanted = yaml.safe_load(DEBIAN_GCC.read_text())
    if int(machine_gcc.split(".")[0]) == wanted["gcc"]:
        return None
    digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
    # named after the list, so that no package of an older one is in it
    packages = paths.BUILD / f"gcc-{digest[:8]}"
    if packages.exists():
        return packages
    say(f"downloading Debian's gcc {wanted['gcc']}")
    partial = packages.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        apt.download(wanted["packages"], wanted["suite"], partial)
    except FeedstockError as error:
        raise FeedstockError(
            f"Debian's gcc {wanted['gcc']} cannot be downloaded: {error}",
            expected=f"gcc {wanted['gcc']}, which {paths.BUILD_CONFIG.name} pins",
            found=f"gcc {machine_gcc} on this machine",
            remedy=f"make gcc and g++ of version {wanted['gcc']} the first on PATH, "
            "or name a conda channel with --channel",
        ) from error
    partial.rename(packages)
    return packages


def build_packages(channel: str, context: dict[str, Any], say: Say) -> int:
    """Build every package into a channel, and return their number. Runs in a child process.

    channel : path of the channel's folder
    context : variables for the recipes
    """
    from packaging.utils import canonicalize_name, parse_wheel_filename

    from .. import builder
    from . import wheels

    names = list(RECIPES)
    if context["debian_gcc"]:
        # before sysroot and compilers, which use it
        names.insert(names.index("sysroot"), "gcc")
    for name in names:
        recipe = HERE / "recipes" / name / "recipe.yaml"
        for values in context["mkl"] if name == "mkl" else [{}]:
            builder.build_recipe(recipe, channel, {**context, **values}, say)
    for wheel in sorted(Path(context["wheels"]).glob("*.whl")):
        if canonicalize_name(parse_wheel_filename(wheel.name)[0]) not in wheels.TAKEN_APART:
            builder.build_recipe(wheels.recipe(wheel), channel, context, say)
    for leftover in ("bld", "src_cache", "test", "rattler-build-log.txt"):
        target = Path(channel, leftover)
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
    return len(list(Path(channel).glob("*/*.conda")))


def _gcc_context(facts: Machine, gcc: Path | None) -> dict[str, str]:
    """Variables for the recipes of the compilers."""
    import yaml

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
        "libgcc_glibc": yaml.safe_load(DEBIAN_GCC.read_text())["libgcc_glibc"],
    }


def _wheel_context(folder: Path) -> dict[str, Any]:
    """Variables for the recipes that take wheels apart."""
    from . import wheels

    versions = wheels.versions(folder)
    return {
        **versions,
        "wheels": str(folder),
        "openblas_version": versions["ngsolve_openblas_version"].split(".post")[0],
        "mkl": [
            {**wheels.versions(each), "mkl_wheels": str(each)}
            for each in (folder, folder / "mkl-2026")
        ],
    }


def _identity(facts: Machine) -> dict[str, Any]:
    """What a channel is made from: another machine, other recipes or other lists make it anew."""
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + path.read_bytes())
    return {
        **dataclasses.asdict(facts),
        "sccache": os.fspath(compiler_cache.program()),
        "recipes": digest.hexdigest(),
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
