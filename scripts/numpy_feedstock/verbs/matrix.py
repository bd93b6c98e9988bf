"""matrix: show which packages of the matrix are built and tested, and test their controls."""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import options, variant
from ..channels import channel, prefix
from ..errors import FeedstockError
from ..measuring import figures, measurements, repro
from ..measuring.measurements import Matrix, MatrixRow
from ..packages import package_tests
from ..packages.record import read_record
from ..packages.specs import exactly
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
--record keeps the rows of an earlier record that this call does not make anew. So the matrix may
be recorded in parts.
"""

# what the repro says about a numpy that multiplies matrices at import, with MKL and with OpenBLAS
RED = ("AFFECTED", "LATENT")
# what it says, and what is said for it, when it could not be decided
UNKNOWN = "UNKNOWN"


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_numpy(parser, default="all")
    options.add_python(parser, default="all")
    options.add_blas(parser)
    options.add_output(parser, "channel that the packages are in")
    parser.add_argument(
        "--controls",
        action="store_true",
        help="install each package, undo its patch, and run the repro (about a minute each)",
    )
    options.add_json(parser)
    options.add_record(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 1 if a control was asked and is not red, else 0.

    Raises FeedstockError.
    """
    wanted = variant.select(
        args.numpy or [variant.ALL],
        args.python or [variant.ALL],
        args.blas or variant.DEFAULT_FLAVOURS,
        channel.this_platform(),
    )
    rows = [make_row(each, args.output) for each in wanted]
    if args.controls:
        rows = with_controls(rows, args.output)
    result = Matrix(measurements.this_host(), tuple(rows))
    if args.record:
        figures.record("matrix", merge(result, measurements.load("matrix")))
    figures.show("matrix", result, args.json)
    return int(any(row.control not in ("", *RED) for row in rows))


def make_row(wanted: Variant, output: Path) -> MatrixRow:
    """Return what the record of a package says, or a row that says that it is not built yet."""
    row = MatrixRow(wanted.version, wanted.python, wanted.flavour, wanted.filename)
    record = read_record(_path(row, output))
    if record is None or not record.passed:
        return row
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
    )


def _path(row: MatrixRow, output: Path) -> Path:
    return output / channel.this_platform() / row.package


def with_controls(rows: Sequence[MatrixRow], output: Path) -> list[MatrixRow]:
    """Return the rows with the repro's verdict on the control of each built package.

    A control that cannot be asked is UNKNOWN, and does not stop the others.
    """
    found = []
    with Progress() as progress:
        for number, row in enumerate(rows, 1):
            progress.subject = f"{number} of {len(rows)}: {row.package}"
            if row.is_built:
                row = replace(row, control=_control(_path(row, output), progress.step))
            found.append(row)
    return found


def _control(path: Path, say: Say) -> str:
    try:
        return judge_control(path, say)
    except FeedstockError as error:
        say(f"FAILED: {error}")
        return UNKNOWN


def judge_control(path: Path, say: Say) -> str:
    """Return the repro's verdict on a package whose patch is undone.

    It is "not red: ..." when the test of the package would pass on it. Raises FeedstockError.
    """
    test = package_tests.section(path, package_tests.REPRO)
    with tempfile.TemporaryDirectory(prefix="control-") as folder:
        say("installing the control")
        specs = [exactly(path), *test["requirements"]["run"]]
        control = prefix.install(prefix.sources(path), specs, Path(folder, "prefix"))
        prefix.undo_patch(control)
        say("running the repro on the control")
        # as the recipe runs it, so that its exit code is that of the package's test
        program = [str(control / "bin/python"), str(repro.PROGRAM)]
        # a shorter timeout than the package's test has, because each hang takes all of it
        command = [*program, "--strict", "--json", "--timeout", "10"]
        done = subprocess.run(
            command,
            cwd=folder,
            env={**prefix.activated(control), "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    report = repro.parse(done.returncode, done.stdout, done.stderr)
    say(f"the control is {report.summary}")
    if done.returncode != 1:
        return f"not red: {report.verdict}"
    return report.verdict


def merge(new: Matrix, old: Matrix) -> Matrix:
    """Return the rows of both results. Where both have a package, the new row counts.

    A package that is recorded stays when it is no longer there. So does the verdict on a
    control, when the new row is about the same bytes and has none.
    """
    rows = {_key(row): row for row in old.rows}
    for row in new.rows:
        known = rows.get(_key(row))
        if known and known.is_built and not row.is_built:
            continue
        if known and known.sha256 == row.sha256 and row.control in ("", UNKNOWN):
            row = replace(row, control=known.control)
        rows[_key(row)] = row
    return Matrix(new.host, tuple(sorted(rows.values(), key=_order)))


def _key(row: MatrixRow) -> tuple[str, ...]:
    return (row.numpy, row.python, row.blas)


def _order(row: MatrixRow) -> tuple[object, ...]:
    return (variant.numbers(row.python), variant.numbers(row.numpy), row.blas)
