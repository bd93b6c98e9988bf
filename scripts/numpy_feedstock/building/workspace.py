"""The build folder: a lock for one build at a time, the room on its disk, and its logs."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import paths
from ..errors import FREE_SPACE, FeedstockError, UsageError
from ..packages import canonical

# bytes for a build folder, its environments and their unpacked packages
_BUILD_NEEDS = 6 << 30
# bytes for a package, the results of its tests, and the index
_PACKAGE_NEEDS = 64 << 20
# what scripts, search paths or options of the linker take apart
_STRANGE = re.compile(r"""[^!-~]|["'\\$`&|;<>()*?!{},:\[\]]""")
# the shortest prefix that rattler-build makes, below paths.WORK or paths.REBUILD
_SHORTEST_PREFIX = "bld/rattler-build_numpy/host_env"


def check_path() -> None:
    """Raise UsageError when no package can be built in the build folder. Writes nothing."""
    place = paths.BUILD.resolve()
    strange = sorted({*_STRANGE.findall(f"{paths.BUILD}{place}")})
    if strange:
        raise UsageError(
            f"nothing can be built below this path: {place}",
            expected="ASCII characters that need no quotes in a shell, and no colon or comma",
            found=" ".join(map(repr, strange)),
            remedy="move the repository to another folder",
        )
    longest = max((paths.WORK, paths.REBUILD), key=lambda folder: len(folder.name))
    too_long = len(str(place / longest.name / _SHORTEST_PREFIX)) - len(canonical.PREFIX)
    if too_long > 0:
        raise UsageError(
            f"nothing can be built below this path: {place}",
            expected=f"at most {len(str(place)) - too_long} characters",
            found=len(str(place)),
            remedy="move the repository to another folder",
        )
    if not os.access(place if place.exists() else place.parent, os.W_OK | os.X_OK):
        raise UsageError(f"the build folder cannot be written: {place}", remedy="use another clone")


@contextlib.contextmanager
def build_lock(jobs: int | None = None) -> Iterator[None]:
    """Hold the build lock. Two builds would write into the same build folder.

    jobs : compilers at a time, one per core by default

    Raises FeedstockError when another build runs, and when the disk is full or becomes full.
    Raises UsageError as check_path() does.
    """
    check_path()
    check_disk()
    with open(paths.BUILD / "lock", "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FeedstockError(
                f"another build is running in {paths.BUILD}",
                remedy="wait for it, or use a second clone",
            ) from None
        # rattler-build reads these variables
        os.environ.update(
            CPU_COUNT=str(jobs or os.cpu_count()), RATTLER_CACHE_DIR=str(paths.PACKAGE_CACHE)
        )
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise FeedstockError(
                    f"the disk is full: {error.filename or paths.BUILD}", remedy=FREE_SPACE
                ) from None
            raise


def check_disk(output: Path | None = None) -> None:
    """Raise FeedstockError when the disk has too little space to build one package.

    output : folder of the channel that the package goes to, which may be on another disk
    """
    _check_free(paths.BUILD, _BUILD_NEEDS)
    if output is not None:
        _check_free(output, _PACKAGE_NEEDS)


def _check_free(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FeedstockError(
            f"too little disk space in {folder}",
            expected=f"{needed >> 20:,} MB",
            found=f"{free >> 20:,} MB",
            remedy=FREE_SPACE,
        )


def new_log(filename: str, what: str) -> Path:
    """Return an empty log file for one step on a package.

    filename : of the package
    what : the step, "build"
    """
    log = paths.LOGS / f"{filename.removesuffix('.conda')}-{what}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    return log
