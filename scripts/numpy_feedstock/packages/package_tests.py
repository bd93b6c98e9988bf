"""The names of the tests that travel in a package."""

from pathlib import Path

from ..errors import UsageError

# the names of the tests in recipe.yaml, in the same order
NUMPY_TESTS = "numpy's own tests"
NAMES = ("imports", "f2py", "blas", "repro", NUMPY_TESTS)


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
