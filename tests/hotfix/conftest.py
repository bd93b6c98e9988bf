"""Fixtures: unpatched packages of real texts, small enough for a test of each fault."""

import pytest

from helpers import originals


@pytest.fixture(scope="session")
def real():
    """The members of an unpatched numpy 2.3.5 for linux-64, as in the released wheel."""
    return originals.members("2.3.5")


@pytest.fixture(scope="session")
def small(real):
    """The same with numpy's own Python files at the top and nothing compiled."""
    kept = {}
    for name, member in real.items():
        inner = name.partition("/site-packages/")[2]
        if inner.startswith(("numpy/__init__.", "numpy/__pycache__/", "numpy-2.3.5.dist-info/")):
            kept[name] = member
    return originals.changed({**kept, "info/index.json": real["info/index.json"]}, {})
