"""Originals: the unpatched packages in files, folders and channels that can be healed."""

import asyncio
import os
import re
import resource
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import child, files, paths, redact, variant
from ..errors import FeedstockError, UsageError, joined
from ..packages import archive
from ..packages.hotfix import BASE, PLATFORMS
from ..policy import limits
from ..progress import Say
from . import repodata

# where packages of a channel behind a URL are kept, each in a folder named after its sha256
DOWNLOADS = paths.BUILD / "downloads"
_LOG = paths.LOGS / "downloads.log"

# the depends and the constrains of a package
Needs = tuple[tuple[str, ...], tuple[str, ...]]
_WEB = ("http://", "https://")
# what a server may name a file, which is then written under that name
_FILENAME = re.compile(r"[A-Za-z0-9_.+!-]{1,200}")


@dataclass(frozen=True)
class Source:
    """A package that may be healed.

    location : path or URL
    subdir : the folder of a channel that it is in, "linux-64"
    sha256 : as the channel's index has it; None outside of a channel
    named : whether the user named this file, and not a channel that holds it
    needs : its dependencies and constraints as the channel's index has them, in that order;
        None outside of a channel
    """

    location: str
    filename: str
    subdir: str
    sha256: str | None
    named: bool
    needs: Needs | None = None

    @property
    def is_remote(self) -> bool:
        return "://" in self.location

    @property
    def stem(self) -> str:
        """The name of the file without its ending."""
        return archive.stem(Path(self.filename))

    @property
    def public_url(self) -> str:
        """The URL without credentials. A local file has only its name: paths tell of a machine."""
        return redact.url(self.location) if self.is_remote else self.filename


def find(inputs: Iterable[str]) -> list[Source]:
    """Return the packages in the inputs whose release has the fault.

    inputs : paths of packages, folders or channels, and URLs of channels

    Two packages of one name in two inputs are both there, unless they are the same by the
    indexes of their channels. Raises UsageError that names each input that is none of these, or
    that holds no such package.
    """
    found: dict[tuple[str, str, str], Source] = {}
    errors: list[FeedstockError | OSError] = []
    for name in inputs:
        try:
            for source in _find_some(name):
                key = (source.subdir, source.stem, source.sha256 or source.location)
                found.setdefault(key, source)
        except (FeedstockError, OSError) as error:
            errors.append(error)
    if errors:
        raise joined(errors, "nothing was healed")
    return list({source.location: source for source in found.values()}.values())


def _find_some(name: str) -> Iterable[Source]:
    """Return the packages in one input. Raises UsageError when there is none."""
    sources = list(_find_in(name))
    if not sources:
        releases = ", ".join(variant.known_releases())
        raise UsageError(f"no package to heal in {redact.url(name)}", expected=f"numpy {releases}")
    return _one_of_a_name(sources)


def _one_of_a_name(sources: list[Source]) -> Iterable[Source]:
    """Return the packages of one input. A .conda file hides a .tar.bz2 file of its name."""
    found: dict[tuple[str, str], Source] = {}
    for source in sorted(sources, key=lambda each: (each.stem, each.filename.endswith(".bz2"))):
        found.setdefault((source.subdir, source.stem), source)
    return found.values()


def _find_in(name: str) -> Iterator[Source]:
    if name.lower().startswith(_WEB):
        yield from _find_behind_url(name)
        return
    path = _local_path(name)
    if path.is_dir():
        yield from _find_in_folder(path)
    elif path.is_file():
        yield Source(str(path), path.name, path.parent.name, None, named=True)
    else:
        raise UsageError(
            f"not there: {redact.url(name)}", expected="a package, a folder or a channel"
        )


def _local_path(name: str) -> Path:
    """Return the path that an input names. Raises UsageError for a URL of another kind."""
    scheme, separator, rest = name.partition("://")
    if not separator:
        return Path(name).absolute()
    if scheme.lower() != "file" or not rest.removeprefix("localhost").startswith("/"):
        raise UsageError(
            f"a URL that is not read: {redact.url(name)}",
            expected="https://..., http://... or file:///...",
            remedy="copy the channel to a folder, and name that",
        )
    return Path(urllib.parse.unquote(rest.removeprefix("localhost")))


def _is_wanted(filename: str) -> bool:
    """Return whether a file may be a package of a release with the fault, by its name."""
    releases = "|".join(map(re.escape, variant.known_releases()))
    return bool(re.fullmatch(rf"({BASE}|numpy)-({releases})-[^-]+\.(conda|tar\.bz2)", filename))


def _find_in_folder(folder: Path) -> Iterator[Source]:
    """Yield the packages in a folder, and in the subdirs that make it a channel."""
    for place in (folder, *(folder / platform for platform in PLATFORMS)):
        index = _index(place / "repodata.json")
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if _is_wanted(path.name):
                entry = index.get(path.name)
                digest = entry.get("sha256") if entry else None
                needs = _needs(entry) if entry else None
                yield Source(str(path), path.name, place.name, digest, named=False, needs=needs)


def _index(path: Path) -> repodata.Entries:
    """Return the entries of a channel's index; none without an index."""
    if not path.exists():
        return {}
    try:
        return repodata.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise FeedstockError(f"the index cannot be read: {path}", found=error.strerror) from None


def _needs(entry: repodata.Entry) -> Needs:
    lists = (entry.get(key) or [] for key in ("depends", "constrains"))
    depends, constrains = (tuple(map(str, each)) for each in lists)
    return depends, constrains


def differs_in(source: Source, own: repodata.Entry) -> str:
    """Return how a package's needs differ in its channel's index; "" when nothing differs.

    Channels patch their index: a solver that reads it asks for something else than the package.
    """
    if source.needs is None:
        return ""
    listed = dict(zip(("depends", "constrains"), map(list, source.needs), strict=True))
    said = {key: own.get(key) or [] for key in listed}
    return "; ".join(map(str, repodata.differences(listed, said)))


def _find_behind_url(url: str) -> Iterator[Source]:
    # in a child: rattler sometimes crashes while Python shuts down
    for location, filename, subdir, digest, needs in child.run(_query, url, log=_LOG):
        if _is_wanted(filename):
            _check_filename(filename, url)
            yield Source(location, filename, subdir, digest, named=False, needs=needs)


def _check_filename(filename: str, url: str) -> None:
    """Raise FeedstockError for a name that would lead a download out of its folder."""
    if not _FILENAME.fullmatch(filename):
        raise FeedstockError(
            f"the index of the channel names no file of a package: {redact.url(url)}",
            expected="a file name of letters, digits and _ . + ! - alone",
            found=filename[:200],
            remedy="do not use this channel before its owner has mended the index",
        )


def _query(url: str, say: Say) -> list[tuple[str, str, str, str | None, Needs]]:
    """Return (URL, file name, subdir, sha256, needs) of each numpy in a channel behind a URL."""
    # A fresh cache each time: rattler writes the URL with its secrets beside what it keeps, and
    # fails on a server that answers "not modified" for an index in shards.
    with tempfile.TemporaryDirectory() as folder:
        return _query_with(url, Path(folder))


def _query_with(url: str, cache: Path) -> list[tuple[str, str, str, str | None, Needs]]:
    import rattler

    async def ask() -> list[list[Any]]:
        gateway = rattler.Gateway(client=_client(), cache_dir=cache)
        platforms = [rattler.Platform(name) for name in PLATFORMS]
        return list(
            await gateway.query([rattler.Channel(url)], platforms, ["numpy", BASE], recursive=False)
        )

    try:
        answers = asyncio.run(ask())
    except Exception as error:  # rattler has no class of its own for the errors of a network
        raise FeedstockError(
            f"the channel does not answer: {redact.url(url)}", found=redact.urls_in(str(error))
        ) from None
    found = []
    for record in (record for answer in answers for record in answer):
        digest = record.sha256.hex() if record.sha256 else None
        needs = (tuple(record.depends), tuple(record.constrains))
        found.append((record.url, record.file_name, record.subdir, digest, needs))
    return found


def _client() -> Any:
    """Return rattler's HTTP client. It sends the credentials that `rattler auth login` stored."""
    from rattler.networking import AuthenticationMiddleware, Client, RetryMiddleware

    return Client([RetryMiddleware(), AuthenticationMiddleware()])


def fetch(source: Source, say: Say) -> Path:
    """Return the path of a package. One behind a URL is downloaded.

    Raises FeedstockError for one that is not there, or that is not as its channel's index says.
    """
    path = Path(source.location)
    if source.is_remote:
        path = DOWNLOADS / (source.sha256 or "unnamed") / source.filename
        if not path.exists() or source.sha256 is None:
            say(f"downloading {source.filename}")
            child.run(_download, source.location, path, log=_LOG)
    if source.sha256:
        found = files.sha256(path)
        if found != source.sha256:
            if source.is_remote:
                path.unlink()  # the next run asks the server again
            raise FeedstockError(
                "the package is not the one of its channel's index",
                expected=f"sha256 {source.sha256}",
                found=found,
            )
    return path


def _download(location: str, path: Path, say: Say) -> None:
    from rattler.package_streaming import download_to_path

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")

    async def get() -> None:
        await download_to_path(_client(), location, partial)

    path.parent.mkdir(parents=True, exist_ok=True)
    # this process only downloads, and a server may send without an end
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits().bytes, limits().bytes))
    try:
        asyncio.run(get())
        partial.replace(path)
    except Exception as error:  # rattler has no class of its own for the errors of a network
        raise FeedstockError(
            f"{redact.url(location)} could not be downloaded", found=redact.urls_in(str(error))
        ) from None
    finally:
        partial.unlink(missing_ok=True)
