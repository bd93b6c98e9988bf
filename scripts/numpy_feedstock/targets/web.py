"""What targets behind a web server share: requests with credentials, and what their failures mean.

httpx2, not requests: it is here already, and leaves the Authorization header alone
where requests would put what a ~/.netrc has in its place.
"""

import hashlib
import re
import urllib.parse

import httpx2

from ..errors import FeedstockError
from . import Target

_REDIRECTS = 5
_TIMEOUT = httpx2.Timeout(300, connect=15)


class Web(Target):
    """A channel whose files are read by HTTP.

    url : as the user wrote it
    channel : URL of the channel's folder, without a slash at the end
    headers : dict, the credentials: they go to the channel's own server only
    place : str, where the credentials are looked for
    """

    def __init__(self, url, channel, headers, place):
        super().__init__(url)
        self.channel, self._headers, self._place = channel, headers, place

    def find(self, subdir, name):
        content = self.read(subdir, name)
        return None if content is None else hashlib.sha256(content).hexdigest()

    def read(self, subdir, name):
        url = f"{self.channel}/{subdir}/{name}"
        response = self.request("GET", url)
        if response.status_code == 404:
            return None
        return self.succeeded(response, f"{url} could not be read").content

    def request(self, method, url, **options):
        """The response, to a GET after redirects. Raises FeedstockError when the server cannot be reached."""
        for _ in range(_REDIRECTS):
            own = _server(url) == _server(self.channel)
            headers = {**(self._headers if own else {}), **options.pop("headers", {})}
            try:
                response = httpx2.request(method, url, headers=headers, timeout=_TIMEOUT, **options)
            except httpx2.TransportError as error:
                remedy = "is the host the right one, and can it be reached from here?"
                raise FeedstockError(
                    f"no answer from {_server(url)}",
                    found=str(error) or type(error).__name__,
                    remedy=remedy,
                ) from None
            if method != "GET" or response.next_request is None:
                break
            url = str(response.next_request.url)
        return response

    def succeeded(self, response, what):
        """The response, if it is none of an error. Raises FeedstockError with a remedy for its status."""
        if response.is_success:
            return response
        remedy = {
            401: f"{'the credentials are wrong' if self._headers else 'no credentials were found'}; they are taken from {self._place}",
            403: f"these credentials may not do that; ask for the permission, or use others: {self._place}",
            404: "there is no such channel: make it on the server, or correct the URL",
        }.get(
            response.status_code,
            "run the same command again; if it stays so, the server's log tells more",
        )
        raise FeedstockError(
            what, found=f"HTTP {response.status_code}: {self._said(response)}", remedy=remedy
        )

    def _said(self, response):
        """The beginning of what the server says, without our credentials, should it repeat them."""
        text = " ".join(re.sub("<[^>]*>", " ", response.text).split())
        for value in self._headers.values():
            for secret in value.split(" ", 1):
                text = text.replace(secret, "***") if secret not in ("Bearer", "Basic") else text
        return text[:200] or response.reason_phrase


def _server(url):
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
