"""What the threads of a hung process do, and which of them waits for which lock."""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path


def of_process(pid):
    """Return {thread: lines} of a live process: native frames from gdb, else what /proc tells."""
    return gdb_threads(pid) or proc_threads(pid)


def gdb_threads(pid):
    if not shutil.which("gdb"):
        return {}
    # Not the examined Python's modules, and no debuginfo from some server.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DEBUGINFOD"))}
    options = ["-ex", "set print frame-arguments none", "-ex", "thread apply all bt"]
    try:
        output = subprocess.run(
            ["gdb", "-nx", "-batch", "-p", str(pid), *options],
            env=clean,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).stdout
    except subprocess.TimeoutExpired:
        return {}
    return parse(output.decode(errors="replace"))


def proc_threads(pid):
    threads = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        threads[int(task.name)] = lines = []
        for name in ("comm", "wchan", "syscall", "stack"):
            with contextlib.suppress(OSError):  # the last two need privileges
                told = (task / name).read_text().strip().replace("\n", "\n    ")
                lines.append(f"{name}: {told}")
                if name == "syscall":
                    lines += futex_place(pid, told)
    return threads


def futex_place(pid, syscall):
    """Return the one line that names the file in which the futex of a futex call lies, or none."""
    number, address = (syscall.split() + ["", ""])[:2]
    if number not in ("202", "98"):  # x86-64, aarch64
        return []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if start <= int(address, 16) < end and "/" in line:
            return [f"waits for a lock in: {line.rpartition('/')[2]}"]
    return []


def parse(text):
    """Return {thread number: frames, innermost first} from gdb's `thread apply all bt`."""
    threads, frames = {}, []
    for line in text.splitlines():
        heading = re.match(r"Thread (\d+) ", line)
        if heading:
            threads[int(heading.group(1))] = frames = []
        elif re.match(r"#\d+ ", line):
            frames.append(line)
    return threads


def functions(frames):
    """Return the names of the functions in gdb's frames."""
    found = (re.match(r"#\d+\s+(?:0x[0-9a-f]+ in )?([^\s(]+)", frame) for frame in frames)
    return [match.group(1) for match in found if match]


def fold(threads):
    """Return the stacks as text; threads that do the same are listed with one stack."""
    alike = {}
    for number, lines in sorted(threads.items()):
        same = functions(lines) or [line for line in lines if not line.startswith("syscall")]
        alike.setdefault(tuple(same), []).append(number)
    return (
        "\n".join(
            "\n  ".join([f"{name(numbers)}:", *threads[numbers[0]]]) for numbers in alike.values()
        )
        or "no stacks: this host has neither a gdb that works nor /proc"
    )


def name(numbers):
    """Return "thread 7", or "threads 2-5, 7" for several."""
    if len(numbers) == 1:
        return f"thread {numbers[0]}"
    runs = itertools.groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    ends = ([number for _, number in run] for _, run in runs)
    return "threads " + ", ".join("-".join(map(str, sorted({run[0], run[-1]}))) for run in ends)


def explain(threads):
    """Say in one sentence who waits for which lock, and no more than the stacks show."""
    calls = {number: functions(frames) for number, frames in sorted(threads.items())}
    waiting = [number for number in calls if waits_for_loader(calls[number])]
    holders = [
        number
        for number in calls
        if number not in waiting and any(re.match("_*dl_?open", call) for call in calls[number])
    ]
    if not holders:
        inner = [f"thread {number} is in {found[0]}" for number, found in calls.items() if found]
        loader = [
            number
            for number, lines in sorted(threads.items())
            if any(re.match("waits for a lock in: ld[-.]", line) for line in lines)
        ]
        if loader:
            verb = "waits" if len(loader) == 1 else "wait"
            return (
                f"{name(loader)} {verb} for a lock of the loader; it takes gdb to see who holds it"
            )
        return "; ".join(["the stacks do not show which lock is waited for", *inner[:8]])
    holder = holders[0]
    barriers = [call for call in calls[holder] if re.search("barrier|team_end", call)]
    place = barriers[-1] if barriers else calls[holder][0]
    if not waiting:
        return (
            f"thread {holder} is in {place}, inside dlopen, and so holds the loader's lock "
            "_dl_load_lock; no thread is seen to wait for that lock"
        )
    who = name(waiting)
    verb, they = ("waits", who) if len(waiting) == 1 else ("wait", "them")
    return (
        f"{who} {verb} in dlsym for the loader's lock _dl_load_lock, which thread {holder} "
        f"holds inside dlopen while it waits for {they} in {place}"
    )


def waits_for_loader(calls):
    """Is this thread in dlsym, with nothing but the taking of a lock further in?"""
    entry = next((i for i, call in enumerate(calls) if re.match("_*dlsym", call)), 0)
    return entry > 0 and all(re.search(r"lock|futex|\?\?", call) for call in calls[:entry])
