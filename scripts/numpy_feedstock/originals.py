"""Originals: the unpatched packages in files, folders and channels that can be healed."""

import asyncio
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import archive, child, paths, redact, variant
from .errors import FeedstockError, UsageError
from .hotfix import BASE, PLATFORMS
from .progress import Say

# where packages of a channel behind a URL are kept, each in a folder named after its sha256
DOWNLOADS = paths.BUILD / "downloads"
_LOG = paths.LOGS / "downloads.log"


@dataclass(frozen=True)
class Source:
    """A package that may be healed.

    location : path or URL
    subdir : the folder of a channel that it is in, "linux-64"
    sha256 : as the channel's index has it; None outside of a channel
    named : whether the user named this file, and not a channel that holds it
    """

    location: str
    filename: str
    subdir: str
    sha256: str | None
    named: bool

    @property
    def is_remote(self) -> bool:
        return "://" in self.location

    @property
    def public_url(self) -> str:
        """The URL without credentials. A local file has only its name: paths tell of a machine."""
        return redact.url(self.location) if self.is_remote else self.filename


def find(inputs: Iterable[str]) -> list[Source]:
    """Every package of the releases with the fault, one for each name.

    inputs : paths of packages, folders or channels, and URLs of channels

    Raises UsageError for an input that is none of these, or that holds no such package.
    """
    found: dict[str, Source] = {}
    for name in inputs:
        sources = list(_find_in(name))
        if not sources:
            releases = ", ".join(variant.known_releases())
            raise UsageError(
                f"no package to heal in {redact.url(name)}", expected=f"numpy {releases}"
            )
        for source in sorted(sources, key=_rank):
            stem = archive.stem(Path(source.filename))
            found.setdefault(f"{source.subdir}/{stem}", source)
    return list(found.values())


def _rank(source: Source) -> tuple[str, bool]:
    """A .conda file comes before the .tar.bz2 file of the same package."""
    return archive.stem(Path(source.filename)), source.filename.endswith(".tar.bz2")


def _find_in(name: str) -> Iterator[Source]:
    if re.match(r"[a-z0-9+]+://", name) and not name.startswith("file://"):
        yield from _find_behind_url(name)
        return
    path = Path(urllib.parse.unquote(name.removeprefix("file://"))).absolute()
    if path.is_dir():
        yield from _find_in_folder(path)
    elif path.is_file():
        yield Source(str(path), path.name, path.parent.name, None, named=True)
    else:
        raise UsageError(
            f"not there: {redact.url(name)}", expected="a package, a folder or a channel"
        )


def _is_wanted(filename: str) -> bool:
    """Whether a file may be a package of a release with the fault, by its name."""
    releases = "|".join(map(re.escape, variant.known_releases()))
    return bool(re.fullmatch(rf"({BASE}|numpy)-({releases})-[^-]+\.(conda|tar\.bz2)", filename))


def _find_in_folder(folder: Path) -> Iterator[Source]:
    """The packages in a folder, and in the subdirs that make it a channel."""
    for place in (folder, *(folder / platform for platform in PLATFORMS)):
        hashes = _index_hashes(place / "repodata.json")
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if _is_wanted(path.name):
                digest = hashes.get(path.name)
                yield Source(str(path), path.name, place.name, digest, named=False)


def _index_hashes(index: Path) -> dict[str, str]:
    """{file name: sha256} of a channel's index; empty without one."""
    if not index.exists():
        return {}
    try:
        content = json.loads(index.read_text())
        entries = {**content.get("packages", {}), **content.get("packages.conda", {})}
        return {name: entry["sha256"] for name, entry in entries.items() if "sha256" in entry}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise FeedstockError(f"the index cannot be read: {index}", found=error) from None


def _find_behind_url(url: str) -> Iterator[Source]:
    # in a child: rattler sometimes crashes while Python shuts down
    for location, filename, subdir, digest in child.run(_query, url, log=_LOG):
        if _is_wanted(filename):
            yield Source(location, filename, subdir, digest, named=False)


def _query(url: str, say: Say) -> list[tuple[str, str, str, str | None]]:
    """(URL, file name, subdir, sha256) of each numpy in a channel behind a URL."""
    import rattler

    async def ask() -> list[list[Any]]:
        gateway = rattler.Gateway(client=_client(), cache_dir=DOWNLOADS / "repodata")
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
        found.append((record.url, record.file_name, record.subdir, digest))
    return found


def _client() -> Any:
    """rattler's HTTP client, with the credentials that `rattler auth login` stored."""
    from rattler.networking import AuthenticationMiddleware, Client, RetryMiddleware

    return Client([RetryMiddleware(), AuthenticationMiddleware()])


def fetch(source: Source, say: Say) -> Path:
    """The path of a package, downloaded where it is behind a URL.

    Raises FeedstockError for one that is not there, or that is not as its channel's index says.
    """
    path = Path(source.location)
    if source.is_remote:
        path = DOWNLOADS / (source.sha256 or "unnamed") / source.filename
        if not path.exists() or source.sha256 is None:
            say(f"downloading {source.filename}")
            child.run(_download, source.location, path, log=_LOG)
    if source.sha256:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != source.sha256:
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
    try:
        asyncio.run(get())
        partial.replace(path)
    except Exception as error:  # as above
        raise FeedstockError(
            f"{redact.url(location)} could not be downloaded", found=redact.urls_in(str(error))
        ) from None
    finally:
        partial.unlink(missing_ok=True)
