"""The verb scan-wheels: the table of the report, and its continuation."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from helpers import command
from numpy_feedstock.building import wheel
from numpy_feedstock.measuring import released

pytestmark = pytest.mark.packages

AFFECTED = ["2.3.5", "2.4.0", "2.4.1", "2.4.2", "2.4.3", "2.4.4"]
GATED = ["2.4.5", "2.4.6"]
WITHOUT_CHECK = ["2.2.6", "2.3.4"]


def scan_wheels(*args):
    return command.start("scan-wheels", *args)


@pytest.fixture(scope="module")
def rows():
    # an import takes a second; one that hangs costs the whole time
    process = scan_wheels("--json", "--timeout", "10")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return {row["release"]: row for row in json.loads(output)["rows"] if not row["reason"]}


def without_wheel(releases):
    return {release for release in releases if wheel.TAG not in released.known()[release]}


@pytest.mark.parametrize(
    ("releases", "check", "gated", "products", "verdict"),
    [
        (WITHOUT_CHECK, False, False, 0, "FIXED"),
        (AFFECTED, True, False, 1, "AFFECTED"),
        (GATED, True, True, 0, "FIXED"),
    ],
    ids=["without check", "affected", "gated"],
)
def test_the_verdict_on_each_release(rows, releases, check, gated, products, verdict):
    seen = [release for release in releases if release not in without_wheel(releases)]
    assert seen
    for release in seen:
        row = rows[release]
        assert (row["has_check"], row["gated"], row["products"], row["verdict"]) == (
            check,
            gated,
            products,
            verdict,
        ), release
        hangs, trials = row["hangs_main_late"]
        # the race is decided: all or none
        assert (hangs, trials) == ((3, 3) if verdict == "AFFECTED" else (0, 4)), release
        assert bool(row["stacks"]) == (verdict == "AFFECTED")


def test_interrupted_it_leaves_no_import_running(rows):
    process = scan_wheels("2.3.5")
    while not importing():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
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
