"""Entering a root: this machine's own serves as one, and a directory that is none is told apart."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from numpy_feedstock import paths, rootfs
from numpy_feedstock.errors import UsageError

HERE = Path("/")


def refusal():
    """Why this machine lets nobody enter a root; None where it does."""
    try:
        rootfs.glibc(HERE)
    except UsageError as error:
        return str(error)


pytestmark = pytest.mark.skipif(
    refusal() is not None, reason=f"no root can be entered here: {refusal()}"
)


def start(code, *before, **variables):
    """A Python that has `root` and HERE, started by a command or with other variables."""
    prelude = "from pathlib import Path; from numpy_feedstock import rootfs; HERE = Path('/'); "
    return subprocess.Popen(
        [*before, sys.executable, "-c", prelude + code],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts"), **variables},
    )


def test_its_glibc_and_python_are_asked_in_the_root():
    assert rootfs.glibc(HERE) == os.confstr("CS_GNU_LIBC_VERSION").split()[1]
    with pytest.raises(UsageError, match="no python3.99 in /\n"):
        rootfs.interpreter(HERE, "3.99")


def test_a_python_that_no_debian_has_is_refused_before_anything_is_made():
    with pytest.raises(
        UsageError,
        match=r"no Debian has the source of python3.12 for a root\n  known:  3.11 \(bookworm\), 3.13",
    ):
        rootfs.made("3.12")


@pytest.fixture(scope="module")
def empty_linux(tmp_path_factory):
    """A root that can be entered and has nothing but a shell that does nothing."""
    folder = tmp_path_factory.mktemp("root")
    for name in ("bin", "dev", "mnt", "proc", "tmp"):
        (folder / name).mkdir()
    compiler = shutil.which("cc")
    program = [compiler, "-static", "-x", "c", "-", "-o", folder / "bin/sh"]
    if (
        not compiler
        or subprocess.run(program, input="int main(void) { return 0; }", text=True).returncode
    ):
        pytest.skip("no C compiler that links statically")
    return folder


def test_a_linux_without_glibc_or_python_is_refused(empty_linux):
    with pytest.raises(UsageError, match="no glibc in "):
        rootfs.glibc(empty_linux)
    with pytest.raises(UsageError, match="no python3.11 in "):
        rootfs.interpreter(empty_linux, "3.11")


@pytest.mark.parametrize(
    ("missing", "found"),
    [
        ("", "no such directory"),
        ("proc", "/root/proc: mount point does not exist"),
        ("bin/sh", "chroot: failed to run command"),
    ],
)
def test_a_directory_that_is_no_root_is_refused_with_what_is_wrong(
    missing, found, empty_linux, tmp_path
):
    folder = tmp_path / "root"
    if missing:
        shutil.copytree(empty_linux, folder)
        shutil.move(folder / missing, tmp_path)
    with pytest.raises(UsageError, match="not the root directory of a Linux system: ") as caught:
        rootfs.glibc(folder)
    assert found in str(caught.value)


def test_only_the_stage_and_tmp_can_be_written_to(tmp_path):
    # the first is this machine's own root folder, were it let through
    writes = "touch /written-by-test-root; touch /mnt/stage; touch /tmp/mine && ls /tmp /dev/shm"
    done = rootfs.run(HERE, ["sh", "-c", writes], stage=tmp_path)
    assert "/written-by-test-root': Read-only file system" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]
    assert done.stdout.split() == ["/dev/shm:", "/tmp:", "mine"]


def test_no_variable_of_this_machine_gets_in(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    shown = rootfs.run(HERE, ["env"], env={"OURS": "1"}).stdout.split()
    assert "OURS=1" in shown and not [line for line in shown if line.startswith("MKL_")]


@pytest.fixture
def sleeper():
    """A command that leaves a child behind, and how many of it are alive."""
    seconds = f"1000.{time.monotonic_ns()}"
    count = lambda: subprocess.run(
        ["pgrep", "-fc", f"^sleep {seconds}"], capture_output=True, text=True
    ).stdout.strip()  # noqa: E731
    return ["sh", "-c", f"sleep {seconds} & sleep {seconds}"], count


def until(expected, count):
    deadline = time.monotonic() + 20
    while count() != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count() == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_program_that_entered(number, sleeper):
    argv, count = sleeper
    mounts = Path("/proc/mounts").read_text()
    process = start(f"rootfs.run(HERE, {argv!r})")
    until("2", count)
    process.send_signal(number)
    process.communicate(timeout=20)
    until("0", count)
    assert Path("/proc/mounts").read_text() == mounts


def test_nothing_outlives_its_time(sleeper):
    argv, count = sleeper
    with pytest.raises(subprocess.TimeoutExpired):
        rootfs.run(HERE, argv, timeout=2)
    until("0", count)


def test_without_root_user_namespaces_do(tmp_path):
    fake = tmp_path / "unshare"
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *--map-root-user*) exec {shutil.which("unshare")} "$@";; esac\nexit 1\n'
    )
    fake.chmod(0o755)
    process = start(
        "print(rootfs.glibc(HERE)); rootfs.check_can_make()",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    output, errors = process.communicate(timeout=20)
    assert output.strip() == rootfs.glibc(HERE)
    assert "making a root needs root" in errors


def test_with_neither_root_nor_user_namespaces_it_says_so():
    # a container without privileges, as many CI systems run them
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all "$@"'
    process = start(
        "rootfs.glibc(HERE)", "unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"
    )
    _, errors = process.communicate(timeout=20)
    assert "UsageError: entering a root needs root or user namespaces\n  found: " in errors
