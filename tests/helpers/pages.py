"""The commands that the pages for people show."""

import re

from numpy_feedstock import paths

README = paths.ROOT / "README.md"
FLEET = paths.ROOT / "scripts" / "fleet" / "README.md"
EVIDENCE = paths.ROOT / "docs" / "evidence.md"
MATRIX = paths.ROOT / "docs" / "matrix.md"


def blocks(page):
    """The texts of its console blocks."""
    return re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page):
    """The commands in them."""
    return [
        line.removeprefix("$ ")
        for block in blocks(page)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
