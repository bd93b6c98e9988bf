"""Hashes of files that were read before. So an unchanged channel is not read again."""

import contextlib
import json
import os
from pathlib import Path

from .. import paths
from .targets import Target

PATH = paths.BUILD / "known-hashes.json"


class KnownHashes:
    """The sha256 of a target's files. A file is read again when its identity has changed.

    is_used : False to read every file
    """

    def __init__(self, target: Target, is_used: bool = True, path: Path = PATH) -> None:
        self._target, self._path = target, path
        self._known: dict[str, list[str]] = self._load() if is_used else {}
        self.reused = 0

    def _load(self) -> dict[str, list[str]]:
        try:
            content = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return dict(content) if isinstance(content, dict) else {}

    def find(self, subdir: str, name: str) -> str | None:
        """Return the sha256 of a file of the target, or None when it is not there."""
        # asked before the file is read: a file that changes meanwhile gets another identity
        identity = self._target.identity(subdir, name)
        key = f"{self._target.url}/{subdir}/{name}"
        known = self._known.get(key)
        if identity and known and known[0] == identity:
            self.reused += 1
            return known[1]
        found = self._target.find(subdir, name)
        if identity and found:
            self._known[key] = [identity, found]
        return found

    def save(self) -> None:
        """Keep the hashes for the next check. If the folder cannot be written, nothing is kept."""
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._known, indent=0))
            os.replace(partial, self._path)
