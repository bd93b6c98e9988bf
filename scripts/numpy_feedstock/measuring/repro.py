"""Run the repro as a program of its own, also many at a time, and read its report."""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import paths
from ..errors import FeedstockError, UsageError, refusal
from .measurements import Share

if TYPE_CHECKING:
    from asyncio.subprocess import Process

FOLDER = paths.RECIPE.parent / "repro"
PROGRAM = FOLDER / "repro.py"
# {BLAS: the verdict on a numpy whose import multiplies matrices}
VERDICTS_ON_CONTROLS = {"mkl": "AFFECTED", "openblas": "LATENT"}

LONGEST_TIMEOUT = 3600  # seconds, the repro's own limit

Result = TypeVar("Result")


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
        (found,) = self._findings("calls")
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
        return [each for each in self.fields["findings"] if each["check"] == check]


async def run(
    command: Sequence[str | Path], args: Sequence[object], environment: Mapping[str, str]
) -> Report:
    """Run the repro. No process and no file of it is left afterwards.

    command : starts the repro: [python, PROGRAM] for the numpy of a Python
    args : of the repro
    environment : all variables

    Raises UsageError when the repro could not try something, FeedstockError when it fails.
    """
    process = await _start([*command, "--json", *map(str, args)], environment)
    try:
        output, errors = await process.communicate()
    finally:
        await _end(process)
    return parse(process.returncode, *(each.decode(errors="replace") for each in (output, errors)))


async def _start(words: Sequence[str | Path], environment: Mapping[str, str]) -> "Process":
    """Start the repro and return its process. Raises FeedstockError.

    Who cancels this meanwhile waits until the process is known and has ended. Nobody else could
    end it.
    """
    import asyncio

    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *words,
            env=environment,
            start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise
    except OSError as error:
        raise FeedstockError("the repro cannot be started", found=refusal(error)) from None
    except ValueError as error:  # a NUL in a word
        raise FeedstockError("the repro cannot be started", found=f"{error}: {words}") from None


async def _end(process: "Process") -> None:
    """End the repro, if it runs. On SIGTERM it ends the processes that it started."""
    if process.returncode is None:
        process.terminate()
        await process.wait()


def check_trials(trials: int, timeout: float) -> None:
    """Raise UsageError for a number of trials and a timeout (seconds) that make no sense."""
    if trials < 2 or not timeout > 0:
        raise UsageError(
            f"--trials must be 2 or more and --timeout above 0, found {trials} and {timeout:g}"
        )
    if timeout > LONGEST_TIMEOUT:
        raise UsageError(
            f"--timeout must be at most {LONGEST_TIMEOUT} seconds, found {timeout:g}",
            remedy="try --timeout 30",
        )


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


def run_all(jobs: Iterable[Callable[[], Awaitable[Result]]], at_a_time: int) -> list[Result]:
    """Run jobs, some at a time. Returns their results in the order of the jobs.

    The first job that fails ends the others. Raises its FeedstockError.
    """
    import asyncio

    return asyncio.run(_run_all(list(jobs), at_a_time))


async def _run_all(jobs: Sequence[Callable[[], Awaitable[Result]]], at_a_time: int) -> list[Result]:
    import asyncio

    slots = asyncio.Semaphore(at_a_time)

    async def in_a_slot(job: Callable[[], Awaitable[Result]]) -> Result:
        async with slots:
            return await job()

    first: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_a_slot(job)) for job in jobs]
    except* FeedstockError as errors:
        first = errors.exceptions[0]
    # not in the block: Python 3.11.2, which Debian 12 has, raises a group of it there
    if first is not None:
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first
    return [task.result() for task in tasks]
