"""verify: finished packages of numpy against the policy, and against what they were made of; all findings at once."""

import contextlib
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from .. import files, options, workspace
from ..checks import CHECKS, Finding, Unpacked, verify
from ..errors import UsageError
from ..output import all_packages
from ..progress import Progress
from ..rebuild import rebuild

EPILOG = """\
examples:
  feedstock verify                            every package in output/
  feedstock verify numpy-2.3.5-*.conda        these, ours or anybody's
  feedstock verify --json                     for a script
  feedstock verify --rebuild numpy-2.3.5-mkl*.conda
                                              build it again, too, and compare the bytes

exit code: 0 nothing found, 1 findings, 2 nothing that could be verified
"""


def configure_parser(parser):
    options.add_packages(parser)
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help=(
            "also run the build script that is in each, elsewhere and without the compiler cache, "
            "and look for differences (some minutes each)"
        ),
    )
    options.add_channel(parser)
    options.add_json(parser)
    options.add_verbose(parser)


def execute(args):
    """Run the verb; exit code 0, or 1 with findings. UsageError when no package could be read."""
    if args.channel and not args.rebuild:
        raise UsageError(
            "--channel says where --rebuild takes packages from",
            remedy="add --rebuild, or leave it out",
        )
    packages = args.packages or all_packages()
    findings, unreadable = [], []
    alone = workspace.alone() if args.rebuild else contextlib.nullcontext()
    with alone, Progress(stream=sys.stderr, verbose=args.verbose) as progress:
        for path in packages:
            progress.subject = path.name
            try:
                findings += verify(path, progress.working)
            except UsageError as error:
                unreadable.append(error)
                findings.append(
                    Finding(
                        path.name,
                        "",
                        "package",
                        str(error),
                        "a whole conda package of numpy for Linux",
                    )
                )
                continue
            if args.rebuild:
                findings += verify_rebuild(path, args.channel, progress)
    if len(unreadable) == len(packages):
        raise UsageError("\n".join(map(str, unreadable)))
    report(packages, findings, args)
    return 1 if findings else 0


def verify_rebuild(path, asked, progress):
    """Every Finding of a rebuild; without one its bytes are the same."""
    with tempfile.TemporaryDirectory() as folder:
        package = Unpacked(path, Path(folder))
        findings = [
            Finding(path.name, file, "rebuild", *what)
            for file, *what in rebuild(path, package, asked, progress)
        ]
    if not findings:
        progress.step(f"rebuilt, the same sha256: {files.sha256(path)}")
    return findings


def report(packages, findings, args):
    """JSON with every finding, or a table for each package."""
    from tabulate import tabulate

    if args.json:
        found = [dataclasses.asdict(finding) for finding in findings]
        print(
            json.dumps({"packages": [path.name for path in packages], "findings": found}, indent=1)
        )
        return
    for path in packages:
        mine = [finding for finding in findings if finding.package == path.name]
        print(
            f"{path.name}: {len(mine)} findings ({', '.join([*CHECKS, *(['rebuild'] if args.rebuild else [])])})"
        )
        if mine:
            rows = {}  # files with the same finding share one, unless all are asked for
            for finding in mine:
                key = (finding.check, finding.found, finding.allowed, args.verbose and finding.file)
                rows.setdefault(key, []).append(finding.file)
            table = [
                (
                    check,
                    f"{files[0]} and {len(files) - 1} more" if files[1:] else files[0],
                    found,
                    allowed,
                )
                for (check, found, allowed, _), files in rows.items()
            ]
            print(tabulate(table, headers=("check", "file", "found", "allowed")) + "\n")
