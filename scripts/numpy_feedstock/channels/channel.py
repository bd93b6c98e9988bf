"""Channels that packages are taken from: their names, their URLs, and whether they answer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import redact
from ..errors import FeedstockError, UsageError

if TYPE_CHECKING:
    import rattler
    from rattler.networking import Client

_SECONDS_TO_ANSWER = 5
# it may have to send its whole index
_SECONDS_TO_ANSWER_RATTLER = 60
# values of --channel that name no channel
_KEYWORDS = ("auto", "bootstrap")


def this_platform() -> str:
    """Return the subdir of packages for this machine, "linux-64"."""
    # imported where it is used, because it takes long
    import rattler

    return str(rattler.Subdir.current())


def settings() -> "rattler.Config":
    """Return rattler-build's configuration. Raises UsageError when it cannot be read."""
    import rattler
    from rattler.exceptions import ConfigError

    try:
        return rattler.Config.load_from_default_locations("rattler-build")
    except ConfigError as error:
        places = rattler.Config.config_search_paths("rattler-build")
        raise UsageError(
            "rattler-build's configuration cannot be read",
            files=", ".join(str(path) for path, _ in places if path.exists()),
            found=str(error).partition("\nCaused by:")[0].strip(),
            remedy="correct the file",
        ) from None


def client(seconds: int | None = None) -> "Client":
    """Return a client of rattler's that sends the credentials of `rattler auth login`.

    They are in rattler's own file, or in the one that RATTLER_AUTH_FILE names.

    seconds : within which each request has to be answered

    Raises UsageError when the configuration or the credentials cannot be read.
    """
    from rattler.exceptions import AuthenticationStorageError
    from rattler.networking import Client

    try:
        return Client.from_config(settings(), timeout=seconds)
    except AuthenticationStorageError as error:
        raise UsageError(
            "rattler's credentials cannot be read",
            found=str(error),
            remedy="correct the file, or make it again: rattler auth login",
        ) from None


def configured() -> list[str]:
    """Return the channels that rattler-build's configuration names, else conda-forge."""
    return list(settings().default_channels or ["conda-forge"])


def url(name: str | Path) -> str:
    """Return the URL of a channel. Raises UsageError for a text that cannot name one.

    name : a URL, a folder, or a name such as conda-forge
    """
    import rattler
    from rattler.exceptions import InvalidChannelError

    location = os.path.abspath(name) if os.path.isdir(name) else str(name)
    try:
        if location.strip():
            return str(rattler.Channel(location).base_url)
    except (InvalidChannelError, UnicodeEncodeError):
        pass
    raise UsageError(
        f"not a channel: {redact.argument(location) or repr(location)}",
        expected="a URL, a folder or a name",
    )


def public_url(name: str | Path) -> str:
    """Return the URL of a channel as others may see it: no user, password, token and query.

    Raises UsageError as url() does.
    """
    return redact.url(url(name))


def check(name: str | Path) -> None:
    """Raise FeedstockError, whose details say what was found, unless a channel's index answers.

    Raises UsageError when the network cannot be used at all, or the name is no channel's.
    """
    import urllib.request

    from .. import http_client

    index = url(name).rstrip("/") + "/noarch/repodata.json"
    parts = urllib.parse.urlsplit(index)
    if parts.scheme == "file":
        path = urllib.request.url2pathname(parts.path)
        if not os.path.exists(path):
            raise FeedstockError("the channel has no index", found=f"no file {path}")
        return
    if parts.scheme in ("http", "https"):
        with http_client.Client() as plain:
            answer = plain.request("HEAD", index, timeout=_SECONDS_TO_ANSWER)
        if answer.is_success:
            return
    # the channel may want the credentials that rattler has
    _check_by_rattler(url(name))


def _check_by_rattler(location: str) -> None:
    import asyncio

    import rattler
    from rattler.exceptions import GatewayError

    gateway = rattler.Gateway(client=client(_SECONDS_TO_ANSWER_RATTLER))
    try:
        asyncio.run(gateway.names([location], ["noarch"]))
    except GatewayError as error:
        raise FeedstockError(
            "the channel's index cannot be read", found=" ".join(str(error).split())
        ) from None


def reachable(name: str | Path) -> bool:
    """Return whether a channel's index answers. Raises UsageError as check() does."""
    try:
        check(name)
    except UsageError:
        raise
    except FeedstockError:
        return False
    return True


def choose(asked: Sequence[str] | None) -> list[str]:
    """Return the channels to build from: names, or ["bootstrap"].

    asked : values of --channel

    Raises UsageError when a channel does not answer.
    """
    names = list(asked or ["auto"])
    for word in _KEYWORDS:
        if word in names and set(names) != {word}:
            others = [redact.argument(name) for name in names if name != word]
            raise UsageError(
                f"--channel {word} cannot be given with another channel",
                found=", ".join(others),
                remedy=f"leave out --channel {word}, or the others",
            )
    if names[0] == "bootstrap":
        return ["bootstrap"]
    if names[0] == "auto":
        names = configured()
        return names if all(reachable(name) for name in names) else ["bootstrap"]
    for name in names:
        _require(name)
    return names


def _require(name: str) -> None:
    try:
        check(name)
    except UsageError:
        raise
    except FeedstockError as error:
        raise UsageError(
            f"the channel does not answer: {redact.argument(name)}",
            found=error.details.get("found", str(error)),
            remedy="correct --channel, or leave it out",
        ) from None
