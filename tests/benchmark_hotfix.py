#!/usr/bin/env python3
"""How long `feedstock hotfix` takes for a mirror of 48 packages, and how large the twins are.

    PYTHONPATH=scripts:tests build/venv/bin/python tests/benchmark_hotfix.py

The packages have the files of the released wheel and 48 build strings.
"""

import argparse
import json
import resource
import tempfile
import time
import zipfile
from pathlib import Path

from helpers import originals
from helpers.command import feedstock
from numpy_feedstock.channels import channel_folder

# conda-forge compresses its packages at this level of zstd
LEVEL = 16


def make_mirror(folder, count):
    """A channel with ``count`` packages that are compressed as conda-forge's."""
    members = originals.members("2.3.5")
    first = originals.package(folder / "first", members, LEVEL)
    with zipfile.ZipFile(first) as opened:
        (name,) = [name for name in opened.namelist() if name.startswith("pkg-")]
        files = opened.read(name)
    for number in range(count):
        build = f"py311h{number:07x}_0"
        path = originals.package(folder, originals.with_index(members, build=build), level=1)
        replace_files(path, files)
    channel_folder.index(folder)
    return first.stat().st_size


def replace_files(path, files):
    """Put the compressed files of a package in the place of those of another one."""
    with zipfile.ZipFile(path) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in parts.items():
            opened.writestr(name, files if name.startswith("pkg-") else data)


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=int, default=48)
    count = parser.parse_args().packages
    with tempfile.TemporaryDirectory() as folder:
        size = make_mirror(Path(folder, "mirror"), count)
        for turn in ("healed", "again, nothing to do"):
            started, cpu = time.monotonic(), cpu_seconds()
            done = feedstock(
                "hotfix", Path(folder, "mirror"), "--output", Path(folder, "healed"), "--json"
            )
            assert done.returncode == 0, done.stderr
            seconds, spent = time.monotonic() - started, cpu_seconds() - cpu
            print(
                f"{count} packages {turn}: {seconds:.1f} s, {spent:.1f} CPU s, "
                f"{spent / count:.2f} CPU s a package"
            )
        twins = [row["megabytes"] for row in json.loads(done.stdout)["packages"]]
        print(f"a twin has {sum(twins) / count / size * 1e8:.0f}% of its original's size")


if __name__ == "__main__":
    main()
