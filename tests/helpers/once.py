"""What the processes of one run of the tests make once, and what only one of them does at a time.

pytest-xdist runs the tests in several processes. Each of them makes its own session fixtures.
"""

import contextlib
import fcntl
import json
import os

import pytest

MADE, FAILED, SKIPPED = "made", "failed", "skipped"


def common_folder(tmp_path_factory):
    """The temporary folder of this run, the same one in each of its processes."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@contextlib.contextmanager
def alone(lock):
    """Hold a lock file. Other processes wait for it."""
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def once(folder, make):
    """Call make(folder) in the first process that comes here. Returns the folder.

    What make raises is raised in the first process as it is, and is not tried again. The others
    get AssertionError with its text, or are skipped when the first was.
    """
    outcome = folder.with_name(f"{folder.name}.outcome")
    with alone(folder.with_name(f"{folder.name}.lock")):
        if not outcome.exists():
            try:
                make(folder)
            # pytest's own two are no Exception
            except (Exception, pytest.fail.Exception) as error:
                _write(outcome, FAILED, f"{folder.name}: {type(error).__name__}: {error}")
                raise
            except pytest.skip.Exception as skipped:
                _write(outcome, SKIPPED, str(skipped))
                raise
            _write(outcome, MADE)
    kind, reason = json.loads(outcome.read_text())
    if kind == SKIPPED:
        pytest.skip(reason)
    assert kind == MADE, reason
    return folder


def _write(outcome, kind, reason=""):
    outcome.write_text(json.dumps([kind, reason]))
