"""Download packages of another Debian release with apt-get.

apt-get finds the mirror and checks the signatures.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import FeedstockError


def mirror(suite: str) -> str | None:
    """Return the URL of the first archive that has a suite of Debian.

    Only the archives of apt's own configuration are asked. Returns None when none of them has
    the suite, and when apt cannot be started.
    """
    import urllib.request

    try:
        done = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True)
    except OSError:
        return None
    archives: list[str] = re.findall(r"'(\S+)/dists/\S+/InRelease'", done.stdout)
    for archive in dict.fromkeys(archives):
        try:
            urllib.request.urlopen(f"{archive}/dists/{suite}/Release", timeout=10).close()
        except (OSError, ValueError):
            continue
        return archive
    return None


def command(folder: Path, source: str) -> list[str]:
    """Return the start of an apt-get command that leaves this machine's own state alone.

    folder : exists, and receives the state
    source : a line of sources.list, the only one that the command knows
    """
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "sources.list").write_text(f"{source}\n")
    own = {
        "Dir::Etc::SourceList": "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": "lists",
        "Dir::Cache": ".",
    }
    return ["apt-get", *(f"-o{key}={folder / value}" for key, value in own.items())]


def download(packages: Sequence[str], suite: str, folder: Path) -> None:
    """Fetch packages of a suite into a new folder, without their dependencies.

    Raises FeedstockError when that fails.
    """
    archive = mirror(suite)
    if archive is None:
        raise FeedstockError(f"no archive that apt is configured for answers with Debian's {suite}")
    state = folder / "apt"
    state.mkdir(parents=True)
    apt_get = [*command(state, f"deb {archive} {suite} main"), "-qq"]
    for action in (["update"], ["download", *packages]):
        done = subprocess.run([*apt_get, *action], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise FeedstockError(
                f"apt-get {action[0]} failed for Debian's {suite}", found=done.stderr.strip()
            )
    shutil.rmtree(state)
