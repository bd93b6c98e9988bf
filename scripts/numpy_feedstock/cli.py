"""The command line: verbs, and how errors end it."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from . import redact
from .errors import FeedstockError, explained

# {name of the verb: one line of help}; the module of a verb is in verbs/
VERBS = {
    "variants": "list the packages to build",
    "build": "build and test the packages",
    "matrix": "show which packages are built, and test their controls",
    "verify": "check finished packages",
    "hotfix": "heal finished packages without compiling them",
    "make-key": "make a key to sign with",
    "publish": "put packages into a channel",
    "check-channel": "compare a channel with its signed provenance",
    "mark-broken": "keep solvers from known broken builds in a channel",
    "old-glibc": "run the packages on an older glibc",
    "scan-wheels": "find the affected releases among numpy's wheels",
    "hang-matrix": "measure the packages and their controls",
    "compare-tests": "compare numpy's own tests with the control's",
    "benchmark": "compare the speed with the released wheel's",
    "lint": "look for faults in the code and the CI files",
    "test": "run the project's tests",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors hide the secrets of the URLs that a person typed."""

    def error(self, message: str) -> NoReturn:
        super().error(redact.urls_in(message))


class _VerbParser(_Parser):
    """The parser of one verb. It imports the verb's module at the first use, which takes time."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        name = self.prog.split()[-1]
        verb = importlib.import_module(f".verbs.{name.replace('-', '_')}", __package__)
        self.description, self.epilog = verb.__doc__, verb.EPILOG
        verb.configure_parser(self)
        self.set_defaults(execute=verb.execute)
        return super().parse_known_args(args, namespace)


def parser() -> argparse.ArgumentParser:
    """Return the parser of every verb."""
    parser = _Parser(
        prog="feedstock",
        description="Build and test numpy without the import-time hang of numpy#31284.",
    )
    verbs = parser.add_subparsers(
        title="verbs", required=True, metavar="VERB", parser_class=_VerbParser
    )
    for name, text in VERBS.items():
        verbs.add_parser(name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    return parser


def main(argv: Sequence[str]) -> int:
    """Run one verb. Returns the exit code: 0 done, 1 the work failed, 2 wrong use."""
    args = parser().parse_args(argv)
    # after SIGTERM the command tidies up as after Ctrl-C
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return 1  # the reader of the output is gone, and it is no fault of the verb
    except OSError as error:
        print(f"feedstock: {explained(error)}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    """Run the verb of the arguments. Returns the exit code. Raises OSError."""
    try:
        return int(args.execute(args))
    except FeedstockError as error:
        print(f"feedstock: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "feedstock: interrupted. The output channel holds only finished packages. "
            "Run the same command again.",
            file=sys.stderr,
        )
        return 1


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
