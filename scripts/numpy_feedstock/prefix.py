"""Prefixes: environments that py-rattler installs, and the control, whose numpy has the patch undone."""

import os
import shutil
import subprocess
from pathlib import Path

from audit_numpy import gate

from . import channel, paths
from .errors import FeedstockError, UsageError
from .record import read_record

# an inherited value of these would change what a prefix does
_STEERING = ("PYTHON", "CONDA", "LD_PRELOAD", "MKL_", "OMP_", "KMP_", "OPENBLAS_")

# what a root has itself; the bootstrap channel's are this machine's, and want its glibc
_OF_A_ROOT = ("python", "python_abi", "libgcc", "libstdcxx")


def solve(channels, specs, virtual_packages=None, **options):
    """What a solver picks: a list of rattler.RepoDataRecord.

    channels : URLs, the first has priority
    specs : str, as on a command line
    virtual_packages : of the host, this machine's by default
    options : more of rattler.solve's
    """
    import asyncio

    import rattler

    if virtual_packages is None:
        virtual_packages = [package.into_generic() for package in rattler.VirtualPackage.detect()]
    return asyncio.run(
        rattler.solve(
            sources=channels,
            specs=[rattler.MatchSpec(spec, strict=False) for spec in specs],
            platforms=[str(rattler.Subdir.current()), "noarch"],
            virtual_packages=virtual_packages,
            **options,
        )
    )


def sources(path):
    """The channel a package is in, then those it was built with: URLs. UsageError when one is gone."""
    urls = read_record(path).channels
    for url in urls:
        if not channel.reachable(url):
            raise UsageError(
                f"the channel that {path.name} was built from does not answer: {url}",
                remedy="build it again",
            )
    return [channel.url(path.parents[1]), *urls]


def install(channels, specs, prefix):
    """Solve and install into a new prefix; its Path."""
    import asyncio

    import rattler

    asyncio.run(
        rattler.install(
            solve(channels, specs), prefix, cache_dir=paths.PACKAGE_CACHE, show_progress=False
        )
    )
    return Path(prefix)


def assemble(package, channels, more, folder, say=print):
    """A package and what it needs in a new prefix without a Python, for a root that has its own.

    package : its path
    more : specs of what else is wanted
    """
    import asyncio

    import rattler
    from rattler.package_streaming import extract
    from rattler_build import Package

    needs = [spec for spec in Package.from_file(package).depends if not spec.startswith("__")]
    # on this machine's glibc: what would not resolve on the root's is what the root brings
    records = [
        each for each in solve(channels, [*needs, *more]) if each.name.normalized not in _OF_A_ROOT
    ]
    asyncio.run(
        rattler.install(records, folder, cache_dir=paths.PACKAGE_CACHE, show_progress=False)
    )
    extract(package, folder)


def activated(prefix):
    """The variables of a shell in which the prefix is active, compilers included."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(_STEERING)}
    scripts = sorted(Path(prefix, "etc/conda/activate.d").glob("*.sh"))
    command = " && ".join([*(f". {script}" for script in scripts), "env -0"])
    before = {**clean, "CONDA_PREFIX": str(prefix), "PATH": f"{prefix}/bin:{clean['PATH']}"}
    shown = subprocess.run(
        ["bash", "-c", command], env=before, capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("=", 1) for line in shown.split("\0") if "=" in line)


def undo_patch(prefix):
    """Make the installed numpy the unpatched one again: the control."""
    (patch,) = (paths.RECIPE.parent / "patches").glob("*.patch")
    site_packages = next(Path(prefix).glob("lib/python3.*/site-packages"))
    # a copy first: the package cache holds the same file by a hard link
    init = site_packages / "numpy" / "__init__.py"
    text = init.read_bytes()
    init.unlink()
    init.write_bytes(text)
    # so that the patch's paths are taken from here
    no_repository = {**os.environ, "GIT_CEILING_DIRECTORIES": str(prefix)}
    subprocess.run(
        ["git", "apply", "--reverse", patch], cwd=site_packages, check=True, env=no_repository
    )
    shutil.rmtree(init.parent / "__pycache__", ignore_errors=True)
    if gate(init.read_text()) != "ungated":
        raise FeedstockError(f"the patch could not be undone: {init}")
