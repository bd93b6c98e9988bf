"""The record of a package: what counts as one, and what is said of a package without one."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from helpers import small
from helpers.users import UNPRIVILEGED
from numpy_feedstock import cli, paths, variant
from numpy_feedstock.channels import output
from numpy_feedstock.errors import UsageError
from numpy_feedstock.packages.record import (
    NOT_BUILT,
    RECORD,
    RESULTS,
    NotTested,
    beside,
    passed_record,
    read_record,
)

(MKL,) = variant.select(["2.3.5"], ["3.11"], ["mkl-2025"], "linux-64")
(OPENBLAS,) = variant.select(["2.3.5"], ["3.11"], ["openblas"], "linux-64")


@pytest.fixture
def package(tmp_path):
    return small.put(MKL, tmp_path)


def state(path):
    with pytest.raises(NotTested) as error:
        passed_record(path)
    assert error.value.exit_code == 1 and str(path) in str(error.value)
    return error.value.state


def test_the_record_of_a_good_package_is_read_as_it_was_written(package):
    record = passed_record(package)
    assert record.filename == package.name and record.passed
    before = beside(package, RECORD).read_text()
    record.write(package)
    assert beside(package, RECORD).read_text() == before


def change(package, **fields):
    path = beside(package, RECORD)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tests": [True]}, "tests has to be an object, and is [True]"),
        ({"tests": {"a": "yes"}}, "tests.a has to be true or false"),
        ({"tests": {"a": 1}}, "tests.a has to be true or false"),
        ({"tests": None}, "tests has to be an object"),
        ({"numpy_tests": {}}, "numpy_tests has to hold passed, failed, skipped"),
        ({"numpy_tests": None}, "numpy_tests has to be an object"),
        ({"numpy_tests": {"passed": 1.5, "failed": 0, "skipped": 0}}, "numpy_tests.passed"),
        ({"build_minutes": None}, "build_minutes has to be a number"),
        ({"build_minutes": True}, "build_minutes has to be a number"),
        ({"build_minutes": float("nan")}, "NaN is not a number of JSON"),
        ({"test_minutes": 10**400}, "test_minutes has to be a number"),
        ({"cache_hits": "3"}, "cache_hits has to be an integer"),
        ({"commit": None}, "commit has to be text"),
        ({"size": "x"}, "size has to be an integer"),
        ({"channels": "conda-forge"}, "channels has to be an array"),
        ({"channels": [5]}, "channels.0 has to be text"),
        ({"installed": {"python": 3}}, "installed.python has to be text"),
        ({"more": 1}, "unknown key: more"),
    ],
)
def test_a_record_of_other_types_is_broken(package, fields, reason):
    change(package, **fields)
    assert state(package).startswith("its record is broken: ") and reason in state(package)
    assert read_record(package) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "broken"),
        (b"[]", "the content has to be an object"),
        (b"{}", "missing key: filename"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "utf-8"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'{"build_minutes": 1e400}', "missing key"),
        (b" " * (17 << 20), "17,825,792 bytes"),
    ],
)
def test_a_file_that_is_no_record_is_broken(package, content, reason):
    beside(package, RECORD).write_bytes(content)
    found = state(package)
    assert found.startswith("its record is broken: ") and reason in found
    assert len(found) < 200


def test_an_endless_number_is_no_number(package):
    text = beside(package, RECORD).read_text()
    beside(package, RECORD).write_text(
        text.replace('"build_minutes": 4.6', '"build_minutes": 1e400')
    )
    assert "build_minutes has to be a number, and is inf" in state(package)


@pytest.mark.parametrize("which", ["package", "record"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(package, which, make):
    path = package if which == "package" else beside(package, RECORD)
    path.unlink()
    make(path)
    assert "not a regular file" in state(package)


def test_what_is_there_is_told_from_what_is_not(package):
    change(package, tests={"imports": True, "repro": False})
    assert state(package) == "red: repro"
    change(package, tests={})
    assert state(package) == "red: no test was run"
    small.write_record(package, filename=OPENBLAS.filename)
    assert state(package) == f"renamed: its record is of {OPENBLAS.filename}"
    small.write_record(package)
    content = package.read_bytes()
    package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert state(package) == "altered: its record is of other bytes"
    package.write_bytes(content + b"x")
    assert state(package) == "altered: its record is of other bytes"
    beside(package, RECORD).unlink()
    assert state(package) == "no record is beside it"
    package.unlink()
    assert state(package) == NOT_BUILT
    package.symlink_to("nowhere")
    assert state(package) == "unreadable: No such file or directory"
    package.unlink()
    package.write_bytes(content)
    assert state(package / "below") == "unreadable: Not a directory"


def test_a_package_under_another_name_does_not_count(package):
    other = package.with_name(OPENBLAS.filename)
    shutil.copy(package, other)
    shutil.copy(beside(package, RECORD), beside(other, RECORD))
    assert passed_record(package)
    assert state(other) == f"renamed: its record is of {package.name}"


def test_a_record_is_written_whole_or_not_at_all(package, monkeypatch):
    record = read_record(package)
    before = sorted(package.parent.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            record.write(package)
    assert read_record(package) == record and sorted(package.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["folder", "package", "record"])
def test_what_may_not_be_read_is_named(package, name):
    path = {"folder": package.parent, "package": package, "record": beside(package, RECORD)}[name]
    path.chmod(0)
    options = ["--numpy", "2.3.5", "--python", "3.11", "--blas", "mkl-2025", "--json"]
    command = [sys.executable, paths.ROOT / "scripts" / "feedstock", "matrix", *options]
    done = subprocess.run(
        [*UNPRIVILEGED, *command, "--output", package.parents[1]],
        capture_output=True,
        text=True,
    )
    path.chmod(0o755)
    assert done.returncode == 1, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    expected = {"record": "its record is unreadable: Permission denied"}
    assert row["fault"] == expected.get(name, "unreadable: Permission denied")


# What is chosen for a measurement.


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"tests": {"repro": False}}, "red: repro"),
        ({"sha256": "0" * 64}, "altered"),
        ({"filename": OPENBLAS.filename}, "renamed"),
    ],
)
def test_only_a_package_that_passed_is_measured(tmp_path, fields, found):
    here = variant.select(["2.3.5"], [f"3.{sys.version_info[1]}"], ["mkl-2025"], "linux-64")[0]
    small.put(here, tmp_path, **fields)
    with pytest.raises(UsageError, match="not built and tested yet") as error:
        output.tested("2.3.5", ["mkl"], tmp_path / "output")
    assert found in str(error.value)


@pytest.mark.parametrize("verb", ["hang-matrix", "compare-tests", "benchmark"])
def test_one_release_is_measured_at_a_time(verb, capsys, tmp_path):
    assert cli.main([verb, "--numpy", "all", "--output", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "--numpy takes one release here, found all" in shown.err and "2.4.4" in shown.err


# The results of numpy's own tests, which are beside a package too.


@pytest.fixture
def tested(tmp_path):
    here = variant.select(["2.3.5"], [f"3.{sys.version_info[1]}"], ["mkl-2025"], "linux-64")[0]
    path = small.put(here, tmp_path, numpy_tests={"passed": 1, "failed": 0, "skipped": 0})
    case = '<testcase classname="a" name="b"/>'
    beside(path, RESULTS).write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<testsuite/>", "0 passed"),
        ("<testsuite><testcase name='b'><failure/></testcase></testsuite>", "1 failed"),
        ("<a", "cannot be read"),
        ("", "cannot be read"),
        ('<?xml version="1.0" encoding="nothing"?><a/>', "cannot be read"),
        ("\0\xff", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_results_that_are_not_of_the_package_are_not_compared(tested, content, reason, capsys):
    results = beside(tested, RESULTS)
    results.unlink()
    if content is not None:
        results.write_text(content)
    args = ["compare-tests", "--blas", "mkl", "--output", str(tested.parents[1])]
    assert cli.main(args) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and str(results) in shown.err and reason in shown.err


def test_no_folder_is_needed_before_the_first_build(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "OUTPUT", tmp_path / "output")
    assert cli.main(["matrix", "--numpy", "2.3.5"]) == 0
    assert "not built yet" in capsys.readouterr().out
    for more in (["--controls"], ["--output", str(tmp_path / "typo")]):
        assert cli.main(["matrix", "--numpy", "2.3.5", *more]) == 2
        assert "no such folder" in capsys.readouterr().err
