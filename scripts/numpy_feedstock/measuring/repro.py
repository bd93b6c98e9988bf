"""Run the repro as a program of its own, also many at a time, and read its report."""

import json
import re
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from .. import paths
from ..errors import FeedstockError, UsageError, reason, refusal
from ..progress import Say
from .measurements import HangRow, ReleaseRow, Share

FOLDER = paths.RECIPE.parent / "repro"
PROGRAM = FOLDER / "repro.py"
# {BLAS: the verdict on a numpy whose import multiplies matrices}
VERDICTS_ON_CONTROLS = {"mkl": "AFFECTED", "openblas": "LATENT"}

# what a row says until it is measured
NOT_MEASURED = "not measured"

Row = TypeVar("Row", HangRow, ReleaseRow)


@dataclass(frozen=True)
class Report:
    """The report that the repro prints with --json."""

    fields: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """AFFECTED, LATENT, FIXED or UNKNOWN."""
        return str(self.fields["verdict"])

    @property
    def summary(self) -> str:
        """The verdict with its reason, "AFFECTED: hang, calls failed"."""
        return f"{self.verdict}: {self.fields['reason']}"

    def hangs(self, main_late: bool) -> Share:
        """Return how many imports inside dlopen hung, and how many were tried.

        main_late : True counts the imports whose race was decided, False the other ones

        Raises FeedstockError when an import ended in another way.
        """
        hangs, trials = 0, 0
        for finding in self._findings("hang"):
            if finding["main_late"] != main_late:
                continue
            facts = finding["facts"]
            if facts.get("crashes", True):
                raise FeedstockError(f"no trial, {finding['setting']}: {finding['text']}")
            hangs += facts["hangs"]
            trials += facts["trials"]
        return hangs, trials

    def products(self) -> int:
        """Return how many matrix products an import makes. Raises FeedstockError."""
        found = self._findings("calls")[0]
        if "at_import" not in found["facts"]:
            raise FeedstockError(f"the products could not be counted: {found['text']}")
        return len(found["facts"]["at_import"])

    def after_import(self) -> Mapping[str, Any]:
        """Return threads, layer and kernels after an import under the first setting.

        Raises FeedstockError when it could not be measured.
        """
        first = self._findings("threads")[0]
        if "checked" not in first["facts"]:
            raise FeedstockError(f"the threads could not be counted: {first['text']}")
        checked: Mapping[str, Any] = first["facts"]["checked"]
        return checked

    def stacks(self) -> str:
        """Return the native stacks of the first hang without this machine's folders, or ""."""
        return re.sub(r"\b(from|at) /\S*/", r"\1 ", self.fields["stacks"])

    def _findings(self, check: str) -> list[Mapping[str, Any]]:
        found = [each for each in self.fields["findings"] if each["check"] == check]
        if not found:
            raise FeedstockError(f"the repro says nothing about its check {check!r}")
        return found


async def run(
    command: Sequence[str | Path], args: Sequence[object], environment: Mapping[str, str]
) -> Report:
    """Run the repro. No process and no file of it is left afterwards.

    command : starts the repro: [python, PROGRAM] for the numpy of a Python
    args : of the repro
    environment : all variables

    Raises UsageError when the repro could not try something, FeedstockError when it fails.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    words = [*command, "--json", *map(str, args)]
    try:
        # not asyncio's own: interrupted while it starts a process, it waits for ever
        process = subprocess.Popen(
            words,
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise FeedstockError("the repro cannot be started", found=refusal(error)) from None
    except ValueError as error:  # a NUL in a word
        raise FeedstockError("the repro cannot be started", found=f"{error}: {words}") from None
    with ThreadPoolExecutor(1) as thread:
        try:
            loop = asyncio.get_running_loop()
            output, errors = await loop.run_in_executor(thread, process.communicate)
        finally:
            if process.poll() is None:
                process.terminate()  # on SIGTERM the repro ends the processes that it started
    return parse(process.returncode, *(each.decode(errors="replace") for each in (output, errors)))


def parse(exit_code: int | None, output: str, errors: str) -> Report:
    """Return the report that the repro printed.

    Raises UsageError when it could not try something, FeedstockError when it failed.
    """
    if exit_code == 2:
        lines = [line for line in errors.splitlines() if line.startswith("repro: ")]
        said = "\n".join(lines) or errors.strip()
        raise UsageError(said or "the repro could not start, and did not say why")
    try:
        fields = json.loads(output)
    except (ValueError, RecursionError):
        fields = None
    if not _is_report(fields):
        raise FeedstockError(
            f"the repro ended with {exit_code} and printed no result",
            found=errors.strip()[-2000:] or output.strip()[-2000:] or "no output",
        )
    return Report(fields)


def _is_report(fields: Any) -> bool:
    """Return whether the fields that each report has are there."""
    kinds = {"verdict": str, "reason": str, "findings": list, "stacks": str}
    if not isinstance(fields, dict):
        return False
    return all(isinstance(fields.get(name), kind) for name, kind in kinds.items())


def measure_all(
    rows: list[Row], jobs: Mapping[int, Callable[[], Awaitable[Row]]], at_a_time: int, say: Say
) -> None:
    """Run jobs, some at a time, and put what each returns into the place of its row.

    jobs : {index of a row: its job}

    A job that fails does not stop the others: its error is the fault of the row.
    """
    import asyncio

    asyncio.run(_measure_all(rows, jobs, at_a_time, say))


async def _measure_all(
    rows: list[Row], jobs: Mapping[int, Callable[[], Awaitable[Row]]], at_a_time: int, say: Say
) -> None:
    import asyncio

    slots = asyncio.Semaphore(at_a_time)

    async def measure(number: int, job: Callable[[], Awaitable[Row]]) -> None:
        async with slots:
            try:
                rows[number] = await job()
            except (FeedstockError, OSError) as error:
                say(f"{rows[number].name}: FAILED: {reason(error)}")
                rows[number] = replace(rows[number], fault=reason(error))

    async with asyncio.TaskGroup() as group:
        for number, job in jobs.items():
            group.create_task(measure(number, job))
