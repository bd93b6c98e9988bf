"""Targets: the places that packages are published to. Each kind has a module."""

import contextlib
import dataclasses
import importlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from ...errors import FeedstockError, UsageError
from ...progress import Say

Wanted = Mapping[tuple[str, str], str]  # {(subdir, file name): sha256}


class Taken(FeedstockError):
    """A name in the target is taken, by other bytes or by a faster publisher."""


@dataclasses.dataclass(frozen=True)
class TargetUrl:
    """A target's URL in parts. It has no credentials, no query and a host that can be one."""

    text: str
    scheme: str
    encryption: str  # "http" in quetz+http://, else ""
    host: str  # with the port
    path: str  # without a slash at its beginning and end

    @property
    def server(self) -> str:
        """URL of the server that a web target is on."""
        return f"{self.encryption or 'https'}://{self.host}"


class Target:
    """A channel that packages are put into and never replaced in.

    url : for people, without credentials
    """

    # whether other files can be kept beside the packages: the provenance
    keeps_files = True
    # whether `names` lists all files, also those that the index does not list
    lists_files = False
    # whether a server makes the index, some time after an upload
    indexes_itself = False

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def channel_url(self) -> str:
        """URL that others read the channel from; "" where the target does not know it."""
        return self.url

    def publisher_lock(self, say: Say) -> AbstractContextManager[object]:
        """Hold the lock of the target, if it has one. ``say`` tells whose lock it waits for."""
        return contextlib.nullcontext()

    def check_place(self) -> None:
        """Raise UsageError when it can be seen, without a change, that nothing can be put there."""

    def find(self, subdir: str, name: str) -> str | None:
        """Return the hex sha256 of the bytes that are there under a name, or None."""
        raise NotImplementedError

    def read(self, subdir: str, name: str) -> bytes | None:
        """Return the bytes of a small file, or None."""
        raise NotImplementedError

    def identity(self, subdir: str, name: str) -> str | None:
        """Return a text that changes whenever a file's bytes do; None if there is no such text."""
        return None

    def names(self, subdir: str) -> list[str]:
        """Return the names of the files in a subdir. Only for targets with ``lists_files``."""
        return []

    def put(self, path: Path, subdir: str, name: str, sha256: str) -> None:
        """Put a file of this sha256 under a free name. No file is replaced.

        Raises Taken when the name is not free, FeedstockError when the file has other bytes.
        """
        raise NotImplementedError

    def index(self, wanted: Wanted, say: Say, force: bool = False) -> None:
        """Index the new files, or wait until the server has indexed them itself.

        force : read all packages again, if the target is indexed from here
        """

    def remove_old_indexes(self, subdirs: Iterable[str], say: Say) -> None:
        """Remove the index files that our indexer does not keep up to date, if that is possible."""


def check_bytes(path: Path, data: bytes, found: str, expected: str) -> None:
    """Raise FeedstockError unless a file still has the bytes that were examined."""
    if found != expected:
        raise FeedstockError(
            f"the file changed after it was examined: {path}",
            expected=expected,
            found=f"{found}, {len(data)} bytes",
            remedy="run the same command again when nothing writes to it",
        )


# the forms of --to; rattler-build and pixi know all of them but the last two
FORMS = """\
  /srv/conda/fixed, file:///srv/conda/fixed     a folder, here or on a file server
  s3://BUCKET/FOLDER                            S3, or what AWS_ENDPOINT_URL names
  quetz://HOST/CHANNEL                          a Quetz server
  artifactory://HOST/artifactory/REPOSITORY     Artifactory, or any server to PUT to
  https://prefix.dev/CHANNEL                    } by rattler-build's own uploads,
  https://anaconda.org/OWNER/LABEL              } untested here
  quetz+http://, artifactory+http://            without encryption, also of credentials"""

# scheme: the module and the class; a module is imported only when it is published to
SCHEMES = {
    "": ("directory", "Directory"),
    "file": ("directory", "Directory"),
    "s3": ("s3", "S3"),
    "quetz": ("quetz", "Quetz"),
    "artifactory": ("artifactory", "Artifactory"),
    "https": ("uploaders", "Uploader"),
}
_WITHOUT_ENCRYPTION = ("quetz", "artifactory")
_HOST = re.compile(r"([A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(:\d+)?")


def open_target(text: str) -> Target:
    """Return the Target that a URL or a folder's path names.

    Raises UsageError for a text of no known form, FeedstockError for a target that cannot be
    opened.
    """
    url = parse(text)
    module, name = SCHEMES[url.scheme]
    kind = getattr(importlib.import_module(f".{module}", __name__), name)
    target: Target = kind.from_url(url)
    return target


def parse(text: str) -> TargetUrl:
    """Return a target's URL in parts. Raises UsageError, and shows no credentials."""
    if not text.strip():
        raise UsageError(
            "the target is empty",
            expected=f"one of\n{FORMS}",
            remedy="is the variable set that --to takes it from?",
        )
    if not text.isprintable():
        raise UsageError("the target has a line end or another character that cannot be shown")
    if _is_folder(text):
        return TargetUrl(text, "", "", "", text)
    return _parse_url(text)


def _is_folder(text: str) -> bool:
    return text.startswith(("/", "./", "../")) or (":" not in text and "@" not in text)


def _parse_url(text: str) -> TargetUrl:
    scheme, colon, rest = text.partition(":")
    kind, plus, encryption = scheme.partition("+")
    refuse_credentials(text)
    is_known = kind in SCHEMES and kind != "" and colon and rest.startswith("//")
    if plus and not (encryption == "http" and kind in _WITHOUT_ENCRYPTION):
        is_known = False
    if not is_known:
        raise no_such_kind(text)
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        raise _no_host(text) from None
    if kind == "file":
        return _folder_url(text, parts)
    if not _HOST.fullmatch(parts.netloc) or port == 0:
        raise _no_host(text)
    path = parts.path.strip("/")
    steps = urllib.parse.unquote(path).split("/") if path else []
    if any(step in ("", ".", "..") for step in steps):
        raise UsageError(f"the path of the target has an empty or a dotted part: {text}")
    return TargetUrl(text.rstrip("/"), kind, encryption, parts.netloc, path)


def refuse_credentials(text: str) -> None:
    """Raise UsageError for a URL with a user, a token or a query in it. The URL is not shown."""
    has_credentials = "@" in text or "/t/" in text or "?" in text or "#" in text
    if has_credentials:
        raise UsageError(
            "a target's URL with credentials in it",
            expected="a URL without a user, a token, a query and a fragment",
            remedy="`feedstock publish --help` says where credentials are taken from",
        )


def no_such_kind(text: str) -> UsageError:
    """Return the error for a URL that belongs to no kind of target."""
    return UsageError(f"no such kind of target: {text}", expected=f"one of\n{FORMS}")


def _no_host(text: str) -> UsageError:
    return UsageError(
        f"the target names no server: {text}",
        expected="SCHEME://HOST/... with a host name, or with HOST:PORT",
    )


def _folder_url(text: str, parts: urllib.parse.SplitResult) -> TargetUrl:
    path = urllib.parse.unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise UsageError(
            f"the target names no folder of this machine: {text}",
            expected="file:///PATH with three slashes",
            remedy="mount the file server, and name the folder by its path",
        )
    return TargetUrl(text, "file", "", "", path)


@contextlib.contextmanager
def opened(text: str) -> Iterator[Target]:
    """Open a target for the time of a block, and close its connections."""
    target = open_target(text)
    try:
        yield target
    finally:
        close = getattr(target, "close", None)
        if close:
            close()
