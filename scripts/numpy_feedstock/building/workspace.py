"""The build folder: a lock for one build at a time, the room on its disk, and its logs."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import paths
from ..channels.channel_folder import FREE_SPACE
from ..errors import FeedstockError

# bytes for a build folder, its environments and their unpacked packages
_DISK_NEEDED = 6 << 30


@contextlib.contextmanager
def build_lock(jobs: int | None = None) -> Iterator[None]:
    """Hold the build lock. Two builds would write into the same build folder.

    jobs : compilers at a time, one per core by default

    Raises FeedstockError when another build runs, and when the disk is full or becomes full.
    """
    _check_disk()
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
            if error.errno == errno.ENOSPC:
                raise FeedstockError(
                    f"the disk is full: {error.filename or paths.BUILD}", remedy=FREE_SPACE
                ) from None
            raise


def _check_disk() -> None:
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.BUILD).free
    if free < _DISK_NEEDED:
        expected, found = (f"{size / (1 << 30):.1f} GB" for size in (_DISK_NEEDED, free))
        raise FeedstockError(
            f"too little disk space in {paths.BUILD}",
            expected=expected,
            found=found,
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
