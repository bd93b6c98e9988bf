"""Fixtures on real packages: `feedstock build` makes them, py-rattler installs them."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rattler

from numpy_feedstock import artefact, bootstrap, channel, compiler_cache, paths, variant

RELEASE = "2.3.5"
FLAVOURS = ("mkl", "openblas")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
OUTPUT = paths.ROOT / "output"


def build(*args, **options):
    """The build verb, as a person runs it."""
    command = [sys.executable, paths.ROOT / "scripts" / "feedstock", "build", *args]
    return subprocess.run(command, **options)


@pytest.fixture(scope="session")
def artefacts(request):
    """{flavour: path of the package}; made if it is not there."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(flush=True)
        assert build().returncode == 0, "feedstock build failed; its message is above"
    wanted = variant.select([RELEASE], [PYTHON], list(FLAVOURS), "linux-64")
    return {v.blas: OUTPUT / v.platform / v.filename for v in wanted}


@pytest.fixture(scope="session")
def channels(artefacts):
    """Ours, then the one it was built from."""
    source = bootstrap.ensure(PYTHON, compiler_cache.program(), print)
    return [channel.url(OUTPUT), channel.url(source)]


def solve(channels, specs):
    """What a solver picks: {name: build string}."""
    return {record.name.normalized: str(record.build) for record in _solve(channels, specs)}


def _solve(channels, specs):
    return asyncio.run(
        rattler.solve(
            sources=channels, specs=[rattler.MatchSpec(spec, strict=False) for spec in specs], platforms=["linux-64", "noarch"],
            virtual_packages=[package.into_generic() for package in rattler.VirtualPackage.detect()],
        )
    )


def install(channels, specs, prefix):
    """Solve and install into a new prefix."""
    asyncio.run(rattler.install(_solve(channels, specs), prefix, cache_dir=paths.PACKAGE_CACHE, show_progress=False))


def environment(prefix):
    """The variables of a shell in which the prefix is active, compilers included."""
    steering = ("PYTHON", "CONDA", "MKL_", "OMP_", "OPENBLAS_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    scripts = sorted(Path(prefix, "etc/conda/activate.d").glob("*.sh"))
    command = " && ".join([*(f". {script}" for script in scripts), "env -0"])
    before = {**clean, "CONDA_PREFIX": str(prefix), "PATH": f"{prefix}/bin:{clean['PATH']}"}
    shown = subprocess.run(["bash", "-c", command], env=before, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in shown.split("\0") if "=" in line)


def install_numpy(channels, blas, prefix):
    """The shipped package of a flavour and a compiler in a new prefix."""
    install(channels, [f"numpy={RELEASE}={blas}*", f"python={PYTHON}", "gxx_linux-64"], prefix)
    return prefix


@pytest.fixture(scope="session")
def prefixes(channels, tmp_path_factory):
    """{flavour: prefix} with the shipped package and a compiler."""
    return {blas: install_numpy(channels, blas, tmp_path_factory.mktemp(blas) / "shipped") for blas in FLAVOURS}


def undo_patch(prefix):
    """Make the installed numpy the unpatched one again: the control."""
    (patch,) = (paths.ROOT / "patches").glob("*.patch")
    site_packages = next(prefix.glob("lib/python3.*/site-packages"))
    # a copy first: the package cache holds the same file by a hard link
    init = site_packages / "numpy" / "__init__.py"
    text = init.read_bytes()
    init.unlink()
    init.write_bytes(text)
    # so that the patch's paths are taken from here
    no_repository = {**os.environ, "GIT_CEILING_DIRECTORIES": str(prefix)}
    subprocess.run(["git", "apply", "--reverse", patch], cwd=site_packages, check=True, env=no_repository)
    shutil.rmtree(init.parent / "__pycache__", ignore_errors=True)
    assert "mostly seen on M4" in init.read_text()


@pytest.fixture(scope="session")
def controls(channels, tmp_path_factory):
    """{flavour: prefix} with the patch undone: what a check must find wrong."""
    found = {blas: install_numpy(channels, blas, tmp_path_factory.mktemp(blas) / "control") for blas in FLAVOURS}
    for prefix in found.values():
        undo_patch(prefix)
    return found


@pytest.fixture(scope="session")
def records(artefacts):
    """{flavour: Record} that build wrote."""
    return {blas: artefact.read_record(path) for blas, path in artefacts.items()}
