"""Packages of another Debian than this machine's, through apt: it finds the mirror and checks the signatures."""

import re
import shutil
import subprocess

from .errors import FeedstockError


def mirror(suite):
    """The first archive of apt's own configuration that has a suite of Debian; None where there is none, or no apt."""
    import urllib.request

    try:
        listed = subprocess.run(
            ["apt-get", "update", "--print-uris"], capture_output=True, text=True
        ).stdout
    except FileNotFoundError:
        return None
    for archive in dict.fromkeys(re.findall(r"'(\S+)/dists/\S+/InRelease'", listed)):
        try:
            urllib.request.urlopen(f"{archive}/dists/{suite}/Release", timeout=10).close()
        except (OSError, ValueError):
            continue
        return archive
    return None


def command(folder, source):
    """The start of an apt-get command with a state of its own: this machine's is left alone.

    folder : Path of an existing folder that receives the state
    source : str, a line of sources.list, the only one it knows
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


def download(packages, suite, folder):
    """Fetch packages of a suite, these and nothing that they depend on, into a new folder; FeedstockError when that fails."""
    archive = mirror(suite)
    if archive is None:
        raise FeedstockError(f"no archive that apt is configured for answers with Debian's {suite}")
    state = folder / "apt"
    state.mkdir(parents=True)
    apt_get = command(state, f"deb {archive} {suite} main")
    for what, argv in {"update": ["update"], "download": ["download", *packages]}.items():
        done = subprocess.run([*apt_get, "-qq", *argv], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise FeedstockError(
                f"apt-get {what} failed for Debian's {suite}", found=done.stderr.strip()
            )
    shutil.rmtree(state)
