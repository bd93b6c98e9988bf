"""The HTTP client of the project. Its errors name what failed and show no secret.

httpx2 is used, because requests replaces an Authorization header by the content of ~/.netrc.
"""

import dataclasses
import os
import urllib.parse
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import httpx2

from . import redact
from .errors import FeedstockError, UsageError

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_PROXY_SCHEMES = ("http", "https")
_TIMEOUT = httpx2.Timeout(300, connect=15)
_REDIRECTS = 5
# larger than every index and package; a server may send without an end
_MAX_BYTES = 2 << 30


def check_proxies() -> None:
    """Raise UsageError when a variable names no proxy that can be used. Its value is not shown."""
    for name in PROXY_VARIABLES:
        for variable in (name, name.upper()):
            value = os.environ.get(variable, "")
            if value and not _is_proxy(value):
                raise UsageError(
                    f"{variable} does not name a proxy that can be used",
                    expected="http://HOST:PORT",
                    remedy="correct the variable, or unset it",
                )


def _is_proxy(value: str) -> bool:
    full = value if "://" in value else f"http://{value}"
    try:
        parts = urllib.parse.urlsplit(full)
        # reading a port that is no number raises ValueError
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_text = value.isprintable() and value.isascii() and " " not in value
    return is_text and port_is_good and bool(parts.hostname) and parts.scheme in _PROXY_SCHEMES


def origin(url: str) -> str:
    """Return scheme, host and port of a URL."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    reason: str
    content: bytes
    headers: Mapping[str, str]
    next_url: str  # where a redirect leads, or ""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300


class Client:
    """Makes requests. `secrets` are hidden in every message, `headers` go to `home` only.

    home : URL; the credentials in `headers` go to its host alone
    """

    def __init__(
        self, home: str = "", headers: Mapping[str, str] | None = None, secrets: Iterable[str] = ()
    ) -> None:
        check_proxies()
        self._home = origin(home) if home else ""
        self._headers = dict(headers or {})
        self._secrets = list(secrets)
        try:
            self._client = httpx2.Client(timeout=_TIMEOUT)
        except Exception as error:
            # proxies and certificates are read from the environment here
            raise UsageError(
                "the settings of the network cannot be used",
                found=self.hide(f"{type(error).__name__}: {error}"),
                remedy="look at SSL_CERT_FILE, SSL_CERT_DIR and the variables of the proxy",
            ) from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def hide(self, text: str) -> str:
        """Return a text without the secrets, and without those in URLs."""
        return redact.urls_in(redact.words(text, self._secrets))

    def request(self, method: str, url: str, **options: Any) -> Answer:
        """Return the answer, after redirects where nothing is changed by the request.

        Raises FeedstockError when the server cannot be reached.

        options : of httpx2's request: headers, content, params, timeout
        """
        extra = options.pop("headers", {})
        for _ in range(_REDIRECTS):
            own = self._headers if origin(url) == self._home else {}
            answer = self._send(method, url, {**own, **extra}, options)
            if method not in ("GET", "HEAD") or not answer.next_url:
                break
            url = answer.next_url
        return answer

    def _send(
        self, method: str, url: str, headers: dict[str, str], options: dict[str, Any]
    ) -> Answer:
        try:
            with self._client.stream(method, url, headers=headers, **options) as response:
                following = response.next_request
                return Answer(
                    response.status_code,
                    response.reason_phrase,
                    self._content(response, url),
                    response.headers,
                    str(following.url) if following else "",
                )
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ValueError) as error:
            raise FeedstockError(
                f"no answer from {self.hide(origin(url))}",
                found=self.hide(str(error) or type(error).__name__),
                remedy="is the host the right one, and can it be reached from here?",
            ) from None

    def _content(self, response: httpx2.Response, url: str) -> bytes:
        content = bytearray()
        for block in response.iter_bytes():
            content += block
            if len(content) > _MAX_BYTES:
                raise FeedstockError(
                    f"the answer is too long: {self.hide(url)}",
                    expected=f"at most {_MAX_BYTES >> 20} MB",
                )
        return bytes(content)
