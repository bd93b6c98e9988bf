"""Take secrets out of a text before people, logs or records see it."""

import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

HIDDEN = "***"
# replace the path of a channel in a folder, because it tells about the building machine
LOCAL_CHANNEL = "local folder"
LOCAL_BOOTSTRAP = "bootstrap"

# a person may have typed a password that holds a slash, a quote or a bracket
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(\S*)", re.IGNORECASE)
_TOKEN = re.compile(r"/t/[^/\s]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def url(text: str) -> str:
    """Return a URL without user, password, `/t/TOKEN`, query and fragment.

    Text that cannot be read as a URL is hidden as a whole.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        # a host or a port that cannot be one raises ValueError
        _ = (parts.hostname, parts.port)
    except ValueError:
        return HIDDEN
    path = parts.path
    if parts.scheme not in ("", "file"):
        path = _TOKEN.sub("", path)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, path, "", ""))


def urls_in(text: str) -> str:
    """Return a text in which no URL has a user, a password, a `/t/TOKEN`, a query or a fragment.

    It hides too much rather than too little: all before the last "@" counts as a password.
    """
    return _URL.sub(_hide_parts, text)


def _hide_parts(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    if scheme.lower() == "file":
        return f"{scheme}://{_without_user(rest)}"
    user, at, rest = rest.rpartition("@")
    if at:
        rest = HIDDEN + at + rest
    rest = re.sub(r"([?#]).+", rf"\1{HIDDEN}", rest)
    return f"{scheme}://{_TOKEN.sub(f'/t/{HIDDEN}', rest)}"


def _without_user(rest: str) -> str:
    """Return what follows the scheme of a file's URL. Its path is no secret."""
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = HIDDEN + "@" + host.rpartition("@")[2]
    return host + slash + path


def tokens_at_end(urls: Iterable[str]) -> list[str]:
    """Return the tokens that end the URL of a channel: rattler takes them for its name."""
    found = []
    for each in urls:
        path = urllib.parse.urlsplit(each).path.rstrip("/")
        before, mark, last = path.rpartition("/t/")
        if mark and "/" not in last:
            found.append(last)
    return found


def argument(text: str) -> str:
    """Return one value that a person typed, a URL or a path or a name, without its secrets.

    A password in it may hold a blank. It may lack the scheme: "user:password@host".
    """
    if "://" in text:
        return urls_in(re.sub(r"\s", "%20", text))
    user, at, host = text.rpartition("@")
    if at and ":" in user:
        return HIDDEN + at + host
    return text


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
