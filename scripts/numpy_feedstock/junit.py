"""Results of numpy's own tests, as pytest writes them in JUnit's XML."""

import collections

_KINDS = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def outcomes(path):
    """{test: "passed", "failed" or "skipped"}; xfail counts as skipped, as pytest writes it."""
    import xml.etree.ElementTree as ElementTree

    return {
        f"{case.get('classname')}::{case.get('name')}": next(
            (_KINDS[part.tag] for part in case if part.tag in _KINDS), "passed"
        )
        for case in ElementTree.parse(path).iter("testcase")
    }


def count(outcomes):
    """{"passed": n, "failed": n, "skipped": n} of what ``outcomes`` found."""
    counted = collections.Counter(outcomes.values())
    return {kind: counted[kind] for kind in ("passed", "failed", "skipped")}
