"""Channels: where packages come from, and the one they are put into."""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import time

from . import child, paths
from .errors import FeedstockError, UsageError

FREE_SPACE = "free some space and run the same command again"
# in noarch, where it is there: what the indexer changes in the entries of other packages
PATCH_PACKAGE = "numpy-feedstock-repodata-patches-1-0.conda"


def this_platform():
    """The subdir of packages for this machine, "linux-64"."""
    import rattler

    return str(rattler.Subdir.current())


def configured():
    """The channels that rattler-build's configuration names, else conda-forge."""
    import rattler

    return rattler.Config.load_from_default_locations("rattler-build").default_channels or [
        "conda-forge"
    ]


def url(name):
    """A channel's URL; ``name`` may be a URL, a folder or a name such as conda-forge."""
    import rattler

    return rattler.Channel(os.path.abspath(name) if os.path.isdir(name) else str(name)).base_url


def reachable(name):
    """Whether the channel's index answers within 5 seconds."""
    import urllib.request

    request = urllib.request.Request(url(name).rstrip("/") + "/noarch/repodata.json", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def choose(asked):
    """The channels to build from: names, or ["bootstrap"]."""
    if asked == ["bootstrap"]:
        return asked
    if asked and asked != ["auto"]:
        for name in asked:
            if not reachable(name):
                raise UsageError(
                    f"the channel does not answer: {name}",
                    remedy="correct --channel, or leave it out",
                )
        return asked
    names = configured()
    return names if all(reachable(name) for name in names) else ["bootstrap"]


def check_writable(folder):
    """Make a channel's folder; UsageError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another writer may look at the same moment
    except OSError as error:
        raise UsageError(
            f"the channel's folder cannot be written: {folder}",
            found=error.strerror,
            remedy="name another",
        ) from None


@contextlib.contextmanager
def locked(folder, report=print, patience=600):
    """The only writer of a channel, among all processes and, on NFS, hosts that ask for it.

    report : called with a line for a person when another one has to be waited for
    patience : seconds, after which FeedstockError names that other one
    """
    check_writable(folder)
    # a record lock, which NFS has too, and which ends with the process that holds it
    with open(folder / ".lock", "a+") as lock:
        deadline = time.monotonic() + patience
        if waiting := not _try_lock(lock):
            report(f"waiting for another writer of {folder}: {_holder(lock)}")
        while waiting and not _try_lock(lock):
            if time.monotonic() > deadline:
                remedy = "run the same command again"
                raise FeedstockError(
                    f"another writer holds the channel: {folder}",
                    found=_holder(lock),
                    remedy=remedy,
                )
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(f"{socket.gethostname()} process {os.getpid()}")
        lock.flush()
        # of a writer that was killed
        for leftover in folder.glob("*/.*.partial"):
            leftover.unlink()
        yield


def add(package, folder, subdir):
    """Put a finished package into a channel, in the place of an older one of its name, and index it; its new path.

    The file appears under its name only when it is whole.
    """
    target = folder / subdir / package.name
    with locked(folder):
        known = target.exists()
        copy(package, target, os.replace)
        # the indexer takes a name that it knows for the bytes that it knows
        index(folder, force=known)
    return target


def copy(source, target, place):
    """Copy a file so that it appears under its name only when it is whole.

    place : os.replace, or os.link to keep what is there: FileExistsError
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(source, "rb") as read, open(partial, "wb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
            os.fsync(write.fileno())
        partial.chmod(0o644)  # rattler-build leaves it readable by its owner alone
        place(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = FREE_SPACE if full else "name a folder that can be written and that has hard links"
        raise FeedstockError(
            f"{target} could not be written: {error.strerror}", remedy=remedy
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def index(folder, force=False):
    """Index a channel; call it ``locked``. Each index file is written beside and moved into place.

    force : read all packages again, not only those whose names are new
    """
    (folder / "noarch").mkdir(exist_ok=True)
    child.run(_index, str(folder), force, log=paths.LOGS / "index.log")


def _index(folder, force, say):
    import asyncio

    from rattler.index import index_fs

    patch = PATCH_PACKAGE if os.path.exists(os.path.join(folder, "noarch", PATCH_PACKAGE)) else None
    # an indexer outlives a publisher that is killed: the next one's waits for it
    with open(os.path.join(folder, ".index.lock"), "a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        asyncio.run(index_fs(folder, force=force, repodata_patch=patch))


def _try_lock(lock):
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        remedy = "mount it with locking, or publish to a folder of this machine"
        raise FeedstockError(
            f"the channel's lock cannot be had: {lock.name}", found=error.strerror, remedy=remedy
        ) from None
    return True


def _holder(lock):
    lock.seek(0)
    return lock.read() or "unknown"
