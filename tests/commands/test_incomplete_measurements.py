"""The verbs that measure: what fails is shown with its reason, and does not hide what was measured.

The packages are small ones. Their Python is a program that prints what the repro would find.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from helpers import small
from helpers.numpy_init import PATCHED, UNGATED
from numpy_feedstock import cli, files, paths, variant
from numpy_feedstock.channels import channel
from numpy_feedstock.errors import FeedstockError
from numpy_feedstock.measuring import figures, measurements, released, repro
from numpy_feedstock.packages.record import RESULTS, beside
from numpy_feedstock.verbs import scan_wheels

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
INIT = f"lib/python{MINOR}/site-packages/numpy/__init__.py"


def hang(main_late):
    facts = {"hangs": 0, "trials": 10, "crashes": []}
    return {"check": "hang", "setting": "x", "main_late": main_late, "text": "", "facts": facts}


AFTER = {"os_threads": 1, "max_threads": 2, "layer": "intel", "library": "libmkl", "kernels": ""}
REPORT = {
    "verdict": "FIXED",
    "reason": "",
    "stacks": "",
    "findings": [
        hang(False),
        hang(True),
        {"check": "calls", "text": "", "facts": {"at_import": [1, 2, 3]}},
        {"check": "threads", "text": "", "facts": {"checked": AFTER}},
    ],
}
PYTHON = f"""#!/bin/sh
BROKEN
echo '{json.dumps(REPORT)}'
"""
TESTS_YAML = """
- python: {imports: [numpy]}
- script: {content: f2py -h}
- script: {content: "true"}
- script: {content: "true"}
- script: {content: run the tests}
"""
XML = (
    '<testsuite><testcase classname="numpy.a" name="a"/>'
    '<testcase classname="numpy.a" name="b">OUTCOME</testcase></testsuite>'
)
# numpy's own tests, as the package's Python runs them
TESTED = f"""#!/bin/sh
BROKEN
echo '{XML.replace("OUTCOME", "")}' > "$NUMPY_TEST_RESULTS"
"""


@pytest.fixture(autouse=True)
def record(tmp_path, monkeypatch):
    """A package cache and a folder of recorded results for this test. Returns the folder."""
    monkeypatch.setattr(paths, "PACKAGE_CACHE", tmp_path / "cache")
    monkeypatch.setattr(measurements, "FOLDER", tmp_path / "evidence")
    monkeypatch.setattr(figures, "PAGES", ())
    return tmp_path / "evidence"


def contents(python=PYTHON, broken=""):
    """The files of a package. ``broken`` are lines of its Python's script."""
    return {
        "info/tests/tests.yaml": TESTS_YAML,
        "bin/python": python.replace("BROKEN", broken),
        INIT: PATCHED,
    }


def put_both(folder, mkl, openblas=None, **fields):
    """Put a package of each BLAS, and a compiler, into the channel folder/output."""
    flavours = {"mkl-2025": mkl, "openblas": openblas or contents()}
    for flavour, members in flavours.items():
        (wanted,) = variant.select(["2.3.5"], [MINOR], [flavour], channel.this_platform())
        path = small.put_whole(wanted, folder, members, **fields)
        beside(path, RESULTS).write_text(XML.replace("OUTCOME", ""))
    compiler = {"name": "gxx_linux-64", "version": "12", "build": "0", "build_number": 0}
    made = small.make(path.parent, 1, **compiler)
    entry = {**compiler, "depends": [], "sha256": files.sha256(made), "size": made.stat().st_size}
    small.add_to_index(path.parent, {made.name: entry})


def call(verb, folder, *options):
    flavours = ["--blas", "mkl-2025", "--blas", "openblas"]
    return [verb, *flavours, "--output", str(folder / "output"), *options]


def measure(capsys, *words):
    """The exit code of a command, the rows of its JSON, and its errors."""
    code = cli.main([*words, "--json"])
    shown = capsys.readouterr()
    return code, json.loads(shown.out)["rows"], shown.err


CELLS = ("--layer", "INTEL", "--layer", "GNU", "--threads", "2")


def test_one_cell_that_fails_does_not_hide_the_others(tmp_path, capsys, record):
    put_both(tmp_path, contents(broken='case "$*" in *=GNU*) echo why >&2; exit 3 ;; esac'))
    code, rows, said = measure(capsys, *call("hang-matrix", tmp_path, *CELLS))
    assert code == 1
    failed = {(row["layer"], row["kind"]): row["fault"] for row in rows if row["fault"]}
    assert failed.keys() == {("GNU", "package"), ("GNU", "control")}
    assert all("the repro ended with 3" in fault and "why" in fault for fault in failed.values())
    measured = [row for row in rows if not row["fault"]]
    assert [row["hangs_in_race"] for row in measured] == [[0, 10]] * 4
    assert "feedstock: not measured: 2 of 6; nothing is recorded\n" in said
    assert "mkl-2025 GNU 2 threads, glibc" in said and "Traceback" not in said
    # the table for a person, which is not recorded either
    assert cli.main([*call("hang-matrix", tmp_path, *CELLS), "--record", "hang-matrix"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if " GNU " in line]
    assert "FAILED" in line and "0 of 0" not in line
    assert "FAILED, FAILED" in line and not record.exists()


@pytest.mark.parametrize(
    ("members", "failed", "reason"),
    [
        (contents(broken="exit 3"), ("package", "control"), "the repro ended with 3"),
        (contents(broken="echo '{}'; exit"), ("package", "control"), "printed no result"),
        (contents(broken="kill -9 $$"), ("package", "control"), "the repro ended with -9"),
        (
            contents(broken=f"""echo '{json.dumps({**REPORT, "findings": []})}'; exit"""),
            ("package", "control"),
            "the repro says nothing about its check",
        ),
        ({**contents(), "bin/python": "no program"}, ("package", "control"), "cannot be started"),
        ({**contents(), INIT: UNGATED}, ("control",), "the patch could not be undone"),
        (
            {**contents(), "etc/conda/activate.d/x.sh": "false\n"},
            ("package", "control"),
            "cannot be activated",
        ),
    ],
)
def test_a_package_that_cannot_be_measured_does_not_hide_the_others(
    tmp_path, capsys, members, failed, reason
):
    put_both(tmp_path, members)
    words = call("hang-matrix", tmp_path, "--layer", "INTEL", "--threads", "2")
    code, rows, said = measure(capsys, *words)
    assert code == 1
    assert {row["kind"] for row in rows if row["fault"]} == set(failed)
    assert all(reason in row["fault"] for row in rows if row["fault"]), rows
    assert [row["fault"] for row in rows if row["blas"] == "openblas"] == ["", ""]
    assert "Traceback" not in said


def test_without_a_failure_it_is_recorded_and_done(tmp_path, capsys, record):
    put_both(tmp_path, contents())
    words = call("hang-matrix", tmp_path, *CELLS, "--record", "many-imports")
    code, rows, _ = measure(capsys, *words)
    assert code == 0 and not any(row["fault"] for row in rows)
    assert len(measurements.load("many-imports").rows) == len(rows) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_measured_before_an_interruption_is_shown(tmp_path, number):
    waits = f'case "$*" in *=GNU*) touch {tmp_path}/begun; exec sleep 600 ;; esac'
    put_both(tmp_path, contents(broken=waits))
    code = (
        "import sys; from numpy_feedstock import cli, paths;"
        "paths.PACKAGE_CACHE = paths.Path(sys.argv[1]); sys.exit(cli.main(sys.argv[2:]))"
    )
    words = [*call("hang-matrix", tmp_path, *CELLS), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "cache", *words],
        env={**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "begun").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted" in errors
    faults = {row["layer"]: row["fault"] for row in json.loads(output)["rows"]}
    assert (faults["INTEL"], faults["GNU"]) == ("", "not measured")


# --- compare-tests

TWO = {"numpy_tests": {"passed": 2, "failed": 0, "skipped": 0}}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (contents(TESTED, "exit 3"), "numpy's own tests did not end on the control"),
        (contents(TESTED, 'echo "<a" > "$NUMPY_TEST_RESULTS"; exit'), "cannot be read"),
        (contents(TESTED, 'echo "<a/>" > "$NUMPY_TEST_RESULTS"; exit'), "no test of numpy ran"),
        ({**contents(TESTED), INIT: UNGATED}, "the patch could not be undone"),
        ({**contents(TESTED), "bin/python": "no program"}, "did not end on the control"),
    ],
)
def test_a_control_that_cannot_be_tested_does_not_hide_the_others(
    tmp_path, capsys, record, members, reason
):
    put_both(tmp_path, members, contents(TESTED), **TWO)
    code, rows, said = measure(capsys, *call("compare-tests", tmp_path), "--record")
    assert code == 1 and not record.exists()
    mkl, openblas = rows
    assert reason in mkl["fault"] and mkl["control"] == {}
    assert openblas["fault"] == "" and openblas["control"] == TWO["numpy_tests"]
    assert "feedstock: not measured: 1 of 2; nothing is recorded\n" in said
    assert cli.main(call("compare-tests", tmp_path)) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert reason in line


def test_without_a_folder_for_temporary_files_each_row_says_so(tmp_path, capsys, monkeypatch):
    put_both(tmp_path, contents(TESTED), contents(TESTED), **TWO)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/folder"])
    code, rows, said = measure(capsys, *call("compare-tests", tmp_path))
    assert code == 1 and "Traceback" not in said
    for row in rows:
        assert "No usable temporary directory found in ['/no/such/folder']" in row["fault"]
        assert "remedy: set TMPDIR to a folder that can be written" in row["fault"]


def test_a_test_that_fails_only_on_a_package_is_found(tmp_path, capsys, record):
    put_both(tmp_path, contents(TESTED), contents(TESTED), **TWO)
    code, rows, _ = measure(capsys, *call("compare-tests", tmp_path), "--record")
    assert (code, [row["only_package"] for row in rows]) == (0, [[], []])
    assert len(measurements.load("compare-tests").rows) == 2
    for path in (tmp_path / "output").glob("*/numpy-*.conda"):
        beside(path, RESULTS).write_text(XML.replace("OUTCOME", "<failure/>"))
        small.write_record(path, numpy_tests={"passed": 1, "failed": 1, "skipped": 0})
    code, rows, _ = measure(capsys, *call("compare-tests", tmp_path))
    assert (code, [len(row["only_package"]) for row in rows]) == (1, [1, 1])


# --- scan-wheels


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Wheels that need no network. That of 2.4.0 cannot be had, and that of 2.4.1 does not run."""

    def unpack(release):
        if release == "2.4.0":
            raise FeedstockError("the wheel cannot be had")
        folder = tmp_path / release
        (folder / "numpy").mkdir(parents=True, exist_ok=True)
        (folder / "numpy" / "__init__.py").write_text(UNGATED)
        return folder

    async def run(command, args, environment):
        if environment["PYTHONPATH"].endswith("2.4.1"):
            raise FeedstockError("the repro ended with 3")
        return repro.Report(REPORT)

    monkeypatch.setattr(scan_wheels.bootstrap, "download_wheels", lambda *args: tmp_path)
    monkeypatch.setattr(released, "unpack_mkl", lambda folder: folder / "libmkl_rt.so")
    monkeypatch.setattr(released, "build_shim", lambda folder: folder / "shim.so")
    monkeypatch.setattr(released, "unpack_release", unpack)
    monkeypatch.setattr(repro, "run", run)


def test_a_release_that_cannot_be_measured_does_not_hide_the_others(wheels, capsys, record):
    releases = ["2.3.5", "2.4.0", "2.4.1"]
    code, rows, said = measure(capsys, "scan-wheels", *releases, "--record")
    assert code == 1 and not record.exists()
    assert [row["verdict"] for row in rows] == ["AFFECTED", "UNKNOWN", "UNKNOWN"]
    faults = ["", "the wheel cannot be had", "the repro ended with 3"]
    assert [row["fault"] for row in rows] == faults
    assert "feedstock: not measured: 2 of 3; nothing is recorded\n" in said
    assert cli.main(["scan-wheels", *releases]) == 1
    shown = capsys.readouterr().out
    assert shown.count("FAILED: ") == 2 and "FAILED: the wheel cannot be had" in shown
