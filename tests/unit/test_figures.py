"""The figures of the pages are those of the results in tests/evidence, and no others."""

import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from numpy_feedstock import json_files, paths, tables
from numpy_feedstock.errors import FeedstockError, UsageError
from numpy_feedstock.measuring import figures, hang_plot, measurements

# below it the page has what was seen once, by hand, and says so
BY_HAND = "## Seen by hand, outside of the tests"
PASTED = [(page, block) for page in figures.PAGES for block in figures.blocks(page.read_text())]
# What only a measurement can tell. "About 20 minutes" is no figure: it helps to plan a day.
FIGURE = re.compile(
    r"(?<!about )(?<![\d.,])\d[\d.,]*\s?"
    r"(%|seconds\b|minutes\b|min\b|ms\b|MB\b|GB\b|hangs\b|trials\b|passed\b"
    r"|of \d+ (imports|trials)\b)"
)


def outdated(text):
    """Names of the blocks of a page that differ from the last result."""
    found = figures.blocks(text)
    return [block for block, content in found.items() if content != figures.pasted(block)]


@pytest.mark.parametrize("page", figures.PAGES, ids=lambda page: page.name)
def test_the_blocks_are_what_the_last_results_say(page):
    assert outdated(page.read_text()) == []


@pytest.mark.parametrize(("page", "block"), PASTED, ids=lambda value: getattr(value, "name", value))
def test_a_changed_figure_is_found(page, block):
    before = figures.blocks(page.read_text())[block]
    digit = re.search(r"\d", before)
    after = before[: digit.start()] + str((int(digit[0]) + 1) % 10) + before[digit.end() :]
    mark = f"<!-- {block} -->\n"
    assert outdated(page.read_text().replace(mark + before, mark + after)) == [block]


def test_every_block_is_on_a_page():
    assert {block for _, block in PASTED} == set(figures.BLOCKS)


@pytest.mark.parametrize("page", figures.PAGES, ids=lambda page: page.name)
def test_there_is_no_figure_outside_the_blocks(page):
    text, _, _ = page.read_text().partition(BY_HAND)
    for content in figures.blocks(text).values():
        text = text.replace(content, "")
    assert not FIGURE.search(text), FIGURE.search(text)


def test_the_table_of_the_readme_has_at_most_eight_rows():
    rows = [line for line in figures.pasted("hangs").splitlines() if line.startswith("|")]
    assert len(rows) - 2 <= 8


@pytest.mark.parametrize(
    "path", sorted(measurements.FOLDER.glob("*.json")), ids=lambda path: path.stem
)
def test_a_result_names_no_folder_of_the_machine(path):
    assert not re.search(r"(?<![\w.])/(tmp|root|home|work|usr|opt)/", path.read_text())


@pytest.mark.parametrize("name", measurements.KINDS)
def test_a_result_is_read_as_it_was_written(name):
    result = measurements.load(name)
    assert json_files.parse(result.as_json(), type(result)) == result
    assert all(dataclasses.is_dataclass(row) for row in result.rows)


@pytest.mark.parametrize("old", ["", "old\n"])
def test_recording_puts_the_result_into_the_pages(old, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    monkeypatch.setattr(figures, "PAGES", (page,))
    monkeypatch.setattr(measurements, "FOLDER", tmp_path / "evidence")
    page.write_text(f"before\n<!-- scan-wheels -->\n{old}<!-- /scan-wheels -->\nafter\n")
    row = measurements.ReleaseRow("9.9", "UNKNOWN", "no wheel for cp99")
    result = measurements.ScanOfWheels(measurements.this_host(), 1, (row,))
    figures.record("scan-wheels", result)
    assert measurements.load("scan-wheels") == result
    text = page.read_text()
    assert text.count("no wheel for cp99") == 1 and "old" not in text
    assert text.startswith("before\n<!-- scan-wheels -->\n")
    assert text.endswith("<!-- /scan-wheels -->\nafter\n")


# A result is recorded whole or not at all.


@pytest.fixture
def one_page(tmp_path, monkeypatch):
    """A page with the figure of the matrix, and the record that it shows. Returns the page."""
    page = tmp_path / "matrix.md"
    page.write_text(f"before\n<!-- matrix -->\n{figures.pasted('matrix')}<!-- /matrix -->\n")
    kept = tmp_path / "evidence"
    shutil.copytree(measurements.FOLDER, kept)
    monkeypatch.setattr(figures, "PAGES", (page,))
    monkeypatch.setattr(measurements, "FOLDER", kept)
    return page


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed_matrix():
    result = measurements.load("matrix")
    return dataclasses.replace(
        result, rows=tuple(dataclasses.replace(row, control="FIXED") for row in result.rows)
    )


def test_a_recorded_result_is_in_the_file_and_on_the_page(one_page):
    figures.record("matrix", changed_matrix())
    assert measurements.load("matrix") == changed_matrix()
    assert "FIXED" in one_page.read_text() and "AFFECTED" not in one_page.read_text()


PAGES_THAT_CANNOT_HOLD_IT = {
    "no permission": lambda page: page.chmod(0o444),
    "No such file": lambda page: page.unlink(),
    "utf-8": lambda page: page.write_bytes(b"\xff"),
    "zork": lambda page: page.write_text("<!-- zork -->\n<!-- /zork -->\n"),
}


@pytest.mark.parametrize("reason", PAGES_THAT_CANNOT_HOLD_IT)
def test_a_page_that_cannot_hold_a_result_is_found_before_anything_is_written(
    reason, one_page, monkeypatch
):
    PAGES_THAT_CANNOT_HOLD_IT[reason](one_page)
    if reason == "no permission":  # root has every permission
        monkeypatch.setattr(figures.os, "access", lambda path, mode: path.stat().st_mode & 0o200)
    result, before = changed_matrix(), content_of(one_page.parent)
    for act in (figures.check_pages, lambda: figures.record("matrix", result)):
        with pytest.raises(UsageError, match=reason) as error:
            act()
        assert str(one_page) in str(error.value)
    assert content_of(one_page.parent) == before


# more than these bytes do not fit into a file: less than the record has, or only than the page has
@pytest.mark.parametrize("limit", [4096, 16 << 10])
def test_a_full_disk_leaves_the_record_and_the_page_as_they_were(limit, one_page):
    one_page.write_text(one_page.read_text() + "x" * (16 << 10))
    result, before = changed_matrix(), content_of(one_page.parent)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(FeedstockError, match="cannot be recorded"):
            figures.record("matrix", result)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert content_of(one_page.parent) == before


def test_a_result_that_cannot_be_drawn_leaves_the_record_as_it_was(one_page):
    result = changed_matrix()
    broken = dataclasses.replace(result.rows[0], numpy_tests={})
    before = content_of(one_page.parent)
    with pytest.raises(KeyError):
        figures.record("matrix", dataclasses.replace(result, rows=(broken,)))
    assert content_of(one_page.parent) == before


RECORDS_A_ROW = """
import dataclasses, sys
from pathlib import Path
from numpy_feedstock.measuring import figures, measurements

def merge(new, old):
    rows = list(old.rows)
    rows[int(sys.argv[2])] = dataclasses.replace(rows[0], label=sys.argv[2])
    return dataclasses.replace(old, rows=tuple(rows))

figures.PAGES = ()
measurements.FOLDER = Path(sys.argv[1])
figures.record("matrix", None, merge)
"""


def test_what_another_process_records_meanwhile_is_not_lost(one_page):
    """Ten processes record a row each, at once."""
    variables = {**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RECORDS_A_ROW, str(measurements.FOLDER), str(number)],
            env=variables,
        )
        for number in range(10)
    ]
    assert [process.wait() for process in running] == [0] * 10
    rows = measurements.load("matrix").rows
    assert [row.label for row in rows[:10]] == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"{}", "missing key: rows"),
        (b"", "Expecting value"),
        ("{}".encode("utf-16"), "utf-8"),
        (b'{"rows": null}', "rows has to be an array"),
        (b'{"rows": [{"zzz": 1}]}', "unknown key: rows.0.zzz"),
        (b'{"rows": [], "zzz": 1}', "unknown key: zzz"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"rows": [NaN]}', "NaN"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(content, reason, one_page):
    path = measurements.file_of("matrix")
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        measurements.load("matrix")
    assert str(path) in str(error.value) and reason in str(error.value)


@pytest.mark.parametrize(
    ("number", "change", "reason"),
    [
        (0, {"numpy_tests": {}}, "numpy_tests has to hold passed"),
        (1, {"tests": [5]}, "rows.1.tests has to be an array of 2"),
        (1, {"host": {"date": 5}}, "missing key: rows.1.host"),
        (1, {"host": 5}, "rows.1.host has to be an object"),
        (1, {"build_minutes": "7"}, "rows.1.build_minutes has to be a number"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(number, change, reason, one_page):
    path = measurements.file_of("matrix")
    content = json.loads(path.read_text())
    content["rows"][number].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError) as error:
        measurements.load("matrix")
    assert reason in str(error.value)


def test_no_text_of_a_record_steers_the_terminal():
    (first, *_) = measurements.load("matrix").rows
    host = dataclasses.replace(first.host, cpu="\x1b[32ma CPU")
    row = dataclasses.replace(first, label="\x1b[31mred\nnew line", commit="\x1b" * 40, host=host)
    for style in ("simple", "pipe"):
        text = figures.render("matrix", measurements.Matrix((row,)), style)
        assert "\x1b" not in text and "\\x1b[31mred\\nnew line" in text
        assert "\\x1b[32ma CPU" in text
    assert "\x1b" not in tables.table([{"a": "\x1b"}])


# The plot.


@pytest.fixture(scope="module")
def matrix():
    return measurements.load("hang-matrix")


def test_the_plot_is_what_the_last_result_says(matrix):
    assert figures.PLOT.read_text() == hang_plot.draw(matrix)


def test_a_hang_that_did_not_happen_changes_the_plot(matrix):
    first = dataclasses.replace(matrix.rows[0], hangs_in_race=(1, 10))
    changed = dataclasses.replace(matrix, rows=(first, *matrix.rows[1:]))
    assert hang_plot.draw(changed) != figures.PLOT.read_text()


def test_the_plot_has_every_cell_and_no_text_that_one_page_hides(matrix):
    svg = ElementTree.fromstring(hang_plot.draw(matrix))
    texts = list(svg.iter("{http://www.w3.org/2000/svg}text"))
    cells = [text for text in texts if re.fullmatch(r"\d+ of \d+", text.text)]
    threads = {row.threads for row in matrix.rows}
    assert len(cells) == 4 * len(hang_plot.layers(matrix)) * len(threads)
    # on a coloured cell: white; elsewhere: the colour that the dark page replaces
    style = svg.find("{http://www.w3.org/2000/svg}style").text
    assert "prefers-color-scheme: dark" in style
    for text in texts:
        fill = text.get("fill")
        assert fill == ("white" if text in cells else hang_plot._TEXT)
        assert text in cells or f'[fill="{fill}"]' in style


def test_two_releases_of_mkl_are_told_apart_in_the_plot_and_the_table(matrix):
    newer = [
        dataclasses.replace(row, blas="mkl-2026", hangs_in_race=(0, 7))
        for row in matrix.rows
        if row.blas.startswith("mkl")
    ]
    both = dataclasses.replace(matrix, rows=(*matrix.rows, *newer))
    assert "MKL 2026, INTEL" in hang_plot.draw(both)
    assert "| MKL 2026, INTEL" in figures.render("hangs", both)
    assert "0 of 14" in hang_plot.draw(both)


def test_recording_the_matrix_draws_the_plot(matrix, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "PAGES", ())
    monkeypatch.setattr(figures, "PLOT", tmp_path / "plot.svg")
    monkeypatch.setattr(measurements, "FOLDER", tmp_path / "evidence")
    figures.record("hang-matrix", matrix)
    assert (tmp_path / "plot.svg").read_text() == hang_plot.draw(matrix)
