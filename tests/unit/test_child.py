"""A function in a child: its result, its errors, and its end."""

import multiprocessing.connection
import os
import subprocess
import sys
from pathlib import Path

import pytest

from numpy_feedstock import child
from numpy_feedstock.errors import FeedstockError


def double(number, say):
    say("doubling")
    print("only in the log")
    return 2 * number


def fail_known(say):
    raise FeedstockError("what failed and the remedy")


def fail_unknown(say):
    raise RuntimeError("unforeseen")


def die(say):
    os._exit(11)


def start_a_compiler(say):
    process = subprocess.Popen(["sleep", "1000"])
    say(str(process.pid))
    process.wait()


def test_result_lines_and_log(tmp_path):
    lines = []
    assert child.run(double, 21, log=tmp_path / "log", say=lines.append) == 42
    assert lines == ["doubling"]
    assert (tmp_path / "log").read_text() == "doubling\nonly in the log\n"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fail_known, "what failed and the remedy"),
        (fail_unknown, "RuntimeError: unforeseen"),
        (die, r"died \(exit code 11\)"),
    ],
)
def test_errors(function, message, tmp_path):
    with pytest.raises(FeedstockError, match=message):
        child.run(function, log=tmp_path / "log")


def test_an_interrupt_ends_the_whole_group(tmp_path):
    pids = []

    def interrupt(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run(start_a_compiler, log=tmp_path / "log", say=interrupt)
    assert not _alive(pids[0])


def test_an_interrupt_while_it_starts_ends_it(tmp_path, monkeypatch):
    def interrupt(connection):
        raise KeyboardInterrupt

    monkeypatch.setattr(multiprocessing.connection.Connection, "close", interrupt)
    with pytest.raises(KeyboardInterrupt):
        child.run(start_a_compiler, log=tmp_path / "log")
    assert multiprocessing.active_children() == []


def _alive(pid):
    try:
        # an orphan that nobody reaps is a zombie: ended
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
