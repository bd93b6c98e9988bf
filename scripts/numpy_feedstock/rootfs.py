"""Roots: the file tree of another Linux, with an older glibc than this machine's.

One is made from Debian's packages; any other directory with a Linux in it
serves as well. A root is entered read-only, with mounts and processes that end
with the program that entered it, however that ends.
"""

import collections
import fcntl
import functools
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from . import apt, child, paths
from .errors import FeedstockError, UsageError

# Debian 11, glibc 2.31: the oldest that Debian's mirrors still carry
SUITE = "bullseye"
# for the repro: a compiler, and a gdb without a Python of its own; for CPython: the rest
PACKAGES = ("g++", "gdb-minimal", "libffi-dev", "make", "zlib1g-dev")
# the newer Debian whose source package of CPython is built there
SOURCES = {"3.11": "bookworm", "3.13": "trixie"}
BUILD_PYTHON = "cd /mnt/Python-* && ./configure --without-ensurepip --disable-test-modules && make -j{jobs} && make altinstall"
MARKER = "made-from.json"

# no shell variable of this machine means anything there
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# MKL's OpenMP runtime wants /dev/shm; the stage first, because it may lie in a /tmp that gets covered
_ENTER = """
set -e
root=$1 stage=$2 mode=$3
shift 3
mount --rbind "$root" "$root"
[ -z "$stage" ] || mount --bind "$stage" "$root/mnt"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/tmp"
mount -o "remount,bind,$mode" "$root"
exec chroot "$root" "$@"
"""


def command(folder, argv, stage="", mode="ro"):
    """The command that runs ``argv`` in a root.

    folder : Path of the root
    stage : Path of a folder that is seen there, and can be written to, as /mnt
    mode : "ro" or "rw": whether the root itself can be written to
    """
    return [
        *_isolated(),
        "sh",
        "-c",
        _ENTER,
        "sh",
        os.path.abspath(folder),
        stage and os.path.abspath(stage),
        mode,
        *argv,
    ]


def environment(more):
    """The variables of a program in a root: no shell variable of this machine, and ``more``, a dict."""
    return _ENVIRONMENT | more


def run(folder, argv, stage="", env=None, timeout=None):
    """Run ``argv`` in a root; the finished process with its stdout and stderr as text.

    env : dict of variables beside PATH, HOME and LC_ALL
    timeout : seconds; subprocess.TimeoutExpired after them, when everything in there has ended
    """
    return subprocess.run(
        command(folder, argv, stage),
        env=environment(env or {}),
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )


def glibc(folder):
    """The root's glibc, "2.31"; UsageError when it is no root of a Linux with glibc."""
    asked = (
        run(folder, ["/bin/sh", "-c", "getconf GNU_LIBC_VERSION || true"])
        if folder.is_dir()
        else None
    )
    if asked is None or asked.returncode:
        found = asked.stderr.strip() if asked else "no such directory"
        raise UsageError(
            f"not the root directory of a Linux system: {folder}",
            found=found,
            remedy="feedstock old-glibc --help has an example",
        )
    if not asked.stdout.startswith("glibc "):
        raise UsageError(
            f"no glibc in {folder}",
            found=asked.stderr.strip() or asked.stdout.strip() or "getconf names no version",
        )
    return asked.stdout.split()[1]


def interpreter(folder, python):
    """Path, in the root, of its Python of a minor version; UsageError when it has none."""
    found = run(folder, ["/bin/sh", "-c", f"command -v python{python}"]).stdout.strip()
    if not found:
        raise UsageError(
            f"no python{python} in {folder}",
            remedy=f"install python{python} with its headers there, or name another --root",
        )
    return found


def made(python):
    """Where the root with a minor version of Python is kept, and whether it is there and up to date."""
    if python not in SOURCES:
        known = ", ".join(f"{minor} ({suite})" for minor, suite in SOURCES.items())
        raise UsageError(
            f"no Debian has the source of python{python} for a root",
            known=known,
            remedy="name a root directory with --root",
        )
    folder = paths.BUILD / f"root-{python}"
    marker = folder / MARKER
    return folder, marker.exists() and json.loads(marker.read_text()) == _made_from(python)


def ensure(python, progress):
    """The root of Debian 11 with a CPython, made once; whole or not at all. Returns its folder.

    python : str, the minor version, "3.11"

    Raises UsageError when this machine cannot make one, FeedstockError when that fails.
    """
    paths.BUILD.mkdir(exist_ok=True)
    # a second one waits, and finds it made
    with open(paths.BUILD / f"root-{python}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder, there = made(python)
        if there:
            return folder
        check_can_make()
        partial, log = Path(f"{folder}.partial"), paths.LOGS / f"root-{python}.log"
        for leftover in (partial, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        log.unlink(missing_ok=True)
        progress.step(f"making a root of Debian 11 (once, about 2 minutes); log: {log}")
        child.run(_debootstrap, partial / "root", _mirror(), log=log, on_line=progress.working)
        progress.step(f"building CPython {python} in it (once, about 3 minutes)")
        child.run(
            _build_python, partial / "root", python, _mirror(), log=log, on_line=progress.working
        )
        (partial / "root" / MARKER).write_text(json.dumps(_made_from(python), indent=1))
        (partial / "root").rename(folder)
        shutil.rmtree(partial)
    return folder


def check_can_make():
    """UsageError names what this machine lacks to make a root."""
    if os.geteuid() or "--map-root-user" in _isolated():
        raise UsageError(
            "making a root needs root",
            remedy="run it as root, or name a root directory with --root",
        )
    if not shutil.which("apt-get"):
        raise UsageError(
            "a root is made from Debian's packages, and apt-get is not here",
            remedy="name a root directory with --root",
        )


@functools.cache
def _isolated():
    """The start of a command that gets mounts and process numbers of its own; killed, it takes all with it."""
    for mapping in ([], ["--map-root-user"]):
        start = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            *mapping,
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ]
        try:
            found = subprocess.run([*start, "true"], check=True, capture_output=True, text=True)
            return start
        except subprocess.CalledProcessError as error:
            found = error.stderr.strip()
        except OSError as error:
            found = str(error)
    raise UsageError(
        "entering a root needs root or user namespaces",
        found=found,
        remedy="run it as root, or allow user namespaces",
    )


def _made_from(python):
    return {
        "suite": SUITE,
        "packages": list(PACKAGES),
        "source": SOURCES[python],
        "python": BUILD_PYTHON,
    }


def _mirror():
    archive = apt.mirror(SUITE)
    if archive is None:
        raise UsageError(
            f"no archive that apt is configured for answers with Debian's {SUITE}",
            remedy="name a root directory with --root",
        )
    return archive


def _debootstrap(folder, mirror, say):
    folder.mkdir(parents=True)
    program = [shutil.which("debootstrap")]
    if program == [None]:
        unpacked = folder.parent / "debootstrap"
        download = "download of debootstrap (apt-get update first, or apt-get install debootstrap)"
        _call(download, ["apt-get", "download", "debootstrap"], say, cwd=folder.parent)
        _call(
            "unpacking debootstrap",
            ["dpkg", "-x", *folder.parent.glob("debootstrap_*.deb"), unpacked],
            say,
        )
        program = [
            "env",
            f"DEBOOTSTRAP_DIR={unpacked}/usr/share/debootstrap",
            unpacked / "usr/sbin/debootstrap",
        ]
    # it mounts /proc there
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    _call("debootstrap", [*_isolated(), *program, *options, SUITE, folder, mirror], say)
    for package in folder.glob("var/cache/apt/archives/*.deb"):
        package.unlink()


def _build_python(folder, python, mirror, say):
    sources = folder.parent / "apt"
    sources.mkdir()
    apt_get = apt.command(sources, f"deb-src {mirror} {SOURCES[python]} main")
    _call("apt-get update", [*apt_get, "update"], say)
    _call(
        f"source of python{python}",
        [*apt_get, "source", "--download-only", f"python{python}"],
        say,
        cwd=sources,
    )
    (archive,) = sources.glob("*.orig.tar.*[!c]")
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(sources)
    build = BUILD_PYTHON.format(jobs=os.cpu_count())
    _call(
        "CPython",
        command(folder, ["/bin/sh", "-c", build], stage=sources, mode="rw"),
        say,
        env=_ENVIRONMENT,
    )


def _call(what, argv, say, **options):
    """Run a command, saying each line it prints; FeedstockError shows the last ones."""
    tail = collections.deque(maxlen=15)
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        **options,
    ) as process:
        for line in process.stdout:
            say(line.rstrip())
            tail.append(f"  | {line.rstrip()}")
    if process.returncode:
        raise FeedstockError(
            "\n".join([f"making the root failed: {what}: exit code {process.returncode}", *tail])
        )
