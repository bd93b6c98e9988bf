"""The results of numpy's own tests, which pytest writes as JUnit XML."""

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FeedstockError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

# what may become of a test
OUTCOMES = ("passed", "failed", "skipped")
_KINDS = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def outcomes(path: Path) -> dict[str, str]:
    """Return {test: "passed", "failed" or "skipped"}.

    An expected failure counts as skipped, because pytest writes it so.

    Raises FeedstockError when the file cannot be read.
    """
    from xml.etree import ElementTree

    try:
        # a pipe would block
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        cases = list(ElementTree.parse(path).iter("testcase"))
    # LookupError: the file names an encoding that Python does not know
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise FeedstockError(
            f"the results of numpy's own tests cannot be read: {path}",
            expected="the XML that pytest wrote",
            found=error,
            remedy="run the tests again",
        ) from None
    return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: "Element") -> str:
    for part in case:
        if part.tag in _KINDS:
            return _KINDS[part.tag]
    return "passed"


def count(outcomes: dict[str, str]) -> dict[str, int]:
    """Return {"passed": n, "failed": n, "skipped": n} of what ``outcomes`` returned."""
    counted = collections.Counter(outcomes.values())
    return {outcome: counted[outcome] for outcome in OUTCOMES}


def check_counts(counts: Mapping[str, int]) -> None:
    """Raise ValueError unless ``counts`` is of the kind that ``count`` returns."""
    if set(counts) != set(OUTCOMES):
        expected, found = ", ".join(OUTCOMES), ", ".join(counts) or "nothing"
        raise ValueError(f"numpy_tests has to hold {expected}, and holds {found}")
