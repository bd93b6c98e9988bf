"""The bootstrap channel: PyPI's wheels and the running machine as a conda channel.

Where no conda channel is reachable, the packages that the recipe asks for are
made here, under conda-forge's names. ``recipes/`` says how, one folder per
source; every other wheel of ``wheels.txt`` becomes a package by one rule.
"""

import email
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from .. import apt, child, paths
from ..errors import FeedstockError, UsageError

HERE = Path(__file__).parent
MARKER = "made-from.json"
RECIPES = ("python", "tools", "mkl", "openblas", "netlib", "compilers", "sysroot")
# wheels that a recipe of RECIPES takes apart
TAKEN_APART = {
    "ninja",
    "pkgconf",
    "mkl",
    "mkl-devel",
    "mkl-include",
    "onemkl-license",
    "intel-openmp",
    "tbb",
    "ngsolve-openblas",
    "numpy",
    "ziglang",
}
# where conda-forge's name is not PyPI's
CONDA_NAME = {
    "build": "python-build",
    "typing-extensions": "typing_extensions",
    "pyproject-hooks": "pyproject_hooks",
}
# what conda-forge's package needs and the wheel's metadata does not say
ALSO_NEEDS = {"meson": ["ninja"]}


def ensure(python, compiler_cache, report):
    """A channel with everything the recipe asks for; made once per machine and Python.

    python : str, the minor version the packages are for, "3.11"
    compiler_cache : Path of the sccache program that the compilers go through
    report : called with a line for a person, as work goes on

    Returns the channel's folder. Raises UsageError when the machine lacks the
    interpreter, its headers or a compiler, FeedstockError when a download or
    a build fails; a channel is there whole or not at all.
    """
    machine = inspect_machine(python)
    channel = paths.BUILD / f"bootstrap-{python}"
    identity = _identity(machine, compiler_cache)
    # Debian's gcc is looked for when the channel is made, not each time
    if any(identity.items() <= made.items() for made in made_from([channel])):
        return channel

    gcc = download_gcc(machine["gcc_version"], report)
    wheels = download_wheels(machine["interpreter"], python, report)
    partial = channel.with_suffix(channel.suffix + ".partial")
    for leftover in (partial, channel):
        shutil.rmtree(leftover, ignore_errors=True)
    context = {
        **machine,
        "wheels": str(wheels),
        "sccache": str(compiler_cache),
        "debian_gcc": str(gcc or ""),
        "debian_gcc_version": _version_of_gcc(gcc) if gcc else "",
        **{
            f"{name.replace('-', '_')}_version": version
            for name, version in _versions(wheels).items()
        },
    }
    context["openblas_version"] = context["ngsolve_openblas_version"].split(".post")[0]
    log = paths.LOGS / f"bootstrap-{python}.log"
    log.unlink(missing_ok=True)
    made = child.run(build_packages, str(partial), context, log=log, on_line=report)
    identity["debian_gcc"] = sorted(deb.name for deb in gcc.glob("*.deb")) if gcc else []
    (partial / MARKER).write_text(json.dumps(identity, indent=1))
    partial.rename(channel)
    report(f"bootstrap channel: {made} packages, {_size(channel) >> 20} MB")
    return channel


def made_from(folders):
    """What each bootstrap channel among the folders was made from; a finished one says so."""
    markers = [Path(folder, MARKER) for folder in folders]
    return [json.loads(marker.read_text()) for marker in markers if marker.exists()]


def inspect_machine(python):
    """What of this machine ends up in the channel; UsageError names what is missing."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise UsageError(
            "the bootstrap channel can only be made where the wheels of MKL and of an OpenBLAS with plain symbols are",
            expected="Linux x86_64",
            found=f"{platform.system()} {platform.machine()}",
            remedy="name a conda channel with --channel",
        )
    interpreter = find_interpreter(python)
    facts = json.loads(subprocess.check_output([interpreter, "-I", "-c", _PYTHON_FACTS], text=True))
    missing = [
        package
        for package, there in {
            "gcc": shutil.which("gcc"),
            "g++": shutil.which("g++"),
            f"python{python}-dev (the headers of {interpreter})": Path(
                facts.pop("include"), "Python.h"
            ).exists(),
        }.items()
        if not there
    ]
    if missing:
        names = " ".join(name.split(" (")[0] for name in missing)
        raise UsageError(
            f"missing on this machine: {', '.join(missing)}",
            remedy=f"on Debian: apt-get install {names}",
        )
    return {
        "interpreter": interpreter,
        "python_minor": python,
        "python_build": "cpython" if python in ("3.11", "3.12") else facts["python_abi"],
        "machine_glibc": os.confstr("CS_GNU_LIBC_VERSION").split()[1],
        "gcc_version": subprocess.check_output(["gcc", "-dumpfullversion"], text=True).strip(),
        **facts,
    }


_PYTHON_FACTS = """
import json, platform, sys, sysconfig
print(json.dumps({
    "python_version": platform.python_version(),
    "python_abi": "cp%d%d" % sys.version_info[:2],
    "include": sysconfig.get_path("include"),
}))
"""


def find_interpreter(python):
    """The base interpreter of a minor version: never a virtual environment's."""
    if python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return os.path.realpath(sys.executable)
    found = shutil.which(f"python{python}")
    # a version manager's shim answers for versions it does not run
    probe = found and subprocess.run(
        [found, "-Ic", "import sys; print(sys.base_prefix)"], capture_output=True, text=True
    )
    if not found or probe.returncode:
        raise UsageError(
            f"no python{python} on PATH for the bootstrap channel to copy",
            remedy="install it, or name another --python",
        )
    return os.path.realpath(os.path.join(probe.stdout.strip(), "bin", f"python{python}"))


def download_wheels(interpreter, python, report):
    """Every wheel of wheels.txt through pip's own configuration, hashes checked; their folder."""
    pins = HERE / "wheels.txt"
    # named after the pins, so that no wheel of older ones is in it
    wheels = paths.WHEELS / f"{python}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:8]}"
    report(f"downloading the wheels of {pins.name}")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        interpreter,
        "download",
        "-qq",
        "--disable-pip-version-check",
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(wheels),
        "-r",
        str(pins),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise FeedstockError(
            "pip could not download the wheels of the bootstrap channel",
            found=result.stderr.strip(),
        )
    return wheels


def download_gcc(machine_version, report):
    """Debian's packages of a gcc as new as the released wheels'; their folder.

    machine_version : str, the version of the machine's own gcc

    None where that is as new, or where they cannot be had: the machine's compiles then, and ``report`` says why.
    """
    import yaml

    wanted = yaml.safe_load((HERE / "recipes/gcc/debian.yaml").read_text())
    if int(machine_version.split(".")[0]) >= wanted["gcc"]:
        return None
    # named after the list, so that no package of an older one is in it
    packages = paths.BUILD / f"gcc-{hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:8]}"
    if packages.exists():
        return packages
    report(f"downloading Debian's gcc {wanted['gcc']}")
    partial = packages.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        apt.download(wanted["packages"], wanted["suite"], partial)
    except FeedstockError as error:
        report(f"the machine's gcc {machine_version} compiles, for want of Debian's: {error}")
        return None
    partial.rename(packages)
    return packages


def build_packages(channel, context, say):
    """Build every package into ``channel``; runs in a child process. Returns their number."""
    from packaging.utils import canonicalize_name, parse_wheel_filename

    from .. import builder

    for name in [*RECIPES, *(["gcc"] if context["debian_gcc"] else [])]:
        builder.build_recipe(HERE / "recipes" / name / "recipe.yaml", channel, context, say)
    for wheel in sorted(Path(context["wheels"]).glob("*.whl")):
        if canonicalize_name(parse_wheel_filename(wheel.name)[0]) not in TAKEN_APART:
            builder.build_recipe(wheel_recipe(wheel), channel, context, say)
    for leftover in ("bld", "src_cache", "test", "rattler-build-log.txt"):
        target = Path(channel, leftover)
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    return len(list(Path(channel).glob("*/*.conda")))


def wheel_recipe(wheel):
    """The recipe, as a dict, of one wheel: pip installs it, its metadata names what it needs."""
    from packaging.utils import parse_wheel_filename

    name, version, _, _ = parse_wheel_filename(wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(member))
    return {
        "package": {"name": CONDA_NAME.get(name, name), "version": str(version)},
        "build": {
            "number": 0,
            # pip runs out of its own wheel: so pip's package needs no pip
            "script": [
                f'PYTHONPATH=$(echo {wheel.parent}/pip-*.whl) "$PYTHON" -m pip install '
                f"--no-deps --no-index --no-warn-script-location --ignore-installed {wheel}"
            ],
            "dynamic_linking": {"binary_relocation": False},
        },
        "requirements": {
            "host": ["python"],
            "run": ["python", *run_requirements(metadata), *ALSO_NEEDS.get(name, [])],
        },
        "about": {
            "license": "LicenseRef-see-the-wheel",
            "summary": metadata.get("Summary", "") or str(name),
        },
    }


def run_requirements(metadata):
    """Requires-Dist as match specs: markers decided for this machine, extras left out."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name = canonicalize_name(requirement.name)
            yield f"{CONDA_NAME.get(name, name)} {requirement.specifier}".strip()


def _version_of_gcc(packages):
    (deb,) = packages.glob("gcc-*-x86-64-linux-gnu_*.deb")
    return deb.name.split("_")[1].split("-")[0]


def _versions(wheels):
    from packaging.utils import parse_wheel_filename

    parsed = (parse_wheel_filename(path.name) for path in wheels.glob("*.whl"))
    return {name: str(version) for name, version, _, _ in parsed}


def _identity(machine, compiler_cache):
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + path.read_bytes())
    return {**machine, "sccache": str(compiler_cache), "recipes": digest.hexdigest()}


def _size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
