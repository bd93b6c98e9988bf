"""build: build the patched packages, test them, and put them into a channel."""

import argparse
import collections
import dataclasses
import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import options, paths, redact, variant
from ..building import bootstrap, dates, one_package, workspace
from ..building.one_package import BUILT, FAILED, UNFINISHED, Outcome, Settings, minutes_since
from ..channels import channel, channel_folder
from ..errors import FeedstockError, UsageError, refusal
from ..packages.record import Record, read_record
from ..progress import Progress
from ..tables import table
from ..variant import Variant

EPILOG = """\
examples:
  feedstock build                                  2.3.5, this Python, MKL 2025 and OpenBLAS
  feedstock build --blas mkl                       linked to MKL 2025, and linked to MKL 2026
  feedstock build --numpy 2.4.4 --blas mkl-2026    one variant
  feedstock build --python 3.12 --tests full       numpy's slow tests too
  feedstock build --channel conda-forge            never the bootstrap channel
  feedstock build --numpy all --python all --dry-run    the whole matrix, and what is there of it
  feedstock build --numpy all --python all         build it: hours
  feedstock build --dry-run --json                 what would be built, for a script

The whole matrix is each release on the first Python of conda_build_config.yaml, and each
release that is switched on there on every Python. Name a release or a Python to get more.
A package that fails does not stop the others. A full disk does. After it and after Ctrl-C the
table shows what is finished. The same command then goes on where it stopped: a finished package
is not built again. --dry-run calls a package unknown when its bootstrap channel is not made yet:
what that will hold decides whether the package is finished.
"""

# what --dry-run says: AGAIN for other inputs, other tests, or tests that failed
TO_BUILD, AGAIN, FINISHED, UNKNOWN = "to build", "to build again", "finished", "unknown"

# what the disk, the terminal or a pipe refuses would stop every other package, too
_STOPS_ALL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EPIPE}


@dataclass(frozen=True)
class Planned:
    """What --dry-run says about one package.

    sources : the channels that it would be built from
    there : whether a file of its name is in the output channel
    state : TO_BUILD, AGAIN, FINISHED, or UNKNOWN until the bootstrap channel is made
    problem : why this machine cannot build it, or ""
    """

    variant: str
    package: str
    sources: list[str]
    there: bool
    state: str
    problem: str


@dataclass(frozen=True)
class Sources:
    """Where --dry-run found that the packages for one Python come from.

    names : channels, that of the bootstrap channel's folder for "bootstrap"
    are_made : False when the bootstrap channel would be made first
    problem : why this machine cannot build from them, or ""
    """

    names: list[str]
    are_made: bool
    problem: str = ""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_numpy(parser, default=options.DEFAULT_RELEASE)
    options.add_python(parser, default="the running one")
    options.add_blas(parser, default="mkl-2025 and openblas")
    options.add_output(parser, "channel that the packages go to")
    options.add_channel(parser)
    options.add_jobs(parser, "compilers at a time (default: one per core)")
    parser.add_argument(
        "--tests",
        choices=("fast", "full"),
        default="fast",
        help="label of numpy's own tests (default: fast)",
    )
    options.add_dry_run(parser)
    options.add_json(parser)
    options.add_verbose(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; exit code 0. Raises FeedstockError."""
    # they would stop the first package
    workspace.check_path()
    dates.package_date()
    pythons = args.python or [variant.THIS_PYTHON]
    releases = args.numpy or [options.DEFAULT_RELEASE]
    platform = channel.this_platform()
    flavours = args.blas or variant.default_flavours(platform)
    wanted = variant.select(releases, pythons, flavours, platform)
    output = args.output.absolute()
    channel_folder.check_place(output)
    settings = Settings(channel.choose(args.channel), output, args.tests)
    if args.dry_run:
        print_plan(make_plan(wanted, settings), args.json)
        return 0
    channel_folder.check_writable(output)
    outcomes = build_and_print(wanted, settings, args)
    if failure := failure_of(outcomes):
        raise failure
    return 0


def build_and_print(
    wanted: Sequence[Variant], settings: Settings, args: argparse.Namespace
) -> list[Outcome]:
    """Build the packages, and print what became of them, also when the work is stopped.

    Raises what stopped it: Ctrl-C, a full disk, or a build that runs already.
    """
    outcomes: list[Outcome] = []
    started = time.monotonic()
    begun = False
    try:
        with (
            workspace.build_lock(args.jobs),
            Progress(stream=sys.stderr, verbose=args.verbose) as progress,
        ):
            begun = True
            for outcome in build_all(wanted, settings, progress):
                outcomes.append(outcome)
    except BaseException:
        if begun:
            outcomes += [Outcome(each, UNFINISHED) for each in wanted[len(outcomes) :]]
            print_result(outcomes, settings.output, minutes_since(started), args.json)
            if failure := failure_of(outcomes):
                print(f"feedstock: {failure}", file=sys.stderr)
        raise
    print_result(outcomes, settings.output, minutes_since(started), args.json)
    return outcomes


def make_plan(wanted: Sequence[Variant], settings: Settings) -> list[Planned]:
    """Return what would be done, in the order of the work."""
    pythons = {each.python for each in wanted}
    sources = {python: _look_for_sources(python, settings.names) for python in pythons}
    plan = []
    for each in wanted:
        path = settings.output / each.platform / each.filename
        found = sources[each.python]
        plan.append(
            Planned(
                variant=str(each),
                package=each.filename,
                sources=list(map(redact.argument, settings.names)),
                there=path.exists(),
                state=_planned_state(each, path, found, settings.label),
                problem=found.problem,
            )
        )
    return plan


def _look_for_sources(python: str, names: list[str]) -> Sources:
    """Return where the packages for a Python come from, without making the bootstrap channel."""
    if names != ["bootstrap"]:
        return Sources(names, are_made=True)
    folders = [str(bootstrap.folder_of(python))]
    try:
        bootstrap.check(python)
        return Sources(folders, bootstrap.is_made(python))
    except FeedstockError as error:
        return Sources(folders, are_made=False, problem=_first_line(error))


def _planned_state(wanted: Variant, path: Path, sources: Sources, label: str) -> str:
    known = read_record(path)
    if known is None:
        return TO_BUILD
    if not one_package.passed_tests(known, label) or not _is_from(known, sources.names):
        return AGAIN
    if not sources.are_made:
        return UNKNOWN
    if known.inputs == one_package.inputs_of(wanted, sources.names):
        return FINISHED
    return AGAIN


def _is_from(record: Record, names: Iterable[str]) -> bool:
    """Return whether a package is of these channels. An older record holds their passwords."""
    return list(map(redact.url, record.channels)) == list(map(channel.public_url, names))


def build_all(
    wanted: Sequence[Variant], settings: Settings, progress: Progress
) -> Iterator[Outcome]:
    """Build package after package. One that fails does not stop the others.

    Raises FeedstockError when the disk is too full for the next one. A full disk is mostly
    found by another program, whose error would fail each package by itself.
    """
    for number, each in enumerate(wanted, 1):
        progress.subject = str(each)
        if len(wanted) > 1:
            progress.subject = f"{number} of {len(wanted)}: {each}"
        workspace.check_disk(settings.output)
        yield try_one(each, settings, progress)


def try_one(wanted: Variant, settings: Settings, progress: Progress) -> Outcome:
    """Return what became of a package. Raises OSError when no other could be built either."""
    try:
        return one_package.build_one(wanted, settings, progress)
    except FeedstockError as raised:
        error = raised
    except subprocess.CalledProcessError as raised:
        # a program that was killed, as the compiler cache may be
        error = FeedstockError(str(raised), logs=paths.LOGS)
    except OSError as raised:
        if raised.errno in _STOPS_ALL:
            raise
        # a program that is missing, as dpkg may be
        error = FeedstockError(refusal(raised), logs=paths.LOGS)
    progress.step(f"FAILED: {error}")
    return Outcome(wanted, FAILED, error=error)


def failure_of(outcomes: Sequence[Outcome]) -> FeedstockError | None:
    """Return an error that names each package that failed; None without one.

    It is a UsageError when no package could be built because the machine lacks something.
    """
    failures = {str(each.wanted): each.error for each in outcomes if each.error}
    if not failures:
        return None
    kind = FeedstockError
    if len(failures) == len(outcomes):
        if all(isinstance(error, UsageError) for error in failures.values()):
            kind = UsageError
    return kind(
        f"packages failed: {len(failures)} of {len(outcomes)}; each is explained above",
        **{name: _first_line(error) for name, error in failures.items()},
        remedy="run the same command again: what is finished is not built again",
    )


def _first_line(error: FeedstockError) -> str:
    return str(error).splitlines()[0]


def print_plan(plan: list[Planned], as_json: bool) -> None:
    """Print what would be built, as JSON or as a table."""
    if as_json:
        print(json.dumps(list(map(asdict, plan)), indent=1))
        return
    rows = [
        {
            "": f"{number} of {len(plan)}",
            "variant": each.variant,
            "package": each.package,
            "state": each.state,
            "problem": each.problem,
        }
        for number, each in enumerate(plan, 1)
    ]
    print(table(rows))
    print(f"\nfrom: {', '.join(plan[0].sources)}")
    if any(each.state == UNKNOWN for each in plan):
        print(
            f"{UNKNOWN}: the bootstrap channel is made first; then it shows whether one is finished"
        )
    print(_counted("cannot be built here" if each.problem else each.state for each in plan))


def _counted(states: Iterable[str]) -> str:
    """Return how many packages there are of each state: "packages: 20 built, 4 failed"."""
    counts = collections.Counter(states)
    return "packages: " + ", ".join(f"{number} {state}" for state, number in counts.items())


def print_result(outcomes: list[Outcome], output: Path, minutes: float, as_json: bool) -> None:
    """Print the closing table, or JSON. It is on the screen before an error that follows.

    minutes : the duration of the whole command
    """
    if as_json:
        print(json.dumps(list(map(_json_row, outcomes)), indent=1), flush=True)
        return
    print(table(map(_table_row, outcomes)))
    print(f"\n{_counted(each.state for each in outcomes)}, in {minutes} min")
    print(f"channel: {output}")
    for each in outcomes:  # the format of `sha256sum --check`
        if each.record:
            print(f"{each.record.sha256}  {each.record.filename}")
    sys.stdout.flush()


def _json_row(outcome: Outcome) -> dict[str, object]:
    """Return a row with the same keys for each state. What a package lacks is null."""
    fields: dict[str, object] = {field.name: None for field in dataclasses.fields(Record)}
    if outcome.record:
        fields = asdict(outcome.record)
        fields["channels"] = list(map(redact.url, outcome.record.channels))
    error = None
    if outcome.error:
        error = str(outcome.error)
    return {
        **fields,
        "filename": outcome.wanted.filename,
        "variant": str(outcome.wanted),
        "state": outcome.state,
        "built": outcome.state == BUILT,
        "error": error,
    }


def _table_row(outcome: Outcome) -> dict[str, str | float]:
    record = outcome.record
    row: dict[str, str | float] = {"package": outcome.wanted.filename, "state": outcome.state}
    if record:
        row |= {
            "MB": f"{record.size / 1e6:.1f}",
            "glibc": f">={record.glibc_floor}",
            "tests": f"{sum(record.tests.values())}/{len(record.tests)} {record.label}",
            "numpy's tests": f"{record.numpy_tests['passed']:,} passed",
            "build min": record.build_minutes,
            "test min": record.test_minutes,
            "cache hits": f"{record.cache_hits}/{record.cache_hits + record.cache_misses}",
            "sha256": f"{record.sha256[:12]}...",
        }
    return row
