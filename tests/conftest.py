"""Fixtures on real packages: `feedstock build` makes them, py-rattler installs them."""

import signal
import subprocess

import pytest

from helpers.command import feedstock
from helpers.shipped import FLAVOURS, OUTPUT, PYTHON, RELEASE
from numpy_feedstock import variant
from numpy_feedstock.building import bootstrap
from numpy_feedstock.channels import channel, prefix
from numpy_feedstock.packages.record import read_record

pytest_plugins = ["helpers.skips"]

# a shell starts its background jobs with Ctrl-C ignored, and what they start inherits that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def packages(request):
    """{flavour: path of the package}; made if it is not there."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(flush=True)
        done = feedstock("build", capture_output=False)
        assert done.returncode == 0, "feedstock build failed; its message is above"
    wanted = variant.select([RELEASE], [PYTHON], variant.DEFAULT_FLAVOURS, "linux-64")
    return {v.blas: OUTPUT / v.platform / v.filename for v in wanted}


@pytest.fixture(scope="session")
def channels(packages):
    """Ours, then the one it was built from."""
    source = bootstrap.ensure(PYTHON, print)
    return [channel.url(OUTPUT), channel.url(source)]


def install_numpy(channels, blas, folder):
    """The shipped package of a flavour and a compiler in a new prefix."""
    return prefix.install(
        channels, [f"numpy={RELEASE}={blas}*", f"python={PYTHON}", "gxx_linux-64"], folder
    )


@pytest.fixture(scope="session")
def prefixes(channels, tmp_path_factory):
    """{flavour: prefix} with the shipped package and a compiler."""
    return {
        blas: install_numpy(channels, blas, tmp_path_factory.mktemp(blas) / "shipped")
        for blas in FLAVOURS
    }


@pytest.fixture(scope="session")
def controls(channels, tmp_path_factory):
    """{flavour: prefix} with the patch undone: what a check must find wrong."""
    found = {
        blas: install_numpy(channels, blas, tmp_path_factory.mktemp(blas) / "control")
        for blas in FLAVOURS
    }
    for folder in found.values():
        prefix.undo_patch(folder)
    return found


@pytest.fixture(scope="session")
def records(packages):
    """{flavour: Record} that build wrote."""
    return {blas: read_record(path) for blas, path in packages.items()}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
