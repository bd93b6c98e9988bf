"""The dates that packages can have.

The range is not checked in canonical.py, because each change of that file makes all packages
out of date.
"""

import os
import re

from ..errors import UsageError
from ..packages import canonical

VARIABLE = "SOURCE_DATE_EPOCH"
# seconds since 1970: a ZIP file knows the years from 1980 to 2107
_FIRST, _LAST = 315_532_800, 4_354_819_199
RANGE = f"{_FIRST} (1980-01-01) to {_LAST} (2107-12-31), seconds since 1970"


def is_date(seconds: object) -> bool:
    """Return whether a package can have this date."""
    return isinstance(seconds, int) and _FIRST <= seconds <= _LAST


def package_date() -> int:
    """Return canonical.source_date(): seconds since 1970.

    Raises UsageError for a date that no package can have.
    """
    given = os.environ.get(VARIABLE, "")
    if given and not re.fullmatch("[0-9]{1,20}", given):
        raise UsageError(f"{VARIABLE} is not a date", expected=RANGE, found=given[:40])
    seconds = canonical.source_date()
    if is_date(seconds):
        return seconds
    source = VARIABLE if given else "the newest change of the recipe"
    raise UsageError(
        f"no package can have this date: {seconds}",
        expected=RANGE,
        found=f"it is from {source}",
        remedy=f"set {VARIABLE} to the date of the packages",
    )
