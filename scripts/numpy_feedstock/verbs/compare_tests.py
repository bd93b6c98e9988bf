"""compare-tests: numpy's own tests on the controls, compared with their results on the packages."""

import subprocess
import tempfile
import time
from pathlib import Path

from .. import figures, junit, options, package_tests, paths, prefix
from ..errors import FeedstockError
from ..output import tested
from ..progress import Progress
from ..record import RESULTS, beside, read_record
from ..specs import exactly

EPILOG = """\
examples:
  feedstock build --tests full         the packages' own results, beside each of them
  feedstock compare-tests                      the same tests on the controls
  feedstock compare-tests --blas mkl --json    one of them
  feedstock compare-tests --record             the README's table, anew

A failure that the control shares is the machine's; one that only the package has is ours.
"""


def configure_parser(parser):
    options.add_tested(parser)
    options.add_json(parser)
    options.add_record(parser)


def execute(args):
    """Run the verb; exit code 1 when a test fails on a package and not on its control. Raises FeedstockError."""
    packages = tested(args.numpy, args.blas, args.output)
    with Progress() as progress:
        rows = []
        for blas, path in packages.items():
            progress.subject = path.name
            rows.append({"blas": blas, **compare(path, progress.step)})
    result = {
        "host": figures.host(),
        "packages": {row["blas"]: row.pop("filename") for row in rows},
        "rows": rows,
    }
    if args.record:
        figures.record("suite", result)
    figures.show("suite", result, args.json)
    return 1 if any(row["only_package"] for row in rows) else 0


def compare(path, report):
    """What numpy's own tests say of a package and of its control, with the label of the package's record."""
    record = read_record(path)
    report(f"installing the control; its tests run with the label {record.label}")
    package = junit.outcomes(beside(path, RESULTS))
    started = time.monotonic()
    control = junit.outcomes(run_on_control(path, record.label, report))
    package_failed, control_failed = (
        {test for test, outcome in each.items() if outcome == "failed"}
        for each in (package, control)
    )
    return {
        "filename": path.name,
        "label": record.label,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "package": junit.count(package),
        "control": junit.count(control),
        "both": sorted(package_failed & control_failed),
        "only_package": sorted(package_failed - control_failed),
        "only_control": sorted(control_failed - package_failed),
        "otherwise": sorted(
            test for test in package.keys() & control.keys() if package[test] != control[test]
        ),
    }


def run_on_control(path, label, report):
    """Run the package's own test of numpy's tests in a prefix whose patch is undone; the Path of the results."""
    from rattler_build import Package

    test = (
        Package.from_file(path)
        .tests[package_tests.names(path).index(package_tests.NUMPY_TESTS)]
        .to_dict()
    )
    results = beside(paths.LOGS / path.name, "-control" + RESULTS)
    results.unlink(missing_ok=True)
    log = results.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:
        control = prefix.install(
            prefix.sources(path),
            [exactly(path), *test["requirements"]["run"]],
            Path(folder, "prefix"),
        )
        prefix.undo_patch(control)
        environment = {
            **prefix.activated(control),
            "NUMPY_TEST_LABEL": label,
            "NUMPY_TEST_RESULTS": str(results),
            "TMPDIR": folder,
        }
        report(f"testing; log: {log}")
        with open(log, "w") as stream:
            command = [control / "bin/python", "-c", "\n".join(test["script"]["content"])]
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
            f"numpy's own tests did not end on the control of {path.name} (exit code {ended.returncode})",
            log=log,
        )
    return results
