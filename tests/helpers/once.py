"""What the processes of one run of the tests make once, and what only one of them does at a time.

pytest-xdist runs the tests in several processes. Each of them makes its own session fixtures.
"""

import contextlib
import fcntl
import os


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

    AssertionError in every process when it failed in the first.
    """
    outcome = folder.with_name(f"{folder.name}.outcome")
    with alone(folder.with_name(f"{folder.name}.lock")):
        if not outcome.exists():
            try:
                make(folder)
            except Exception as error:
                outcome.write_text(f"{folder.name}: {type(error).__name__}: {error}")
                raise
            outcome.write_text("")
    failure = outcome.read_text()
    assert not failure, failure
    return folder
