"""A folder of an Artifactory repository as a target; any server that files are PUT to will do.

Artifactory indexes a Conda repository itself, some time after the upload. On a plain
server somebody has to index the folder.
"""

import base64
import hashlib
import os
import urllib.parse
from pathlib import Path
from typing import Self

from . import Taken, TargetUrl, check_bytes, credentials, no_such_kind
from .web import Web


class Artifactory(Web):
    """Before each PUT the server is asked (HEAD) whether the name is taken.

    Not all servers honour If-None-Match. On those, two publishers of the same name in the
    same second do not see each other: the later one wins, and the earlier one finds other
    bytes than it put. An Artifactory whose users may not overwrite ("Delete/Overwrite")
    refuses the later one.
    """

    @classmethod
    def from_url(cls, url: TargetUrl) -> Self:
        if not url.path:
            raise no_such_kind(url.text)
        channel = f"{url.server}/{url.path}"
        headers, where = _authorization(channel)
        return cls(url.text, channel, headers, where)

    def put(self, path: Path, subdir: str, name: str, sha256: str) -> None:
        url = f"{self.channel}/{subdir}/{urllib.parse.quote(name)}"
        if self._is_there(url):
            raise _taken(url)
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        check_bytes(path, data, found, sha256)
        # the server checks the sum; Artifactory keeps it in its index
        headers = {"If-None-Match": "*", "X-Checksum-Sha256": found}
        answer = self.request("PUT", url, headers=headers, content=data)
        # 409 may also say that the bytes arrived changed
        if answer.status in (409, 412) and self._is_there(url):
            raise _taken(url)
        self.succeeded(answer, f"{url} could not be put")

    def _is_there(self, url: str) -> bool:
        answer = self.request("HEAD", url)
        if answer.status == 404:
            return False
        return self.succeeded(answer, f"HEAD {url} failed").is_success


def _taken(url: str) -> Taken:
    return Taken(
        f"the name was taken meanwhile: {url}",
        remedy="run the same command again: it compares the bytes",
    )


def _authorization(channel: str) -> tuple[dict[str, str], str]:
    """Return (the header, or {}; where it is looked for)."""
    where = credentials.where_looked_for(
        channel,
        "BearerToken or BasicHTTP",
        "ARTIFACTORY_TOKEN",
        "ARTIFACTORY_USERNAME and ARTIFACTORY_PASSWORD",
    )
    token = credentials.variable("ARTIFACTORY_TOKEN")
    user = os.environ.get("ARTIFACTORY_USERNAME")
    password = os.environ.get("ARTIFACTORY_PASSWORD")
    if not token and not (user and password):
        found = credentials.stored(channel)
        token = credentials.stored_word(found, "BearerToken", channel)
        basic = found.get("BasicHTTP") or {}
        user, password = basic.get("username"), basic.get("password")
    if token:
        return {"Authorization": f"Bearer {token}"}, where
    if user and password:
        pair = ":".join(
            (
                credentials.password(user, "the user for the server"),
                credentials.password(password, "the password for the server"),
            )
        )
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, where
    return {}, where
