"""Virtual environments of programs and libraries that tests run, each from a locked requirements file."""

import hashlib
import shutil
import subprocess
import sys

from numpy_feedstock import paths, wheel


def made(lock):
    """The folder of a lock's environment; kept in build/, made once."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = paths.BUILD / "environments" / f"{lock.stem}-{wheel.TAG}-{digest}"
    # last: an environment without it was not finished; not moved, because its programs name it
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            folder / "bin" / "python",
            "install",
            "-qq",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", lock], check=True)
        complete.touch()
    return folder


def site_packages(lock):
    """What PYTHONPATH has to be for its libraries."""
    (folder,) = made(lock).glob("lib/python3*/site-packages")
    return folder
