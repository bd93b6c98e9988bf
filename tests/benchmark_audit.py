#!/usr/bin/env python3
"""Time and memory of the audit over prefixes of conda, beside find and grep on the same tree.

Needs gcc, and 1 MB of disk for a prefix of the default size. A prefix is as large as a data
scientist's: records of 250 packages, folders of as many, the record of numpy with 1,600 files.

python3 tests/benchmark_audit.py                                  a thousand, by this Python
python3 tests/benchmark_audit.py --python python3.6               by another
python3 tests/benchmark_audit.py --prefixes 10000 --packages 25   ten thousand small ones
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from helpers.trees import INTERFACE, SITE_PACKAGES, link, make_prefix

ROOT = Path(__file__).parents[1]
AUDIT = ROOT / "scripts" / "audit_numpy.py"
# of numpy: files in its record, and bytes of numpy/__init__.py
FILES, LENGTH = 1600, 26_000
FILE = SITE_PACKAGES + "/numpy/some/tests/test_number_{}.py of {}"
SOURCE = "def blas_fpe_check():\n    ones((20, 20)) @ ones((20, 20))\nblas_fpe_check()\n"
# what somebody would type who knows the layout, and who does not
LS_AND_GREP = (
    "ls -d {}/*/conda-meta/libblas-*mkl* | wc -l;"
    " grep -l blas_fpe_check {}/*/lib/python3.11/site-packages/numpy/__init__.py"
)
FIND_AND_GREP = (
    "find {} -path '*/numpy/__init__.py' -print0 | xargs -0 grep -l blas_fpe_check;"
    " find {} -name 'libblas-*mkl*.json' | wc -l"
)
RUNS = 3


def make(folder, count, packages):
    """Make so many prefixes with so many packages in a folder. Returns the folder of them all."""
    extension = link(INTERFACE, folder)
    source = SOURCE + "# and so on\n" * (LENGTH // 12)
    # a record has a name and two checksums for each file
    files = [FILE.format(number, 300 * "0") for number in range(FILES * packages // 250)]
    for number in range(count):
        prefix = folder / "envs" / f"env-{number:05}"
        make_prefix(prefix, extension, source, "37_h5875eb1_mkl", files=files)
        for package in range(packages):
            (prefix / "conda-meta" / f"package-{package}-1.0-h1234567_0.json").touch()
            (prefix / SITE_PACKAGES / f"package{package}").mkdir()
    return folder / "envs"


def measure(command, found, count):
    """Run a command; its (seconds of CPU time, seconds, MB of its largest process).

    found : what stands in its output once for each of the prefixes
    """
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output)
        _, process.returncode, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        if output.read().count(found) != count:
            sys.exit(f"this did not find what was made: {command}")
    return usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss / 1024


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--prefixes", type=int, default=1000, metavar="N", help="how many (default: 1000)"
    )
    parser.add_argument(
        "--packages", type=int, default=250, metavar="N", help="in each of them (default: 250)"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="what runs the audit (default: this Python)"
    )
    return parser.parse_args()


def main():
    args = parse_arguments()
    version = subprocess.run(
        [args.python, "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        envs = make(Path(folder), args.prefixes, args.packages)
        audit = [args.python, "-I", AUDIT, "--json", envs]
        verdict, file = '"verdict": "AFFECTED"', "/numpy/__init__.py"
        commands = {
            "audit": (audit, verdict),
            "audit --quick": ([*audit, "--quick"], verdict),
            "find and grep": (["sh", "-c", FIND_AND_GREP.format(envs, envs)], file),
            "ls and grep": (["bash", "-c", LS_AND_GREP.format(envs, envs)], file),
            "python3 -c pass": ([args.python, "-I", "-c", "pass"], verdict),
        }
        print(f"{args.prefixes} prefixes of {args.packages} packages, warm cache, {version}")
        for name, (command, found) in commands.items():
            count = args.prefixes
            if name == "python3 -c pass":
                count = 0
            # the first run warms the cache; on a machine with other work, CPU time is what counts
            runs = [measure(command, found, count) for _ in range(1 + RUNS)][1:]
            cpu, seconds, megabytes = min(runs)
            print(f"{name:16} {cpu:6.2f} s of CPU time, {seconds:6.2f} s, {megabytes:4.0f} MB")


if __name__ == "__main__":
    main()
