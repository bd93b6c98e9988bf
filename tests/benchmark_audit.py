#!/usr/bin/env python3
"""How long the audit takes over many prefixes of conda, as large as real ones are; needs gcc, and 1 MB a prefix.

python3 tests/benchmark_audit.py                     a thousand, by this Python
python3 tests/benchmark_audit.py --python python3.6  by another
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers.trees import INTERFACE, SITE_PACKAGES, link, make_prefix

ROOT = Path(__file__).parents[1]

# as in a data scientist's environment: packages, numpy's files, and the length of numpy/__init__.py
PACKAGES, FILES, LENGTH = 250, 1600, 26_000
FILE = SITE_PACKAGES + "/numpy/some/tests/test_number_{}.py of {}"
SOURCE = "def blas_fpe_check():\n    ones((20, 20)) @ ones((20, 20))\nblas_fpe_check()\n"
RUNS = 5


def make(folder, count):
    """Make so many prefixes in a folder."""
    extension = link(INTERFACE, folder)
    source = SOURCE + "# and so on\n" * (LENGTH // 12)
    # a record has a name and two checksums for each file
    files = [FILE.format(number, 300 * "0") for number in range(FILES)]
    for number in range(count):
        prefix = folder / "envs" / f"env-{number:04}"
        make_prefix(prefix, extension, source, "37_h5875eb1_mkl", files=files)
        for package in range(PACKAGES):
            (prefix / "conda-meta" / f"package-{package}-1.0-h1234567_0.json").touch()
            (prefix / SITE_PACKAGES / f"package{package}").mkdir()
    return folder / "envs"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--prefixes", type=int, default=1000, metavar="N", help="how many (default: 1000)"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="what runs the audit (default: this Python)"
    )
    args = parser.parse_args()
    version = subprocess.run(
        [args.python, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        envs = make(Path(folder), args.prefixes)
        seconds, worked = [], 0
        # the first run warms the cache
        for _ in range(1 + RUNS):
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            audit = subprocess.run(
                [args.python, ROOT / "scripts" / "audit_numpy.py", "--json", envs],
                capture_output=True,
                text=True,
            )
            seconds.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if audit.stdout.count('"verdict": "AFFECTED"') != args.prefixes:
                sys.exit(f"the audit did not find what was made: {audit.stderr}")
    shown = ", ".join(f"{each:.2f}" for each in sorted(seconds[1:]))
    # on a machine with other work, the CPU time is what counts
    print(f"{args.prefixes} prefixes, warm cache, {version}: {shown} s; {worked:.2f} s of CPU time")


if __name__ == "__main__":
    main()
