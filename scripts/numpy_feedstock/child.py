"""Run a function in a process group of its own, so that it can be ended.

rattler-build runs for minutes inside native code that does not see Ctrl-C, and
starts compilers of its own. A group is ended as a whole, whatever it is doing.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback

from .errors import FeedstockError


def run(function, *args, log, on_line=lambda line: None):
    """``function(*args, say)`` in a child; its result.

    function : a module-level callable; ``say(line)`` writes a line to the log
    log : Path of the file that receives all that the child and its own
        children print
    on_line : called here, in the parent, with each line that was said

    Raises FeedstockError as the function did, or when the child died.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(function, args, log, sender))
    log.parent.mkdir(parents=True, exist_ok=True)
    process.start()
    sender.close()
    try:
        while True:
            kind, value = receiver.recv()
            if kind == "line":
                on_line(value)
            elif kind == "error":
                raise FeedstockError(value)
            else:
                return value
    except EOFError:
        process.join()
        raise FeedstockError(
            f"the build process died (exit code {process.exitcode})", log=log
        ) from None
    finally:
        _end(process)


def _main(function, args, log, sender):
    os.setsid()
    # not Ctrl-C: the parent ends this group, and only then is it tidied up
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(log, "a", buffering=1, errors="replace") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
        sys.stdout.reconfigure(line_buffering=True)

        def say(line):
            print(line)
            sender.send(("line", line))

        try:
            sender.send(("result", function(*args, say)))
        except FeedstockError as error:
            sender.send(("error", str(error)))
        except BaseException:
            traceback.print_exc(file=stream)
            sender.send(
                (
                    "error",
                    f"{traceback.format_exc(limit=1).strip().splitlines()[-1]}\n  output: {log}",
                )
            )
    # not a normal exit: py-rattler sometimes crashes while Python shuts down
    os._exit(0)


def _end(process):
    process.join(timeout=2)
    # also when it has ended: what it started may outlive it
    end_group(process.pid, reap=process.is_alive)
    if process.is_alive():
        # a child that has just begun leads no group yet
        process.kill()
    process.join()


def end_group(leader, reap):
    """End a process group: asked first, then killed. Returns when nothing of it is left.

    leader : process id of the group's first process
    reap : called while waiting; takes the leader's exit status if it is a child of ours
    """
    for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)
            # a signal only asks the kernel: look until none is left
            while time.monotonic() < deadline:
                reap()
                os.killpg(leader, 0)
                time.sleep(0.02)
