"""scan-wheels: find the released numpys that multiply matrices at import, and hang with MKL."""

import argparse
import contextlib
import functools
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from audit_numpy import AFFECTED, FIXED, UNKNOWN, gate

from .. import options
from ..building import bootstrap, wheel
from ..errors import FeedstockError, UsageError
from ..measuring import figures, measurements, released, repro
from ..measuring.measurements import ReleaseRow, ScanOfWheels
from ..progress import Progress, Say
from ..variant import THIS_PYTHON

EPILOG = """\
examples:
  feedstock scan-wheels                     all known releases, from the last without the check
  feedstock scan-wheels 2.3.5 2.4.5         two of them
  feedstock scan-wheels --trials 60         look harder
  feedstock scan-wheels --record            make the table of docs/evidence.md again

The matrix product of the released wheels is replaced by MKL's. Half of the imports are in
the race. In the other half the race is decided: the main thread comes last to its kernel.
A release that cannot be measured is shown as FAILED, and does not stop the others. The exit
code is 1 then, and nothing is recorded. After Ctrl-C the table shows what was measured.
"""
# with these kernels the workers hang on any x86 CPU
_THREADS = ("--env", "MKL_NUM_THREADS=8", "--env", "MKL_DYNAMIC=FALSE")


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "release", nargs="*", metavar="RELEASE", help="numpy releases (default: all that are known)"
    )
    options.add_trials(parser, 8, "imports of each release inside dlopen")
    options.add_record(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; exit code 0. Raises FeedstockError, also when a release was not measured."""
    known = released.known()
    unknown = [release for release in args.release if release not in known]
    if unknown:
        raise UsageError(f"unknown numpy release: {', '.join(unknown)}", known=", ".join(known))
    released.check_platform()
    if args.record:
        figures.check_pages()
    started = time.monotonic()
    rows: list[ReleaseRow] = []
    try:
        with Progress() as progress:
            progress.subject = "scan-wheels"
            releases = args.release or list(known)
            measure_releases(releases, args.trials, args.timeout, progress.step, rows)
    finally:
        # also after Ctrl-C, because it took minutes
        seconds = round(time.monotonic() - started)
        result = ScanOfWheels(measurements.this_host(), seconds, tuple(rows))
        if rows:
            figures.show("scan-wheels", result, args.json)
    measurements.refuse_faults(rows)
    if args.record:
        figures.record("scan-wheels", result)
    return 0


def measure_releases(
    releases: Sequence[str], trials: int, timeout: float, say: Say, rows: list[ReleaseRow]
) -> None:
    """Add a row for each release.

    trials : imports of each release inside dlopen
    timeout : seconds; an import that takes longer counts as hung
    """
    args = ("--trials", trials, "--timeout", timeout, *_THREADS)
    with tempfile.TemporaryDirectory(prefix="scan-wheels-") as folder:
        mkl = released.unpack_mkl(
            bootstrap.download_wheels(bootstrap.SHARED_WHEELS, sys.executable, THIS_PYTHON, say)
        )
        for release in releases:
            # before the imports, which other work would disturb; an error comes again there
            with contextlib.suppress(FeedstockError, OSError):
                released.unpack_release(release)
        shim = released.build_shim(Path(folder))
        variables = {"LD_PRELOAD": str(shim), "RELEASED_MKL": str(mkl)}
        jobs = {}
        for number, release in enumerate(releases):
            jobs[number] = functools.partial(_measure, release, variables, args, say)
            rows.append(ReleaseRow(release, UNKNOWN, fault=repro.NOT_MEASURED))
        # a hung import uses no core, and load does not change a decided race
        repro.measure_all(rows, jobs, 3 * (os.cpu_count() or 1), say)


async def _measure(
    release: str, variables: Mapping[str, str], args: Sequence[object], say: Say
) -> ReleaseRow:
    """Return the row of one release. Raises FeedstockError."""
    folder = released.unpack_release(release)
    if folder is None:
        reason = f"no wheel for {wheel.TAG}"
        say(f"{release}: {UNKNOWN}: {reason}")
        return ReleaseRow(release, UNKNOWN, reason)
    report = await repro.run(
        [sys.executable, repro.PROGRAM],
        ["--check", "hang", "--check", "calls", *args],
        {**os.environ, **variables, "PYTHONPATH": str(folder)},
    )
    row = _row(release, gate((folder / "numpy" / "__init__.py").read_text()), report)
    say(f"{release}: {row.verdict}")
    return row


def _row(release: str, state: str, report: repro.Report) -> ReleaseRow:
    """Return what a report says about a release; ``state`` is audit_numpy.gate's word."""
    in_race = report.hangs(main_late=False)
    main_late = report.hangs(main_late=True)
    products = report.products()
    # MKL multiplies for each wheel here, so no verdict is LATENT
    verdict = AFFECTED if products + in_race[0] + main_late[0] else FIXED
    return ReleaseRow(
        release=release,
        verdict=verdict,
        has_check=state != "absent",
        gated=state == "gated",
        products=products,
        hangs_in_race=in_race,
        hangs_main_late=main_late,
        stacks=report.stacks(),
    )
