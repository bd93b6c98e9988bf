"""Imports lead one way: from the verbs down to what every module uses."""

import ast
from importlib.util import resolve_name

import pytest

from numpy_feedstock import paths

PACKAGE = "numpy_feedstock"
HERE = paths.ROOT / "scripts" / PACKAGE
# {folder: the folders that its modules may import from}; "" is the package itself
MAY_IMPORT = {
    "": {""},
    "packages": {"", "packages"},
    "channels": {"", "packages", "channels"},
    "building": {"", "packages", "channels", "building"},
    "publishing": {"", "packages", "channels", "publishing"},
    "measuring": {"", "packages", "channels", "building", "measuring"},
    "verbs": {"", "packages", "channels", "building", "publishing", "measuring"},
}
MODULES = sorted(HERE.rglob("*.py"))


def folder_of(name):
    """The folder of the module or the name, "numpy_feedstock.packages.elf"."""
    first = name.removeprefix(PACKAGE).removeprefix(".").split(".")[0]
    return first if first in MAY_IMPORT else ""


def imported(path):
    """The full name of each thing that a module imports from its own package."""
    folder = ".".join(path.relative_to(HERE.parent).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            source = resolve_name("." * node.level + (node.module or ""), folder)
            yield from (f"{source}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HERE)))
def test_a_module_imports_nothing_from_above(path):
    own = folder_of(".".join(path.relative_to(HERE.parent).parent.parts))
    wrong = [name for name in imported(path) if folder_of(name) not in MAY_IMPORT[own]]
    assert not wrong, f"{own or PACKAGE} may import from {sorted(MAY_IMPORT[own])} only"


def test_each_folder_has_a_rule():
    assert MAY_IMPORT.keys() - {""} == {path.parent.name for path in HERE.glob("*/__init__.py")}
