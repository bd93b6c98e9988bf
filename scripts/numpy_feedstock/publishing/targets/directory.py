"""A directory as a target, also one on a file server."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from ... import files
from ...channels import channel_folder
from ...errors import UsageError
from ...progress import Say
from . import Taken, Target, TargetUrl, Wanted

# seconds; a file that changes twice within a tick of the clock keeps its times
_SECONDS_OF_A_TICK = 2


class Directory(Target):
    """A channel in a folder. Publishers wait for each other; readers never see half of a file."""

    lists_files = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri())
        self.folder = folder
        self._lock: channel_folder.Lock | None = None

    @classmethod
    def from_url(cls, url: TargetUrl) -> Self:
        if url.path.startswith("~"):
            raise UsageError(
                f"the folder's name begins with ~: {url.path}",
                remedy="write the home folder's path; a shell replaces ~ only at the beginning "
                "of a word",
            )
        folder = Path(os.path.abspath(url.path))
        if folder == Path(folder.anchor):
            raise UsageError(
                f"the root of the file system is no channel: {url.path}",
                remedy="is the variable set that --to takes it from?",
            )
        return cls(folder)

    @property
    def channel_url(self) -> str:
        # the path on this machine tells others nothing
        return ""

    @contextlib.contextmanager
    def publisher_lock(self, say: Say) -> Iterator[object]:
        with channel_folder.locked(self.folder, say) as lock:
            self._lock = lock
            yield lock
            self._lock = None

    def check_place(self) -> None:
        channel_folder.check_place(self.folder)

    def _check_lock(self) -> None:
        if self._lock:
            self._lock.check()

    def find(self, subdir: str, name: str) -> str | None:
        path = self.folder / subdir / name
        return files.sha256(path) if path.is_file() else None

    def read(self, subdir: str, name: str) -> bytes | None:
        path = self.folder / subdir / name
        return path.read_bytes() if path.is_file() else None

    def identity(self, subdir: str, name: str) -> str | None:
        try:
            found = os.stat(self.folder / subdir / name)
        except OSError:
            return None
        if time.time() - found.st_ctime < _SECONDS_OF_A_TICK:
            return None
        # the time of the last change of the inode cannot be set back
        numbers = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return ":".join(map(str, numbers))

    def names(self, subdir: str) -> list[str]:
        folder = self.folder / subdir
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def put(self, path: Path, subdir: str, name: str, sha256: str) -> None:
        target = self.folder / subdir / name
        self._check_lock()
        try:
            # a link fails when the name is taken, whoever took it
            channel_folder.copy(path, target, os.link, sha256)
        except FileExistsError:
            raise Taken(
                f"the name is taken: {target}",
                remedy="a channel's files are never replaced: raise the build number",
            ) from None

    def index(self, wanted: Wanted, say: Say, force: bool = False) -> None:
        self._check_lock()
        channel_folder.index(self.folder, say, force)

    def remove_old_indexes(self, subdirs: Iterable[str], say: Say) -> None:
        channel_folder.remove_old_indexes(self.folder, say)
