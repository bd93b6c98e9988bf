"""The patch of numpy/__init__.py: its one hunk, and what it makes of a text."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..errors import FeedstockError

# where a package that `hotfix` made has the patch
TWIN_MEMBER = "info/hotfix/numpy-init.patch"


class NotPatchable(FeedstockError):
    """The text does not hold the hunk's lines exactly once."""


@dataclass(frozen=True)
class Hunk:
    """The lines that the patch looks for, and the lines that it puts there.

    Both end in a line feed.
    """

    before: bytes
    after: bytes


def file() -> Path:
    """Return the path of the patch."""
    (found,) = (paths.RECIPE.parent / "patches").glob("*.patch")
    return found


@functools.cache
def hunk() -> Hunk:
    """Return the only hunk of the patch."""
    (lines,) = file().read_bytes().split(b"\n@@")[1:]
    before, after = [], []
    for line in lines.splitlines(keepends=True)[1:]:
        sign, text = line[:1], line[1:]
        if sign != b"+":
            before.append(text)
        if sign != b"-":
            after.append(text)
    return Hunk(b"".join(before), b"".join(after))


def _hunk_of(text: bytes) -> tuple[bytes, bytes]:
    """Return the hunk's lines before and after, with the line ends of the text."""
    before, after = hunk().before, hunk().after
    if b"\r\n" in text:
        return before.replace(b"\n", b"\r\n"), after.replace(b"\n", b"\r\n")
    return before, after


def applied(text: bytes) -> bytes:
    """Return the patched text of a numpy/__init__.py. Its line ends stay as they are.

    Raises NotPatchable unless the hunk's lines are in it exactly once.
    """
    before, after = _hunk_of(text)
    _require_once(
        text,
        before,
        "the patch does not apply to numpy/__init__.py",
        expected="the lines of its hunk once",
    )
    return text.replace(before, after)


def undone(text: bytes) -> bytes:
    """Return the unpatched text of a patched numpy/__init__.py.

    Raises NotPatchable unless the lines that the patch leaves are in it exactly once.
    """
    before, after = _hunk_of(text)
    _require_once(
        text,
        after,
        "the patch is not in numpy/__init__.py",
        expected="the lines that it leaves, once",
    )
    return text.replace(after, before)


def _require_once(text: bytes, lines: bytes, fault: str, expected: str) -> None:
    count = text.count(lines)
    if count != 1:
        raise NotPatchable(fault, expected=expected, found=f"{count} times")


def applies_to() -> set[str]:
    """Return the releases that need the patch, as the header of the patch names them."""
    lines = re.findall(r"^Applies-to: (.*)$", file().read_text(), re.MULTILINE)
    return set(re.findall(r"\d[\d.]+", " ".join(lines)))
