"""Candidates: packages that were examined and may be published."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import files
from ..errors import FeedstockError, UsageError
from ..packages import hotfix
from ..packages.checks import findings
from ..packages.record import Record, read_record
from ..packages.unpacked import Unpacked, unpack
from ..progress import Say
from . import provenance
from .provenance import Json, Subject


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A package that may be published."""

    path: Path
    subdir: str
    sha256: str
    statement: Json | None  # None for a package that is published already
    objections: tuple[str, ...] = ()  # the package may be published in spite of them

    @property
    def subject(self) -> Subject:
        return Subject(self.path.name, self.sha256)


@dataclasses.dataclass(frozen=True)
class Allowed:
    """What the caller takes in spite of an objection to it."""

    untested: bool = False
    bootstrap: bool = False


def examine(path: Path, allowed: Allowed, say: Say) -> Candidate:
    """Return the Candidate for a package. It is unpacked once.

    Raises UsageError for a file that is no package of ours, FeedstockError for a refused
    package.
    """
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    sha256 = files.sha256(path)
    record = read_record(path)
    with tempfile.TemporaryDirectory() as folder:
        unpacked = unpack(path, Path(folder))
        _check_place(path, unpacked.index)
        objections = _findings(path, unpacked, say)
        if not unpacked.is_twin:
            # a twin has its original's binaries, which are tested already
            objections = [*_objections_to_tests(record), *objections]
        toolchain = _objections_to_toolchain(record)
        statement = provenance.build_statement(
            Subject(path.name, sha256), unpacked, record, [*objections, *toolchain]
        )
    if files.sha256(path) != sha256:
        raise FeedstockError(
            f"the file changed while it was examined: {path}",
            remedy="run the same command again when nothing writes to it",
        )
    _refuse(path, objections, allowed.untested, "--allow-untested")
    _refuse(path, toolchain, allowed.bootstrap, "--allow-bootstrap")
    subdir = str(unpacked.index["subdir"])
    return Candidate(path, subdir, sha256, statement, (*objections, *toolchain))


def _refuse(path: Path, objections: Sequence[str], is_allowed: bool, option: str) -> None:
    if objections and not is_allowed:
        lines = [f"refused: {path.name}: {objection}" for objection in objections]
        raise FeedstockError(
            "\n".join(lines), remedy=f"build it again, or {option}; the provenance will say so"
        )


def _objections_to_tests(record: Record | None) -> list[str]:
    if record is None:
        return ["no record of its tests"]
    if record.passed:
        return []
    return [f"red tests: {', '.join(record.red) or 'none were run'}"]


def _findings(path: Path, unpacked: Unpacked, say: Say) -> list[str]:
    return [
        f"{each.check}: {each.file}: found {each.found}, allowed {each.allowed}"
        for each in findings(path, unpacked, say)
    ]


def _objections_to_toolchain(record: Record | None) -> list[str]:
    if record and any("bootstrap" in channel for channel in record.channels):
        return ["compiled with the bootstrap channel's toolchain, not with conda-forge's"]
    return []


def _check_place(path: Path, index: Json) -> None:
    """Raise UsageError unless the file's name and folder are those of its package."""
    expected = f"{index['name']}-{index['version']}-{index['build']}.conda"
    if path.name != expected:
        raise UsageError(
            f"the file is not named as the package: {path}", expected=expected, found=path.name
        )
    subdir = index["subdir"]
    others = {*hotfix.PLATFORMS, "noarch"} - {subdir}
    if subdir not in hotfix.PLATFORMS or path.absolute().parent.name in others:
        raise UsageError(
            f"wrong subdir: {path}",
            expected=f"one of {', '.join(hotfix.PLATFORMS)}, in its own folder",
            found=subdir,
        )
