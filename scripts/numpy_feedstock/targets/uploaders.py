"""prefix.dev and anaconda.org as targets, by rattler-build's own upload functions.

Untested here: no such server runs on this project's machines. Both index themselves.
"""

import rattler_build

from .. import child, paths
from ..errors import FeedstockError
from . import Taken, credentials
from .web import Web


class _Uploader(Web):
    """What is there is read from ``channel`` by HTTP, for a package is never replaced; the upload is rattler-build's."""

    keeps_files = False

    def __init__(self, url, channel, key, place, reading):
        super().__init__(url, channel, reading, place)
        self._key = key

    def put(self, path, subdir, name):
        try:
            child.run(_upload, *self._upload(str(path)), self._key, log=paths.LOGS / "upload.log")
        except FeedstockError as error:
            # its errors carry no status: look
            if self.find(subdir, name) is not None:
                raise Taken(
                    f"the name was taken meanwhile: {self.channel}/{subdir}/{name}",
                    remedy="run the same command again",
                ) from None
            remedy = f"credentials are taken from {self._place}"
            raise FeedstockError(
                f"{name} could not be uploaded to {self.url}", found=error, remedy=remedy
            ) from None

    def _upload(self, path):
        """(name of rattler-build's function, its positional arguments, its others) without the key."""
        raise NotImplementedError


class PrefixDev(_Uploader):
    def __init__(self, url, channel):
        server = "https://prefix.dev"
        key = credentials.token(server, "BearerToken", "PREFIX_API_KEY")
        place = credentials.place(server, "BearerToken", "PREFIX_API_KEY")
        super().__init__(
            url,
            f"https://repo.prefix.dev/{channel}",
            key,
            place,
            {"Authorization": f"Bearer {key}"} if key else {},
        )
        self._name = channel

    def _upload(self, path):
        return (
            "upload_package_to_prefix",
            ([path], "https://prefix.dev", self._name),
            {"force": False, "skip_existing": False},
        )


class Anaconda(_Uploader):
    def __init__(self, url, owner, label):
        server = "https://api.anaconda.org"
        key = credentials.token(server, "CondaToken", "ANACONDA_API_KEY")
        place = credentials.place(server, "CondaToken", "ANACONDA_API_KEY")
        super().__init__(url, f"https://conda.anaconda.org/{owner}/label/{label}", key, place, {})
        self._owner, self._label = owner, label

    def _upload(self, path):
        return (
            "upload_package_to_anaconda",
            ([path], self._owner),
            {"channel": [self._label], "force": False},
        )


def _upload(function, args, options, key, say):
    try:
        getattr(rattler_build, function)(*args, api_key=key, **options)
    except Exception as error:
        # no traceback in the log, and the key in nothing
        raise FeedstockError(str(error).replace(key, "***") if key else str(error)) from None
