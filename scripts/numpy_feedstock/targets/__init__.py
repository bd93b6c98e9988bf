"""Targets: where packages are published to. One module per kind; what they share is said here."""

import contextlib
import urllib.parse
from pathlib import Path

from ..errors import FeedstockError


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


def open_target(url):
    """The Target that a URL or a folder's path names."""
    from .directory import Directory

    scheme = urllib.parse.urlsplit(url).scheme
    if scheme in ("", "file"):
        return Directory(Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path) if scheme else url).absolute())
    raise NotImplementedError(url)
