"""The README's figures are those of the results in tests/evidence, and no others."""

import re

import pytest

from numpy_feedstock import figures

README = figures.README.read_text()
# what only a measurement can tell
FIGURE = re.compile(
    r"\d[\d.,]*\s?(%|seconds\b|minutes\b|min\b|ms\b|MB\b|GB\b|hangs\b|trials\b|passed\b|of \d+ (imports|trials)\b)"
)


@pytest.mark.parametrize("block", figures.blocks(README))
def test_a_block_is_what_the_last_result_says(block):
    assert figures.blocks(README)[block] == figures.pasted(block)


def test_there_is_no_figure_outside_the_blocks():
    text = README
    for content in figures.blocks(README).values():
        text = text.replace(content, "")
    assert not FIGURE.search(text), FIGURE.search(text)


@pytest.mark.parametrize("path", sorted(figures.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_names_no_folder_of_the_machine(path):
    assert not re.search(r"(?<![\w.])/(tmp|root|home|work|usr|opt)/", path.read_text())


def test_a_changed_figure_is_found():
    changed = README.replace("3 of 3", "0 of 3", 1)
    assert figures.blocks(changed) != figures.blocks(README)


@pytest.mark.parametrize("old", ["", "old\n"])
def test_recording_puts_the_result_into_the_readme(old, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "README", tmp_path / "README.md")
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "evidence")
    figures.README.write_text(f"before\n<!-- bisect -->\n{old}<!-- /bisect -->\nafter\n")
    result = {
        "host": figures.host(),
        "seconds": 1,
        "rows": [{"release": "9.9", "verdict": "no wheel for cp99"}],
    }
    figures.record("bisect", result)
    assert figures.load("bisect") == result
    text = figures.README.read_text()
    assert text.count("no wheel for cp99") == 1 and "old" not in text
    assert text.startswith("before\n<!-- bisect -->\n") and text.endswith(
        "<!-- /bisect -->\nafter\n"
    )
