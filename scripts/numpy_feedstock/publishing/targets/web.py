"""The base of targets behind a web server: requests with credentials, and their failures."""

import hashlib
import re
import time
from collections.abc import Mapping
from typing import Any

from ...channels import repodata
from ...errors import FeedstockError
from ...http_client import Answer, Client
from ...progress import Say
from . import Target, Wanted

SECONDS_TO_INDEX = 120


class Web(Target):
    """A channel whose files are read by HTTP.

    url : as the user wrote it
    channel : URL of the channel's folder, without a slash at the end
    headers : the credentials; they go to the channel's own server only
    where : where the credentials are looked for, for people
    """

    indexes_itself = True

    def __init__(self, url: str, channel: str, headers: Mapping[str, str], where: str) -> None:
        super().__init__(url)
        self.channel, self._headers, self._where = channel, headers, where
        # without the word Bearer or Basic, which is no secret
        values = [value.rpartition(" ")[2] for value in headers.values()]
        self.client = Client(channel, headers, values)

    @property
    def channel_url(self) -> str:
        return self.channel

    def close(self) -> None:
        self.client.__exit__(None, None, None)

    def find(self, subdir: str, name: str) -> str | None:
        content = self.read(subdir, name)
        return None if content is None else hashlib.sha256(content).hexdigest()

    def read(self, subdir: str, name: str) -> bytes | None:
        url = f"{self.channel}/{subdir}/{name}"
        answer = self.request("GET", url)
        if answer.status == 404:
            return None
        return self.succeeded(answer, f"{url} could not be read").content

    def identity(self, subdir: str, name: str) -> str | None:
        answer = self.request("HEAD", f"{self.channel}/{subdir}/{name}")
        tag = answer.headers.get("etag", "")
        # a weak tag may stay the same when the bytes change
        is_strong = answer.is_success and tag.startswith('"')
        return f"{tag} {answer.headers.get('content-length', '')}" if is_strong else None

    def request(self, method: str, url: str, **options: Any) -> Answer:
        """Return the answer. Raises FeedstockError when the server cannot be reached."""
        return self.client.request(method, url, **options)

    def index(self, wanted: Wanted, say: Say, force: bool = False) -> None:
        """Wait until the server has indexed what was put, which it does after it has answered.

        Raises FeedstockError when it has not after SECONDS_TO_INDEX.
        """
        deadline = time.monotonic() + SECONDS_TO_INDEX
        missing = self._missing(wanted)
        while missing and time.monotonic() < deadline:
            time.sleep(0.5)
            missing = self._missing(wanted)
        if missing:
            raise FeedstockError(
                f"put into {self.url}, but not in its index after {SECONDS_TO_INDEX} seconds",
                found=", ".join(missing),
                remedy="the server's log says why; where somebody else indexes: --index-later",
            )

    def _missing(self, wanted: Wanted) -> list[str]:
        """Return the names that the index does not list with their sha256."""
        indexes = {}
        for subdir in sorted({subdir for subdir, _ in wanted}):
            data = self.read(subdir, repodata.JSON)
            url = f"{self.channel}/{subdir}/{repodata.JSON}"
            indexes[subdir] = repodata.parse(data, url) if data is not None else {}
        return [
            name
            for (subdir, name), sha256 in wanted.items()
            if indexes[subdir].get(name, {}).get("sha256") != sha256
        ]

    def succeeded(self, answer: Answer, what: str) -> Answer:
        """Return the answer. Raises FeedstockError with a remedy if the answer is an error."""
        if answer.is_success:
            return answer
        found = "the credentials are wrong" if self._headers else "no credentials were found"
        remedies = {
            401: f"{found}; they are taken from {self._where}",
            403: "these credentials may not do that; "
            f"ask for the permission, or use others: {self._where}",
            404: "there is no such channel: make it on the server, or correct the URL",
        }
        other = "run the same command again; if it stays so, the server's log tells more"
        raise FeedstockError(
            what,
            found=f"HTTP {answer.status}: {self._message_of(answer)}",
            remedy=remedies.get(answer.status, other),
        )

    def _message_of(self, answer: Answer) -> str:
        """Return the beginning of the server's text, without credentials that it repeats."""
        text = answer.content.decode(errors="replace")
        text = " ".join(re.sub("<[^>]*>", " ", text).split())
        shown = "".join(each if each.isprintable() else "?" for each in self.client.hide(text))
        return shown[:200] or answer.reason
