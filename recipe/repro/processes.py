"""Run a command, and leave nothing of it behind."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import BinaryIO, Callable, Mapping, Sequence


@dataclass(frozen=True)
class Outcome:
    """How a process ended, and what it printed."""

    code: int | None  # None: it did not end in time
    stdout: str
    stderr: str

    @property
    def hung(self) -> bool:
        return self.code is None

    def fault(self) -> str:
        """Return how the process failed and what it said last; "" if it did not fail."""
        if self.code == 0:
            return ""
        said = (self.stdout + self.stderr).strip()[-2000:] or "no output"
        if self.code is None:
            return f"did not end in time: {said}"
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}: {said}"
        return f"exit status {self.code}: {said}"


def run(
    command: Sequence[str],
    timeout: float,
    environment: Mapping[str, str],
    on_timeout: Callable[[int], None] | None = None,
) -> Outcome:
    """Run a command in a session of its own. Nothing of it outlives this call.

    timeout : seconds
    on_timeout : called with the process id before a process that took too long is killed
    """
    # Files rather than pipes: a pipe that a grandchild holds open would block us.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = None
        # an end that is asked for waits until the process is known: nobody else could kill it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
            if on_timeout:
                on_timeout(process.pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if process and process.returncode is None:
                _kill(process)
        return Outcome(code, _text(stdout), _text(stderr))


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # a signal only asks the kernel, and nobody waits for the children of the process
    deadline = time.monotonic() + 30
    while _lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    # libiomp5 removes this at exit, and a killed process does not get there.
    for left in glob.glob(f"/dev/shm/__KMP_REGISTERED_LIB_{process.pid}_*"):
        os.unlink(left)


def _lives(group: int) -> bool:
    """Return whether a process of a group still runs; False where there is no /proc."""
    for stat in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(stat) as stream:
                state, _, number = stream.read().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # it ended just now
        # Z and X: it has ended, and its parent has not asked for its exit status
        if int(number) == group and state not in "ZX":
            return True
    return False


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
