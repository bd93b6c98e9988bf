"""make-key: make a key that `publish` signs with. Nothing is replaced."""

import argparse
import json
import sys
from pathlib import Path

from .. import options

EPILOG = """\
examples:
  feedstock make-key                      for this user, where publish looks for it
  feedstock make-key /secure/numpy.pem    in this file; FEEDSTOCK_SIGNING_KEY names it to publish

The file FILE holds the private key; only its owner can read it. FILE.pub holds the
public key: hand it out to those who check (feedstock check-channel --trust FILE.pub).

exit code: 0 made, 1 it could not be written, 2 wrong use, or a file is there already
"""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="where to put the private key (default: in the user's configuration)",
    )
    options.add_dry_run(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 0. Raises FeedstockError."""
    # imported here, because it imports much and the parser has to be quick
    from ..publishing import signing

    path = args.file or signing.default_path()
    if args.dry_run:
        signing.check_free(path)
    else:
        signing.make(path)
    result = {"private": str(path), "public": str(signing.public_path(path))}
    if args.json:
        print(json.dumps({"dry_run": args.dry_run, **result}, indent=1))
        return 0
    done = "would make" if args.dry_run else "made"
    print(f"{done} the private key {path} and the public key {result['public']}")
    print("hand out the public key to those who check", file=sys.stderr)
    return 0
