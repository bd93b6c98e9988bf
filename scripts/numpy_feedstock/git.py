"""What git says about this checkout."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import paths


def commit() -> str:
    """Return the commit of this repository, with "-dirty" when files differ; "" without git."""
    return _run("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")


def last_change(files: Sequence[Path]) -> int | None:
    """Return when one of these files was last changed in a commit; None without a commit.

    The unit is seconds since 1970. The author's date counts, because a rebase changes the
    committer's date.
    """
    seconds = _run("log", "-1", "--format=%at", "--", *map(str, files))
    if not seconds:
        return None
    return int(seconds)


def _run(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], cwd=paths.ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
