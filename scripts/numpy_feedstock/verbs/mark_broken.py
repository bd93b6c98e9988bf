"""mark-broken: keep solvers from builds that a channel holds and that are known to be broken.

A reviewed list, broken.yaml, names each build and the reason. Its entries become the
repodata patch of the channel, which every indexing applies. The packages and what is
installed stay as they are. An entry that is removed brings its build back.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import options
from ..errors import UsageError

if TYPE_CHECKING:
    from ..channels.broken import BrokenBuild
    from ..channels.channel_patch import Change

EPILOG = """\
examples:
  feedstock mark-broken /srv/channel --list-unmarked    entries for what the list lacks
  feedstock mark-broken /srv/channel --dry-run          what would change in the index
  feedstock mark-broken /srv/channel                    change it
  feedstock mark-broken /srv/channel --list ours.yaml
  feedstock mark-broken /srv/channel --list-healed      entries for originals that have twins

The index says what the list says, and nothing else: with another list the builds that only
the list before had are no longer marked. They are named before anything changes.

exit code: 0 the index is as the list says, 1 it could not be changed, or a package could not be
judged, 2 wrong use, a list that is not right, or an index that another tool has patched
"""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "channel",
        type=Path,
        metavar="CHANNEL_FOLDER",
        help="the folder of the channel, with linux-64/ in it",
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="the list (default: broken.yaml of this project)",
    )
    does = parser.add_mutually_exclusive_group()
    does.add_argument(
        "--list-unmarked",
        action="store_true",
        help="only print entries, to be reviewed, for the unpatched builds that the list lacks",
    )
    does.add_argument(
        "--list-healed",
        action="store_true",
        help="only print entries for the originals whose twin, made by hotfix, is there too",
    )
    options.add_dry_run(does, "only show what would change in the index")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 0, or 1 when a package could not be judged.

    Raises UsageError for a bad list and a folder without a channel.
    """
    # imported here, because they import much and the parser has to be quick
    from ..channels import broken, channel_folder, channel_patch, unmarked

    if not any(args.channel.glob("*/repodata.json")):
        raise UsageError(
            f"not the folder of an indexed channel: {args.channel}",
            expected="linux-64/repodata.json in it",
        )
    if args.list_healed:
        found, odd = unmarked.find_healed(args.channel)
        print_entries(found, args.json)
        return _say_odd(odd)
    args.list = args.list or broken.PATH
    builds = broken.read(args.list)
    if args.list_unmarked:
        found, odd = unmarked.find(args.channel, builds)
        print_entries(found, args.json)
        print(f"{len(found)} unpatched builds of numpy are not in {args.list}", file=sys.stderr)
        return _say_odd(odd)
    say = functools.partial(print, file=sys.stderr)
    lock = contextlib.nullcontext() if args.dry_run else channel_folder.locked(args.channel, say)
    # a dry run must work without the right to write
    with lock:
        change = channel_patch.change_index(args.channel, builds, args.dry_run, say)
    print_result(args, builds, change)
    return 0


def _say_odd(odd: Sequence[str]) -> int:
    """Name the packages that could not be judged. Returns the exit code."""
    for line in odd:
        print(f"feedstock: not known whether it is unpatched: {line}", file=sys.stderr)
    return int(bool(odd))


def print_entries(builds: "Sequence[BrokenBuild]", as_json: bool) -> None:
    """Print entries of a list as YAML or JSON."""
    import yaml

    entries = [
        {key: value for key, value in dataclasses.asdict(build).items() if value}
        for build in builds
    ]
    if as_json:
        print(json.dumps(entries, indent=1, default=str))
    elif entries:
        print(yaml.safe_dump(entries, sort_keys=False, width=1000).strip())
    else:
        print()


def print_result(
    args: argparse.Namespace, builds: "Sequence[BrokenBuild]", change: "Change"
) -> None:
    """Print what differs between the two states of the index, as JSON or as lines."""
    changed = change.differences()
    marked = [build.package for build in builds if (args.channel / build.package).is_file()]
    absent = [build.package for build in builds if build.package not in marked]
    if args.json:
        result = {"dry_run": args.dry_run, "changed": changed, "marked": marked}
        print(json.dumps({**result, "not_in_channel": absent}, indent=1))
        return
    reasons = {build.package: build.reason for build in builds}
    for name, differences in changed.items():
        print(f"{name}: {reasons.get(name, 'not listed, so as the package itself says')}")
        for field, lines in differences.items():
            print("\n".join(f"  {field:10} {line}" for line in lines))
    done = "nothing to do"
    if changed:
        verb = "would change" if args.dry_run else "changed"
        done = f"{len(changed)} of {len(change.after)} entries of the index {verb}"
    print(
        f"{done}; of the {len(builds)} builds in {args.list.name} the channel holds {len(marked)}"
    )
    for name in absent:
        print(f"  not in the channel: {name}")
