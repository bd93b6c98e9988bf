"""The repro, run beside us: what it says of a Python's numpy under given variables."""

import json
import re

from . import paths
from .errors import FeedstockError, UsageError

PROGRAM = paths.ROOT / "tests" / "repro" / "repro.py"


async def examine(command, *args, environment):
    """The repro's report, a dict: see its ``--help``. Nothing it started is left when this ends.

    command : list, what runs the repro, [python, PROGRAM] for the numpy of a Python
    args : of the repro
    environment : dict of all variables

    Raises UsageError when the repro says that it was used wrongly.
    """
    import asyncio

    process = await asyncio.create_subprocess_exec(
        *command,
        "--json",
        *map(str, args),
        env=environment,
        start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()  # it ends what it started
            await process.wait()
    if process.returncode == 2:
        raise UsageError(errors.decode().strip())
    if process.returncode not in (0, 1):
        raise FeedstockError(
            f"the repro ended with {process.returncode}", found=errors.decode().strip()[-2000:]
        )
    return json.loads(output)


def hangs(report, late):
    """(hangs, trials) of imports inside dlopen; ``late``: those whose main thread came last, or the others."""
    found = [
        each
        for each in report["findings"]
        if each["check"] == "hang" and ("late" in each["setting"]) == late
    ]
    for each in found:
        if each["facts"].get("crashes", True):
            raise FeedstockError(f"no trial, {each['setting']}: {each['text']}")
    return tuple(sum(each["facts"][key] for each in found) for key in ("hangs", "trials"))


def calls(report):
    """How many matrix products an import did."""
    (found,) = (each for each in report["findings"] if each["check"] == "calls")
    if "at_import" not in found["facts"]:
        raise FeedstockError(f"the products could not be counted: {found['text']}")
    return len(found["facts"]["at_import"])


def after_import(report):
    """What was there after an import as it is, under the first setting: threads, layer, kernels."""
    first = next(each for each in report["findings"] if each["check"] == "threads")
    if "checked" not in first["facts"]:
        raise FeedstockError(f"the threads could not be counted: {first['text']}")
    return first["facts"]["checked"]


def stacks(report):
    """The native stacks of the first hang, without the folders of this machine; empty without a hang."""
    return re.sub(r"\b(from|at) /\S*/", r"\1 ", report["stacks"])
