"""Environments with released numpys, made once; a test gets a copy that shares the files."""

import shutil
import tempfile
from pathlib import Path

import pytest

from helpers import installed


@pytest.fixture(scope="session")
def workplace():
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="heal-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def originals(workplace):
    """make(kind, release): the environment that pip, uv or rattler installed. Nobody changes it."""
    made = {}

    def make(kind, release="2.3.5"):
        if (kind, release) not in made:
            made[kind, release] = _make(kind, release, workplace)
        return made[kind, release]

    return make


def _make(kind, release, workplace):
    folder = workplace / "originals" / f"{kind}-{release}"
    (workplace / "wheels").mkdir(exist_ok=True)
    folder.parent.mkdir(exist_ok=True)
    cache = workplace / "caches" / kind
    if kind == "rattler":
        channel = installed.conda_package(release, workplace / "packages" / release)
        return installed.with_rattler(channel, folder, cache)
    wheel = installed.wheel_file(release, workplace / "wheels")
    if kind == "uv":
        return installed.with_uv(wheel, folder, cache)
    return installed.with_pip(wheel, folder)


@pytest.fixture
def copy(originals, workplace, request):
    """make(kind, release): a copy of such an environment, for one test."""
    folder = Path(tempfile.mkdtemp(prefix="copy-", dir=workplace))
    folder.chmod(0o755)

    def make(kind, release="2.3.5", name="env"):
        return installed.clone(originals(kind, release), folder / name)

    yield make
    shutil.rmtree(folder, ignore_errors=True)
