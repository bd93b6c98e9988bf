"""test: run the project's own tests, and first build the packages that they need."""

import argparse
import subprocess
import sys

from .. import options, paths

EPILOG = """\
examples:
  feedstock test                       build the missing packages, then run all tests
  feedstock test --quick               only tests that need no build and no network
  feedstock test -- -k repro -x        any argument of pytest
"""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pytest_args", nargs="*", metavar="ARG", help="arguments of pytest, after --"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run only the tests that need no build and no network (one to three minutes)",
    )
    options.add_verbose(parser)


def execute(args: argparse.Namespace) -> int:
    """Run pytest. Returns 0, or 1 when pytest ended with anything else."""
    command = [sys.executable, "-m", "pytest", *args.pytest_args]
    if args.verbose:
        command.append("-v")
    if args.quick:
        command.append("tests/unit")
    done = subprocess.run(command, cwd=paths.ROOT)
    return int(done.returncode != 0)
