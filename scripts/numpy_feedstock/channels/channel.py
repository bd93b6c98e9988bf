"""Channels that packages are taken from: their names, their URLs, and whether they answer."""

import os
from collections.abc import Sequence
from pathlib import Path

from .. import redact
from ..errors import FeedstockError, UsageError

_SECONDS_TO_ANSWER = 5


def this_platform() -> str:
    """Return the subdir of packages for this machine, "linux-64"."""
    # imported where it is used, because it takes long
    import rattler

    return str(rattler.Subdir.current())


def configured() -> list[str]:
    """Return the channels that rattler-build's configuration names, else conda-forge."""
    import rattler

    config = rattler.Config.load_from_default_locations("rattler-build")
    return list(config.default_channels or ["conda-forge"])


def url(name: str | Path) -> str:
    """Return the URL of a channel. Raises UsageError for a text that cannot name one.

    name : a URL, a folder, or a name such as conda-forge
    """
    import rattler
    from rattler.exceptions import InvalidChannelError

    location = os.path.abspath(name) if os.path.isdir(name) else str(name)
    try:
        return str(rattler.Channel(location).base_url)
    except InvalidChannelError:
        raise UsageError(
            f"not a channel: {redact.urls_in(location)}", expected="a URL, a folder or a name"
        ) from None


def reachable(name: str | Path) -> bool:
    """Return whether the index of a channel answers within 5 seconds."""
    import urllib.request

    from .. import http_client

    index = url(name).rstrip("/") + "/noarch/repodata.json"
    parts = urllib.parse.urlsplit(index)
    if parts.scheme == "file":
        return os.path.exists(urllib.request.url2pathname(parts.path))
    try:
        with http_client.Client() as client:
            return client.request("HEAD", index, timeout=_SECONDS_TO_ANSWER).is_success
    except FeedstockError:
        return False


def choose(asked: Sequence[str] | None) -> list[str]:
    """Return the channels to build from: names, or ["bootstrap"].

    asked : values of --channel

    Raises UsageError when a channel does not answer.
    """
    if asked and list(asked) == ["bootstrap"]:
        return list(asked)
    if asked and list(asked) != ["auto"]:
        for name in asked:
            if not reachable(name):
                raise UsageError(
                    f"the channel does not answer: {redact.urls_in(name)}",
                    remedy="correct --channel, or leave it out",
                )
        return list(asked)
    names = configured()
    return names if all(reachable(name) for name in names) else ["bootstrap"]
