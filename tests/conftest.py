"""Fixtures on real packages: `feedstock build` makes them, py-rattler installs them."""

import os
import signal
import subprocess

import pytest

from helpers import installed, once, shipped
from helpers.command import feedstock
from helpers.shipped import FLAVOURS, OUTPUT, PYTHON, RELEASE
from numpy_feedstock import paths, variant
from numpy_feedstock.building import bootstrap
from numpy_feedstock.channels import channel, channel_folder, prefix
from numpy_feedstock.errors import UsageError
from numpy_feedstock.packages import canonical
from numpy_feedstock.packages.record import read_record

pytest_plugins = ["helpers.order", "helpers.skips"]

# a shell starts its background jobs with Ctrl-C ignored, and what they start inherits that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def date_of_packages():
    """The packages of the tests have a date in a shallow clone, too, which lacks the recipe's."""
    try:
        canonical.source_date()
    except UsageError:
        os.environ["SOURCE_DATE_EPOCH"] = "1700000000"


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory):
    """A folder of this run, the same one in each of its processes."""
    return once.common_folder(tmp_path_factory)


@pytest.fixture(scope="session")
def packages(request, common_folder):
    """{flavour: path of the package}; made if it is not there."""

    def build(folder):
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(flush=True)
            done = feedstock("build", capture_output=False)
        assert done.returncode == 0, "feedstock build failed; its message is above"

    once.once(common_folder / "packages", build)
    wanted = variant.select([RELEASE], [PYTHON], variant.DEFAULT_FLAVOURS, "linux-64")
    return {v.blas: OUTPUT / v.platform / v.filename for v in wanted}


@pytest.fixture
def build_folder(packages):
    """Keep the build lock for this test: other tests that build something wait."""
    with once.alone(paths.BUILD / "tests.lock"):
        yield paths.BUILD


@pytest.fixture(scope="session")
def tested_channel(packages, common_folder):
    """A channel with the packages under test and their records. Nobody changes it.

    It stands in for output/, which may hold other packages: a solver would pick one of them, and
    a verb that takes every package would take them.
    """

    def make(folder):
        shipped.copy(packages, folder / "linux-64")
        channel_folder.index(folder)

    return once.once(common_folder / "tested-channel", make)


@pytest.fixture(scope="session")
def channels(tested_channel):
    """Ours, then the one it was built from."""
    source = bootstrap.ensure(PYTHON, print)
    return [channel.url(tested_channel), channel.url(source)]


def install_numpy(channels, blas, folder):
    """The shipped package of a flavour and a compiler in a new prefix."""
    return prefix.install(
        channels, [f"numpy={RELEASE}={blas}*", f"python={PYTHON}", "gxx_linux-64"], folder
    )


@pytest.fixture(scope="session")
def prefixes(channels, common_folder):
    """{flavour: prefix} with the shipped package and a compiler. Nobody changes it."""
    return {
        blas: once.once(
            common_folder / f"shipped-{blas}",
            lambda folder, blas=blas: install_numpy(channels, blas, folder),
        )
        for blas in FLAVOURS
    }


@pytest.fixture(scope="session")
def controls(channels, common_folder):
    """{flavour: prefix} with the patch undone, which a check must find wrong. Nobody changes it."""

    def make(blas, folder):
        install_numpy(channels, blas, folder)
        prefix.undo_patch(folder)

    return {
        blas: once.once(
            common_folder / f"control-{blas}", lambda folder, blas=blas: make(blas, folder)
        )
        for blas in FLAVOURS
    }


@pytest.fixture
def control_copy(controls, tmp_path):
    """make(flavour): a copy of a control, which the test may change."""
    return lambda blas: installed.clone(controls[blas], tmp_path / f"control-{blas}")


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
