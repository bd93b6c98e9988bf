"""The file tree (rootfs) of another Linux, which has an older glibc than this machine.

One is made from Debian's packages. Any other directory with a Linux in it
serves as well. It is entered read-only. Its mounts and processes end with the
program that entered it, in whatever way that program ends.
"""

import collections
import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import child, files, paths
from ..building import apt
from ..errors import FeedstockError, UsageError
from ..progress import Progress, Say

# Debian 11 with glibc 2.31 is the oldest that Debian's mirrors still carry
SUITE = "bullseye"
# the repro needs a compiler and a gdb without a Python of its own; CPython needs the rest
PACKAGES = ("g++", "gdb-minimal", "libffi-dev", "make", "zlib1g-dev")
# {minor version: the newer Debian whose source package of that CPython is built there}
SOURCES = {"3.11": "bookworm", "3.13": "trixie"}
# -O1 takes half of the time of the usual -O3: this CPython only runs checks
BUILD_PYTHON = (
    "cd /mnt/Python-* && ./configure --without-ensurepip --disable-test-modules OPT='-DNDEBUG -O1' "
    "&& make -j{jobs} && make altinstall"
)
MARKER = "made-from.json"

# the shell variables of this machine mean nothing there
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# MKL's OpenMP runtime wants /dev/shm. The stage comes first, because it may lie in a /tmp that
# gets covered.
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
# The process ends when its parent ends, as with `setpriv --pdeathsig KILL`. The setpriv of
# util-linux 2.32 (RHEL 8) has no --pdeathsig, but Python is always here.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def command(
    folder: Path, argv: Sequence[str], stage: Path | None = None, mode: str = "ro"
) -> list[str]:
    """Return the command that runs ``argv`` in a rootfs.

    stage : a folder that is seen there as /mnt and can be written to
    mode : "ro" or "rw": whether the rootfs itself can be written to

    Raises UsageError when this machine does not let us enter one.
    """
    staged = str(stage.absolute()) if stage else ""
    enter = ["sh", "-c", _ENTER, "sh", str(folder.absolute()), staged, mode]
    return [*_isolated(), *enter, *argv]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a program in a rootfs: fixed ones, and ``more``."""
    return _ENVIRONMENT | dict(more)


def run(
    folder: Path,
    argv: Sequence[str],
    stage: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` in a rootfs; return the finished process with its stdout and stderr as text.

    env : variables beside PATH, HOME and LC_ALL
    timeout : seconds

    Raises subprocess.TimeoutExpired when it takes longer; then everything in there has ended.
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


def glibc(folder: Path) -> str:
    """Return the rootfs's glibc, "2.31". Raises UsageError when it is no Linux with glibc."""
    if not folder.is_dir():
        raise _no_rootfs(folder, "no such directory")
    asked = run(folder, ["/bin/sh", "-c", "getconf GNU_LIBC_VERSION || true"])
    if asked.returncode:
        raise _no_rootfs(folder, asked.stderr.strip())
    if not asked.stdout.startswith("glibc "):
        said = asked.stderr.strip() or asked.stdout.strip() or "getconf names no version"
        raise UsageError(
            f"no glibc in {folder}",
            found=said,
            remedy="name a directory with a Linux that has glibc and getconf",
        )
    return asked.stdout.split()[1]


def _no_rootfs(folder: Path, found: str) -> UsageError:
    return UsageError(
        f"not the root directory of a Linux system: {folder}",
        found=found,
        remedy="feedstock old-glibc --help has an example",
    )


def interpreter(folder: Path, python: str) -> str:
    """Return the path, in the rootfs, of its Python; ``python`` is the minor version, "3.11".

    Raises UsageError when there is none.
    """
    found = _find(folder, f"command -v python{python}")
    if not found:
        raise UsageError(
            f"no python{python} in {folder}",
            remedy=f"install python{python} with its headers there, or name another --root",
        )
    return found


# asks a Python where its headers are, and prints them when they are there
_HEADER = (
    "import os, sysconfig; header = os.path.join(sysconfig.get_path('include'), 'Python.h'); "
    "print(header if os.path.exists(header) else '')"
)


def check_tools(folder: Path, python: str) -> None:
    """Raise UsageError when a rootfs lacks what the repro compiles with.

    python : the minor version, "3.11"
    """
    program = interpreter(folder, python)
    missing = []
    if not _find(folder, "command -v c++ || command -v g++ || command -v clang++"):
        missing.append("C++ compiler (c++, g++ or clang++)")
    if not _find(folder, f'"{program}" -c "{_HEADER}"'):
        missing.append(f"headers of python{python} (Python.h)")
    if missing:
        raise UsageError(
            f"the repro cannot be compiled in {folder}",
            expected="a C++ compiler and the Python headers",
            found=f"no {' and no '.join(missing)}",
            remedy=f"install python{python}-devel and gcc-c++ there (Debian: -dev and g++)",
        )


def _find(folder: Path, script: str) -> str:
    """Return what a line of shell prints in a rootfs."""
    return run(folder, ["/bin/sh", "-c", script]).stdout.strip()


def made(python: str) -> tuple[Path, bool]:
    """Return where the rootfs with a Python is kept, and whether it is there and up to date.

    python : the minor version, "3.11"

    Raises UsageError when Debian has no source of that Python.
    """
    if python not in SOURCES:
        known = ", ".join(f"{minor} ({suite})" for minor, suite in SOURCES.items())
        raise UsageError(
            f"no Debian has the source of python{python} for a rootfs",
            known=known,
            remedy="name a rootfs with --root",
        )
    folder = paths.BUILD / f"root-{python}"
    return folder, files.json_object(folder / MARKER) == _made_from(python)


def ensure(python: str, progress: Progress) -> Path:
    """Return the folder of a Debian 11 with a CPython. It is made once, whole or not at all.

    python : the minor version, "3.11"

    Raises UsageError when this machine cannot make one, FeedstockError when that fails.
    """
    paths.BUILD.mkdir(exist_ok=True)
    # a second process waits here, and finds the finished rootfs
    with open(paths.BUILD / f"root-{python}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder, there = made(python)
        if not there:
            check_can_make()
            _make(folder, python, progress)
    return folder


def _make(folder: Path, python: str, progress: Progress) -> None:
    partial, log = Path(f"{folder}.partial"), paths.LOGS / f"root-{python}.log"
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    log.unlink(missing_ok=True)
    tree = partial / "root"
    progress.step(f"making a rootfs of Debian 11 (once, about 2 minutes); log: {log}")
    child.run(_debootstrap, tree, _mirror(), log=log, say=progress.working)
    progress.step(f"building CPython {python} in it (once, about 2 minutes)")
    child.run(_build_python, tree, python, _mirror(), log=log, say=progress.working)
    (tree / MARKER).write_text(json.dumps(_made_from(python), indent=1))
    tree.rename(folder)
    shutil.rmtree(partial)


def check_can_make() -> None:
    """Raise UsageError when this machine lacks something to make a rootfs."""
    if os.geteuid() or "--map-root-user" in _isolated():
        raise UsageError(
            "making a rootfs needs the user root",
            remedy="run it as root, or name a rootfs with --root",
        )
    if not shutil.which("apt-get"):
        raise UsageError(
            "a rootfs is made from Debian's packages, and apt-get is not here",
            remedy="name a rootfs with --root",
        )


@functools.cache
def _isolated() -> list[str]:
    """Return the start of a command that gets its own mounts and process numbers.

    When the command is killed, all its processes and mounts end.
    """
    if not shutil.which("unshare"):
        raise UsageError(
            "entering a rootfs needs the program unshare",
            found="no unshare on PATH",
            remedy="install util-linux",
        )
    dying = [sys.executable, "-I", "-c", _DIE_WITH_PARENT, "unshare"]
    for mapping in ([], ["--map-root-user"]):
        start = [*dying, *mapping, "--mount", "--pid", "--fork", "--kill-child"]
        tried = subprocess.run([*start, "true"], capture_output=True, text=True)
        if tried.returncode == 0:
            return start
    found = tried.stderr.strip()
    if "unrecognized option" in found:
        raise UsageError(
            "this machine's unshare is too old to enter a rootfs",
            expected="util-linux 2.32 or later",
            found=found.splitlines()[0],
            remedy="install a newer util-linux",
        )
    raise UsageError(
        "entering a rootfs needs the user root or user namespaces",
        found=found,
        remedy="run it as root, or allow user namespaces",
    )


def _made_from(python: str) -> dict[str, Any]:
    return {
        "suite": SUITE,
        "packages": list(PACKAGES),
        "source": SOURCES[python],
        "python": BUILD_PYTHON,
    }


def _mirror() -> str:
    archive: str | None = apt.mirror(SUITE)
    if archive is None:
        raise UsageError(
            f"no archive that apt is configured for answers with Debian's {SUITE}",
            remedy="name a rootfs with --root",
        )
    return archive


def _debootstrap(folder: Path, mirror: str, say: Say) -> None:
    """Unpack Debian 11 into a new folder."""
    folder.mkdir(parents=True)
    # it mounts /proc there
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    program = _find_debootstrap(folder.parent, say)
    _call("debootstrap", [*_isolated(), *program, *options, SUITE, folder, mirror], say)
    for package in folder.glob("var/cache/apt/archives/*.deb"):
        package.unlink()


def _find_debootstrap(folder: Path, say: Say) -> list[str]:
    """Return the command of debootstrap: the machine's, or one unpacked into a folder."""
    installed = shutil.which("debootstrap")
    if installed:
        return [installed]
    unpacked = folder / "debootstrap"
    download = "download of debootstrap (apt-get update first, or apt-get install debootstrap)"
    _call(download, ["apt-get", "download", "debootstrap"], say, cwd=folder)
    (archive,) = folder.glob("debootstrap_*.deb")
    _call("unpacking debootstrap", ["dpkg", "-x", archive, unpacked], say)
    variable = f"DEBOOTSTRAP_DIR={unpacked}/usr/share/debootstrap"
    return ["env", variable, str(unpacked / "usr/sbin/debootstrap")]


def _build_python(folder: Path, python: str, mirror: str, say: Say) -> None:
    """Compile CPython in the rootfs, from Debian's source package."""
    sources = folder.parent / "apt"
    sources.mkdir()
    apt_get = apt.command(sources, f"deb-src {mirror} {SOURCES[python]} main")
    _call("apt-get update", [*apt_get, "update"], say)
    download = [*apt_get, "source", "--download-only", f"python{python}"]
    _call(f"source of python{python}", download, say, cwd=sources)
    (archive,) = sources.glob("*.orig.tar.*[!c]")
    with tarfile.open(archive) as tar:
        tar.extractall(sources, filter="data")
    build = BUILD_PYTHON.format(jobs=os.cpu_count())
    inside = command(folder, ["/bin/sh", "-c", build], stage=sources, mode="rw")
    _call("CPython", inside, say, env=_ENVIRONMENT)


def _call(what: str, argv: Sequence[str | Path], say: Say, **options: Any) -> None:
    """Run a command and pass each line that it prints to ``say``.

    Raises FeedstockError, which shows the last lines.
    """
    tail: collections.deque[str] = collections.deque(maxlen=15)
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        **options,
    ) as process:
        for line in process.stdout or ():
            say(line.rstrip())
            tail.append(f"  | {line.rstrip()}")
    if process.returncode:
        raise FeedstockError(
            "\n".join([f"making the rootfs failed: {what}: exit code {process.returncode}", *tail])
        )
