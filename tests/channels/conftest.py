"""Fixtures: real servers, on this machine only, and what failed tests tell of them."""

import pytest

from helpers import servers
from numpy_feedstock.publishing import signing


@pytest.fixture(autouse=True)
def signing_key(tmp_path, monkeypatch):
    """A key of the test's own; the user's is left alone."""
    signing.make(tmp_path / "key.pem")
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "key.pem"))
    return tmp_path / "key.pem"


@pytest.fixture(scope="session")
def nginx(tmp_path_factory):
    with servers.nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    with servers.seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def quetz(tmp_path_factory):
    with servers.quetz(tmp_path_factory.mktemp("quetz")) as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        report.sections += [(f"end of {log}", servers.tail(log)) for log in servers.LOGS]
    return report
