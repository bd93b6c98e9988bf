"""Channels: where packages come from, and the one they are put into."""

import asyncio
import os
import shutil
import urllib.request

import rattler
from rattler.index import index_fs

from . import child, paths
from .errors import FeedstockError, UsageError

FREE_SPACE = "free some space and run the same command again"


def this_platform():
    """The subdir of packages for this machine, "linux-64"."""
    return str(rattler.Subdir.current())


def configured():
    """The channels that rattler-build's configuration names, else conda-forge."""
    return rattler.Config.load_from_default_locations("rattler-build").default_channels or ["conda-forge"]


def url(name):
    """A channel's URL; ``name`` may be a URL, a folder or a name such as conda-forge."""
    return rattler.Channel(os.path.abspath(name) if os.path.isdir(name) else str(name)).base_url


def reachable(name):
    """Whether the channel's index answers within 5 seconds."""
    request = urllib.request.Request(url(name).rstrip("/") + "/noarch/repodata.json", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def check_writable(folder):
    """Make the output channel's folder; UsageError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"the output folder cannot be written: {folder}", found=error.strerror, remedy="name another --output") from None


def add(artefact, folder, subdir):
    """Put a finished package into a channel and index it; its new path.

    The file appears under its name only when it is whole.
    """
    target = folder / subdir / artefact.name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    try:
        shutil.copyfile(artefact, partial)
        partial.chmod(0o644)  # rattler-build leaves it readable by its owner alone
        partial.replace(target)
        child.run(_index, str(folder), log=paths.LOGS / "index.log")
    except OSError as error:
        raise FeedstockError(f"{target} could not be written: {error.strerror}", remedy=FREE_SPACE) from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def _index(folder, say):
    asyncio.run(index_fs(folder, force=True))
