#!/usr/bin/env python3
"""How much CPU time healing takes over many prefixes of conda, as large as real ones are.

export PYTHONPATH=scripts:tests
build/venv/bin/python tests/benchmark_heal.py                     a thousand, by this Python
build/venv/bin/python tests/benchmark_heal.py --python python3.6  by another
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers import installed
from numpy_feedstock import paths

# as in a data scientist's environment: packages of conda, and folders in site-packages
PACKAGES = 250


def make(folder, count):
    """Make prefixes that share their files, as those of one cache do; the folder of all."""
    channel = installed.conda_package("2.3.5", folder / "package")
    template = folder / "template"
    installed.with_rattler(channel, template, folder / "cache")
    subprocess.run(["rm", "-rf", folder / "package", folder / "cache"], check=True)
    site = template / installed.SITE_PACKAGES
    keep = {"__init__.py", "version.py", "__pycache__", "_core"}
    for entry in (site / "numpy").iterdir():
        if entry.name not in keep:
            subprocess.run(["rm", "-rf", entry], check=True)
    for number in range(PACKAGES):
        (template / "conda-meta" / f"package-{number}-1.0-h1234567_0.json").touch()
        (site / f"package{number}").mkdir()
    for number in range(count):
        subprocess.run(["cp", "-al", template, folder / "envs" / f"env-{number:04}"], check=True)
    return folder / "envs"


def run(python, envs, *options):
    """CPU seconds of a run, and its counts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [python, paths.ROOT / "scripts" / "heal_numpy.py", "--json", *options, envs]
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, json.loads(done.stdout.splitlines()[-1])["summary"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--prefixes", type=int, default=1000, metavar="N", help="how many (default: 1000)"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="what runs the healer (default: this Python)"
    )
    parser.add_argument("--folder", help="where to make the prefixes (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heal-", dir=args.folder) as folder:
        os.mkdir(os.path.join(folder, "envs"))
        envs = make(Path(folder), args.prefixes)
        steps = {
            "cold cache, not measured": (),
            "dry run": (),
            "healing": ("--apply",),
            "second run": ("--apply",),
            "undo": ("--undo",),
        }
        for step, options in steps.items():
            seconds, counts = run(args.python, envs, *options)
            print(f"{step}: {seconds:.2f} s of CPU time; {counts}", flush=True)


if __name__ == "__main__":
    main()
