"""The figures of the pages are those of the results in tests/evidence, and no others."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import pytest

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
    assert type(result).from_json(result.as_json()) == result
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
        if row.blas == "mkl"
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
