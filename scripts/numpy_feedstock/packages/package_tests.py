"""The names of the tests that travel in a package."""

from pathlib import Path
from typing import Any

from ..errors import UsageError

# the names of the tests in recipe.yaml, in the same order
NUMPY_TESTS = "numpy's own tests"
REPRO = "repro"
NAMES = ("imports", "f2py", "blas", REPRO, NUMPY_TESTS)


def names(path: Path) -> tuple[str, ...]:
    """Return a short name for each test of a package, in order.

    Raises UsageError when the package has not as many tests as NAMES.
    """
    from rattler_build import Package

    found = len(Package.from_file(path).tests)
    if found != len(NAMES):
        raise UsageError(
            f"the tests of {path.name} have no names",
            expected=f"{len(NAMES)} tests: {', '.join(NAMES)}",
            found=f"{found} tests",
            remedy="name each test of recipe.yaml in package_tests.py",
        )
    return NAMES


def section(path: Path, name: str) -> dict[str, Any]:
    """Return what the recipe says about a test of a package: its script, its requirements.

    name : one of NAMES
    """
    from rattler_build import Package

    index = names(path).index(name)
    found: dict[str, Any] = Package.from_file(path).tests[index].to_dict()
    return found
