"""Archives: the members of a package file, read into memory and written in one fixed form.

Nothing is unpacked onto the disk, so a hostile member has no place to go. The limits that
a package must keep are in policy.yaml.
"""

import bz2
import io
import json
import re
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ..errors import FeedstockError, shown
from ..policy import TooSlow, limits

ENDINGS = (".conda", ".tar.bz2")
# the members that hold a package's metadata
INDEX = "info/index.json"
PATHS = "info/paths.json"
ABOUT = "info/about.json"
RUN_EXPORTS = "info/run_exports.json"


class BadArchive(FeedstockError):
    """A file that is no package, or one that no package builder makes."""


class Unsafe(BadArchive):
    """A package that is whole, but that exceeds a limit or reaches out of its folder."""


@dataclass(frozen=True)
class Member:
    """A file or a symbolic link of a package.

    data : content of the file, or target of the link
    mode : permission bits
    mtime : seconds since 1970
    """

    data: bytes
    mode: int
    mtime: int
    link: bool = False


def stem(path: Path) -> str:
    """Return the name of a package file without its ending: "numpy-2.3.5-py311h2e04523_1"."""
    for ending in ENDINGS:
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    raise BadArchive(
        f"not a package: {path}", expected=f"a name that ends in {' or '.join(ENDINGS)}"
    )


def read(path: Path, info_only: bool = False) -> dict[str, Member]:
    """Return {name: Member} of a package.

    Raises BadArchive, Unsafe for a hostile one, and TooSlow.

    info_only : of a .conda file, only the members below info/, which takes much less time
    """
    stem(path)
    if not path.is_file():
        raise BadArchive(f"no such file: {path}")
    try:
        with open(path, "rb") as stream:
            parts = _tar_streams(stream, path)
            members = _Members(path)
            for part in parts:
                members.add_all(part)
                if info_only:
                    break
    except FeedstockError:
        raise
    except Exception as error:
        # what strangers made can raise anything: struct.error, RecursionError, zlib.error ...
        raise BadArchive(
            f"not a whole conda package: {path}",
            found=shown(str(error) or repr(error)),
            remedy="name a .conda file, or get it again",
        ) from None
    return members.by_name


def _tar_streams(stream: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """Yield the uncompressed tar archives in a package file. Each can be read once."""
    import zstandard

    if path.name.endswith(".tar.bz2"):
        yield bz2.open(stream)
        return
    with zipfile.ZipFile(stream) as archive:
        names = [f"{part}-{stem(path)}.tar.zst" for part in ("info", "pkg")]
        expected = sorted(["metadata.json", *names])
        _check_stem(archive.namelist(), path)
        if sorted(archive.namelist()) != expected:
            raise BadArchive(
                f"not a whole conda package: {path}",
                expected=f"members {', '.join(expected)}",
                found=shown(", ".join(archive.namelist()[:5])) or "none",
                remedy="name a .conda file, or get it again",
            )
        for name in names:
            with archive.open(name) as compressed:
                yield zstandard.ZstdDecompressor().stream_reader(compressed)


def _check_stem(names: list[str], path: Path) -> None:
    """Raise BadArchive when the members carry the name of another package than the file."""
    for name in names:
        match = re.fullmatch(r"pkg-(.+)\.tar\.zst", name)
        if match and match[1] != stem(path):
            raise BadArchive(
                f"the file is not named as the package: {path}",
                expected=shown(f"{match[1]}.conda"),
                found=shown(path.name),
            )


class _Members:
    """Collects the members of a package's tar archives and refuses what is hostile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = self._members = 0
        # a clock that works in every thread: a signal reaches the main thread alone
        self._deadline = time.monotonic() + limits().seconds
        self.by_name: dict[str, Member] = {}

    def add_all(self, stream: IO[bytes]) -> None:
        counted = _Counted(stream, self)
        with tarfile.open(fileobj=cast(IO[bytes], counted), mode="r|", errorlevel=2) as tar:
            for entry in tar:
                self._count_member(entry)
                if not entry.isdir():
                    self._add(tar, entry)
        # A tar archive that was cut off between two members ends without a word.
        while counted.read(1 << 20):
            pass

    def count_bytes(self, number: int) -> None:
        """Count bytes that were unpacked. Raises Unsafe when they are too many, and TooSlow."""
        self._bytes += number
        if time.monotonic() > self._deadline:
            raise TooSlow(
                f"reading took too long: {self._path}",
                expected=f"at most {limits().seconds} seconds (policy.yaml)",
            )
        if self._bytes > limits().bytes:
            raise Unsafe(
                f"too large when it is unpacked: {self._path}",
                expected=f"at most {limits().bytes >> 20} MB (policy.yaml)",
                found="more",
            )

    def _count_member(self, entry: tarfile.TarInfo) -> None:
        self._members += 1
        if self._members > limits().members:
            raise Unsafe(
                f"too many members: {self._path}",
                expected=f"at most {limits().members} (policy.yaml)",
                found="more",
            )

    def _add(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        name = entry.name.removeprefix("./")
        self._check_name(name)
        if entry.issparse():
            # its holes are no bytes of the archive
            self.count_bytes(entry.size)
        if entry.issym():
            self._check_link(name, entry.linkname)
            data = entry.linkname.encode()
        elif entry.islnk():
            data = self._linked_data(name, entry.linkname)
        elif entry.isreg():
            content = tar.extractfile(entry)
            assert content is not None
            data = content.read()
        else:
            raise self._refused(name, "a file or a link", f"tar type {entry.type!r}")
        self.by_name[name] = Member(data, entry.mode & 0o777, int(entry.mtime), entry.issym())

    def _check_name(self, name: str) -> None:
        name.encode()  # UnicodeEncodeError: the name has bytes that are not UTF-8
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in name or not name.isprintable():
            raise self._refused(name, "a printable path inside the package", "another path")
        if len(parts) > limits().depth:
            raise self._refused(name, f"at most {limits().depth} folders (policy.yaml)", "more")
        if name in self.by_name:
            raise self._refused(name, "one member of a name", "two")

    def _check_link(self, name: str, target: str) -> None:
        depth = len(PurePosixPath(name).parts) - 1
        for part in PurePosixPath(target).parts:
            depth += -1 if part == ".." else 1
            if part == "/" or depth < 0:
                raise self._refused(name, "a link inside the package", f"link to {target!r}")

    def _linked_data(self, name: str, target: str) -> bytes:
        linked = self.by_name.get(target.removeprefix("./"))
        if linked is None or linked.link:
            raise self._refused(name, "a hard link to an earlier file", f"link to {target!r}")
        # written to a disk, it takes the room once more
        self.count_bytes(len(linked.data))
        return linked.data

    def _refused(self, name: str, expected: str, found: str) -> Unsafe:
        return Unsafe(
            f"a member of {self._path}: {shown(name)[:200]}", expected=expected, found=found
        )


class _Counted:
    """A stream whose bytes are counted, headers and padding too."""

    def __init__(self, stream: IO[bytes], members: _Members) -> None:
        self._stream = stream
        self._members = members

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._members.count_bytes(len(data))
        return data


def write(path: Path, members: dict[str, Member], level: int = 10) -> None:
    """Make the .conda file ``path``. The members and its name alone decide its bytes.

    level : of zstd; 15 takes nine times as long for one percent
    """
    import zstandard

    with zipfile.ZipFile(path, "w") as archive:
        _put(archive, "metadata.json", json.dumps({"conda_pkg_format_version": 2}).encode())
        for part in ("pkg", "info"):
            chosen = [name for name in members if name.startswith("info/") == (part == "info")]
            data = _tar((name, members[name]) for name in sorted(chosen))
            _put(archive, f"{part}-{stem(path)}.tar.zst", zstandard.compress(data, level))


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # Without a date an entry is of 1980, the first year that zip files know.
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)


def _tar(members: Iterable[tuple[str, Member]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, member in members:
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = member.mtime, member.mode
            if member.link:
                entry.type, entry.linkname = tarfile.SYMTYPE, member.data.decode()
                tar.addfile(entry)
            else:
                entry.size = len(member.data)
                tar.addfile(entry, io.BytesIO(member.data))
    return stream.getvalue()
