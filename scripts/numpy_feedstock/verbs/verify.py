"""verify: check finished packages against policy.yaml, and rebuild them from their own recipe.

All findings are shown, not only the first one. Only --rebuild runs code of a package.
"""

import argparse
import contextlib
import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import files, options
from ..building import workspace
from ..building.rebuild import rebuild
from ..channels.output import all_packages
from ..errors import FeedstockError, UsageError, reason, shown
from ..packages import checks, twin_checks
from ..packages.checks import Finding
from ..packages.unpacked import Unpacked, unpack
from ..progress import Progress
from ..tables import table

EPILOG = """\
examples:
  feedstock verify                            check every package in output/
  feedstock verify numpy-2.3.5-*.conda        check these, ours or anybody's
  feedstock verify --json                     for a script
  feedstock verify healed/linux-64/numpy-2.3.5-py311h2e04523_51.conda \\
      --against numpy-2.3.5-py311h2e04523_1.conda
  feedstock verify --rebuild numpy-2.3.5-mkl*.conda
                                              also build it again and compare the bytes

--rebuild runs the build script that is in the package, as you and on this machine. It does
so only when there are no findings, or with --despite-findings.

exit code: 0 nothing found, 1 findings, 2 nothing that could be verified
"""


@dataclass
class Result:
    """What is known about one package.

    not_checked : a line for each thing that this machine could not check
    checks : names of the checks that ran
    unreadable : why it is no package of numpy; "" for a package of numpy
    """

    path: Path
    findings: list[Finding]
    not_checked: list[str]
    checks: list[str]
    unreadable: str = ""


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_packages(parser)
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help=(
            "also run the build script of each package, elsewhere and without the compiler "
            "cache, and look for differences (some minutes each)"
        ),
    )
    parser.add_argument(
        "--despite-findings", action="store_true", help="rebuild also packages that have findings"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="ORIGINAL",
        help="compare a twin that hotfix made also with its original",
    )
    options.add_channel(parser)
    options.add_json(parser)
    options.add_verbose(parser, "show every line of the logs, and a row for each file")


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 0, or 1 with findings.

    Raises UsageError when no package can be read.
    """
    for option, value in (
        ("--channel", args.channel),
        ("--despite-findings", args.despite_findings),
    ):
        if value and not args.rebuild:
            raise UsageError(
                f"{option} is about --rebuild", remedy="add --rebuild, or leave it out"
            )
    packages = args.packages or all_packages()
    if args.against and len(packages) != 1:
        raise UsageError("--against is about one package", found=f"{len(packages)} packages")
    lock = workspace.build_lock() if args.rebuild else contextlib.nullcontext()
    with lock, Progress(stream=sys.stderr, verbose=args.verbose) as progress:
        results = [verify(path, args, progress) for path in packages]
    unreadable = [result.unreadable for result in results if result.unreadable]
    if len(unreadable) == len(results):
        raise UsageError("\n".join(unreadable))
    print_result(results, args)
    return 1 if any(result.findings for result in results) else 0


def verify(path: Path, args: argparse.Namespace, progress: Progress) -> Result:
    """Return the Result of one package, whatever is wrong with it."""
    progress.subject = shown(path.name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            unpacked = unpack(path, Path(folder))
            found = checks.findings(path, unpacked, progress.working)
            names = checks.names(unpacked)
            result = Result(path, found, checks.not_checked(unpacked), names)
            if args.against:
                result.findings += verify_against(unpacked, args.against)
            if args.rebuild:
                result.findings += verify_rebuild(unpacked, result, args, progress)
    except UsageError as error:
        finding = _about_the_whole(path, str(error), "a whole conda package of numpy for Linux")
        return Result(path, [finding], [], [], str(error))
    except FeedstockError as error:
        finding = _about_the_whole(path, str(error), "a package that can be read")
        return Result(path, [finding], [], [])
    except OSError as error:
        text = reason(error)
        finding = _about_the_whole(path, text, "a package that can be read")
        return Result(path, [finding], [], [], text)
    return result


def _about_the_whole(path: Path, found: str, allowed: str) -> Finding:
    return Finding(shown(path.name), "", "package", found, allowed)


def verify_against(unpacked: Unpacked, original: Path) -> list[Finding]:
    """Return a Finding for each member that `hotfix` would make otherwise from the original."""
    if not unpacked.is_twin:
        raise UsageError(f"not a package that hotfix made: {unpacked.path}")
    return [
        Finding(unpacked.path.name, shown(file), "against", found, allowed)
        for file, found, allowed in twin_checks.differences(unpacked, original)
    ]


def verify_rebuild(
    unpacked: Unpacked, result: Result, args: argparse.Namespace, progress: Progress
) -> list[Finding]:
    """Return all findings of a rebuild. Without findings the bytes are the same."""
    path = unpacked.path
    if result.findings and not args.despite_findings:
        progress.step("not rebuilt: its build script is not run while there are findings")
        found = f"not rebuilt because of {len(result.findings)} findings"
        return [Finding(path.name, "", "rebuild", found, "no findings, or --despite-findings")]
    for name in ("info/recipe/recipe.yaml", "info/recipe/build.sh"):
        if name in unpacked.members:
            sha256 = hashlib.sha256(unpacked.members[name].data).hexdigest()
            progress.step(f"about to run, as this user: the package's {name}, sha256 {sha256}")
    differences = rebuild(path, unpacked, args.channel, progress)
    if not differences:
        progress.step(f"rebuilt, the same sha256: {files.sha256(path)}")
    return [
        Finding(path.name, shown(file), "rebuild", found, allowed)
        for file, found, allowed in differences
    ]


def print_result(results: list[Result], args: argparse.Namespace) -> None:
    """Print JSON with every finding, or a table for each package."""
    if args.json:
        content = {
            "packages": [shown(result.path.name) for result in results],
            "findings": [asdict(each) for result in results for each in result.findings],
            "not_checked": [
                {"package": shown(result.path.name), "what": what}
                for result in results
                for what in result.not_checked
            ],
        }
        print(json.dumps(content, indent=1))
        return
    for result in results:
        names = list(result.checks)
        names += [name for name in ("against", "rebuild") if getattr(args, name)]
        count = len(result.findings)
        print(f"{shown(result.path.name)}: {count} findings ({', '.join(names)})")
        for what in result.not_checked:
            print(f"  not checked: {what}")
        if result.findings:
            print(_table(result.findings, each_file=args.verbose) + "\n")


def _table(findings: list[Finding], each_file: bool) -> str:
    """Return the findings as a table. Files with the same finding share a row.

    each_file : a row for every file
    """
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for finding in findings:
        own = finding.file if each_file else ""
        key = (finding.check, finding.found, finding.allowed, own)
        rows.setdefault(key, []).append(finding.file)
    lines = []
    for (check, found, allowed, _), names in rows.items():
        name = names[0]
        if len(names) > 1:
            name = f"{name} and {len(names) - 1} more"
        lines.append({"check": check, "file": name, "found": found, "allowed": allowed})
    return table(lines, one_line=False)
