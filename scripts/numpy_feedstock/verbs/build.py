"""build: the patched packages, built, tested, and put into a channel."""

import json
import os
import shutil
import sys
import time

from .. import (
    bootstrap,
    builder,
    canonical,
    channel,
    channel_folder,
    child,
    compiler_cache,
    files,
    git,
    junit,
    options,
    package_tests,
    paths,
    sdist,
    variant,
    workspace,
)
from ..errors import FeedstockError, UsageError
from ..progress import Progress
from ..record import RESULTS, Record, beside, inputs_digest, read_record
from ..specs import oldest_glibc

EPILOG = """\
examples:
  feedstock build                                  2.3.5, this Python, MKL 2025 and OpenBLAS
  feedstock build --blas mkl                       linked to MKL 2025, and linked to MKL 2026
  feedstock build --numpy 2.4.4 --blas mkl-2026    one variant
  feedstock build --python 3.12 --tests full       numpy's slow tests too
  feedstock build --channel conda-forge            never the bootstrap channel
  feedstock build --dry-run --json                 what would be built, for a script
"""


def configure_parser(parser):
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


def execute(args):
    """Run the verb; exit code 0. Raises FeedstockError."""
    from tabulate import tabulate

    if args.jobs is not None and args.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, found {args.jobs}")
    pythons = args.python or [f"{sys.version_info[0]}.{sys.version_info[1]}"]
    platform = channel.this_platform()
    releases = args.numpy or [options.DEFAULT_RELEASE]
    flavours = args.blas or variant.DEFAULT_FLAVOURS
    wanted = variant.select(releases, pythons, flavours, platform)
    output = args.output.absolute()
    if args.dry_run:
        names = channel.choose(args.channel)
        plan = [
            {
                "variant": str(v),
                "package": v.filename,
                "from": names,
                "there": (output / v.platform / v.filename).exists(),
            }
            for v in wanted
        ]
        print(json.dumps(plan, indent=1) if args.json else tabulate(plan, headers="keys"))
        return 0

    channel_folder.check_writable(output)
    names = channel.choose(args.channel)
    with workspace.alone(args.jobs), Progress(stream=sys.stderr, verbose=args.verbose) as progress:
        rows = [build_one(v, names, output, args.tests, progress) for v in wanted]
    report(rows, output, args.json)
    return 0


def build_one(wanted, names, output, label, progress):
    """Build, test and add one variant, unless it is there already; (Record, whether it was built)."""
    progress.subject = str(wanted)
    if names == ["bootstrap"]:
        names = [str(bootstrap.ensure(wanted.python, progress.step))]
    channels = [channel.url(name) for name in names]
    inputs = inputs_digest(
        wanted.filename, channels, bootstrap.made_from(names), os.environ.get("SOURCE_DATE_EPOCH")
    )

    finished = output / wanted.platform / wanted.filename
    record = read_record(finished)
    if record and record.inputs == inputs and record.passed and label in ("fast", record.label):
        progress.step("nothing changed since it was built and tested: nothing to do")
        return record, False

    archive = sdist.provide(wanted.source_url, wanted.version, wanted.sha256, progress.step)
    started = time.monotonic()
    log = workspace.new_log(wanted.filename, "build")
    progress.step(f"building; log: {log}")
    with compiler_cache.serve(progress.step) as counts:
        package, installed = child.run(
            builder.build_variant,
            wanted,
            archive,
            channels,
            paths.WORK,
            canonical.source_date(),
            log=log,
            say=progress.working,
        )
        hits, misses = counts()
    built = time.monotonic()

    results = beside(paths.LOGS / wanted.filename, RESULTS)
    tests = run_tests(package, channels, label, results, wanted, progress)
    if red := [name for name, passed in tests.items() if not passed]:
        raise FeedstockError(
            f"{wanted}: built, but failed its tests: {', '.join(red)}; not put into {output}",
            package=package,
            logs=paths.LOGS,
        )
    record = Record(
        filename=package.name,
        sha256=files.sha256(package),
        size=package.stat().st_size,
        blas=wanted.blas,
        glibc_floor=oldest_glibc(package),
        channels=channels,
        inputs=inputs,
        label=label,
        tests=tests,
        numpy_tests=junit.count(junit.outcomes(results)),
        build_minutes=round((built - started) / 60, 1),
        test_minutes=round((time.monotonic() - built) / 60, 1),
        cache_hits=hits,
        cache_misses=misses,
        commit=git.commit(),
        installed=installed,
    )
    # the record first: a package that is there has been tested, and can prove it
    record.write(finished)
    shutil.copyfile(results, beside(finished, RESULTS))
    channel_folder.add(package, output, wanted.platform)
    return record, True


def run_tests(package, channels, label, results, wanted, progress):
    """Every test of the package's test section, also after one that failed; {name: passed}.

    label : of numpy's own tests, "fast" or "full"
    results : Path of the file that receives theirs, as JUnit XML
    """
    results.unlink(missing_ok=True)
    os.environ.update(NUMPY_TEST_LABEL=label, NUMPY_TEST_RESULTS=str(results))
    passed = {}
    for index, name in enumerate(package_tests.names(package)):
        log = workspace.new_log(wanted.filename, f"test-{index}")
        progress.step(f"testing: {name}; log: {log}")
        passed[name], output = child.run(
            builder.run_test, str(package), index, channels, log=log, say=progress.working
        )
        if not passed[name]:
            progress.step(f"FAILED: {name}\n{output}")
    return passed


def report(rows, output, as_json):
    """The closing table, or JSON."""
    from tabulate import tabulate

    if as_json:
        print(json.dumps([{**vars(record), "built": built} for record, built in rows], indent=1))
        return
    table = [
        {
            "package": record.filename,
            "MB": f"{record.size / 1e6:.1f}",
            "blas": record.blas,
            "glibc": f">={record.glibc_floor}",
            "tests": f"{sum(record.tests.values())}/{len(record.tests)} {record.label}",
            "build min": record.build_minutes,
            "test min": record.test_minutes,
            "cache hits": f"{record.cache_hits}/{record.cache_hits + record.cache_misses}",
            "": "built" if built else "up to date",
        }
        for record, built in rows
    ]
    print(tabulate(table, headers="keys"))
    print(f"\nchannel: {output}")
    for record, _ in rows:  # as `sha256sum --check` reads it
        print(f"{record.sha256}  {record.filename}")
