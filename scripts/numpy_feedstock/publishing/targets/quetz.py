"""A channel of a Quetz server as a target.

Quetz indexes itself, and keeps packages only: the provenance stays beside the packages
that were published.
"""

import hashlib
import urllib.parse
from pathlib import Path
from typing import Self

from . import Taken, TargetUrl, check_bytes, credentials, no_such_kind
from .web import Web


class Quetz(Web):
    """``channel`` of a ``server``: its name, and a URL without a slash at the end."""

    keeps_files = False

    def __init__(self, url: str, server: str, channel: str) -> None:
        key = credentials.token(server, "CondaToken", "QUETZ_API_KEY")
        where = credentials.where_looked_for(server, "CondaToken", "QUETZ_API_KEY")
        headers = {"X-API-Key": key} if key else {}
        super().__init__(url, f"{server}/get/{channel}", headers, where)
        self._api = f"{server}/api/channels/{channel}"
        # an upload into a channel that is not there is answered with an internal error
        self.succeeded(self.request("GET", self._api), f"{url} could not be opened")

    @classmethod
    def from_url(cls, url: TargetUrl) -> Self:
        if not url.path:
            raise no_such_kind(url.text)
        *folders, channel = url.path.split("/")
        return cls(url.text, "/".join([url.server, *folders]), channel)

    def put(self, path: Path, subdir: str, name: str, sha256: str) -> None:
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        check_bytes(path, data, found, sha256)
        # this upload endpoint reserves the name before it stores the bytes
        url = f"{self._api}/upload/{urllib.parse.quote(name)}"
        params = {"sha256": found, "force": "false"}
        answer = self.request("POST", url, params=params, content=data)
        if answer.status == 409:
            raise Taken(
                f"the name was taken meanwhile: {self.channel}/{subdir}/{name}",
                remedy="run the same command again: it compares the bytes. "
                "Where there are none, an upload was cut off: delete it there",
            )
        self.succeeded(answer, f"{name} could not be uploaded to {self.url}")
