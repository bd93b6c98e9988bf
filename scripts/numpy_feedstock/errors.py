"""The base class of all errors that a user may meet, and how strange text is shown."""

import errno
import tempfile
from collections.abc import Sequence
from typing import Any

from . import redact

FREE_SPACE = "free some space and run the same command again"
_REMEDIES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EROFS: "name a folder that can be written, and run the same command again",
    errno.EMFILE: "allow more open files with ulimit -n, and run the same command again",
}


class FeedstockError(Exception):
    """An error that the user can act on.

    what : what failed and where
    details : expected, found, remedy, known, log and so on; each is a line, in this order

    The secrets of URLs are hidden, also in the words of another program.
    ``exit_code`` is 1 for work that failed, and 2 for wrong use.
    """

    exit_code = 1

    def __init__(self, what: str, **details: Any) -> None:
        self.details = details
        width = max(map(len, details), default=0) + 1
        lines = [f"  {name + ':':{width}} {value}" for name, value in details.items()]
        super().__init__(shown(redact.urls_in("\n".join([what, *lines]))))


class UsageError(FeedstockError):
    """Wrong use, or a machine that lacks something. Nothing was changed."""

    exit_code = 2


def refusal(error: OSError) -> str:
    """Return one line about what the system refused: "the system refused: dpkg: No such file"."""
    where = f": {error.filename}" if error.filename else ""
    return f"the system refused{where}: {error.strerror or repr(error)}"


def explained(error: OSError) -> FeedstockError:
    """Return an error that says what the system refused, where, and what a person can do."""
    remedy = _REMEDIES.get(error.errno or 0, "mend it, and run the same command again")
    if not _has_temporary_folder():
        remedy = "set TMPDIR to a folder that can be written"
    return FeedstockError(refusal(error), remedy=remedy)


def reason(error: FeedstockError | OSError) -> str:
    """Return the text of an error, also of one that the system raised."""
    if isinstance(error, OSError):
        error = explained(error)
    return str(error)


def joined(errors: Sequence[FeedstockError | OSError], outcome: str) -> FeedstockError:
    """Return one error for several. It is wrong use when one of them is.

    outcome : what became of the work, "nothing was published"
    """
    ours = [explained(error) if isinstance(error, OSError) else error for error in errors]
    kind = type(max(ours, key=lambda error: error.exit_code))
    return kind("\n".join([*map(str, ours), outcome]))


def _has_temporary_folder() -> bool:
    try:
        return bool(tempfile.gettempdir())
    except OSError:
        return False


def shown(text: str) -> str:
    """Return a text that a terminal shows harmlessly.

    Control characters other than line feed and tab, marks that change the direction of
    writing, and bytes that were not UTF-8 are written as escapes: "\\x1b".
    """
    return "".join(map(_shown_character, text))


def _shown_character(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    return character.encode("unicode_escape").decode()
