"""Entering a rootfs: this machine's own serves as one; a directory that is none is refused."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from numpy_feedstock import paths
from numpy_feedstock.errors import UsageError
from numpy_feedstock.measuring import rootfs

HERE = Path("/")


def refusal():
    """Why this machine lets nobody enter a rootfs; None where it does."""
    try:
        rootfs.glibc(HERE)
    except UsageError as error:
        return str(error)


pytestmark = pytest.mark.skipif(
    refusal() is not None, reason=f"no root can be entered here: {refusal()}"
)


def start(code, *before, **variables):
    """A Python that has `root` and HERE, started by a command or with other variables."""
    prelude = (
        "from pathlib import Path; from numpy_feedstock.measuring import rootfs; HERE = Path('/'); "
    )
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
        match=r"no Debian has the source of python3.12 for a rootfs\n  known:  3.11 \(bookworm\)",
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

    def count():
        command = ["pgrep", "-fc", f"^sleep {seconds}"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    return ["sh", "-c", f"sleep {seconds} & sleep {seconds}"], count


def until(expected, count):
    deadline = time.monotonic() + 300
    while count() != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count() == expected


def mounts():
    """What is mounted, without what other tests mount in temporary folders meanwhile."""
    lines = Path("/proc/mounts").read_text().splitlines()
    return [line for line in lines if f" {tempfile.gettempdir()}/" not in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_program_that_entered(number, sleeper):
    argv, count = sleeper
    before = mounts()
    process = start(f"rootfs.run(HERE, {argv!r})")
    until("2", count)
    process.send_signal(number)
    process.communicate(timeout=300)
    until("0", count)
    assert mounts() == before


def test_nothing_outlives_its_time(sleeper):
    argv, count = sleeper
    with pytest.raises(subprocess.TimeoutExpired):
        rootfs.run(HERE, argv, timeout=2)
    until("0", count)


def test_without_root_user_namespaces_do(tmp_path):
    fake = tmp_path / "unshare"
    real = shutil.which("unshare")
    fake.write_text(f'#!/bin/sh\ncase "$*" in *--map-root-user*) exec {real} "$@";; esac\nexit 1\n')
    fake.chmod(0o755)
    process = start(
        "print(rootfs.glibc(HERE)); rootfs.check_can_make()",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    output, errors = process.communicate(timeout=300)
    assert output.strip() == rootfs.glibc(HERE)
    assert "making a rootfs needs the user root" in errors


def put_on_path(folder, name, script):
    """Puts a program of a few lines of shell before all others; returns PATH."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_setpriv_is_not_needed(tmp_path):
    # util-linux 2.32, RHEL 8's, has one without --pdeathsig
    path = put_on_path(
        tmp_path, "setpriv", "echo \"setpriv: unrecognized option '--pdeathsig'\" >&2; exit 1"
    )
    output, errors = start("print(rootfs.glibc(HERE))", PATH=path).communicate(timeout=300)
    assert output.strip() == rootfs.glibc(HERE), errors


def test_an_unshare_that_is_too_old_is_named(tmp_path):
    path = put_on_path(
        tmp_path, "unshare", "echo \"unshare: unrecognized option '--kill-child'\" >&2; exit 1"
    )
    _, errors = start("rootfs.glibc(HERE)", PATH=path).communicate(timeout=300)
    assert "this machine's unshare is too old to enter a rootfs" in errors
    assert "expected: util-linux 2.32 or later" in errors


@contextlib.contextmanager
def mounted(folder, kind, *options):
    """Mount a file system for the time of a block. Without the right to mount, skip the test."""
    command = ["mount", "-t", kind, *options, "none", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no {kind} can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def copy_of_this_linux(tmp_path):
    """This machine's tree, from which files can be removed: the removal is not the machine's."""
    writable, merged = tmp_path / "writable", tmp_path / "merged"
    for folder in (writable, merged):
        folder.mkdir()
    layers = f"lowerdir=/,upperdir={writable}/upper,workdir={writable}/work"
    with mounted(writable, "tmpfs"):
        for name in ("upper", "work"):
            (writable / name).mkdir()
        with mounted(merged, "overlay", "-o", layers):
            yield merged


@pytest.fixture
def its_python(copy_of_this_linux):
    """The minor version of a Python with headers in there."""
    for header in copy_of_this_linux.glob("usr/include/python3.*/Python.h"):
        minor = header.parent.name.removeprefix("python")
        if (copy_of_this_linux / f"usr/bin/python{minor}").exists():
            return minor
    pytest.skip("this machine has no system Python with its headers")


def test_a_linux_with_a_compiler_and_the_headers_will_do(copy_of_this_linux, its_python):
    rootfs.check_tools(copy_of_this_linux, its_python)


def test_a_linux_without_a_compiler_or_headers_is_refused_beforehand(
    copy_of_this_linux, its_python
):
    (copy_of_this_linux / f"usr/include/python{its_python}/Python.h").unlink()
    with pytest.raises(UsageError) as caught:
        rootfs.check_tools(copy_of_this_linux, its_python)
    assert "found:    no headers of python" in str(caught.value)
    for folder in ("usr/bin", "usr/local/bin"):
        for name in ("c++", "g++", "clang++"):
            (copy_of_this_linux / folder / name).unlink(missing_ok=True)
    with pytest.raises(UsageError) as caught:
        rootfs.check_tools(copy_of_this_linux, its_python)
    assert "found:    no C++ compiler" in str(caught.value)
    assert "and no headers of python" in str(caught.value)
    assert "gcc-c++ there (Debian: -dev and g++)" in str(caught.value)


def test_with_neither_root_nor_user_namespaces_it_says_so():
    # a container without privileges, as many CI systems run them
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all "$@"'
    process = start(
        "rootfs.glibc(HERE)", "unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"
    )
    _, errors = process.communicate(timeout=300)
    assert (
        "UsageError: entering a rootfs needs the user root or user namespaces\n  found: " in errors
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_rootfs_with_a_broken_marker_is_not_made_yet(monkeypatch, tmp_path, text):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    folder, there = rootfs.made("3.11")
    folder.mkdir()
    marker = folder / rootfs.MARKER
    marker.write_text(text, encoding="latin-1")
    assert rootfs.made("3.11") == (folder, False) and not there
    marker.write_text(json.dumps(rootfs._made_from("3.11")))
    assert rootfs.made("3.11") == (folder, True)
