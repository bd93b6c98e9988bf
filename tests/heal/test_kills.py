"""What is killed, and what runs at the same time."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import audit_numpy
from helpers import installed
from helpers.healer import SCRIPT, heal
from helpers.installed import bytecode_of, import_numpy, source_of

# a number of kills that each run of the tests has time for, and the one that the page reports
KILLS = [pytest.param(20), pytest.param(120, marks=pytest.mark.long)]
TEXTS = {**dict.fromkeys(audit_numpy.PATCHED_TEXTS, "old")}
TEXTS.update(dict.fromkeys(audit_numpy.PATCHED_TEXTS.values(), "new"))


def run_and_kill(option, env, seconds):
    """Start the healer and kill it after some seconds. Returns whether it was still running."""
    command = [sys.executable, SCRIPT, option, env]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def text_of(env):
    """Which text the source has: old or new. Another one is a KeyError."""
    return TEXTS[hashlib.sha256(source_of(env).read_bytes()).hexdigest()]


@pytest.mark.parametrize("count", KILLS)
def test_a_kill_leaves_the_old_numpy_or_the_new_one(copy, originals, count):
    env = copy("rattler")
    start = time.monotonic()
    heal("--apply", env)
    whole = time.monotonic() - start
    heal("--undo", env)
    left = {"old": 0, "new": 0}
    killed = leftovers = 0
    generator = random.Random(31284)
    while killed < count:
        option = {"old": "--apply", "new": "--undo"}[text_of(env)]
        if run_and_kill(option, env, generator.uniform(0.3, 1.2) * whole):
            killed += 1
        else:
            # it had ended: the machine may have less to do now
            whole *= 0.95
        left[text_of(env)] += 1
        leftovers += any(name.startswith(".heal_numpy") for name in os.listdir(env / "conda-meta"))
        assert import_numpy(env) == "2.3.5"
    print(f"{killed} kills left {left}, {leftovers} times with files of the killed run")
    assert heal("--apply", env).code == 0
    assert not list(env.rglob(".heal_numpy*"))
    assert hashlib.sha256(source_of(env).read_bytes()).hexdigest() in (
        audit_numpy.PATCHED_TEXTS.values()
    )
    assert heal("--undo", env).code == 0
    assert not list(env.rglob(".heal_numpy*"))
    assert installed.differences(originals("rattler"), env) == ""


SLOW = ("unlink", "fsync", "open")
STEPS = ["rename", *(pytest.param(step, marks=pytest.mark.packages) for step in SLOW)]
STOP_AT = """
import os, signal, sys
sys.argv = sys.argv[1:]
name, left = sys.argv[1], int(sys.argv[2])
sys.argv[1:3] = []
sys.path.insert(0, os.path.dirname(sys.argv[0]))
import heal_numpy
real = getattr(os, name)
def counted(*args, **options):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)
setattr(os, name, counted)
sys.exit(heal_numpy.main())
"""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("option", ["--apply", "--undo"])
def test_a_kill_before_each_step_is_completed_by_the_same_command(copy, originals, step, option):
    """Killed before the first rename, before the second, and so on, to the end."""
    env = copy("rattler")
    heal("--apply", env)
    healed = env.parent / "healed"
    subprocess.run(["cp", "-al", env, healed], check=True)
    heal("--undo", env)
    before, after = (env, healed) if option == "--apply" else (healed, env)
    for number in range(100):
        work = env.parent / f"work-{number}"
        subprocess.run(["cp", "-al", before, work], check=True)
        done = subprocess.run(
            [sys.executable, "-c", STOP_AT, SCRIPT, step, str(number), option, work],
            capture_output=True,
        )
        assert import_numpy(work) == "2.3.5"
        assert heal(option, work).code == 0
        assert not list(work.rglob(".heal_numpy*"))
        # the note has the time and the folder in it, and so has RECORD its checksum
        changed = installed.differences(after, work)
        assert "history" in changed or not changed
        if option == "--undo":
            assert installed.differences(originals("rattler"), work) == ""
        if done.returncode != -signal.SIGKILL:
            break
    assert number > 0


def test_imports_at_the_same_time_all_work(copy):
    env = copy("rattler")
    failed, imported, stop = [], [0], threading.Event()

    def keep_importing():
        while not stop.is_set():
            try:
                import_numpy(env)
                imported[0] += 1
            except AssertionError as error:
                failed.append(str(error))

    threads = [threading.Thread(target=keep_importing) for _ in range(2)]
    for thread in threads:
        thread.start()
    rounds = 0
    try:
        while rounds < 8 or imported[0] <= 5:
            assert heal("--apply", env).code == 0
            assert heal("--undo", env).code == 0
            assert not failed
            rounds += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    print(f"{imported[0]} imports during {2 * rounds} changes")
    assert not failed


def test_two_runs_at_the_same_time_do_it_once(copy):
    env = copy("rattler")
    command = [sys.executable, SCRIPT, "--json", "--apply", env]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    said = [run.communicate()[0] for run in runs]
    results = [
        result
        for text in said
        for result in ("healed", "unchanged", "refused")
        if f'"{result}",' in text
    ]
    assert results.count("healed") == 1, said
    assert heal("--apply", env).results == ["unchanged"]
    assert bytecode_of(env).exists() and not list(env.rglob(".heal_numpy*"))


def test_a_live_run_is_not_harmed(copy):
    """What another run has beside the files, while it holds the lock, stays."""
    env = copy("rattler")
    live = source_of(env).parent / ".heal_numpy.__init__.py"
    live.write_text("of a live run")
    import fcntl

    with (env / "conda-meta" / ".heal_numpy.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert heal("--apply", env).results == ["refused"]
        assert live.exists()
    assert heal("--apply", env).results == ["healed"]
    assert not live.exists()
