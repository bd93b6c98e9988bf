"""build: build the patched packages, test them, and put them into a channel."""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import child, files, git, options, paths, variant
from ..building import bootstrap, builder, compiler_cache, sdist, workspace
from ..channels import channel, channel_folder
from ..errors import FeedstockError, UsageError
from ..packages import canonical, junit, package_tests
from ..packages.record import RESULTS, Record, beside, inputs_digest, read_record
from ..packages.specs import oldest_glibc
from ..progress import Progress
from ..variant import Variant

EPILOG = """\
examples:
  feedstock build                                  2.3.5, this Python, MKL 2025 and OpenBLAS
  feedstock build --blas mkl                       linked to MKL 2025, and linked to MKL 2026
  feedstock build --numpy 2.4.4 --blas mkl-2026    one variant
  feedstock build --python 3.12 --tests full       numpy's slow tests too
  feedstock build --channel conda-forge            never the bootstrap channel
  feedstock build --dry-run --json                 what would be built, for a script
"""


@dataclass(frozen=True)
class Planned:
    """What --dry-run says about one package.

    sources : the channels that it would be built from
    """

    variant: str
    package: str
    sources: list[str]
    there: bool


@dataclass(frozen=True)
class Settings:
    """What a call of the verb says about every package.

    names : channels to build from, or ["bootstrap"]
    output : folder of the channel that the packages go to
    label : of numpy's own tests, "fast" or "full"
    """

    names: list[str]
    output: Path
    label: str


@dataclass(frozen=True)
class Compiled:
    """A package that was built and not tested yet."""

    path: Path
    installed: dict[str, str]
    minutes: float
    cache_hits: int
    cache_misses: int


@dataclass(frozen=True)
class Outcome:
    """The record of a package, and whether it was built now."""

    record: Record
    built: bool


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_numpy(parser, default=options.DEFAULT_RELEASE)
    options.add_python(parser, default="the running one")
    options.add_blas(parser)
    options.add_output(parser, "channel that the packages go to")
    options.add_channel(parser)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="compilers at a time (default: one per core)"
    )
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
    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, found {args.jobs}")
    pythons = args.python or [f"{sys.version_info[0]}.{sys.version_info[1]}"]
    releases = args.numpy or [options.DEFAULT_RELEASE]
    flavours = args.blas or variant.DEFAULT_FLAVOURS
    wanted = variant.select(releases, pythons, flavours, channel.this_platform())
    output = args.output.absolute()
    if args.dry_run:
        names = channel.choose(args.channel)
        print_plan([_planned(each, names, output) for each in wanted], args.json)
        return 0
    channel_folder.check_writable(output)
    settings = Settings(channel.choose(args.channel), output, args.tests)
    with (
        workspace.build_lock(args.jobs),
        Progress(stream=sys.stderr, verbose=args.verbose) as progress,
    ):
        outcomes = [build_one(each, settings, progress) for each in wanted]
    print_result(outcomes, output, args.json)
    return 0


def _planned(wanted: Variant, names: list[str], output: Path) -> Planned:
    there = (output / wanted.platform / wanted.filename).exists()
    return Planned(str(wanted), wanted.filename, names, there)


def build_one(wanted: Variant, settings: Settings, progress: Progress) -> Outcome:
    """Build, test and add one package, unless it is there already. Raises FeedstockError."""
    progress.subject = str(wanted)
    names = settings.names
    if names == ["bootstrap"]:
        names = [str(bootstrap.ensure(wanted.python, progress.step))]
    channels = [channel.url(name) for name in names]
    inputs = inputs_digest(
        wanted.filename, channels, bootstrap.made_from(names), os.environ.get("SOURCE_DATE_EPOCH")
    )
    finished = settings.output / wanted.platform / wanted.filename
    known = read_record(finished)
    if known and is_up_to_date(known, inputs, settings.label):
        progress.step("nothing changed since it was built and tested: nothing to do")
        return Outcome(known, built=False)

    compiled = compile_one(wanted, channels, progress)
    started = time.monotonic()
    results = beside(paths.LOGS / wanted.filename, RESULTS)
    tests = run_tests(compiled.path, channels, settings.label, results, progress)
    refuse_red(wanted, compiled.path, tests, settings.output)
    record = Record(
        filename=compiled.path.name,
        sha256=files.sha256(compiled.path),
        size=compiled.path.stat().st_size,
        blas=wanted.blas,
        glibc_floor=oldest_glibc(compiled.path),
        channels=channels,
        inputs=inputs,
        label=settings.label,
        tests=tests,
        numpy_tests=junit.count(junit.outcomes(results)),
        build_minutes=compiled.minutes,
        test_minutes=_minutes_since(started),
        cache_hits=compiled.cache_hits,
        cache_misses=compiled.cache_misses,
        commit=git.commit(),
        installed=compiled.installed,
    )
    # the record is written first: each package in the channel has one
    record.write(finished)
    shutil.copyfile(results, beside(finished, RESULTS))
    channel_folder.add(compiled.path, settings.output, wanted.platform)
    return Outcome(record, built=True)


def refuse_red(wanted: Variant, path: Path, tests: Mapping[str, bool], output: Path) -> None:
    """Raise FeedstockError when a test of the package failed."""
    red = [name for name, passed in tests.items() if not passed]
    if red:
        raise FeedstockError(
            f"{wanted}: built, but failed its tests: {', '.join(red)}; not put into {output}",
            package=path,
            logs=paths.LOGS,
        )


def is_up_to_date(record: Record, inputs: str, label: str) -> bool:
    """Return whether a package is of these inputs, and passed the tests of this label."""
    return record.inputs == inputs and record.passed and label in ("fast", record.label)


def compile_one(wanted: Variant, channels: list[str], progress: Progress) -> Compiled:
    """Build one package, without its tests. Raises FeedstockError."""
    source = sdist.provide(wanted.source_url, wanted.version, wanted.sha256, progress.step)
    started = time.monotonic()
    log = workspace.new_log(wanted.filename, "build")
    progress.step(f"building; log: {log}")
    with compiler_cache.serve(progress.step) as counts:
        path, installed = child.run(
            builder.build_variant,
            wanted,
            source,
            channels,
            paths.WORK,
            canonical.source_date(),
            log=log,
            say=progress.working,
        )
        hits, misses = counts()
    return Compiled(path, installed, _minutes_since(started), hits, misses)


def _minutes_since(started: float) -> float:
    return round((time.monotonic() - started) / 60, 1)


def run_tests(
    path: Path, channels: list[str], label: str, results: Path, progress: Progress
) -> dict[str, bool]:
    """Run every test of a package, also after a failed test. Returns {name: passed}.

    label : of numpy's own tests, "fast" or "full"
    results : receives the results of numpy's own tests, as JUnit XML
    """
    results.unlink(missing_ok=True)
    os.environ.update(NUMPY_TEST_LABEL=label, NUMPY_TEST_RESULTS=str(results))
    passed = {}
    for number, name in enumerate(package_tests.names(path)):
        log = workspace.new_log(path.name, f"test-{number}")
        progress.step(f"testing: {name}; log: {log}")
        passed[name], output = child.run(
            builder.run_test, str(path), number, channels, log=log, say=progress.working
        )
        if not passed[name]:
            progress.step(f"FAILED: {name}\n{output}")
    return passed


def print_plan(plan: list[Planned], as_json: bool) -> None:
    """Print what would be built, as JSON or as a table."""
    from tabulate import tabulate

    rows = list(map(asdict, plan))
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        print(tabulate(rows, headers="keys"))


def print_result(outcomes: list[Outcome], output: Path, as_json: bool) -> None:
    """Print the closing table, or JSON."""
    from tabulate import tabulate

    if as_json:
        rows = [{**asdict(each.record), "built": each.built} for each in outcomes]
        print(json.dumps(rows, indent=1))
        return
    print(tabulate(list(map(_table_row, outcomes)), headers="keys"))
    print(f"\nchannel: {output}")
    for each in outcomes:  # the format of `sha256sum --check`
        print(f"{each.record.sha256}  {each.record.filename}")


def _table_row(outcome: Outcome) -> dict[str, str | float]:
    record = outcome.record
    state = "built" if outcome.built else "up to date"
    return {
        "package": record.filename,
        "MB": f"{record.size / 1e6:.1f}",
        "blas": record.blas,
        "glibc": f">={record.glibc_floor}",
        "tests": f"{sum(record.tests.values())}/{len(record.tests)} {record.label}",
        "build min": record.build_minutes,
        "test min": record.test_minutes,
        "cache hits": f"{record.cache_hits}/{record.cache_hits + record.cache_misses}",
        "": state,
    }
