"""compare-tests: run numpy's own tests on the controls, and compare with the packages' results."""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from .. import options, paths
from ..channels import prefix
from ..channels.output import tested
from ..errors import FeedstockError, UsageError, reason, refusal
from ..measuring import figures, measurements
from ..measuring.measurements import ComparedTests, TestsRow
from ..packages import junit, package_tests
from ..packages.record import RECORD, RESULTS, beside, read_record
from ..progress import Progress, Say

EPILOG = """\
examples:
  feedstock build --tests full                 the packages' own results, beside each of them
  feedstock compare-tests                      the same tests on the controls
  feedstock compare-tests --blas mkl --json    one of them
  feedstock compare-tests --record             make the table of docs/evidence.md again

The machine causes a failure that the control has as well. A failure that only the package
has is ours. A package whose control cannot be tested is shown as FAILED, and does not stop the
others. The exit code is 1 then, and nothing is recorded. After Ctrl-C the table shows what was
compared.
"""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_tested(parser)
    options.add_json(parser)
    options.add_record(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 1 if a test fails only on a package, else 0.

    Raises FeedstockError, also when a package could not be compared.
    """
    packages = tested(args.numpy, args.blas, args.output)
    for path in packages.values():
        check_results(path)
    if args.record:
        figures.check_pages()
    rows = [TestsRow(blas, fault="not compared") for blas in packages]
    try:
        with Progress() as progress:
            for number, (blas, path) in enumerate(packages.items()):
                progress.subject = path.name
                rows[number] = try_compare(blas, path, progress.step)
    finally:
        # also after Ctrl-C, because it took minutes
        result = ComparedTests(
            host=measurements.this_host(),
            packages={blas: path.name for blas, path in packages.items()},
            rows=tuple(rows),
        )
        figures.show("compare-tests", result, args.json)
    measurements.refuse_faults(rows)
    if args.record:
        figures.record("compare-tests", result)
    return int(any(row.only_package for row in rows))


def check_results(path: Path) -> None:
    """Raise FeedstockError unless the results beside a package are those of its record."""
    record = read_record(path)
    results = beside(path, RESULTS)
    found = junit.count(junit.outcomes(results))
    if record is None or found != record.numpy_tests or not found["passed"]:
        raise FeedstockError(
            f"the results of numpy's own tests are not those of the package: {results}",
            expected=record and _counts(record.numpy_tests),
            found=_counts(found),
            remedy=f"remove {beside(path, RECORD).name} there, and build the package again",
        )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {outcome}" for outcome, number in counts.items())


def try_compare(blas: str, path: Path, say: Say) -> TestsRow:
    """Return the row of a package. One that cannot be compared does not stop the others."""
    try:
        return compare(blas, path, say)
    except (FeedstockError, OSError) as error:
        say(f"FAILED: {reason(error)}")
        return TestsRow(blas, fault=reason(error))


def compare(blas: str, path: Path, say: Say) -> TestsRow:
    """Return the results of numpy's own tests on a package and on its control."""
    record = read_record(path)
    if record is None:
        raise UsageError(f"no record beside {path}", remedy="feedstock build")
    say(f"installing the control; its tests run with the label {record.label}")
    package = junit.outcomes(beside(path, RESULTS))
    started = time.monotonic()
    results = run_on_control(path, record.label, say)
    control = junit.outcomes(results)
    if not control:
        raise FeedstockError(f"no test of numpy ran on the control of {path.name}", found=results)
    minutes = round((time.monotonic() - started) / 60, 1)
    failed, control_failed = _failed(package), _failed(control)
    in_both = package.keys() & control.keys()
    otherwise = [test for test in in_both if package[test] != control[test]]
    return TestsRow(
        blas=blas,
        label=record.label,
        minutes=minutes,
        package=junit.count(package),
        control=junit.count(control),
        both=tuple(sorted(failed & control_failed)),
        only_package=tuple(sorted(failed - control_failed)),
        only_control=tuple(sorted(control_failed - failed)),
        otherwise=tuple(sorted(otherwise)),
    )


def _failed(outcomes: Mapping[str, str]) -> set[str]:
    return {test for test, outcome in outcomes.items() if outcome == "failed"}


def run_on_control(path: Path, label: str, say: Say) -> Path:
    """Run numpy's test suite on the unpatched control. Returns the path of the JUnit file.

    label : of numpy's tests, "fast" or "full"

    Raises FeedstockError when the tests do not end.
    """
    test = package_tests.script(path, package_tests.NUMPY_TESTS)
    results = beside(paths.LOGS / path.name, "-control" + RESULTS)
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    results.unlink(missing_ok=True)
    log = results.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix="compare-tests-") as folder:
        control = prefix.install_package(path, test.requirements, Path(folder, "prefix"))
        prefix.undo_patch(control)
        environment = {
            **prefix.activated(control),
            "NUMPY_TEST_LABEL": label,
            "NUMPY_TEST_RESULTS": str(results),
            "TMPDIR": folder,
        }
        say(f"testing; log: {log}")
        command = [str(control / "bin/python"), "-c", "\n".join(test.lines)]
        ended = _run(command, environment, folder, log)
    if not results.exists():
        raise FeedstockError(
            f"numpy's own tests did not end on the control of {path.name}", found=ended, log=log
        )
    return results


def _run(command: list[str], environment: Mapping[str, str], folder: str, log: Path) -> str:
    """Run a command in a folder, with its output in a log. Returns how it ended."""
    try:
        with open(log, "w") as stream:
            ended = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
            )
    except OSError as error:
        return refusal(error)
    return f"exit code {ended.returncode}"
