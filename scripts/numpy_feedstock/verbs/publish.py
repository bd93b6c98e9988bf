"""publish: tested and verified packages into an internal channel, where nothing is ever replaced."""

import dataclasses
import json
import re
import sys
import tempfile
from pathlib import Path

from .. import files, options, paths, provenance, variant
from ..checks import Unpacked, findings
from ..errors import FeedstockError, UsageError
from ..output import all_packages
from ..progress import Progress
from ..record import Record, read_record
from ..targets import FORMS, Taken, open_target

EPILOG = f"""\
examples:
  feedstock publish --dry-run                          every package in output/, what would happen
  feedstock publish --to /srv/conda/fixed              into a folder, here or on a file server
  feedstock publish --check --to /srv/conda/fixed      are its packages those that were signed?
  feedstock publish --to quetz://conda.example.com/fixed

targets:
{FORMS}

Credentials are taken from no command line: for S3 as boto3 does (AWS_PROFILE,
AWS_ACCESS_KEY_ID, ~/.aws), for the others from QUETZ_API_KEY, ARTIFACTORY_TOKEN (or
ARTIFACTORY_USERNAME and ARTIFACTORY_PASSWORD), PREFIX_API_KEY or ANACONDA_API_KEY, else
for the host from what `rattler auth login` wrote: the file that RATTLER_AUTH_FILE
names, or ~/.rattler/credentials.json.

Packages go first, then the index, then the provenance: a signed in-toto statement
beside each package. Ended at any moment, the same command completes it. The key is
made at the first use; FEEDSTOCK_SIGNING_KEY names another.

exit code: 0 all of them are in the channel, 1 refused or failed, 2 wrong use
"""
# of packages that `build` makes
OURS = re.compile(r"numpy-[^-]+-(mkl|openblas)_py\d+h[0-9a-f]{7}_1\d\d\.conda")


def configure_parser(parser):
    options.add_packages(parser)
    parser.add_argument(
        "--to",
        default=str(paths.ROOT / "channel"),
        metavar="TARGET",
        help="a folder or a URL (default: folder channel)",
    )
    parser.add_argument(
        "--allow-untested",
        action="store_true",
        help=(
            "publish also what has no record of green tests, or what verify finds fault with; the provenance says so"
        ),
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="publish nothing: hold the target's packages against their provenance",
    )
    parser.add_argument(
        "--trust",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help=("public key that --check accepts, repeatable (default: the own one)"),
    )
    options.add_dry_run(parser)
    options.add_json(parser)
    options.add_verbose(parser)


def execute(args):
    """Run the verb; the exit code. Raises FeedstockError."""
    target = open_target(args.to)
    with Progress(stream=sys.stderr, verbose=args.verbose) as progress:
        progress.subject = target.url
        if args.check:
            rows = check(target, {path.name for path in args.packages}, args.trust)
            show(rows, target, args.json)
            return 1 if any(row["fault"] for row in rows) else 0
        candidates = examine_all(args.packages or all_packages(), args.allow_untested, progress)
        if args.dry_run:
            rows = plan(target, candidates)
        else:
            key = provenance.signing_key(progress.step)
            with target.alone(progress.step):
                rows = publish(target, candidates, key, progress)
    show(rows, target, args.json)
    return 0


@dataclasses.dataclass
class Candidate:
    """A package that may be published."""

    path: Path
    subdir: str
    sha256: str
    record: Record | None
    objections: list  # str: in spite of what it may be


def examine_all(packages, allow_untested, progress):
    """A Candidate for each package. Raises UsageError for what are no packages of ours to publish, FeedstockError for refused ones."""
    candidates, unfit = [], []
    for path in packages:
        progress.working(f"examining {path}")
        try:
            candidates.append(examine(path, progress.working))
        except UsageError as error:
            unfit.append(str(error))
    if unfit:
        raise UsageError("\n".join([*unfit, "nothing was published"]))
    refused = [
        f"refused: {each.path.name}: {objection}"
        for each in candidates
        for objection in each.objections
    ]
    if refused and not allow_untested:
        remedy = "build it again, or --allow-untested, which the provenance will tell"
        raise FeedstockError("\n".join([*refused, "nothing was published"]), remedy=remedy)
    return candidates


def examine(path, say):
    """The Candidate; what there is to object to it is a line each. Raises UsageError."""
    with tempfile.TemporaryDirectory() as folder:
        package = Unpacked(path, Path(folder))
        check_place(path, package.index)
        found = findings(path, package, say)
    record = read_record(path)
    objections = (
        []
        if record and record.passed
        else [f"red tests: {', '.join(record.red)}" if record else "no record of its tests"]
    )
    objections += [
        f"{each.check}: {each.file}: found {each.found}, allowed {each.allowed}" for each in found
    ]
    return Candidate(path, package.index["subdir"], files.sha256(path), record, objections)


def check_place(path, index):
    """Raise UsageError unless the file's name and folder are those of its package."""
    expected = f"{index['name']}-{index['version']}-{index['build']}.conda"
    if path.name != expected:
        raise UsageError(
            f"the file is not named as the package: {path}", expected=expected, found=path.name
        )
    subdir, others = index["subdir"], {*variant.PLATFORMS, "noarch"} - {index["subdir"]}
    if subdir not in variant.PLATFORMS or path.absolute().parent.name in others:
        raise UsageError(
            f"wrong subdir: {path}",
            expected=f"one of {', '.join(variant.PLATFORMS)}, in its own folder",
            found=subdir,
        )


def plan(target, candidates):
    """A row for each candidate: whether it is there. Raises Taken where one of other bytes is."""
    rows, taken = [], []
    for each in candidates:
        found = target.find(each.subdir, each.path.name)
        if found not in (None, each.sha256):
            taken.append(
                f"{each.path.name}: there are other bytes of this name\n  ours:   sha256 {each.sha256}\n  theirs: sha256 {found}"
            )
        signed = (
            target.keeps_files
            and target.read(each.subdir, provenance.name(each.path.name)) is not None
        )
        rows.append(
            {
                "package": each.path.name,
                "subdir": each.subdir,
                "sha256": each.sha256,
                "state": "there" if found else "new",
                "provenance": "there" if signed else "new",
            }
        )
    if taken:
        remedy = "a channel's files are never replaced: raise build_number in the recipe"
        raise Taken("\n".join([*taken, "nothing was published"]), remedy=remedy)
    return rows


def publish(target, candidates, key, progress):
    """Put what is new, index, sign; the rows of ``plan`` as they are now."""
    rows = plan(target, candidates)
    for each, row in zip(candidates, rows, strict=True):
        if row["state"] == "there":
            progress.step(f"{each.path.name} is there already, sha256 {each.sha256}: nothing to do")
            continue
        progress.step(f"putting {each.path.name} ({each.path.stat().st_size / 1e6:.1f} MB)")
        target.put(each.path, each.subdir, each.path.name)
        found = target.find(each.subdir, each.path.name)
        if found != each.sha256:
            raise FeedstockError(
                f"{target.url} has other bytes than were put: {each.path.name}",
                expected=each.sha256,
                found=found,
            )
        row["state"] = "put"
    # the provenance comes last: where it is missing, an earlier publication did not get that far
    unfinished = [
        pair for pair in zip(candidates, rows, strict=True) if pair[1]["provenance"] == "new"
    ]
    if unfinished:
        progress.step("indexing")
        target.index()
    for each, row in unfinished:
        row["provenance"] = attest(target, each, key)
    return rows


def attest(target, candidate, key):
    """Sign a package's provenance and put it beside the package, or, where a target keeps no other files, beside ours."""
    signed = provenance.sign(
        provenance.statement(candidate.path, candidate.record, candidate.objections), key
    )
    name = provenance.name(candidate.path.name)
    if not target.keeps_files:
        candidate.path.with_name(name).write_bytes(signed)
        return f"kept in {candidate.path.parent}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(signed)
        target.put(Path(folder, name), candidate.subdir, name)
    return "put"


def check(target, names, trusted):
    """A row for each of our packages in the target's index: its fault, or ""."""
    if not target.keeps_files:
        raise UsageError(
            f"no provenance is kept in {target.url}",
            remedy="check the folder that it was published from",
        )
    keys = [
        provenance.public_key(path) for path in trusted or [Path(f"{provenance.key_path()}.pub")]
    ]
    rows = []
    for subdir in variant.PLATFORMS:
        index = json.loads(target.read(subdir, "repodata.json") or "{}").get("packages.conda", {})
        for name in sorted(
            name for name in index if (name in names if names else OURS.fullmatch(name))
        ):
            found = target.find(subdir, name)
            signed = target.read(subdir, provenance.name(name))
            if found is None:
                fault = "in the index, but not there"
            elif found != index[name]["sha256"]:
                fault = f"sha256 {found}, by the index {index[name]['sha256']}"
            else:
                fault = provenance.check(signed, keys, name, found) if signed else "no provenance"
            rows.append({"package": name, "subdir": subdir, "sha256": found or "", "fault": fault})
    missing = names - {row["package"] for row in rows}
    rows += [
        {"package": name, "subdir": "", "sha256": "", "fault": "not in the index"}
        for name in sorted(missing)
    ]
    if not rows:
        raise UsageError(
            f"no packages of ours in {target.url}", remedy="name another target with --to"
        )
    return rows


def show(rows, target, as_json):
    """The closing table, or JSON."""
    from tabulate import tabulate

    if as_json:
        print(json.dumps({"target": target.url, "packages": rows}, indent=1))
    else:
        print(tabulate([{**row, "sha256": row["sha256"][:16]} for row in rows], headers="keys"))
        print(f"\nchannel: {target.url}")
