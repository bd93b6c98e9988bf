"""What git says about this checkout."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import paths
from .errors import UsageError

_RECIPE_FOLDER = str(paths.RECIPE.parent.relative_to(paths.ROOT))
_DIRTY = "-dirty"


def commit() -> str:
    """Return the commit of this repository; "" without git.

    "-dirty" is added when files differ. It is also added when the recipe's folder has a file that
    is in no commit: the builder packs all that lies there, also what git ignores.
    """
    if not _is_repository():
        return ""
    found = _run("describe", "--always", "--abbrev=40", f"--dirty={_DIRTY}", "--exclude=*")
    described = found.stdout.strip()
    # `describe` does not look at files that git does not track
    if _run("ls-files", "--others", "--", _RECIPE_FOLDER).stdout and not described.endswith(_DIRTY):
        return described + _DIRTY
    return described


def last_change(files: Sequence[Path]) -> int | None:
    """Return when one of these files was last changed in a commit; None without a commit.

    The unit is seconds since 1970. The author's date counts, because a rebase changes the
    committer's date.

    Raises UsageError when git refuses this checkout, and when the clone is shallow and lacks
    that commit.
    """
    if not _is_repository():
        _check_readable()
        return None
    line = _run("log", "-1", "--format=%at %p", "--", *map(str, files)).stdout
    if not line:
        return None
    seconds, *parents = line.split()
    # the oldest commit of a shallow clone seems to add every file
    if not parents and _run("rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        raise UsageError(
            f"the clone is shallow: it does not say when the recipe was last changed: {paths.ROOT}",
            expected="a whole history, because a package's date and its bytes depend on it",
            remedy="git fetch --unshallow; or set SOURCE_DATE_EPOCH to the date of the packages",
        )
    return int(seconds)


def _is_repository() -> bool:
    """Return whether the checkout is a repository itself, and not a folder in another one."""
    toplevel = _run("rev-parse", "--show-toplevel").stdout.rstrip("\n")
    return bool(toplevel) and Path(toplevel).resolve() == paths.ROOT.resolve()


def _check_readable() -> None:
    """Raise UsageError when this is a repository that git does not read.

    An example is a repository of another owner.
    """
    if not (paths.ROOT / ".git").exists():
        return
    done = _run("rev-parse", "--show-toplevel")
    if done.returncode:
        raise UsageError(
            f"git does not read this repository: {paths.ROOT}",
            found=done.stderr.strip(),
            remedy="do what git says; or set SOURCE_DATE_EPOCH to the date of the packages",
        )


def _run(*args: str) -> "subprocess.CompletedProcess[str]":
    """Run git here. Without the program git the output is empty, and the exit code is 0."""
    # variables such as GIT_DIR name another repository; GIT_CONFIG_* may allow this one
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG")
    }
    command = ["git", *args]
    try:
        return subprocess.run(
            command, cwd=paths.ROOT, env=variables, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 0, "", "")
