"""prefix.dev and anaconda.org as targets, by rattler-build's own upload functions.

Untested here: no such server runs on this project's machines. Both index themselves.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import rattler_build

from ... import child, paths, redact
from ...errors import FeedstockError
from . import Taken, TargetUrl, check_bytes, credentials, no_such_kind
from .web import Web


class Uploader(Web):
    """Files are read from ``channel`` by HTTP, because a package is never replaced.

    function : name of rattler-build's function
    names : its positional arguments after the file
    options : its other arguments, without the key
    """

    keeps_files = False

    def __init__(
        self,
        url: str,
        channel: str,
        key: str | None,
        where: str,
        headers: dict[str, str],
        function: str,
        names: list[str],
        options: dict[str, Any],
    ) -> None:
        super().__init__(url, channel, headers, where)
        self._key, self._function, self._names, self._options = key, function, names, options

    @classmethod
    def from_url(cls, url: TargetUrl) -> "Uploader":
        if url.host == "prefix.dev" and url.path and "/" not in url.path:
            return _prefix_dev(url.text, url.path)
        if url.host == "anaconda.org" and url.path and url.path.count("/") < 2:
            owner, _, label = url.path.partition("/")
            return _anaconda(url.text, owner, label or "main")
        raise no_such_kind(url.text)

    def put(self, path: Path, subdir: str, name: str, sha256: str) -> None:
        data = path.read_bytes()
        check_bytes(path, data, hashlib.sha256(data).hexdigest(), sha256)
        with tempfile.TemporaryDirectory() as folder:
            # a copy: the file may change meanwhile
            copied = Path(folder, name)
            copied.write_bytes(data)
            self._upload(copied, subdir, name)

    def _upload(self, path: Path, subdir: str, name: str) -> None:
        args = ([str(path)], *self._names)
        log = paths.LOGS / "upload.log"
        try:
            child.run(_upload, self._function, args, self._options, self._key, log=log)
        except FeedstockError as error:
            # its errors carry no status, so the target is asked
            if self.find(subdir, name) is not None:
                raise Taken(
                    f"the name was taken meanwhile: {self.channel}/{subdir}/{name}",
                    remedy="run the same command again",
                ) from None
            raise FeedstockError(
                f"{name} could not be uploaded to {self.url}",
                found=error,
                remedy=f"credentials are taken from {self._where}",
            ) from None


def _prefix_dev(url: str, channel: str) -> Uploader:
    server = "https://prefix.dev"
    key = credentials.token(server, "BearerToken", "PREFIX_API_KEY")
    return Uploader(
        url,
        f"https://repo.prefix.dev/{channel}",
        key,
        credentials.where_looked_for(server, "BearerToken", "PREFIX_API_KEY"),
        {"Authorization": f"Bearer {key}"} if key else {},
        "upload_package_to_prefix",
        [server, channel],
        {"force": False, "skip_existing": False},
    )


def _anaconda(url: str, owner: str, label: str) -> Uploader:
    server = "https://api.anaconda.org"
    return Uploader(
        url,
        f"https://conda.anaconda.org/{owner}/label/{label}",
        credentials.token(server, "CondaToken", "ANACONDA_API_KEY"),
        credentials.where_looked_for(server, "CondaToken", "ANACONDA_API_KEY"),
        {},
        "upload_package_to_anaconda",
        [owner],
        {"channel": [label], "force": False},
    )


def _upload(
    function: str, args: tuple[Any, ...], options: dict[str, Any], key: str | None, say: Any
) -> None:
    try:
        getattr(rattler_build, function)(*args, api_key=key, **options)
    except Exception as error:
        # the log gets no traceback, and no message shows the key
        raise FeedstockError(redact.words(str(error), [key] if key else [])) from None
