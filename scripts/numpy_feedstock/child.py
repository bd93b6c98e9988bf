"""Run a function in a process group of its own, so that it can be ended.

rattler-build runs for minutes inside native code that does not see Ctrl-C, and it starts
compilers. A group is ended as a whole, whatever it is doing.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from . import redact
from .errors import FeedstockError
from .progress import Say

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess


def _ignore(line: str) -> None:
    pass


def run(
    function: Callable[..., Any],
    *args: Any,
    log: Path,
    say: Say = _ignore,
    secrets: Sequence[str] = (),
) -> Any:
    """Return what ``function(*args, say)`` returns in a child process.

    function : a module-level callable; its own ``say`` writes a line to the log, in which the
        secrets of URLs are hidden
    log : receives all that the child and its own children print
    say : called here, in the parent, with each line that the function says
    secrets : words that are hidden, too, in those lines and in an error

    Raises FeedstockError as the function did, or when the child died.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(function, args, log, sender, secrets))
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        process.start()
        sender.close()
        while True:
            kind, value = receiver.recv()
            if kind == "line":
                say(value)
            elif kind == "error":
                raise FeedstockError(value)
            else:
                return value
    except EOFError:
        process.join()
        raise FeedstockError(
            f"a process of this command died (exit code {process.exitcode})", log=log
        ) from None
    finally:
        if process.pid is not None:
            _end(process)


def _main(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    log: Path,
    sender: "Connection",
    secrets: Sequence[str],
) -> NoReturn:
    os.setsid()
    # the parent gets Ctrl-C and ends this group, and tidies up after that
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(log, "a", buffering=1, errors="replace") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

        def say(line: str) -> None:
            line = redact.urls_in(redact.words(line, secrets))
            print(line)
            sender.send(("line", line))

        kind, value = _outcome(function, args, say, log, stream)
        if kind == "error":
            value = redact.words(value, secrets)
        sender.send((kind, value))
    # not a normal exit: py-rattler sometimes crashes while Python shuts down
    os._exit(0)


def _outcome(
    function: Callable[..., Any], args: tuple[Any, ...], say: Say, log: Path, stream: TextIO
) -> tuple[str, Any]:
    """Return ("result", value), or ("error", message) for what the function raised."""
    try:
        return "result", function(*args, say)
    except FeedstockError as error:
        return "error", str(error)
    except BaseException:
        stream.write(redact.urls_in(traceback.format_exc()))
        last_line = traceback.format_exc(limit=1).strip().splitlines()[-1]
        return "error", f"{last_line}\n  output: {log}"


def _end(process: "SpawnProcess") -> None:
    process.join(timeout=2)
    # also when the child has ended: its own children may outlive it
    assert process.pid is not None
    end_group(process.pid, reap=process.is_alive)
    if process.is_alive():
        # a child that has just started leads no group yet
        process.kill()
    process.join()


def end_group(leader: int, reap: Callable[[], object]) -> None:
    """End a process group: first ask it, then kill it. Returns when nothing of it is left.

    leader : process id of the group's first process
    reap : called while waiting; takes the leader's exit status if it is a child of ours
    """
    for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)
            # a signal is only a request to the kernel: look until no process is left
            while time.monotonic() < deadline:
                reap()
                os.killpg(leader, 0)
                time.sleep(0.02)
