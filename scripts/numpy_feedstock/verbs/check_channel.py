"""check-channel: compare every numpy in a channel with its signed provenance."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import options, paths
from ..errors import UsageError
from ..publishing.targets import Target, opened
from ..tables import table

if TYPE_CHECKING:
    from ..publishing.channel_check import Row

EPILOG = """\
examples:
  feedstock check-channel                                    the folder channel
  feedstock check-channel /srv/conda/fixed                   signed with this user's key
  feedstock check-channel s3://bucket/fixed --trust numpy.pem.pub
  feedstock check-channel /srv/conda/fixed --read-all        read every file again

Every package that a solver knows as numpy is a row: in each subdir, in repodata.json, its zst
and its shards. A row has a fault when the package has no provenance that a trusted key signed,
when its bytes are others, or when the index says of it what the package does not say itself.
An index that differs from repodata.json is a row, too. "objections" are what the package was
published in spite of; they are no fault.

A file that was read before and has not changed since is not read again, as far as the file
system or the server tells.

exit code: 0 no faults, 1 faults, 2 wrong use, or no numpy is there
"""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        default=str(paths.CHANNEL),
        metavar="TARGET",
        help="a folder or a URL, as for publish --to (default: folder channel)",
    )
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="FILENAME",
        help="check only the package with this file name, repeatable",
    )
    parser.add_argument(
        "--trust",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="a public key that is accepted, repeatable (default: this user's own)",
    )
    parser.add_argument(
        "--read-all", action="store_true", help="read also the unchanged files again"
    )
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 1 when there are faults, else 0. Raises FeedstockError."""
    # imported here, because it imports much and the parser has to be quick
    from ..publishing import channel_check, signing
    from ..publishing.known_hashes import KnownHashes

    keys = [signing.public_key(path) for path in args.trust] or [signing.own_public_key()]
    with opened(args.target) as target:
        if not target.keeps_files:
            raise UsageError(
                f"no provenance is kept in {target.url}",
                remedy="check the folder that it was published from",
            )
        hashes = KnownHashes(target, is_used=not args.read_all)
        rows = channel_check.check(target, keys, hashes)
        hashes.save()
        if args.package:
            rows = channel_check.only(rows, args.package)
        if not rows:
            raise UsageError(
                f"no numpy in {target.url}", remedy="name another target; it has to be indexed"
            )
        print_result(rows, target, hashes.reused, args.json)
    return 1 if any(row.fault for row in rows) else 0


def print_result(rows: "Sequence[Row]", target: Target, reused: int, as_json: bool) -> None:
    """Print the closing table, or JSON."""
    if as_json:
        result = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"target": target.url, "packages": result}, indent=1))
        return
    lines = [
        {
            "package": row.package,
            "subdir": row.subdir,
            "sha256": row.sha256[:16],
            "fault": row.fault,
            "objections": _summary(row.objections),
        }
        for row in rows
    ]
    print(table(lines))
    faults = sum(bool(row.fault) for row in rows)
    print(f"\nchannel: {target.url}: {len(rows)} rows, {faults} with a fault")
    if reused:
        print(f"{reused} files were not read again, because they have not changed", file=sys.stderr)
    if not target.lists_files:
        print("files that the index does not list cannot be seen on this target", file=sys.stderr)


def _summary(objections: Sequence[str]) -> str:
    """Return the first objection and how many more there are. The JSON has all of them."""
    if len(objections) < 2:
        return "".join(objections)
    return f"{objections[0]}; and {len(objections) - 1} more (--json)"
