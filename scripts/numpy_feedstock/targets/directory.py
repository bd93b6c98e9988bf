"""A directory as a target, also one on a file server."""

import os

from .. import channel, files
from . import Taken, Target


class Directory(Target):
    """A channel in a folder. Publishers wait for each other; readers never see half of a file."""

    def __init__(self, folder):
        super().__init__(folder.as_uri())
        self.folder = folder

    def alone(self, report):
        return channel.locked(self.folder, report)

    def find(self, subdir, name):
        path = self.folder / subdir / name
        return files.sha256(path) if path.exists() else None

    def read(self, subdir, name):
        path = self.folder / subdir / name
        return path.read_bytes() if path.exists() else None

    def put(self, path, subdir, name):
        target = self.folder / subdir / name
        try:
            # a link fails where a name is taken, whoever took it
            channel.copy(path, target, os.link)
        except FileExistsError:
            raise Taken(
                f"the name is taken: {target}",
                remedy="a channel's files are never replaced: raise the build number",
            ) from None

    def index(self):
        channel.index(self.folder)
