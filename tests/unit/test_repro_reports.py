"""What is made of the repro's JSON, and many of it at a time."""

import asyncio
import json
import subprocess
import sys

import pytest

from numpy_feedstock.errors import FeedstockError, UsageError
from numpy_feedstock.measuring import repro
from numpy_feedstock.measuring.measurements import ReleaseRow

SLEEPS = "import time; time.sleep(1000)"


def hang(setting, main_late, hangs, trials, crashes=()):
    facts = {"hangs": hangs, "trials": trials, "crashes": list(crashes)}
    return {
        "check": "hang",
        "setting": setting,
        "main_late": main_late,
        "text": "text",
        "facts": facts,
    }


def report(*findings):
    return repro.Report({"findings": findings, "verdict": "FIXED", "reason": "", "stacks": ""})


def test_the_late_imports_are_told_apart_by_a_fact_and_not_by_a_word_in_a_name():
    found = report(hang("PLUGINS=late", False, 1, 4), hang("PLUGINS=late", True, 3, 3))
    assert found.hangs(main_late=False) == (1, 4)
    assert found.hangs(main_late=True) == (3, 3)


def test_an_import_that_crashed_is_no_trial():
    with pytest.raises(FeedstockError, match="no trial, default: text"):
        report(hang("default", False, 0, 1, ["killed by SIGKILL"])).hangs(main_late=False)


def test_what_could_not_be_tried_is_told_in_the_repros_own_words():
    errors = "python  3.11\nhost    cores: 2\nrepro: hang could not be tried: no compiler; get one"
    with pytest.raises(UsageError) as caught:
        repro.parse(2, json.dumps({"verdict": "UNKNOWN"}), errors)
    assert str(caught.value) == "repro: hang could not be tried: no compiler; get one"


@pytest.mark.parametrize("exit_code", [0, 1, -9])
def test_a_repro_that_printed_no_result_is_an_error_with_what_it_said(exit_code):
    with pytest.raises(FeedstockError, match="found: SyntaxError: invalid syntax") as caught:
        repro.parse(exit_code, "", "SyntaxError: invalid syntax")
    assert f"the repro ended with {exit_code} and printed no result" in str(caught.value)


def releases(count):
    return [ReleaseRow(str(number), "UNKNOWN", fault="not measured") for number in range(count)]


def test_no_more_jobs_run_than_are_allowed_and_results_keep_their_order():
    running, most = 0, 0

    def job(number):
        async def run():
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01 * (5 - number))
            running -= 1
            return ReleaseRow(str(number), "FIXED")

        return run

    rows = releases(5)
    repro.measure_all(rows, {number: job(number) for number in range(5)}, 2, print)
    assert rows == [ReleaseRow(str(number), "FIXED") for number in range(5)]
    assert most == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UsageError("no compiler"), "no compiler"),
        (OSError(2, "No such file", "/cc"), "the system refused: /cc: No such file\n  remedy: "),
        (OSError(), "the system refused: OSError()\n  remedy: "),
    ],
)
def test_a_job_that_fails_is_a_fault_of_its_row_and_does_not_stop_the_others(error, reason):
    said = []

    async def fails():
        raise error

    async def waits():
        await asyncio.sleep(0.1)
        return ReleaseRow("1", "FIXED")

    rows = releases(2)
    repro.measure_all(rows, {0: fails, 1: waits}, 2, said.append)
    assert rows[0].fault.startswith(reason) and rows[1] == ReleaseRow("1", "FIXED")
    assert said == [f"0: FAILED: {rows[0].fault}"]


def test_a_report_that_lacks_a_check_is_an_error_in_words():
    for asked in (repro.Report.products, repro.Report.after_import):
        with pytest.raises(FeedstockError, match="the repro says nothing about its check"):
            asked(report())
    with pytest.raises(FeedstockError, match="the repro says nothing about its check 'hang'"):
        report().hangs(main_late=False)


def test_who_is_interrupted_while_a_repro_starts_leaves_none_behind(monkeypatch):
    started, start = [], subprocess.Popen

    async def interrupted():
        running = asyncio.create_task(repro.run([sys.executable, "-c", SLEEPS], [], {}))

        def start_and_interrupt(*words, **options):
            started.append(start(*words, **options))
            running.cancel()
            return started[0]

        monkeypatch.setattr(subprocess, "Popen", start_and_interrupt)
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    assert started[0].returncode is not None
