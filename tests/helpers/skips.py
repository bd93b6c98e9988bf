"""A plugin of pytest: a test that was skipped everywhere fails the run, unless skips.yaml has it.

A test was skipped everywhere when none of its cases ran. This counts in a CI, and where the
option --skips-fail is given. Elsewhere a machine may lack what some tests need.
"""

import fnmatch
import os
from pathlib import Path

import pytest
import yaml

OPTION = "--skips-fail"
LISTED = Path(__file__).parents[1] / "skips.yaml"


def pytest_addoption(parser):
    parser.addoption(
        OPTION,
        action="store_true",
        default=bool(os.environ.get("CI")),
        help="fail when a test was skipped that tests/skips.yaml does not list (default in a CI)",
    )


def pytest_configure(config):
    if config.getoption(OPTION):
        config.pluginmanager.register(Skips(yaml.safe_load(LISTED.read_text())), "skips")


class Skips:
    """Counts the cases of each test that ran, and keeps the reasons of those that did not."""

    def __init__(self, listed):
        self.causes = {each["test"]: each["cause"] for each in listed}
        self.ran = set()
        self.reasons = {}

    def pytest_runtest_logreport(self, report):
        test = report.nodeid.partition("[")[0]
        # pytest calls a test that failed as expected skipped, too
        if report.skipped and not hasattr(report, "wasxfail"):
            self.reasons[test] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.when == "call":
            self.ran.add(test)

    def pytest_collectreport(self, report):
        if report.skipped:  # a whole module
            self.reasons[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")

    def unlisted(self):
        """{test: reason} of what was skipped everywhere and has no cause."""
        return {
            test: reason
            for test, reason in self.reasons.items()
            if test not in self.ran and not self._listed(test)
        }

    def _listed(self, test):
        return any(fnmatch.fnmatch(test, pattern) for pattern in self.causes)

    def pytest_sessionfinish(self, session, exitstatus):
        if self.unlisted() and exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        unlisted = self.unlisted()
        if not unlisted:
            return
        terminalreporter.section("skipped everywhere, and not listed with a cause", red=True)
        for test, reason in unlisted.items():
            terminalreporter.line(f"{test}: {reason}")
        terminalreporter.line(f"give the machine what they need, or list them in {LISTED.name}")
