"""Debian's packages, for tests that start what is in them."""

import os
import subprocess

from helpers import once
from numpy_feedstock import paths


def alone():
    """Be the only one of the tests' processes that changes the packages of this machine.

    A context manager. apt-get does not wait for another apt-get that reads the lists, and dpkg
    waits for nobody.
    """
    return once.alone(paths.BUILD / "apt.lock")


def install(*packages):
    """Install what is missing. RuntimeError, with what apt-get said, where that fails."""
    with alone():
        _install(packages)


def _install(packages):
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n"]
    shown = subprocess.run([*query, *packages], capture_output=True, text=True)
    missing = [name for name in packages if f"{name} installed" not in shown.stdout.splitlines()]
    if missing and os.geteuid():
        raise RuntimeError(
            f"not installed, and installing it needs root: apt-get install {' '.join(missing)}"
        )
    if missing:
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        # an old list names what the mirror no longer has
        for command in (
            [*apt, "update"],
            [*apt, "install", "--yes", "--no-install-recommends", *missing],
        ):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(
                command,
                env=quiet,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
