"""Targets: where packages are published to. One module per kind; what they share is said here."""

import contextlib
import urllib.parse
from pathlib import Path

from ..errors import FeedstockError, UsageError


class Taken(FeedstockError):
    """A name in the target is taken, by other bytes or by somebody who came first."""


class Target:
    """A channel that packages are put into and never replaced in.

    url : str, for people: without credentials
    """

    # whether other files can be kept beside the packages: the provenance
    keeps_files = True

    def __init__(self, url):
        self.url = url

    @contextlib.contextmanager
    def alone(self, report):
        """For the time of a publication the only publisher, where the target has a lock; ``report`` says who is waited for."""
        yield

    def find(self, subdir, name):
        """Hex sha256 of the bytes that are there under a name, or None."""
        raise NotImplementedError

    def read(self, subdir, name):
        """The bytes of a small file, or None."""
        raise NotImplementedError

    def put(self, path, subdir, name):
        """Put a file under a name that is free. Raises Taken when it is not; never replaces."""
        raise NotImplementedError

    def index(self):
        """Index what was put; nothing where the server does it itself."""


# of --to; every form but the last two is one of rattler-build's and pixi's, too
FORMS = """\
  /srv/conda/fixed, file:///srv/conda/fixed     a folder, here or on a file server
  s3://BUCKET/FOLDER                            S3, or what AWS_ENDPOINT_URL names
  quetz://HOST/CHANNEL                          a Quetz server
  artifactory://HOST/artifactory/REPOSITORY     Artifactory, or any server to PUT to
  https://prefix.dev/CHANNEL                    } by rattler-build's own uploads,
  https://anaconda.org/OWNER/LABEL              } untested here
  quetz+http://, artifactory+http://            without encryption: the credentials, too"""


def open_target(url):
    """The Target that a URL or a folder's path names. Raises UsageError for no form of it, FeedstockError where it cannot be opened."""
    # only what is published to has to be imported
    parts = urllib.parse.urlsplit(url)
    kind, _, encryption = parts.scheme.partition("+")
    path = parts.path.strip("/")
    if kind in ("", "file"):
        from .directory import Directory

        return Directory(Path(urllib.parse.unquote(parts.path) if kind else url).absolute())
    if "@" in parts.netloc or "/t/" in parts.path or parts.query:
        # not shown again: it may be in a log
        remedy = "`feedstock publish --help` says where credentials are taken from"
        raise UsageError(
            "a target's URL with credentials in it",
            expected=f"{parts.scheme}://{parts.hostname}/...",
            remedy=remedy,
        )
    server = f"{encryption or 'https'}://{parts.netloc}"
    if kind == "s3" and parts.netloc:
        from .s3 import S3

        return S3(url.rstrip("/"))
    if kind == "quetz" and encryption in ("", "http") and path:
        from .quetz import Quetz

        *folders, channel = path.split("/")
        return Quetz(url, "/".join([server, *folders]), channel)
    if kind == "artifactory" and encryption in ("", "http") and path:
        from .artifactory import Artifactory

        return Artifactory(url, f"{server}/{path}")
    if kind == "https" and parts.hostname in ("prefix.dev", "anaconda.org") and path:
        from . import uploaders

        owner, _, label = path.partition("/")
        return (
            uploaders.PrefixDev(url, path)
            if parts.hostname == "prefix.dev"
            else uploaders.Anaconda(url, owner, label or "main")
        )
    raise UsageError(f"no such kind of target: {url}", expected=f"one of\n{FORMS}")
