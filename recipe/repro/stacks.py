"""What the threads of a hung process do, and which of them waits for which lock."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Mapping, Sequence

Threads = dict[int, list[str]]  # thread: a line for each frame, innermost first


def of_process(pid: int) -> Threads:
    """Return the threads of a live process: native frames from gdb, else what /proc tells."""
    return gdb_threads(pid) or proc_threads(pid)


def gdb_threads(pid: int) -> Threads:
    """Return the native frames of each thread; nothing without a gdb that works."""
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


def proc_threads(pid: int) -> Threads:
    """Return what the kernel says of each thread."""
    threads: Threads = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        threads[int(task.name)] = lines = []
        for name in ("comm", "wchan", "syscall", "stack"):
            with contextlib.suppress(OSError):  # the last two need privileges
                text = (task / name).read_text().strip().replace("\n", "\n    ")
                lines.append(f"{name}: {text}")
                if name == "syscall":
                    lines += futex_file(pid, text)
    return threads


def futex_file(pid: int, syscall: str) -> list[str]:
    """Return one line that names the file in which the futex of a futex call lies, or none."""
    number, address = (syscall.split() + ["", ""])[:2]
    if number not in ("202", "98"):  # x86-64, aarch64
        return []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if start <= int(address, 16) < end and "/" in line:
            return [f"waits for a lock in: {line.rpartition('/')[2]}"]
    return []


def parse(text: str) -> Threads:
    """Return the threads in the output of gdb's `thread apply all bt`."""
    threads: Threads = {}
    frames: list[str] = []
    for line in text.splitlines():
        heading = re.match(r"Thread (\d+) ", line)
        if heading:
            threads[int(heading.group(1))] = frames = []
        elif re.match(r"#\d+ ", line):
            frames.append(line)
    return threads


def functions(frames: Sequence[str]) -> list[str]:
    """Return the names of the functions in gdb's frames."""
    found = (re.match(r"#\d+\s+(?:0x[0-9a-f]+ in )?([^\s(]+)", frame) for frame in frames)
    return [match.group(1) for match in found if match]


def fold(threads: Threads) -> str:
    """Return the stacks as text. Threads that do the same are listed with one stack."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for number, lines in sorted(threads.items()):
        same = functions(lines) or [line for line in lines if not line.startswith("syscall")]
        alike.setdefault(tuple(same), []).append(number)
    stacks = []
    for numbers in alike.values():
        stacks.append("\n  ".join([f"{name(numbers)}:", *threads[numbers[0]]]))
    return "\n".join(stacks) or "no stacks: this host has neither a gdb that works nor /proc"


def name(numbers: Sequence[int]) -> str:
    """Return "thread 7", or "threads 2-5, 7" for several."""
    if len(numbers) == 1:
        return f"thread {numbers[0]}"
    runs = []
    for _, group in itertools.groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        runs.append("-".join(map(str, sorted({run[0], run[-1]}))))
    return "threads " + ", ".join(runs)


def explain(threads: Threads) -> str:
    """Say in one sentence who waits for which lock, and no more than the stacks show."""
    calls = {number: functions(frames) for number, frames in sorted(threads.items())}
    waiting = [number for number in calls if waits_for_loader(calls[number])]
    holder = find_holder(calls, waiting)
    if holder is None:
        return without_holder(threads, calls)
    barriers = [call for call in calls[holder] if re.search("barrier|team_end", call)]
    where = barriers[-1] if barriers else calls[holder][0]
    if not waiting:
        return (
            f"thread {holder} is in {where}, inside dlopen, and so holds the loader's lock "
            "_dl_load_lock; no thread is seen to wait for that lock"
        )
    who = name(waiting)
    them = who if len(waiting) == 1 else "them"
    return (
        f"{who} {wait(waiting)} in dlsym for the loader's lock _dl_load_lock, which thread "
        f"{holder} holds inside dlopen while it waits for {them} in {where}"
    )


def find_holder(calls: Mapping[int, Sequence[str]], waiting: Sequence[int]) -> int | None:
    """Return the first thread that is inside dlopen and does not wait for the loader."""
    for number, names in calls.items():
        if number not in waiting and any(re.match("_*dl_?open", call) for call in names):
            return number
    return None


def without_holder(threads: Threads, calls: Mapping[int, Sequence[str]]) -> str:
    """Return the sentence for stacks that show no thread inside dlopen."""
    loader = [
        number
        for number, lines in sorted(threads.items())
        if any(re.match("waits for a lock in: ld[-.]", line) for line in lines)
    ]
    if loader:
        return (
            f"{name(loader)} {wait(loader)} for a lock of the loader; "
            "it takes gdb to see who holds it"
        )
    inner = [f"thread {number} is in {found[0]}" for number, found in calls.items() if found]
    return "; ".join(["the stacks do not show which lock is waited for", *inner[:8]])


def wait(numbers: Sequence[int]) -> str:
    return "waits" if len(numbers) == 1 else "wait"


def waits_for_loader(calls: Sequence[str]) -> bool:
    """Is this thread in dlsym, with nothing but the taking of a lock further in?"""
    entry = next((i for i, call in enumerate(calls) if re.match("_*dlsym", call)), 0)
    return entry > 0 and all(re.search(r"lock|futex|\?\?", call) for call in calls[:entry])
