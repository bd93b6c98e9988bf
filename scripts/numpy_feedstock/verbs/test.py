"""test: the project's own tests, on packages that `build` made or makes first."""

import subprocess
import sys

from .. import options, paths

EPILOG = """\
examples:
  feedstock test                       build what is missing, then everything
  feedstock test --quick               those that need no build and no network
  feedstock test -- -k repro -x        any argument of pytest
"""


def configure_parser(parser):
    parser.add_argument(
        "pytest_args", nargs="*", metavar="ARG", help="arguments of pytest, after --"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run only the tests that need no build and no network (under a minute)",
    )
    options.add_verbose(parser)


def execute(args):
    """pytest's exit code, 1 for any but 0."""
    command = [sys.executable, "-m", "pytest", *(["-v"] if args.verbose else []), *args.pytest_args]
    if args.quick:
        command.append("tests/unit")
    return 1 if subprocess.run(command, cwd=paths.ROOT).returncode else 0
