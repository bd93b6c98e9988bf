"""A folder of an Artifactory repository as a target; any server that files are PUT to serves as well.

Artifactory indexes a Conda repository itself, some time after the upload. On a plain
server somebody has to index the folder.
"""

import base64
import hashlib
import os
import urllib.parse

from . import Taken, credentials
from .web import Web


class Artifactory(Web):
    """A name that is taken is refused by what the server is asked first, not all servers know ``If-None-Match`` of a PUT.

    On those, two publishers of the same name in the same second do not see each other: the
    later one wins, and the earlier one finds other bytes than it put. An Artifactory whose
    users may not overwrite ("Delete/Overwrite") refuses the later one.
    """

    def __init__(self, url, channel):
        headers, place = _authorization(channel)
        super().__init__(url, channel, headers, place)

    def put(self, path, subdir, name):
        url = f"{self.channel}/{subdir}/{urllib.parse.quote(name)}"
        if self._is_there(url):
            raise _taken(url)
        data = path.read_bytes()
        # the server checks the sum; Artifactory keeps it in its index
        headers = {"If-None-Match": "*", "X-Checksum-Sha256": hashlib.sha256(data).hexdigest()}
        response = self.request("PUT", url, headers=headers, content=data)
        # 409 may also say that the bytes arrived changed
        if response.status_code in (409, 412) and self._is_there(url):
            raise _taken(url)
        self.succeeded(response, f"{url} could not be put")

    def _is_there(self, url):
        response = self.request("HEAD", url)
        return (
            response.status_code != 404
            and self.succeeded(response, f"{url} could not be asked for").is_success
        )


def _taken(url):
    return Taken(
        f"the name was taken meanwhile: {url}",
        remedy="run the same command again: it compares the bytes",
    )


def _authorization(channel):
    """(the header, or {}; where it is looked for)."""
    place = credentials.place(
        channel,
        "BearerToken or BasicHTTP",
        "ARTIFACTORY_TOKEN",
        "ARTIFACTORY_USERNAME and ARTIFACTORY_PASSWORD",
    )
    token = os.environ.get("ARTIFACTORY_TOKEN")
    user, password = os.environ.get("ARTIFACTORY_USERNAME"), os.environ.get("ARTIFACTORY_PASSWORD")
    if not token and not (user and password):
        found = credentials.stored(channel)
        token = found.get("BearerToken")
        basic = found.get("BasicHTTP", {})
        user, password = basic.get("username"), basic.get("password")
    if token:
        return {"Authorization": f"Bearer {token}"}, place
    if user and password:
        return {
            "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        }, place
    return {}, place
