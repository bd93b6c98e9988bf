"""The results of numpy's own tests, which pytest writes as JUnit XML."""

import collections
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_KINDS = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def outcomes(path: Path) -> dict[str, str]:
    """Return {test: "passed", "failed" or "skipped"}.

    An expected failure counts as skipped, because pytest writes it so.
    """
    from xml.etree import ElementTree

    cases = ElementTree.parse(path).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: "Element") -> str:
    for part in case:
        if part.tag in _KINDS:
            return _KINDS[part.tag]
    return "passed"


def count(outcomes: dict[str, str]) -> dict[str, int]:
    """Return {"passed": n, "failed": n, "skipped": n} of what ``outcomes`` returned."""
    counted = collections.Counter(outcomes.values())
    return {kind: counted[kind] for kind in ("passed", "failed", "skipped")}
