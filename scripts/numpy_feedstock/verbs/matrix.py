"""matrix: show which packages of the matrix are built and tested, and test their controls."""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import options, paths, variant
from ..channels import channel, prefix
from ..errors import FeedstockError, UsageError, reason
from ..measuring import figures, measurements, repro
from ..measuring.measurements import Matrix, MatrixRow
from ..packages import package_tests
from ..packages.record import NOT_BUILT, NotTested, passed_record
from ..progress import Progress, Say
from ..variant import Variant

EPILOG = """\
examples:
  feedstock build --numpy all --python all     build the matrix
  feedstock matrix                             what is built of it
  feedstock matrix --controls                  and does the repro find each control affected?
  feedstock matrix --controls --record         make the table of docs/matrix.md again
  feedstock matrix --numpy 2.4.4 --python 3.12 --json

The matrix is each release on the first Python of conda_build_config.yaml, and each release that
is switched on there on every Python, for one flavour of each BLAS. A control is a package whose
patch is undone after the installation: the repro in the package's own tests has to fail on it.
It has to say AFFECTED with MKL, and LATENT with OpenBLAS; another verdict is exit code 1.
So is a package that is there and does not count as built: one with a red test, without a record,
or with other bytes than its record says. The table names the reason, and nothing is recorded.
--record keeps the rows of an earlier record that this call does not make anew. So the matrix may
be recorded in parts. It drops the rows whose package is not in the matrix any more, and refuses
packages that were built from files that are in no commit.
"""

# whose matrix docs/matrix.md shows
RECORDED_PLATFORM = "linux-64"

# what the repro says, and what is said for it, when it could not be decided
UNKNOWN = "UNKNOWN"


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_numpy(parser, default="all")
    options.add_python(parser, default="all")
    options.add_blas(parser, default="mkl-2025 and openblas")
    options.add_output(parser, "channel that the packages are in")
    parser.add_argument(
        "--controls",
        action="store_true",
        help="install each package, undo its patch, and run the repro (about a minute each)",
    )
    options.add_json(parser)
    options.add_record(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 1 if it found a fault, or could ask no control; else 0.

    Raises FeedstockError.
    """
    platform = channel.this_platform()
    wanted = variant.select(
        args.numpy or [variant.ALL],
        args.python or [variant.ALL],
        args.blas or variant.default_flavours(platform),
        platform,
    )
    check_folder(args.output, args.controls)
    if args.record:
        # found before the controls take their time
        figures.check_pages()
        measurements.load("matrix")
    rows = [make_row(each, args.output) for each in wanted]
    if args.record:
        refuse_faults(rows)
        refuse_unknown_commits(rows, args.output)
    try:
        if args.controls:
            ask_controls(rows, args.output)
    finally:
        # also after Ctrl-C, because each verdict took minutes
        figures.show("matrix", Matrix(tuple(rows)), args.json)
    if args.record:
        record(Matrix(tuple(rows)))
    if args.controls and not any(row.is_built for row in rows):
        print(f"no control was asked: no package is built in {args.output}", file=sys.stderr)
        return 1
    return int(any(row.fault or row.control not in ("", expected_verdict(row)) for row in rows))


def check_folder(output: Path, needed: bool) -> None:
    """Raise UsageError when the channel is not there.

    needed : also refuse the default folder, which is not there before the first build
    """
    if not output.is_dir() and (needed or output != paths.OUTPUT):
        raise UsageError(
            f"no such folder: {output}",
            remedy="name the channel that `feedstock build` filled with --output",
        )


def make_row(wanted: Variant, output: Path) -> MatrixRow:
    """Return what the record of a package says, or a row that says why it does not count."""
    row = empty_row(wanted)
    try:
        record = passed_record(_path(row, output))
    except NotTested as error:
        return row if error.state == NOT_BUILT else replace(row, fault=error.state)
    return replace(
        row,
        label=record.label,
        tests=(sum(record.tests.values()), len(record.tests)),
        numpy_tests=record.numpy_tests,
        build_minutes=record.build_minutes,
        test_minutes=record.test_minutes,
        cache_hits=record.cache_hits,
        cache_misses=record.cache_misses,
        sha256=record.sha256,
        commit=record.commit,
        host=measurements.this_host(),
    )


def empty_row(wanted: Variant) -> MatrixRow:
    """Return the row of a package that is not built yet."""
    return MatrixRow(wanted.version, wanted.python, wanted.flavour, wanted.filename)


def _path(row: MatrixRow, output: Path) -> Path:
    return output / channel.this_platform() / row.package


def ask_controls(rows: list[MatrixRow], output: Path) -> None:
    """Put the repro's verdict on the control of each built package into its row.

    A control that cannot be asked is UNKNOWN, and does not stop the others.
    """
    with Progress() as progress:
        for number, row in enumerate(rows):
            progress.subject = f"{number + 1} of {len(rows)}: {row.package}"
            if row.is_built:
                rows[number] = replace(row, control=_control(row, output, progress.step))


def expected_verdict(row: MatrixRow) -> str:
    """Return what the repro has to say about the control of a package."""
    return repro.VERDICTS_ON_CONTROLS[row.blas.split("-")[0]]


def _control(row: MatrixRow, output: Path, say: Say) -> str:
    try:
        report = judge_control(_path(row, output), say)
    except (FeedstockError, OSError) as error:
        say(f"FAILED: {reason(error)}")
        return UNKNOWN
    say(f"the control is {report.summary}")
    if report.verdict != expected_verdict(row):
        say(f"FAILED: the control has to be {expected_verdict(row)}")
    return report.verdict


def judge_control(path: Path, say: Say) -> repro.Report:
    """Return what the repro in a package's tests says when the patch is undone.

    Raises FeedstockError.
    """
    import asyncio

    test = package_tests.script(path, package_tests.REPRO)
    with tempfile.TemporaryDirectory(prefix="control-") as folder:
        say("installing the control")
        control = prefix.install_package(path, test.requirements, Path(folder, "prefix"))
        prefix.undo_patch(control)
        say("running the repro on the control")
        command = repro_command(test, control)
        environment = {**prefix.activated(control), "TMPDIR": folder}
        # a shorter timeout than the package's test has, because each hang takes all of it
        return asyncio.run(repro.run(command, ["--timeout", 10], environment))


def repro_command(test: package_tests.Script, control: Path) -> list[str | Path]:
    """Return the command of a package's test for its control. Raises FeedstockError.

    It is "python repro/repro.py --strict": the files are the package's own.
    """
    line = "\n".join(test.lines)
    words = line.split()
    if len(words) < 2 or words[0] != "python":
        raise FeedstockError(
            "the package's own test does not run the repro",
            expected="python repro/repro.py --strict",
            found=line,
        )
    return [control / "bin/python", control / test.cwd / words[1], *words[2:]]


def refuse_faults(rows: Sequence[MatrixRow]) -> None:
    """Raise FeedstockError when a package is there that does not count as built and tested.

    An earlier row of it would stay in the record, and praise what is not there any more.
    """
    faults = {row.package: row.fault for row in rows if row.fault}
    if faults:
        raise FeedstockError(
            f"packages cannot be recorded: {len(faults)} of {len(rows)}",
            expected="each that is there passed its tests",
            **faults,
            remedy="build them again, or name the others with --numpy, --python and --blas",
        )


def refuse_unknown_commits(rows: Sequence[MatrixRow], output: Path) -> None:
    """Raise UsageError when no commit holds what a package was built from.

    output : the channel, for the message
    """
    unknown = {}
    for row in rows:
        if row.is_built and not re.fullmatch("[0-9a-f]{40}", row.commit):
            unknown[row.package] = row.commit or "no commit"
    if unknown:
        raise UsageError(
            f"packages cannot be recorded: {len(unknown)} of {len(rows)}",
            expected="each was built from a commit, and no file differed from it",
            **unknown,
            remedy=f"commit the changes, remove these packages from {output}, and build again. "
            "git status --ignored shows what is in no commit",
        )


def record(result: Matrix) -> None:
    """Keep the rows of the matrix as its record, and say which rows are not of the matrix."""
    flavours = variant.DEFAULT_FLAVOURS
    wanted = variant.select([variant.ALL], [variant.ALL], flavours, RECORDED_PLATFORM)
    filenames = {each.filename for each in wanted}
    for row in result.rows:
        if row.package not in filenames:
            print(f"not recorded, because it is not in the matrix: {row.package}", file=sys.stderr)
    figures.record("matrix", result, lambda new, old: merge(new, old, wanted))


def merge(new: Matrix, old: Matrix, wanted: Sequence[Variant]) -> Matrix:
    """Return the rows of both results for the wanted packages, in their order.

    Where both have a package, the new row counts. A package that is recorded stays when it is
    no longer there. So does the verdict on a control, when the new row is about the same bytes
    and has none.
    """
    new_rows = {row.package: row for row in new.rows}
    old_rows = {row.package: row for row in old.rows}
    rows = []
    for each in wanted:
        empty = empty_row(each)
        name = each.filename
        rows.append(_newer(new_rows.get(name, empty), old_rows.get(name, empty)))
    return Matrix(tuple(rows))


def _newer(new: MatrixRow, old: MatrixRow) -> MatrixRow:
    """Return the row that counts of two rows about one package."""
    if not new.is_built:
        return old
    if new.sha256 != old.sha256:
        return new
    if old.control and new.control in ("", UNKNOWN):
        new = replace(new, control=old.control)
    if replace(new, host=old.host) == old:
        return old  # nothing in it is new: it keeps its day
    return new
