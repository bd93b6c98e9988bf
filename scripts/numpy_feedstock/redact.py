"""Take secrets out of a text before people, logs or records see it."""

import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

HIDDEN = "***"
# replace the path of a channel in a folder, because it tells about the building machine
LOCAL_CHANNEL = "local folder"
LOCAL_BOOTSTRAP = "bootstrap"

_USER = re.compile(r"(?<=://)[^/\s?#]*@")
_TOKEN = re.compile(r"/t/[^/\s]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def url(text: str) -> str:
    """Return a URL without user, password, `/t/TOKEN`, query and fragment.

    Text that cannot be read as a URL is hidden as a whole.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        host = parts.hostname or ""
        port = parts.port
    except ValueError:
        return HIDDEN
    if ":" in host:
        host = f"[{host}]"
    if port is not None:
        host = f"{host}:{port}"
    path = _TOKEN.sub("", parts.path)
    return urllib.parse.urlunsplit((parts.scheme, host, path, "", ""))


def urls_in(text: str) -> str:
    """Return a text in which no URL has a user, a password or a `/t/TOKEN`."""
    return _TOKEN.sub(f"/t/{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def channel(text: str) -> str:
    """Return what a record or a statement may say about a channel: a clean URL or a name.

    A channel in a folder becomes LOCAL_BOOTSTRAP or LOCAL_CHANNEL.
    """
    scheme = text.partition("://")[0] if "://" in text else ""
    is_folder = scheme == "file" or (not scheme and ("/" in text or "\\" in text))
    if is_folder:
        name = text.rstrip("/").rpartition("/")[2]
        return LOCAL_BOOTSTRAP if name.startswith("bootstrap") else LOCAL_CHANNEL
    return url(text).rstrip("/") if scheme else text


def values(content: Any) -> Any:
    """Return JSON content with every URL in it cleaned by `urls_in`."""
    if isinstance(content, str):
        return urls_in(content)
    if isinstance(content, list):
        return [values(each) for each in content]
    if isinstance(content, dict):
        return {urls_in(str(key)): values(each) for key, each in content.items()}
    return content


def words(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which each of the secrets is hidden, also where it is percent-encoded."""
    for secret in secrets:
        for form in {secret, urllib.parse.quote(secret, safe="")}:
            if form:
                text = text.replace(form, HIDDEN)
    return text


def fault_of_secret(value: str) -> str:
    """Return why a value cannot be a token or a key; "" when it can be one.

    The text does not contain the value.
    """
    if value != value.strip():
        return "a blank or a line end at its beginning or end"
    if _CONTROL.search(value):
        return "a line end or another control character"
    if not value.isascii():
        return "a character that is not ASCII"
    if " " in value:
        return "a blank"
    return ""
