"""scan-wheels: which released numpys multiply matrices when imported, and hang inside dlopen with MKL."""

import os
import sys
import tempfile
import time

from audit_numpy import gate

from .. import bootstrap, figures, options, released, repro, wheel
from ..errors import FeedstockError, UsageError
from ..progress import Progress

EPILOG = """\
examples:
  feedstock scan-wheels                     every release from the last one without the check
  feedstock scan-wheels 2.3.5 2.4.5         two of them
  feedstock scan-wheels --trials 60         look harder
  feedstock scan-wheels --record            the README's table, anew

The released wheels' own product is replaced by MKL's. Half of the trials are plain,
in the other half the race is decided: the main thread comes last to its kernel.
"""
# where the workers are found to hang on any x86 CPU
_THREADS = ("--env", "MKL_NUM_THREADS=8", "--env", "MKL_DYNAMIC=FALSE")


def configure_parser(parser):
    parser.add_argument(
        "release", nargs="*", metavar="RELEASE", help="numpy releases (default: all that are known)"
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=8,
        metavar="N",
        help="imports of each release inside dlopen (default: 8)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=10,
        metavar="SECONDS",
        help="after which an import counts as hung (default: 10)",
    )
    options.add_record(parser)
    options.add_json(parser)


def execute(args):
    """Run the verb; exit code 0. Raises FeedstockError."""
    known = released.known()
    for release in args.release:
        if release not in known:
            raise UsageError(f"unknown numpy release: {release}", known=", ".join(known))
    if args.trials < 2 or not args.timeout > 0:
        raise UsageError(
            f"--trials must be 2 or more and --timeout above 0, found {args.trials} and {args.timeout:g}"
        )
    released.check_platform()
    with Progress() as progress:
        progress.subject = "bisect"
        result = examine(args.release or list(known), args.trials, args.timeout, progress.step)
    if args.record:
        figures.record("bisect", result)
    figures.show("bisect", result, args.json)
    return 0


def examine(releases, trials, timeout, report):
    """What `figures` keeps of a bisect: the host, the date, and a row for each release."""
    import asyncio

    started = time.monotonic()
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    mkl = released.unpack_mkl(bootstrap.download_wheels(sys.executable, python, report))
    folders = {release: released.unpack_release(release) for release in releases}
    with tempfile.TemporaryDirectory(prefix="bisect-") as folder:
        variables = {"LD_PRELOAD": str(released.build_shim(folder)), "RELEASED_MKL": str(mkl)}
        rows = asyncio.run(
            _examine_all(
                folders, variables, ("--trials", trials, "--timeout", timeout, *_THREADS), report
            )
        )
    return {"host": figures.host(), "seconds": round(time.monotonic() - started), "rows": rows}


async def _examine_all(folders, variables, args, report):
    # a hung import waits and needs no core, and where the race is decided, load decides nothing
    import asyncio

    places = asyncio.Semaphore(3 * os.cpu_count())

    async def examine_one(release, folder):
        async with places:
            row = await _row(release, folder, variables, args)
        report(f"{release}: {row['verdict']}")
        return row

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(examine_one(*item)) for item in folders.items()]
    except* FeedstockError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _row(release, folder, variables, args):
    if folder is None:
        return {"release": release, "verdict": f"no wheel for {wheel.TAG}"}
    state = gate((folder / "numpy" / "__init__.py").read_text())
    environment = {**os.environ, **variables, "PYTHONPATH": str(folder)}
    checks = ("--check", "hang", "--check", "calls")
    report = await repro.examine(
        [sys.executable, repro.PROGRAM], *checks, *args, environment=environment
    )
    calls, plain, decided = (
        repro.calls(report),
        repro.hangs(report, late=False),
        repro.hangs(report, late=True),
    )
    verdict = "hangs" if plain[0] + decided[0] else "multiplies at import" if calls else "ok"
    return {
        "release": release,
        "check": state != "absent",
        "gated": state == "gated",
        "calls": calls,
        "plain": plain,
        "decided": decided,
        "verdict": verdict,
        "stacks": repro.stacks(report),
    }
