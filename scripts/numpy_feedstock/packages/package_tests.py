"""The names of the tests that travel in a package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FeedstockError, UsageError

# the names of the tests in recipe.yaml, in the same order
NUMPY_TESTS = "numpy's own tests"
REPRO = "repro"
NAMES = ("imports", "f2py", "blas", REPRO, NUMPY_TESTS)


@dataclass(frozen=True)
class Script:
    """A test that is a script."""

    lines: tuple[str, ...]
    cwd: str  # folder in the prefix, "" when the test has none
    requirements: tuple[str, ...]  # match specs of what the test needs beside the package


def names(path: Path) -> tuple[str, ...]:
    """Return a short name for each test of a package, in order.

    Raises UsageError when the package has not as many tests as NAMES, FeedstockError when it
    cannot be read.
    """
    _tests(path)
    return NAMES


def script(path: Path, name: str) -> Script:
    """Return what a package says about one of its tests.

    name : one of NAMES

    Raises UsageError when the package has not as many tests as NAMES, FeedstockError when it
    cannot be read, or when that test is no script.
    """
    test = _tests(path)[NAMES.index(name)]
    try:
        content = test["script"]["content"]
        lines = (content,) if isinstance(content, str) else tuple(content)
        requirements = test.get("requirements", {}).get("run", ())
        return Script(lines, test["script"].get("cwd", ""), tuple(requirements))
    except (AttributeError, LookupError, TypeError):
        raise FeedstockError(
            f"the test of {path.name} cannot be run: {name}",
            expected="a script with its lines",
            found=test,
        ) from None


def _tests(path: Path) -> list[dict[str, Any]]:
    from rattler_build import Package, RattlerBuildError

    try:
        found = [test.to_dict() for test in Package.from_file(path).tests]
    except (OSError, RattlerBuildError) as error:
        raise FeedstockError(f"no package that can be read: {path}", found=error) from None
    if len(found) != len(NAMES):
        raise UsageError(
            f"the tests of {path.name} have no names",
            expected=f"{len(NAMES)} tests: {', '.join(NAMES)}",
            found=f"{len(found)} tests",
            remedy="name each test of recipe.yaml in package_tests.py",
        )
    return found
