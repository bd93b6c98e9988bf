"""The matrix: what is recorded of it, and how parts of it are put together."""

import dataclasses
import json

import pytest

from helpers import small
from helpers.command import feedstock
from numpy_feedstock import variant
from numpy_feedstock.measuring import figures, measurements
from numpy_feedstock.measuring.measurements import Matrix, MatrixRow
from numpy_feedstock.verbs import matrix

HOST = measurements.Host("2026-11-25", "a CPU", 2, "2.36", "6.1", "3.11.7")


def wanted():
    return variant.select(["all"], ["all"], variant.DEFAULT_FLAVOURS, "linux-64")


def test_the_record_has_every_package_of_the_matrix():
    rows = measurements.load("matrix").rows
    keys = {(row.numpy, row.python, row.blas) for row in rows}
    assert len(keys) == len(rows)
    assert {(v.version, v.python, v.flavour) for v in wanted()} <= keys


def test_no_recorded_package_has_a_red_test_or_a_control_that_is_not_red():
    for row in measurements.load("matrix").rows:
        assert row.tests[0] == row.tests[1], row.package
        assert row.numpy_tests.get("failed", 0) == 0, row.package
        expected = "AFFECTED" if row.blas.startswith("mkl") else "LATENT"
        assert row.control in ("", expected), row.package
        assert len(row.sha256) == 64 or not row.is_built, row.package


@pytest.fixture
def output(tmp_path):
    """An output channel with a tested package, a red one, and one whose bytes changed."""
    for each, fields in zip(
        wanted()[:3], [{}, {"tests": {"repro": False}}, {"sha256": "0" * 64}], strict=True
    ):
        small.put(each, tmp_path, **fields)
    return tmp_path / "output"


def test_a_package_counts_when_it_was_built_and_tested(output):
    done = feedstock("matrix", "--output", output, "--json", check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [row["package"] for row in rows] == [v.filename for v in wanted()]
    first, *others = rows
    assert (first["numpy"], first["python"], first["blas"]) == ("2.3.5", "3.11", "mkl-2025")
    assert first["tests"] == [2, 2] and first["numpy_tests"]["passed"] == 48_000
    assert first["commit"] == "c" * 40 and first["control"] == ""
    assert {row["sha256"] for row in others} == {""}


def test_what_is_not_built_is_shown_as_such(output):
    done = feedstock("matrix", "--output", output, check=True)
    assert done.stdout.count("not built yet") == 23
    assert "Packages built: 1 of 24. Minutes for building: 5, for testing: 2." in done.stdout
    assert "48,000 passed, 0 failed, 1,000 skipped" in done.stdout


def test_a_commit_with_changes_is_shown_as_such():
    row = built("2.3.5", commit="d" * 40 + "-dirty")
    assert "dddddddddddd-dirty |" in figures.render("matrix", Matrix(HOST, (row,)), "pipe")


def test_the_table_says_what_a_further_package_of_a_release_and_a_python_costs():
    rows = (
        built("2.3.5", build_minutes=0.6, cache_misses=30),
        built("2.3.5", build_minutes=4.0, cache_misses=250),
        built("2.4.4", build_minutes=6.0, cache_misses=250),
        built("2.4.4", "3.12", build_minutes=6.0, cache_misses=250),
        built("2.4.4", "3.12", build_minutes=0.8, cache_misses=40),
    )
    text = figures.render("matrix", Matrix(HOST, rows))
    assert "took 6.0 minutes to build, each further one 0.7 (medians)" in text
    assert "medians" not in figures.render("matrix", Matrix(HOST, rows[1:4]))


def built(numpy, python="3.11", **fields):
    """A row of a package that is built."""
    values = {"label": "fast", "sha256": "a" * 64, "numpy_tests": dict.fromkeys(KINDS, 1)}
    return MatrixRow(numpy, python, "openblas", f"numpy-{numpy}.conda", **{**values, **fields})


KINDS = ("passed", "failed", "skipped")


def merged(old, *new):
    return matrix.merge(Matrix(HOST, new), Matrix(HOST, tuple(old))).rows


def test_the_rows_of_an_earlier_record_stay():
    old = [built("2.3.5"), built("2.4.0")]
    other = built("2.4.0", sha256="b" * 64)
    assert merged(old, other) == (old[0], other)
    # a package that is gone was built all the same
    gone = MatrixRow("2.3.5", "3.11", "openblas", "numpy-2.3.5.conda")
    assert merged(old, gone) == tuple(old)


def test_a_row_that_was_not_built_is_replaced():
    old = MatrixRow("2.3.5", "3.11", "openblas", "numpy-2.3.5-old.conda")
    assert merged([old], built("2.3.5")) == (built("2.3.5"),)
    new = dataclasses.replace(old, package="numpy-2.3.5-new.conda")
    assert merged([old], new) == (new,)


def test_the_verdict_on_a_control_stays_with_the_bytes_that_it_is_about():
    old = built("2.3.5", control="LATENT")
    assert merged([old], built("2.3.5")) == (old,)
    assert merged([old], built("2.3.5", control="UNKNOWN")) == (old,)
    assert merged([old], built("2.3.5", control="FIXED"))[0].control == "FIXED"
    assert merged([old], built("2.3.5", sha256="b" * 64))[0].control == ""


def test_the_rows_are_in_the_order_of_the_work():
    rows = [built("2.4.4", "3.12"), built("2.3.5", "3.12"), built("2.4.4"), built("2.3.10")]
    assert merged(rows[:2], *rows[2:]) == (rows[3], rows[2], rows[1], rows[0])


def test_recording_a_part_keeps_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "PAGES", ())
    monkeypatch.setattr(measurements, "FOLDER", tmp_path)
    measurements.save("matrix", Matrix(HOST, (built("2.4.4"),)))
    result = Matrix(HOST, (built("2.3.5"),))
    figures.record("matrix", matrix.merge(result, measurements.load("matrix")))
    assert measurements.load("matrix").rows == (built("2.3.5"), built("2.4.4"))
