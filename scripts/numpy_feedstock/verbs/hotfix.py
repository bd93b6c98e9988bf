"""hotfix: patched twins of finished packages, without a compiler.

A twin differs from its original in numpy/__init__.py, in the bytecode of that file, and in
the metadata that name both. Its build number is the original's plus 50. So solvers prefer
it to the original, and prefer the packages that `build` makes to the twin.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .. import files, options, paths
from ..channels import channel_folder, originals
from ..channels.originals import Source
from ..errors import FeedstockError, UsageError, reason, shown
from ..packages import bytecode, hotfix
from ..packages.hotfix import NotAffected, Original, Twin
from ..progress import Progress, Say
from ..tables import table

EPILOG = """\
examples:
  feedstock hotfix numpy-2.3.5-py311h2e04523_1.conda     one package, into healed/
  feedstock hotfix --dry-run /srv/conda/mirror           every affected package of a channel
  feedstock hotfix --output /srv/conda/healed https://conda.example.com/mirror
  feedstock hotfix numpy-base-2.3.5-*.conda numpy-2.3.5-*.conda
                                                         Anaconda's defaults: both of a pair

Bytecode is compiled by a Python of the package's minor version: this one, one on PATH, or
one that --python names. Without one the bytecode is left out, and each import by a user
who may not write it takes 10 to 16 ms longer.

A twin needs what the original's own metadata name. Where the channel's index names something
else, the note says so: patch the index of the twins in the same way.

exit code: 0 every affected package has its twin, 1 some were refused, 2 wrong use
"""
STATES = ("new", "there", "not affected", "refused")


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="PACKAGE",
        help="a .conda or .tar.bz2 file, a folder, or a channel (a folder or a URL)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=paths.HEALED,
        metavar="DIR",
        help="channel that the twins go to (default: healed)",
    )
    parser.add_argument(
        "--python",
        action="append",
        type=Path,
        default=[],
        metavar="PROGRAM",
        help="a Python that compiles bytecode of its version, repeatable",
    )
    options.add_dry_run(parser)
    options.add_json(parser)


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one package.

    state : one of STATES
    bytecode : "compiled", the names of files that were left out, or "" without any
    megabytes : size of the twin
    note : what the channel's index says about the original, and the original does not
    """

    original: str
    twin: str
    subdir: str
    state: str
    bytecode: str
    sha256: str
    megabytes: float
    reason: str
    note: str = ""


def execute(args: argparse.Namespace) -> int:
    """Run the verb; exit code 0, or 1 if a package was refused. Raises FeedstockError."""
    started = time.monotonic()
    output = args.output.absolute()
    channel_folder.check_place(output)
    sources = originals.find(args.inputs)
    pythons = _find_pythons(args.python)
    with Progress(stream=sys.stderr) as progress:
        progress.subject = "hotfix"
        if args.dry_run:
            rows = Batch(pythons, output, progress.step, work=None).run(sources)
        else:
            rows = _heal_into(sources, pythons, output, progress.step)
    print_result(rows, output, time.monotonic() - started, args)
    return 1 if any(row.state == "refused" for row in rows) else 0


def _find_pythons(named: list[Path]) -> list[bytecode.Python]:
    for program in named:
        if not bytecode.find_pythons([program])[0].program == program:
            raise UsageError(f"not a Python that runs: {program}")
    return bytecode.find_pythons(named)


def _heal_into(
    sources: list[Source],
    pythons: list[bytecode.Python],
    output: Path,
    say: Say,
) -> list[Row]:
    with channel_folder.locked(output, say), _work_folder() as work:
        rows = Batch(pythons, output, say, work).run(sources)
        if any(row.state == "new" for row in rows):
            say("indexing")
            channel_folder.index(output)
    return rows


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """Make a folder for unfinished twins. Folders of runs that were killed are removed."""
    for path in paths.BUILD.glob("hotfix-*"):
        if not Path("/proc", path.name.removeprefix("hotfix-")).exists():
            shutil.rmtree(path, ignore_errors=True)
    folder = paths.BUILD / f"hotfix-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Batch:
    """Heals packages, several at a time.

    A numpy of Anaconda's defaults holds no code: its numpy-base does. So such a pair is
    healed together, or not at all.
    """

    def __init__(
        self,
        pythons: list[bytecode.Python],
        output: Path,
        say: Say,
        work: Path | None,
    ) -> None:
        """work : folder for unfinished twins; None to write nothing"""
        self._pythons = pythons
        self._output = output
        self._say = say
        self._work = work
        # two originals may have one name, and would write one file
        self._adding = threading.Lock()

    def run(self, sources: list[Source]) -> list[Row]:
        """Return a Row for each package, in the order of ``sources``."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            needed = dict(zip(sources, pool.map(self._needed_base, sources), strict=True))
            rows: dict[Source, Row] = {}
            for finished in pool.map(self._heal_group, *zip(*_groups(needed), strict=True)):
                rows.update(finished)
        return [rows[source] for source in sources]

    def _needed_base(self, source: Source) -> tuple[str, str | None]:
        """Return the subdir of a package, and the name of its numpy-base without the ending."""
        try:
            return hotfix.needed_base(originals.fetch(source, self._say))
        except (FeedstockError, OSError):
            return source.subdir, None  # the same error comes again when the package is healed

    def _heal_group(self, holder: Source | None, dependents: list[Source]) -> dict[Source, Row]:
        """Return the Rows of a package that holds numpy's code, and of those that need it."""
        members = [each for each in (holder, *dependents) if each]
        try:
            self._check_group(holder, dependents)
            # all before the first is written, so that no half of a pair is left behind
            twins = [self._twin_of(source) for source in members]
            return dict(zip(members, map(self._keep, members, twins), strict=True))
        except (FeedstockError, OSError) as error:
            return {source: self._refused(source, error) for source in members}

    def _check_group(self, holder: Source | None, dependents: list[Source]) -> None:
        if holder is None:
            raise hotfix.Refused(
                "its numpy-base is not among the packages",
                remedy="name both, or the channel that holds both",
            )
        if holder.filename.startswith(hotfix.BASE) and not dependents:
            raise hotfix.Refused(
                "no numpy that needs it is among the packages: solvers would never take it",
                remedy="name both, or the channel that holds both",
            )

    def _twin_of(self, source: Source) -> Twin:
        return hotfix.heal_or_repin(self._open(source), self._pythons)

    def _open(self, source: Source) -> Original:
        return hotfix.open_original(originals.fetch(source, self._say), source.public_url)

    def _refused(self, source: Source, error: FeedstockError | OSError) -> Row:
        """Return the Row of a package without a twin. In a channel, a sound package is no fault."""
        state = "refused"
        if isinstance(error, NotAffected) and not source.named:
            state = "not affected"
        name, message = shown(source.filename), shown(reason(error))
        self._say(f"{state}: {name}: {message}")
        one_line = " ".join(message.split())
        return Row(name, "", shown(source.subdir), state, "", "", 0.0, one_line)

    def _keep(self, source: Source, twin: Twin) -> Row:
        """Put a twin into the output channel, unless it is there already."""
        target = self._output / twin.index["subdir"] / twin.filename
        state = "new"
        if target.exists():
            hotfix.check_same(twin, target)
            state = "there"
        elif self._work:
            self._write_twin(twin, target, self._work)
        self._say(f"{twin.original.filename}: {twin.filename} is {state}")
        digest, size = "", 0
        if target.exists():
            digest, size = files.sha256(target), target.stat().st_size
        return Row(
            original=twin.original.filename,
            twin=twin.filename,
            subdir=twin.index["subdir"],
            state=state,
            bytecode=_bytecode(twin),
            sha256=digest,
            megabytes=round(size / 1e6, 1),
            reason="",
            note=_note(source, twin),
        )

    def _write_twin(self, twin: Twin, target: Path, work: Path) -> None:
        try:
            with tempfile.TemporaryDirectory(dir=work) as folder:
                path = Path(folder, twin.filename)
                hotfix.write(twin, path)
                with self._adding:
                    channel_folder.copy(path, target, os.link)
        except FileExistsError:
            # of two originals with one name the other one was faster
            hotfix.check_same(twin, target)
        except OSError as error:
            raise FeedstockError(
                f"{twin.filename} could not be written in {work}",
                found=error.strerror,
                remedy="free some space",
            ) from None


def _note(source: Source, twin: Twin) -> str:
    differs = originals.differs_in(source, twin.original.index)
    return f"the channel's index differs from the package: {shown(differs)}" if differs else ""


def _bytecode(twin: Twin) -> str:
    """Return what became of the bytecode of numpy/__init__.py; "" where the original has none."""
    left_out = ", ".join(name.rpartition("/")[2] for name in twin.left_out)
    if left_out:
        return f"left out: {left_out}"
    return "compiled" if twin.compiled else ""


def _groups(
    needed: dict[Source, tuple[str, str | None]],
) -> list[tuple[Source | None, list[Source]]]:
    """Return (package that holds code, packages that need it) for each that has to be healed.

    needed : for each package its subdir and the numpy-base that it needs
    """
    groups: list[tuple[Source | None, list[Source]]] = []
    dependents: dict[tuple[str, str], list[Source]] = {}
    for source, (subdir, base) in needed.items():
        if base is not None:
            dependents.setdefault((subdir, base), []).append(source)
    for source, (subdir, base) in needed.items():
        if base is None:
            # a second package of this name comes too late for them
            groups.append((source, dependents.pop((subdir, source.stem), [])))
    groups += [(None, group) for group in dependents.values()]
    return groups


def print_result(rows: list[Row], output: Path, seconds: float, args: argparse.Namespace) -> None:
    """Print the closing table, or JSON."""
    if args.json:
        shown = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"channel": str(output), "packages": shown}, indent=1))
        return
    lines = [
        {
            "original": f"{row.subdir}/{row.original}",
            "twin": row.twin,
            "": row.state,
            "bytecode": row.bytecode,
            "MB": row.megabytes or "",
            "reason": row.reason or row.note,
        }
        for row in rows
    ]
    print(table(lines))
    counts = ", ".join(f"{sum(row.state == s for row in rows)} {s}" for s in STATES)
    print(f"\n{len(rows)} packages in {seconds:.0f} s: {counts}")
    print(f"channel: {output}")
