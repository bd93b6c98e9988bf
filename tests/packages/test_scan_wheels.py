"""The bisect verb on the released wheels: the table of the report, and its continuation."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from helpers import command
from numpy_feedstock import released, wheel

pytestmark = pytest.mark.packages

AFFECTED = ["2.3.5", "2.4.0", "2.4.1", "2.4.2", "2.4.3", "2.4.4"]
GATED = ["2.4.5", "2.4.6"]
WITHOUT_CHECK = ["2.2.6", "2.3.4"]


def bisect(*args):
    return command.start("scan-wheels", *args)


@pytest.fixture(scope="module")
def rows():
    process = bisect("--json")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return {row["release"]: row for row in json.loads(output)["rows"] if "calls" in row}


def without_wheel(releases):
    return {release for release in releases if wheel.TAG not in released.known()[release]}


@pytest.mark.parametrize(
    ("releases", "check", "gated", "calls", "verdict"),
    [
        (WITHOUT_CHECK, False, False, 0, "ok"),
        (AFFECTED, True, False, 1, "hangs"),
        (GATED, True, True, 0, "ok"),
    ],
    ids=["without check", "affected", "gated"],
)
def test_the_verdict_on_each_release(rows, releases, check, gated, calls, verdict):
    seen = [release for release in releases if release not in without_wheel(releases)]
    assert seen
    for release in seen:
        row = rows[release]
        assert (row["check"], row["gated"], row["calls"], row["verdict"]) == (
            check,
            gated,
            calls,
            verdict,
        ), release
        hangs, trials = row["decided"]
        # the race is decided: all or none
        assert (hangs, trials) == ((3, 3) if verdict == "hangs" else (0, 4)), release
        assert bool(row["stacks"]) == (verdict == "hangs")


def test_interrupted_it_leaves_no_import_running(rows):
    process = bisect("2.3.5")
    while not importing():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in errors
    assert not importing()


def importing():
    """The processes in which a released numpy is made to call MKL."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if b"RELEASED_MKL=" in entry.read_bytes() and int(entry.parent.name) != os.getpid():
                found.append(entry.parent.joinpath("cmdline").read_text())
        except OSError:  # ended meanwhile
            continue
    return found
