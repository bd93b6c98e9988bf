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
from ..errors import FeedstockError, UsageError
from ..measuring import figures, measurements
from ..measuring.measurements import ComparedTests, TestsRow
from ..packages import junit, package_tests
from ..packages.record import RESULTS, beside, read_record
from ..packages.specs import exactly
from ..progress import Progress, Say

EPILOG = """\
examples:
  feedstock build --tests full                 the packages' own results, beside each of them
  feedstock compare-tests                      the same tests on the controls
  feedstock compare-tests --blas mkl --json    one of them
  feedstock compare-tests --record             make the table of docs/evidence.md again

The machine causes a failure that the control has as well. A failure that only the package
has is ours.
"""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_tested(parser)
    options.add_json(parser)
    options.add_record(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 1 if a test fails only on a package, else 0. Raises FeedstockError."""
    packages = tested(args.numpy, args.blas, args.output)
    rows = []
    with Progress() as progress:
        for blas, path in packages.items():
            progress.subject = path.name
            rows.append(compare(blas, path, progress.step))
    result = ComparedTests(
        host=measurements.this_host(),
        packages={blas: path.name for blas, path in packages.items()},
        rows=tuple(rows),
    )
    if args.record:
        figures.record("compare-tests", result)
    figures.show("compare-tests", result, args.json)
    return int(any(row.only_package for row in rows))


def compare(blas: str, path: Path, say: Say) -> TestsRow:
    """Return the results of numpy's own tests on a package and on its control."""
    record = read_record(path)
    if record is None:
        raise UsageError(f"no record beside {path}", remedy="feedstock build")
    say(f"installing the control; its tests run with the label {record.label}")
    package = junit.outcomes(beside(path, RESULTS))
    started = time.monotonic()
    control = junit.outcomes(run_on_control(path, record.label, say))
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
    test = package_tests.section(path, package_tests.NUMPY_TESTS)
    results = beside(paths.LOGS / path.name, "-control" + RESULTS)
    results.unlink(missing_ok=True)
    log = results.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix="compare-tests-") as folder:
        specs = [exactly(path), *test["requirements"]["run"]]
        control = prefix.install(prefix.sources(path), specs, Path(folder, "prefix"))
        prefix.undo_patch(control)
        environment = {
            **prefix.activated(control),
            "NUMPY_TEST_LABEL": label,
            "NUMPY_TEST_RESULTS": str(results),
            "TMPDIR": folder,
        }
        say(f"testing; log: {log}")
        code = "\n".join(test["script"]["content"])
        command = [str(control / "bin/python"), "-c", code]
        with open(log, "w") as stream:
            ended = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
            )
    if not results.exists():
        raise FeedstockError(
            f"numpy's own tests did not end on the control of {path.name}",
            found=f"exit code {ended.returncode}",
            log=log,
        )
    return results
