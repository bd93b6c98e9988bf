"""The recipe's package for linux-aarch64: cross-compiled by its own build.sh, and run by qemu."""

import json
import os
import platform
import subprocess
import sys

import pytest
import yaml
from rattler.package_streaming import extract

from helpers import aarch64
from helpers.command import feedstock
from helpers.shipped import RELEASE
from numpy_feedstock import paths
from numpy_feedstock.channels import prefix
from numpy_feedstock.packages import junit, package_tests

pytestmark = pytest.mark.aarch64

# of numpy's own tests: what calls the BLAS, and what is compiled from C++
TESTED = ["linalg", "fft"]
# seconds for each import of the repro: qemu is some ten times slower than the processor
PATIENCE = "300"


@pytest.fixture(scope="module")
def package():
    """The path of the package."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the cross compiler and qemu are programs for Linux on x86_64")
    running = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if running != aarch64.PYTHON:
        pytest.skip(f"Debian 12's Python for aarch64 is {aarch64.PYTHON}, this is {running}")
    return aarch64.make(RELEASE, paths.LOGS / "aarch64.log")


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory):
    """The package's files."""
    folder = tmp_path_factory.mktemp("aarch64") / "unpacked"
    extract(package, folder)
    return folder


@pytest.fixture(scope="module")
def sections(unpacked):
    """The tests that travel in the package, {name: what its test section says}."""
    tests = yaml.safe_load((unpacked / "info" / "tests" / "tests.yaml").read_text())
    return dict(zip(package_tests.NAMES, tests, strict=True))


@pytest.fixture(scope="module")
def installed(package, tmp_path_factory):
    """A prefix with the package and what numpy's tests need."""
    needs = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis"]
    return aarch64.install(package, needs, tmp_path_factory.mktemp("aarch64") / "installed")


@pytest.fixture(scope="module")
def control(package, tmp_path_factory):
    """A prefix with the package, its patch undone."""
    folder = aarch64.install(package, [], tmp_path_factory.mktemp("aarch64") / "control")
    prefix.undo_patch(folder)
    return folder


@pytest.fixture(scope="module")
def compiler(package, tmp_path_factory):
    """The path of g++ for aarch64."""
    return aarch64.compiler(tmp_path_factory.mktemp("aarch64") / "compiler")


def run(folder, *command, **variables):
    """Run a command with a prefix first on PATH. Returns the CompletedProcess."""
    environment = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", **variables}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    print(done.stdout[-5000:], done.stderr[-5000:])
    return done


def test_verify_finds_nothing(package):
    """Symbols of glibc 2.28 and no newer, no shared libstdc++, the gate, the dependencies."""
    done = feedstock("verify", package)
    assert (done.returncode, "0 findings" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_is_compiled_for_aarch64_with_its_simd(package, installed):
    code = (
        "import json, platform, numpy; config = numpy.show_config(mode='dicts');"
        "print(json.dumps([platform.machine(), numpy.__version__, config['Machine Information'],"
        "config['SIMD Extensions']]))"
    )
    done = run(installed, "python", "-c", code)
    machine, version, machines, simd = json.loads(done.stdout)
    assert (machine, version) == ("aarch64", RELEASE)
    assert machines["host"]["cpu"] == "aarch64"
    assert simd["baseline"] == ["NEON", "NEON_FP16", "NEON_VFPV4", "ASIMD"]


def test_its_modules_import(sections, installed):
    modules = sections["imports"]["python"]["imports"]
    assert run(installed, "python", "-c", f"import {', '.join(modules)}").returncode == 0


def test_f2py_runs(sections, installed):
    assert run(installed, "bash", "-c", sections["f2py"]["script"]["content"]).returncode == 0


def test_it_names_the_blas_that_it_was_built_with(sections, installed):
    code = "\n".join(sections["blas"]["script"]["content"])
    assert run(installed, "python", "-c", code).returncode == 0


@pytest.fixture
def repro(sections, unpacked, compiler):
    """Runs the repro that travels in the package, with the Python of a prefix."""
    script = sections["repro"]["script"]
    command = [*script["content"].split(), "--json", "--trials", "6", "--timeout", PATIENCE]
    command[1] = str(unpacked / script["cwd"] / command[1])

    def examine(folder):
        done = run(folder, *command, CXX=str(compiler))
        return done.returncode, json.loads(done.stdout)

    return examine


def test_the_repro_finds_nothing(repro, installed):
    code, report = repro(installed)
    assert (code, report["verdict"]) == (0, "FIXED")
    assert "openblas" in report["library"]


def test_the_repro_finds_the_control(repro, control):
    code, report = repro(control)
    assert (code, report["verdict"], report["reason"]) == (1, "LATENT", "calls failed")


def test_a_part_of_numpys_own_tests_passes(installed, tmp_path):
    (package,) = installed.glob("lib/python3.*/site-packages/numpy")
    results = tmp_path / "results.xml"
    selected = [str(package / part) for part in TESTED]
    run(installed, "python", "-m", "pytest", "-q", "-n2", f"--junitxml={results}", *selected)
    found = junit.outcomes(results)
    failed = [test for test, outcome in found.items() if outcome == "failed"]
    print(junit.count(found))
    assert failed == []
    assert junit.count(found)["passed"] > 500
