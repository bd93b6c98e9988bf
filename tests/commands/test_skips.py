"""A test that was skipped everywhere fails the run."""

import os
import subprocess
import sys

import pytest
import yaml

from helpers import skips
from numpy_feedstock import paths

TESTS = """\
import pytest

def test_that_runs():
    pass

@pytest.mark.parametrize("number", [1, 2])
def test_of_which_a_case_runs(number):
    if number == 1:
        pytest.skip("not this one")

@pytest.mark.xfail
def test_that_fails_as_expected():
    assert False
"""
SKIPPED = """
@pytest.mark.parametrize("number", [1, 2])
def test_that_never_runs(number):
    pytest.skip("there is no such machine")
"""
SKIPPED_BY_A_MARK = """
@pytest.mark.skipif(True, reason="there is no such machine")
def test_that_never_runs():
    pass
"""
MODULE = """
pytest.skip("there is no such machine", allow_module_level=True)
"""


@pytest.fixture
def run(tmp_path):
    """Run pytest on a file with the plugin; the CompletedProcess."""

    def run(text, *options, **variables):
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        (tmp_path / "test_some.py").write_text(text)
        inherited = {name: value for name, value in os.environ.items() if name != "CI"}
        path = os.pathsep.join([str(paths.ROOT / "scripts"), str(paths.ROOT / "tests")])
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "helpers.skips", "-q", *options],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": path, **variables},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize("skipped", [SKIPPED, SKIPPED_BY_A_MARK, MODULE])
def test_skipped_everywhere_fails_the_run_with_its_reason(run, skipped):
    done = run(TESTS + skipped, CI="true")
    assert done.returncode == 1
    assert "there is no such machine" in done.stdout
    assert "skipped everywhere, and not listed with a cause" in done.stdout
    assert "not this one" not in done.stdout
    assert run(TESTS + skipped, skips.OPTION).returncode == 1


@pytest.mark.parametrize("skipped", [SKIPPED, MODULE])
def test_it_does_so_when_the_tests_run_in_several_processes(run, skipped):
    done = run(TESTS + skipped, skips.OPTION, "-n", "2")
    assert done.returncode == 1
    assert done.stdout.count("there is no such machine") == 1
    assert "not this one" not in done.stdout


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_what_runs_somewhere_does_not_fail_the_run(run, options):
    assert run(TESTS, *options, CI="true").returncode == 0


def test_outside_of_a_ci_a_machine_may_lack_something(run):
    assert run(TESTS + SKIPPED).returncode == 0


def test_a_failed_test_keeps_its_exit_code(run):
    done = run(TESTS + SKIPPED + "\ndef test_red():\n    assert False\n", CI="true")
    assert done.returncode == 1
    assert "there is no such machine" in done.stdout


def test_a_listed_test_may_be_skipped():
    plugin = skips.Skips([{"test": "tests/a.py::*", "cause": "a cause"}])
    plugin.reasons = {"tests/a.py::test_one": "why", "tests/b.py::test_two": "why not"}
    assert plugin.unlisted() == {"tests/b.py::test_two": "why not"}


def test_every_listed_test_is_there_and_has_a_cause():
    for each in yaml.safe_load(skips.LISTED.read_text()):
        file, _, _ = each["test"].partition("::")
        assert (paths.ROOT / file).is_file() and each["cause"].strip()
