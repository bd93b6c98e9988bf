"""A channel of a Quetz server as a target.

Quetz indexes itself, and keeps packages only: the provenance stays beside the packages
that were published.
"""

import hashlib
import time
import urllib.parse

from ..errors import FeedstockError
from . import Taken, credentials
from .web import Web

SECONDS_TO_INDEX = 120


class Quetz(Web):
    """``channel`` of a ``server``: its name, and a URL without a slash at the end."""

    keeps_files = False

    def __init__(self, url, server, channel):
        key = credentials.token(server, "CondaToken", "QUETZ_API_KEY")
        place = credentials.place(server, "CondaToken", "QUETZ_API_KEY")
        super().__init__(url, f"{server}/get/{channel}", {"X-API-Key": key} if key else {}, place)
        self._api = f"{server}/api/channels/{channel}"
        self._new = {}  # {(subdir, name): sha256}, not in the index yet
        # an upload into a channel that is not there is answered with an internal error
        self.succeeded(self.request("GET", self._api), f"{url} could not be opened")

    def put(self, path, subdir, name):
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        url = f"{self._api}/upload/{urllib.parse.quote(name)}"
        # of all of its uploads the one that takes a name before it takes the bytes
        response = self.request(
            "POST", url, params={"sha256": sha256, "force": "false"}, content=data
        )
        if response.status_code == 409:
            remedy = "run the same command again: it compares the bytes; where none are, an upload was cut off: delete it there"
            raise Taken(
                f"the name was taken meanwhile: {self.channel}/{subdir}/{name}", remedy=remedy
            )
        self.succeeded(response, f"{name} could not be uploaded to {self.url}")
        self._new[subdir, name] = sha256

    def index(self):
        """Wait until the server has indexed what was put, which it does once it has answered."""
        deadline = time.monotonic() + SECONDS_TO_INDEX
        while missing := [
            name
            for (subdir, name), sha256 in self._new.items()
            if self._listed(subdir, name) != sha256
        ]:
            if time.monotonic() > deadline:
                raise FeedstockError(
                    f"uploaded to {self.url}, but not in its index after {SECONDS_TO_INDEX} seconds",
                    found=", ".join(missing),
                    remedy="the server's log tells why",
                )
            time.sleep(0.5)

    def _listed(self, subdir, name):
        url = f"{self.channel}/{subdir}/repodata.json"
        response = self.request("GET", url)
        if response.status_code == 404:
            return None
        index = self.succeeded(response, f"{url} could not be read").json()
        return index.get("packages.conda", {}).get(name, {}).get("sha256")
