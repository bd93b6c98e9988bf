"""The command line: verbs, and how errors end it."""

import argparse
import signal
import sys

from .errors import FeedstockError
from .verbs import (
    benchmark,
    build,
    compare_tests,
    hang_matrix,
    mark_broken,
    old_glibc,
    publish,
    scan_wheels,
    test,
    variants,
    verify,
)

VERBS = (
    variants,
    build,
    verify,
    publish,
    mark_broken,
    old_glibc,
    scan_wheels,
    hang_matrix,
    compare_tests,
    benchmark,
    test,
)


def parser():
    """The parser of every verb."""
    parser = argparse.ArgumentParser(
        prog="feedstock",
        description="Build and test numpy without the import-time hang of numpy#31284.",
    )
    subparsers = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb in VERBS:
        verb.configure_parser(subparsers)
    for subparser in subparsers.choices.values():
        subparser.add_argument(
            "-v", "--verbose", action="store_true", help="show every line of the logs"
        )
    return parser


def main(argv):
    """Run one verb. Exit code: 0 done, 1 the work failed, 2 wrong use."""
    args = parser().parse_args(argv)
    # ended from outside, it tidies up as for Ctrl-C
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return args.execute(args)
    except FeedstockError as error:
        print(f"feedstock: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "feedstock: interrupted; what was not finished is not in the output channel. Run the same command again.",
            file=sys.stderr,
        )
        return 1


def _interrupt(signum, frame):
    raise KeyboardInterrupt
