"""The matrix: what is recorded of it, and how parts of it are put together."""

import dataclasses
import functools
import json
import re

import pytest

from helpers import small
from helpers.command import feedstock
from numpy_feedstock import cli, variant
from numpy_feedstock.measuring import figures, measurements
from numpy_feedstock.measuring.measurements import Matrix
from numpy_feedstock.verbs import matrix

DAY = measurements.Host("2026-11-25", "a CPU", 2, "2.36", "6.1", "3.11.7")
NEXT_DAY = dataclasses.replace(DAY, date="2026-11-26")


@functools.cache
def wanted():
    """The packages of the matrix."""
    return variant.select(["all"], ["all"], variant.DEFAULT_FLAVOURS, "linux-64")


def test_the_record_has_the_packages_of_the_matrix_and_no_others():
    rows = measurements.load("matrix").rows
    assert [row.package for row in rows] == [each.filename for each in wanted()]


def test_each_recorded_package_is_green_and_of_a_commit_and_a_day():
    for row in measurements.load("matrix").rows:
        if not row.is_built:
            assert row == matrix.empty_row(each_by_name()[row.package])
            continue
        assert row.tests[0] == row.tests[1] > 0, row.package
        assert row.numpy_tests["failed"] == 0, row.package
        expected = "AFFECTED" if row.blas.startswith("mkl") else "LATENT"
        assert row.control in ("", expected), row.package
        assert re.fullmatch("[0-9a-f]{64}", row.sha256), row.package
        assert re.fullmatch("[0-9a-f]{40}", row.commit), row.package
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row.host.date), row.package


def each_by_name():
    return {each.filename: each for each in wanted()}


@pytest.fixture
def output(tmp_path):
    """An output channel with a tested package, a red one, and one whose bytes changed."""
    for each, fields in zip(
        wanted()[:3], [{}, {"tests": {"repro": False}}, {"sha256": "0" * 64}], strict=True
    ):
        small.put(each, tmp_path, **fields)
    return tmp_path / "output"


def test_a_package_counts_when_it_was_built_and_tested(output):
    hosts = [dataclasses.asdict(measurements.this_host())]
    done = feedstock("matrix", "--output", output, "--json")
    assert done.returncode == 1, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["package"] for row in rows] == [v.filename for v in wanted()]
    first, *others = rows
    assert (first["numpy"], first["python"], first["blas"]) == ("2.3.5", "3.11", "mkl-2025")
    assert first["tests"] == [2, 2] and first["numpy_tests"]["passed"] == 48_000
    assert first["commit"] == "c" * 40 and first["control"] == ""
    # a day may have begun meanwhile
    hosts.append(dataclasses.asdict(measurements.this_host()))
    assert first["host"] in hosts
    assert [(row["sha256"], row["host"]) for row in others] == [("", None)] * len(others)
    red, altered, *missing = [row["fault"] for row in others]
    assert (first["fault"], red, set(missing)) == ("", "red: repro", {""})
    assert altered == "altered: its record is of other bytes"


def test_what_is_not_built_is_shown_as_such(output):
    done = feedstock("matrix", "--output", output)
    number = len(wanted())
    assert done.stdout.count("not built yet") == number - 3
    assert done.stdout.count(" red: repro") == done.stdout.count(" altered: ") == 1
    assert f"Packages built: 1 of {number}. Minutes for building: 5, for testing: 2." in done.stdout
    assert "48,000 passed, 0 failed, 1,000 skipped" in done.stdout


def test_a_commit_with_changes_is_shown_as_such():
    row = built("2.3.5", commit="d" * 40 + "-dirty")
    assert "dddddddddddd-dirty |" in figures.render("matrix", Matrix((row,)), "pipe")


def test_the_table_says_what_a_further_package_of_a_release_and_a_python_costs():
    rows = (
        built("2.3.5", build_minutes=0.6, cache_misses=30),
        built("2.3.5", build_minutes=4.0, cache_misses=250),
        built("2.4.4", build_minutes=6.0, cache_misses=250),
        built("2.4.4", "3.12", build_minutes=6.0, cache_misses=250),
        built("2.4.4", "3.12", build_minutes=0.8, cache_misses=40),
    )
    text = figures.render("matrix", Matrix(rows))
    assert "took 6.0 minutes to build, each further one 0.7 (medians)" in text
    assert "medians" not in figures.render("matrix", Matrix(rows[1:4]))


def test_the_table_says_on_which_machine_and_from_when_to_when_it_was_recorded():
    other = dataclasses.replace(DAY, date="2026-11-29", cpu="another CPU")
    hosts = (NEXT_DAY, DAY, other, DAY)
    rows = tuple(built(host=host) for host in hosts)
    text = figures.render("matrix", Matrix((*rows, built(sha256="", host=None))))
    first = "a CPU, 2 cores, glibc 2.36, 2026-11-25 to 2026-11-26"
    assert text.endswith(f" Recorded: {first}; another CPU, 2 cores, glibc 2.36, 2026-11-29.")
    empty = Matrix(tuple(map(matrix.empty_row, wanted())))
    assert "Recorded" not in figures.render("matrix", empty)


def built(numpy="2.3.5", python="3.11", **fields):
    """A row of an OpenBLAS package that is built."""
    values = {
        "label": "fast",
        "sha256": "a" * 64,
        "commit": "c" * 40,
        "numpy_tests": {"passed": 1, "failed": 0, "skipped": 0},
        "host": DAY,
    }
    row = matrix.empty_row(openblas(numpy, python))
    return dataclasses.replace(row, **{**values, **fields})


@functools.cache
def openblas(numpy, python):
    (each,) = variant.select([numpy], [python], ["openblas"], "linux-64")
    return each


def merged(old, *new):
    """The rows that are recorded after a call whose rows are new, without the empty ones."""
    rows = matrix.merge(Matrix(new), Matrix(tuple(old)), wanted()).rows
    assert [row.package for row in rows] == [each.filename for each in wanted()]
    return [row for row in rows if row.is_built]


def test_the_rows_of_an_earlier_record_stay():
    old = [built("2.3.5"), built("2.4.0")]
    other = built("2.4.0", sha256="b" * 64)
    assert merged(old, other) == [old[0], other]
    # a package that is gone was built all the same
    gone = built(sha256="", host=None)
    assert merged(old, gone) == old


def test_rows_that_are_not_of_the_matrix_are_dropped():
    renamed = built(package="numpy-2.3.5-openblas_py311h0000000_99.conda")
    not_in_it = built("2.4.1", "3.12")
    kept = built("2.4.4")
    release = {"numpy": "2.2.6", "package": "numpy-2.2.6-openblas_py311h0000000_100.conda"}
    dropped = dataclasses.replace(kept, **release)
    assert merged([renamed, not_in_it, dropped, kept], not_in_it, renamed) == [kept]


def test_the_verdict_on_a_control_stays_with_the_bytes_that_it_is_about():
    old = built(control="LATENT")
    assert merged([old], built()) == [old]
    assert merged([old], built(control="UNKNOWN")) == [old]
    assert merged([old], built(control="FIXED"))[0].control == "FIXED"
    assert merged([old], built(sha256="b" * 64))[0].control == ""
    assert merged([built()], built(control="UNKNOWN"))[0].control == "UNKNOWN"


def test_a_row_keeps_its_day_until_something_in_it_is_new():
    old = built(control="LATENT")
    assert merged([old], built(host=NEXT_DAY)) == [old]
    assert merged([old], built(host=NEXT_DAY, control="LATENT")) == [old]
    for change in ({"sha256": "b" * 64}, {"control": "FIXED"}, {"build_minutes": 9.0}):
        assert merged([old], built(host=NEXT_DAY, **change))[0].host == NEXT_DAY
    assert merged([built()], built(host=NEXT_DAY, control="LATENT"))[0].host == NEXT_DAY


def test_the_rows_are_in_the_order_of_the_work():
    rows = [built("2.4.4", "3.12"), built("2.3.5", "3.12"), built("2.4.4"), built("2.3.5")]
    assert merged(rows[:2], *rows[2:]) == [rows[3], rows[2], rows[1], rows[0]]


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """No pages, and a record with one package."""
    monkeypatch.setattr(figures, "PAGES", ())
    monkeypatch.setattr(measurements, "FOLDER", tmp_path / "evidence")
    figures.record("matrix", Matrix((built("2.4.4"),)))


def test_recording_a_part_keeps_the_rest(pages):
    matrix.record(Matrix((built("2.3.5"),)))
    rows = measurements.load("matrix").rows
    assert [row for row in rows if row.is_built] == [built("2.3.5"), built("2.4.4")]
    assert len(rows) == len(wanted())


def test_a_package_that_is_not_in_the_matrix_is_named_and_not_recorded(pages, capsys):
    other = built("2.4.1", "3.12")
    matrix.record(Matrix((other, built("2.3.5"))))
    assert other.package not in [row.package for row in measurements.load("matrix").rows]
    said = capsys.readouterr().err
    assert said == f"not recorded, because it is not in the matrix: {other.package}\n"


@pytest.mark.parametrize("commit", ["d" * 40 + "-dirty", "", "d" * 12])
def test_a_package_whose_commit_is_not_known_is_not_recorded(pages, tmp_path, capsys, commit):
    first, second = wanted()[:2]
    small.put(first, tmp_path)
    small.put(second, tmp_path, commit=commit)
    before = measurements.load("matrix")
    command = ["matrix", "--output", str(tmp_path / "output")]
    assert cli.main([*command, "--record"]) == 2
    shown = capsys.readouterr()
    assert second.filename in shown.err and first.filename not in shown.err
    assert commit in shown.err and "commit the changes, remove" in shown.err
    assert (shown.out, measurements.load("matrix")) == ("", before)
    # it may be looked at all the same
    assert cli.main(command) == 0
