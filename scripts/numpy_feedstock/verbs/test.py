"""test: the project's own tests, on packages that `build` made or makes first."""

import argparse
import subprocess
import sys

from .. import paths

EPILOG = """\
examples:
  feedstock test                       build what is missing, then everything
  feedstock test -- tests/unit         the quick ones, on no packages
  feedstock test -- -k repro -x        any argument of pytest
"""


def configure_parser(subparsers):
    parser = subparsers.add_parser(
        "test",
        help="run the project's tests",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pytest_args", nargs="*", metavar="ARG", help="arguments of pytest, after --"
    )
    parser.set_defaults(execute=execute)


def execute(args):
    """pytest's exit code, 1 for any but 0."""
    command = [sys.executable, "-m", "pytest", *(["-v"] if args.verbose else []), *args.pytest_args]
    return 1 if subprocess.run(command, cwd=paths.ROOT).returncode else 0
