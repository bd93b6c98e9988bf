"""Healed packages, installed and run: the hang is gone, and numpy is whole."""

import subprocess

import pytest

from helpers import originals
from helpers.command import feedstock
from numpy_feedstock.channels import channel, channel_folder, prefix
from numpy_feedstock.measuring import repro

pytestmark = pytest.mark.packages
SPECS = ["numpy=2.3.5", "gxx_linux-64", "pytest", "hypothesis"]


@pytest.fixture(scope="module")
def installed(channels, packages, tmp_path_factory):
    """{"original" or "twin": prefix} with the MKL package, unpatched and healed."""
    folder = tmp_path_factory.mktemp("installed")
    mirror = folder / "mirror"
    path = originals.package(mirror, originals.unpatched(packages["mkl"]))
    channel_folder.index(mirror)
    done = feedstock("hotfix", mirror, "--output", folder / "healed")
    assert done.returncode == 0, done.stderr
    sources = {"original": [mirror], "twin": [folder / "healed", mirror]}
    found = {}
    for name, folders in sources.items():
        urls = [*map(channel.url, folders), channels[-1]]
        found[name] = prefix.install(urls, SPECS, folder / name)
    assert path.name.endswith("_0.conda")
    return found


def run(folder, *argv, **options):
    """Run a program of a prefix; the finished process."""
    command = [folder / "bin/python", *argv]
    environment = prefix.activated(folder)
    return subprocess.run(command, env=environment, capture_output=True, text=True, **options)


def test_the_original_is_affected_and_its_twin_is_fixed(installed):
    # the products say it in seconds; trials that hang take minutes
    affected = run(installed["original"], repro.PROGRAM, "--check", "calls")
    assert (affected.returncode, affected.stdout.splitlines()[-1][:8]) == (1, "AFFECTED"), (
        affected.stdout
    )
    healed = run(installed["twin"], repro.PROGRAM)
    assert healed.returncode == 0, healed.stdout
    assert healed.stdout.splitlines()[-1].startswith("FIXED")


def test_python_runs_the_bytecode_of_the_twin_as_it_is(installed):
    shown = run(installed["twin"], "-v", "-c", "import numpy")
    source = next(installed["twin"].glob("lib/python3.1?/site-packages/numpy/__init__.py"))
    assert f"matches {source}" in shown.stderr


def test_numpys_tests_of_linalg_lib_and_ma_pass_on_the_twin(installed):
    """The binaries are the original's, whose package has run all of numpy's tests."""
    modules = ["numpy.linalg", "numpy.lib", "numpy.ma"]
    script = f"import numpy, sys; sys.exit(not numpy.test(tests={modules}))"
    # elsewhere than in this checkout, whose pytest settings are not numpy's
    done = run(installed["twin"], "-W", "ignore", "-c", script, cwd=installed["twin"])
    assert done.returncode == 0, done.stdout[-2000:]
    assert " passed" in done.stdout
