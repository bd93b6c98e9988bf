"""A channel in a folder: one writer at a time, files that appear whole, and the index."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from .. import child, files, paths
from ..errors import FREE_SPACE, FeedstockError, UsageError
from ..packages.archive import ENDINGS
from ..progress import Say
from . import repodata

# the patch package, in noarch: the indexer changes other packages' entries by it
PATCH_PACKAGE = "numpy-feedstock-repodata-patches-1-0.conda"
# Index files that the indexer does not write. Conda's classic solver reads the first of them
# before repodata.json, and older condas read the compressed ones.
OLD_INDEXES = (
    "current_repodata.json",
    "current_repodata.json.bz2",
    "current_repodata.json.gz",
    "current_repodata.json.zst",
    "repodata.json.bz2",
    "repodata.json.gz",
    "repodata.jlap",
    "current_repodata.jlap",
)
# moved in this order: a reader that sees the new list has to find the new shards
_WRITTEN_INDEXES = ("repodata_shards.msgpack.zst", "repodata.json.zst", "repodata.json")
_SECONDS_OF_A_DAY = 86_400
# an unfinished file is named after the host and the process that write it
_PARTIAL = re.compile(r"\..+\.(?P<host>[^/]+)-(?P<process>\d+)\.partial")


def check_writable(folder: Path) -> None:
    """Make a channel's folder. Raises UsageError when nothing can be written there."""
    check_place(folder)
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        raise _not_writable(folder, error) from None


def check_place(folder: Path) -> None:
    """Raise UsageError when a channel's folder cannot be written or locked. Writes nothing."""
    if folder == Path(folder.anchor):
        raise UsageError(f"the root of the file system is no channel: {folder}")
    try:
        files.check_can_write(folder)
    except (OSError, ValueError) as error:
        raise _not_writable(folder, error) from None
    refuse_useless_locks(folder)


def _not_writable(folder: Path, error: OSError | ValueError) -> UsageError:
    return UsageError(
        f"the channel's folder cannot be written: {folder}",
        found=error.strerror if isinstance(error, OSError) else error,
        remedy="name another",
    )


@dataclasses.dataclass(frozen=True)
class Lock:
    """The lock of a channel's folder, while it is held."""

    stream: IO[str]
    holder: str

    def check(self) -> None:
        """Raise FeedstockError when another host holds the lock, too.

        Then the locks of the two hosts do not reach each other.
        """
        # Not through the path: a process loses its record locks on a file when it closes any
        # of the file's descriptors. To lock again brings the file server's newest bytes here.
        is_held = _try_lock(self.stream)
        found = os.pread(self.stream.fileno(), 4096, 0).decode(errors="replace")
        if found != self.holder or not is_held:
            folder = Path(self.stream.name).parent
            raise FeedstockError(
                f"another writer took the lock of the channel meanwhile: {folder}",
                expected=self.holder,
                found=found,
                remedy="mount the file server with POSIX record locks that reach across hosts, "
                "or publish from one host only",
            )


@contextlib.contextmanager
def locked(folder: Path, say: Say = print, patience: float = 600) -> Iterator[Lock]:
    """Be the only writer of a channel among all processes, and among hosts where locks reach them.

    New files get the permissions of the folder meanwhile. Raises FeedstockError when another
    writer holds the lock longer than `patience` (seconds), or when the file system has no locks.

    say : called with a line for a person when another writer has to be waited for
    """
    check_writable(folder)
    with _permissions_of(folder), _open_lock(folder / ".lock") as stream:
        # a record lock ends with its process, and file servers know it, too
        _wait_for_lock(stream, folder, say, patience)
        lock = Lock(stream, f"{socket.gethostname()} process {os.getpid()}")
        stream.truncate(0)
        stream.write(lock.holder)
        stream.flush()
        _sweep(folder)
        yield lock


@contextlib.contextmanager
def _permissions_of(folder: Path) -> Iterator[None]:
    """Give new files and folders the permissions of the channel's folder, whatever the umask is."""
    before = os.umask(~folder.stat().st_mode & 0o777)
    try:
        yield
    finally:
        os.umask(before)


def _open_lock(path: Path) -> IO[str]:
    try:
        return open(path, "a+")
    except OSError as error:
        raise UsageError(
            f"the lock of the channel cannot be opened: {path}",
            found=error.strerror,
            remedy="its owner can give you the right to write: "
            f"chmod g+w {path}, with the folder in a common group (chmod g+ws)",
        ) from None


def _wait_for_lock(stream: IO[str], folder: Path, say: Say, patience: float) -> None:
    if _try_lock(stream):
        return
    say(f"waiting for another writer of {folder}: {_holder(stream)}")
    deadline = time.monotonic() + patience
    while not _try_lock(stream):
        if time.monotonic() > deadline:
            raise FeedstockError(
                f"another writer holds the channel: {folder}",
                found=_holder(stream),
                remedy="run the same command again",
            )
        time.sleep(0.1)


def _try_lock(stream: IO[str]) -> bool:
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise FeedstockError(
            f"the lock of the channel does not work: {stream.name}",
            found=error.strerror,
            remedy="mount it with locking, or publish to a folder of this machine",
        ) from None
    return True


def _holder(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read() or "unknown"


def refuse_useless_locks(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Raise UsageError when the folder is on a file server whose locks stay on this machine."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return
    kind, options = _mount_of(folder.resolve(), lines)
    fault = fault_of_locks(kind, options)
    if fault:
        raise UsageError(
            f"locks do not reach other hosts in {folder}",
            expected="POSIX record locks that reach across hosts",
            found=f"{kind}: {fault}",
            remedy="mount it otherwise, or publish to a folder of the file server itself",
        )


def _mount_of(folder: Path, lines: list[str]) -> tuple[str, set[str]]:
    """Return the type and the options of the file system that holds a folder."""
    best, found = -1, ("", set[str]())
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, filesystem = left.split(), right.split()
        if len(fields) < 6 or len(filesystem) < 3:
            continue
        # spaces and the like are written as octal escapes
        mounted = fields[4].replace("\\040", " ")
        if folder.is_relative_to(mounted) and len(mounted) >= best:
            options = {*fields[5].split(","), *filesystem[2].split(",")}
            best, found = len(mounted), (filesystem[0], options)
    return found


def fault_of_locks(kind: str, options: set[str]) -> str:
    """Return why locks on a file system do not reach other hosts; "" when they may reach them."""
    if kind in ("nfs", "nfs4"):
        useless = options & {"nolock", "local_lock=all", "local_lock=posix"}
        return f"mounted with {', '.join(sorted(useless))}" if useless else ""
    if kind in ("cifs", "smb3"):
        return "mounted with nobrl" if "nobrl" in options else ""
    if kind in ("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.mountpoint-s3"):
        return "it has no locks between hosts"
    return ""


def _sweep(folder: Path) -> None:
    """Remove the files that killed writers left.

    A file stays when a writer on another host may still fill it.
    """
    for path in folder.glob("*/.*.partial"):
        with contextlib.suppress(OSError):
            if _is_abandoned(path):
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    match = _PARTIAL.fullmatch(path.name)
    if match and match["host"] == socket.gethostname():
        return not _is_running(int(match["process"]))
    return time.time() - path.stat().st_mtime > _SECONDS_OF_A_DAY


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return process != os.getpid()


def add(package: Path, folder: Path, subdir: str) -> Path:
    """Put a finished package into a channel, replace an older one of its name, and index it.

    Returns its new path. The file appears under its name only when it is whole.
    """
    target = folder / subdir / package.name
    with locked(folder):
        is_known = target.exists()
        copy(package, target, os.replace)
        # the indexer does not read a file again when it knows the name
        index(folder, force=is_known)
    return target


def copy(
    source: Path, target: Path, move: Callable[[Path, Path], Any], sha256: str | None = None
) -> None:
    """Copy a file so that it appears under its name only when it is whole.

    Raises FeedstockError when it cannot be written, or when its bytes have another `sha256`.

    move : os.replace, or os.link to keep what is there, with FileExistsError
    """
    owner = f"{socket.gethostname()}-{os.getpid()}"
    partial = target.with_name(f".{target.name}.{owner}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        copied = _copy_bytes(source, partial)
        if sha256 and copied != sha256:
            raise FeedstockError(
                f"the file changed after it was examined: {source}",
                expected=sha256,
                found=copied,
                remedy="run the same command again when nothing writes to it",
            )
        move(partial, target)
    except FileExistsError:
        raise
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        other = "name a folder that you can write to and that has hard links"
        raise FeedstockError(
            f"{target} could not be written: {error.strerror}",
            remedy=FREE_SPACE if is_full else other,
        ) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _copy_bytes(source: Path, target: Path) -> str:
    """Copy bytes to the disk itself. Returns their sha256."""
    digest = hashlib.sha256()
    with open(source, "rb") as read, open(target, "wb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            write.write(block)
        write.flush()
        os.fsync(write.fileno())
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears under its name only when it is whole."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, path.name)
        made.write_bytes(content)
        copy(made, path, os.replace)


def index(folder: Path, say: Say = print, force: bool = False) -> None:
    """Index a channel that is `locked`. Each index file is written beside and moved into place.

    A package that cannot be read is named and left out. Old index files are removed.

    force : read all packages again, not only those whose names are new
    """
    (folder / "noarch").mkdir(exist_ok=True)
    for name in child.run(_index, str(folder), force, log=paths.LOGS / "index.log"):
        say(f"not indexed, because it is not a whole package: {folder / name}")
    remove_old_indexes(folder, say)


def remove_old_indexes(folder: Path, say: Say) -> None:
    """Remove the index files that the indexer does not keep up to date."""
    for path in old_indexes(folder):
        path.unlink()
        say(f"removed {path}: it was older than the index, and conda reads it first")


def old_indexes(folder: Path) -> list[Path]:
    """Return the index files in a channel's folder that the indexer does not keep up to date."""
    found = (path for name in OLD_INDEXES for path in folder.glob(f"*/{name}"))
    return sorted(found)


def _index(folder: str, force: bool, say: Say) -> list[str]:
    """Index a folder in a process of its own. Returns the packages that cannot be read."""
    # an indexer outlives a killed publisher: the next publisher waits for it
    with open(Path(folder, ".index.lock"), "a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        unreadable = _unreadable(Path(folder), force)
        if not unreadable:
            _run_indexer(Path(folder), force)
            return []
        _index_without(Path(folder), unreadable, force)
        return sorted(str(path.relative_to(folder)) for path in unreadable)


def _run_indexer(folder: Path, force: bool) -> None:
    import asyncio

    from rattler.index import index_fs

    patch = PATCH_PACKAGE if (folder / "noarch" / PATCH_PACKAGE).exists() else None
    asyncio.run(index_fs(folder, force=force, repodata_patch=patch))


def packages_in(folder: Path) -> list[Path]:
    """Return the path of every package in a channel's folder."""
    found = (path for ending in ENDINGS for path in folder.glob(f"*/*{ending}"))
    return sorted(found)


def _unreadable(folder: Path, force: bool) -> set[Path]:
    """Return the packages that the indexer would read and stop at."""
    from rattler.package import IndexJson

    known = set() if force else _indexed(folder)
    unreadable = set()
    for path in packages_in(folder):
        if f"{path.parent.name}/{path.name}" in known:
            continue
        try:
            IndexJson.from_package_archive(path)
        # a panic of the reader is no Exception
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            unreadable.add(path)
    return unreadable


def _indexed(folder: Path) -> set[str]:
    found = set()
    for path in folder.glob("*/repodata.json"):
        with contextlib.suppress(FeedstockError):
            names = repodata.parse(path.read_bytes(), str(path))
            found |= {f"{path.parent.name}/{name}" for name in names}
    return found


def _index_without(folder: Path, unreadable: set[Path], force: bool) -> None:
    """Index all other packages of a folder, through a second folder that holds links to them."""
    with tempfile.TemporaryDirectory(prefix=".index-", dir=folder) as made:
        staged = Path(made)
        for subdir in sorted(path for path in folder.iterdir() if _is_subdir(path)):
            (staged / subdir.name).mkdir()
            for path in subdir.iterdir():
                is_package = path.name.endswith(ENDINGS)
                if path not in unreadable and is_package:
                    os.link(path, staged / subdir.name / path.name)
            for name in _WRITTEN_INDEXES:
                if not force and (subdir / name).exists():
                    shutil.copy(subdir / name, staged / subdir.name / name)
        _run_indexer(staged, force)
        for subdir in (path for path in staged.iterdir() if _is_subdir(path)):
            _move_index(subdir, folder / subdir.name)


def _is_subdir(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _move_index(made: Path, subdir: Path) -> None:
    shards = made / "shards"
    if shards.exists():
        (subdir / "shards").mkdir(exist_ok=True)
        for shard in shards.iterdir():
            os.replace(shard, subdir / "shards" / shard.name)
    for name in _WRITTEN_INDEXES:
        if (made / name).exists():
            os.replace(made / name, subdir / name)
