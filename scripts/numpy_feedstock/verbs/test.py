"""test: run the project's own tests, and first build the packages that they need."""

import argparse
import os
import subprocess
import sys

from .. import options, paths

EPILOG = """\
examples:
  feedstock test                       build the missing packages, then run all tests
  feedstock test --quick               only tests that need no build and no network
  feedstock test -- -k repro -x        any argument of pytest
  feedstock test --jobs 1 -- -s        in one process, which may print and ask
"""
# The tests of a file stay in one process, in the order of tests/helpers/order.py.
_DISTRIBUTION = ("--dist", "loadfile", "--no-loadscope-reorder")


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pytest_args", nargs="*", metavar="ARG", help="arguments of pytest, after --"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run only the tests that need no build and no network (a minute on two cores)",
    )
    options.add_jobs(
        parser, "processes that run tests (default: one more than cores, because many tests wait)"
    )
    options.add_verbose(parser, "name each test")


def execute(args: argparse.Namespace) -> int:
    """Run pytest. Returns 0, or 1 when pytest ended with anything else."""
    jobs = args.jobs or (os.cpu_count() or 1) + 1
    command = [sys.executable, "-m", "pytest"]
    if jobs > 1:
        command += ["-n", str(jobs), *_DISTRIBUTION]
    command += args.pytest_args
    if args.verbose:
        command.append("-v")
    if args.quick:
        command.append("tests/unit")
    done = subprocess.run(command, cwd=paths.ROOT)
    return int(done.returncode != 0)
