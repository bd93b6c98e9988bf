"""publish: put tested and verified packages into a channel, where nothing is ever replaced."""

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from .. import options, paths, redact
from ..channels.output import all_packages
from ..errors import UsageError
from ..progress import Progress
from ..publishing.targets import FORMS, Target, opened
from ..tables import table

if TYPE_CHECKING:
    from ..publishing.publication import Row

EPILOG = f"""\
examples:
  feedstock make-key                                   once, to sign with
  feedstock publish --dry-run                          every package in output/, what would happen
  feedstock publish --to /srv/conda/fixed              into a folder, here or on a file server
  feedstock publish --to quetz://conda.example.com/fixed
  feedstock check-channel /srv/conda/fixed             later: are these the published packages?

targets:
{FORMS}

Credentials are never taken from the command line. For S3 they are boto3's (AWS_PROFILE,
AWS_ACCESS_KEY_ID, ~/.aws). For the others they are in QUETZ_API_KEY, ARTIFACTORY_TOKEN (or
ARTIFACTORY_USERNAME and ARTIFACTORY_PASSWORD), PREFIX_API_KEY or ANACONDA_API_KEY, or in the
file that `rattler auth login` wrote: RATTLER_AUTH_FILE names it, or it is
~/.rattler/credentials.json. SSL_CERT_FILE names the certificates of a private authority,
for every target.

A folder on a file server needs POSIX record locks that reach across hosts: NFS 4, or NFS 3
with lockd. A mount that is known to have none is refused.

Packages are put first, then the index, then the provenance: a signed in-toto statement beside
each package. If the command is ended at any moment, the same command completes it. It ends
with 0 only when the index, read again, lists each package with its sha256.

exit code: 0 all of them are in the channel, 1 refused or failed, 2 wrong use
"""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_packages(parser)
    parser.add_argument(
        "--to",
        default=str(paths.CHANNEL),
        metavar="TARGET",
        help="a folder or a URL (default: folder channel)",
    )
    parser.add_argument(
        "--channel-url",
        default="",
        metavar="URL",
        help="URL that others read a folder's channel from; the publish attestation names it",
    )
    parser.add_argument(
        "--allow-untested",
        action="store_true",
        help="take packages without a record of green tests, and packages that verify finds "
        "fault with; the provenance says so",
    )
    parser.add_argument(
        "--allow-bootstrap",
        action="store_true",
        help="take packages that the bootstrap channel's toolchain compiled; "
        "the provenance says so",
    )
    parser.add_argument(
        "--index-later",
        action="store_true",
        help="do not wait for the index of a server; somebody else writes it",
    )
    options.add_dry_run(parser)
    options.add_json(parser)
    options.add_verbose(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 0. Raises FeedstockError."""
    # imported here, because it imports much and the parser has to be quick
    from ..publishing import publication
    from ..publishing.candidate import Allowed

    channel_url = _channel_url(args.channel_url)
    with opened(args.to) as target, Progress(sys.stderr, args.verbose) as progress:
        if args.index_later and not target.indexes_itself:
            raise UsageError(f"--index-later is for servers; publish indexes {target.url} itself")
        target.check_place()
        progress.subject = target.url
        signer = publication.signer(args.dry_run, progress)
        allowed = Allowed(args.allow_untested, args.allow_bootstrap)
        key = signer.public_key if signer else None
        packages = args.packages or all_packages()
        candidates = publication.examine_all(packages, target, key, allowed, progress)
        if args.dry_run or signer is None:
            rows = publication.plan(target, candidates, key)
        else:
            url = channel_url or target.channel_url
            work = publication.Publication(target, signer, url, args.index_later, progress)
            with target.publisher_lock(progress.step):
                rows = work.run(candidates)
    print_result(rows, target, args.json)
    return 0


def _channel_url(text: str) -> str:
    if text and not (text.startswith(("http://", "https://")) and redact.url(text) == text):
        raise UsageError(
            "--channel-url is not a URL that can be written into a statement",
            expected="https://HOST/PATH without a user, a token, a query and a fragment",
        )
    return text.rstrip("/")


def print_result(rows: "list[Row]", target: Target, as_json: bool) -> None:
    """Print the closing table, or JSON."""
    result = [dataclasses.asdict(row) for row in rows]
    if as_json:
        print(json.dumps({"target": target.url, "packages": result}, indent=1))
        return
    for row in result:
        row["sha256"] = row["sha256"][:16]
    print(table(result))
    print(f"\nchannel: {target.url}")
