"""Publishing: examine the packages, plan, put, index and sign, in this order."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import CryptoSigner, SSlibKey

from .. import files
from ..channels import channel_folder, repodata
from ..errors import FeedstockError, UsageError, joined
from ..packages import hotfix
from ..progress import Progress
from . import provenance, signing
from .candidate import Allowed, Candidate, examine
from .provenance import NotTrusted
from .targets import Taken, Target


@dataclasses.dataclass(frozen=True)
class Row:
    """What happened, or would happen, to one package."""

    package: str
    subdir: str
    sha256: str
    state: str  # "new", "there", "put"
    provenance: str  # "new", "there", "put", or where else it is


def signer(is_dry_run: bool, progress: Progress) -> CryptoSigner | None:
    """Return the signer. A dry run without a key says so and goes on."""
    try:
        return signing.signer()
    except UsageError as error:
        if not is_dry_run:
            raise
        progress.step(f"publishing would fail: {error}")
        return None


def examine_all(
    packages: Sequence[Path],
    target: Target,
    key: SSlibKey | None,
    allowed: Allowed,
    progress: Progress,
) -> list[Candidate]:
    """Return a Candidate for each package. All refusals come in one error.

    Raises UsageError when a file is no package of ours, FeedstockError when one is refused.
    """
    candidates: list[Candidate] = []
    errors: list[FeedstockError | OSError] = []
    for path in packages:
        progress.working(f"examining {path}")
        try:
            published = key and _published(path, target, key)
            candidates.append(published or examine(path, allowed, progress.working))
        except (FeedstockError, OSError) as error:
            errors.append(error)
    if errors:
        raise joined(errors, "nothing was published")
    names = [each.path.name for each in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"given twice: {', '.join(twice)}\nnothing was published")
    return candidates


def _published(path: Path, target: Target, key: SSlibKey) -> Candidate | None:
    """Return the Candidate for a package that the target has with our signed provenance.

    It was examined when it was published, so it need not be examined again.
    """
    subdir = path.absolute().parent.name
    if subdir not in hotfix.PLATFORMS or not path.is_file():
        return None
    candidate = Candidate(path, subdir, files.sha256(path), None)
    if _provenance_state(target, candidate, key) != "there":
        return None
    is_there = target.find(subdir, path.name) == candidate.sha256
    return candidate if is_there else None


def _provenance_state(target: Target, candidate: Candidate, key: SSlibKey | None) -> str:
    """Return "new", "there", or a text when another key signed the provenance there."""
    name = provenance.filename(candidate.path.name)
    if target.keeps_files:
        data = target.read(candidate.subdir, name)
    else:
        kept = candidate.path.with_name(name)
        data = kept.read_bytes() if kept.is_file() else None
    if data is None:
        return "new"
    if key is None:
        return "there"
    try:
        provenance.facts(provenance.verify(data, [key], candidate.subject))
    except NotTrusted as error:
        return f"there, but {error}"
    return "there"


def plan(target: Target, candidates: Sequence[Candidate], key: SSlibKey | None) -> list[Row]:
    """Return a row for each candidate. It says whether the package is there.

    Raises Taken when another file has the name of a candidate.
    """
    rows, taken = [], []
    for each in candidates:
        found = target.find(each.subdir, each.path.name)
        if found not in (None, each.sha256):
            taken.append(
                f"{each.path.name}: a file of this name is there, with other bytes\n"
                f"  ours:   sha256 {each.sha256}\n  theirs: sha256 {found}"
            )
        state = "there" if found else "new"
        signed = _provenance_state(target, each, key)
        rows.append(Row(each.path.name, each.subdir, each.sha256, state, signed))
    if taken:
        raise Taken(
            "\n".join([*taken, "nothing was published"]),
            remedy="a channel's files are never replaced: raise build_number in the recipe",
        )
    return rows


@dataclasses.dataclass(frozen=True)
class Publication:
    """Puts candidates into a target whose lock is held.

    channel_url : URL that others read the channel from, "" when it is not known
    """

    target: Target
    signer: CryptoSigner
    channel_url: str
    index_later: bool
    progress: Progress

    def run(self, candidates: Sequence[Candidate]) -> list[Row]:
        """Put the new packages, index, and sign. Returns the rows of ``plan`` as they are now."""
        rows = plan(self.target, candidates, self.signer.public_key)
        statements = {each.path.name: self._statements(each) for each in candidates}
        rows = [self._put(each, row) for each, row in zip(candidates, rows, strict=True)]
        self._index(candidates, any(row.provenance == "new" for row in rows))
        # The provenance comes last. If it is missing, an earlier publication was cut off.
        return [
            self._attest(each, row, statements[each.path.name])
            for each, row in zip(candidates, rows, strict=True)
        ]

    def _statements(self, candidate: Candidate) -> dict[str, bytes]:
        """Return {file name: signed statement} for a candidate."""
        if candidate.statement is None:
            return {}
        name = candidate.path.name
        signed = {provenance.filename(name): provenance.sign(candidate.statement, self.signer)}
        if self.channel_url:
            statement = provenance.publish_statement(candidate.subject, self.channel_url)
            attestation = provenance.filename(name, provenance.PUBLISH_ENDING)
            signed[attestation] = provenance.sign(statement, self.signer)
        return signed

    def _put(self, candidate: Candidate, row: Row) -> Row:
        name = row.package
        if row.state == "there":
            self.progress.step(
                f"{name} is there already, sha256 {row.sha256}: "
                + ("nothing to do" if row.provenance != "new" else "its provenance is missing")
            )
            return row
        size = candidate.path.stat().st_size / 1e6
        self.progress.step(f"putting {name} ({size:.1f} MB)")
        self.target.put(candidate.path, row.subdir, name, row.sha256)
        found = self.target.find(row.subdir, name)
        if found != row.sha256:
            raise FeedstockError(
                f"{self.target.url} has other bytes than were put: {name}",
                expected=row.sha256,
                found=found,
            )
        return dataclasses.replace(row, state="put")

    def _index(self, candidates: Sequence[Candidate], is_new: bool) -> None:
        """Index the new packages, and repair an index that does not list all packages."""
        say = self.progress.step
        if self.index_later:
            say("the index is left to somebody else (--index-later)")
            return
        wanted = {(each.subdir, each.path.name): each.sha256 for each in candidates}
        missing = [] if is_new else self._not_listed(wanted)
        if is_new:
            say("indexing")
        if missing:
            say(f"the index does not list what is there, so it is repaired: {missing[0]}")
        if is_new or missing:
            self.target.index(wanted, say)
            missing = self._not_listed(wanted)
        if missing:
            say(f"all packages are read again for the index: {missing[0]}")
            self.target.index(wanted, say, force=True)
            missing = self._not_listed(wanted)
        if missing:
            raise FeedstockError(
                f"the packages are in {self.target.url}, but its index is not right",
                found="; ".join(missing),
                remedy="run the same command again; where it stays so, look for a file in the "
                "channel that is not a whole package",
            )
        subdirs = sorted({subdir for subdir, _ in wanted} | {"noarch"})
        self.target.remove_old_indexes(subdirs, say)

    def _not_listed(self, wanted: dict[tuple[str, str], str]) -> list[str]:
        """Read each form of the index again. Return a line for each fault of our packages in it."""
        faults = []
        for subdir in sorted({subdir for subdir, _ in wanted}):
            names = {name: sha for (place, name), sha in wanted.items() if place == subdir}
            faults += _faults_of_index(self.target, subdir, names)
        return faults

    def _attest(self, candidate: Candidate, row: Row, statements: dict[str, bytes]) -> Row:
        """Put the statements beside the package, or beside our copy if the target keeps none."""
        if row.provenance != "new":
            return row
        with tempfile.TemporaryDirectory() as folder:
            for name, signed in statements.items():
                if not self.target.keeps_files:
                    channel_folder.write_whole(candidate.path.with_name(name), signed)
                    continue
                path = Path(folder, name)
                path.write_bytes(signed)
                # another publisher may have put the same bytes first
                with contextlib.suppress(Taken):
                    self.target.put(path, candidate.subdir, name, files.sha256(path))
        kept = "put" if self.target.keeps_files else f"kept in {candidate.path.parent}"
        return dataclasses.replace(row, provenance=kept)


def _faults_of_index(target: Target, subdir: str, wanted: dict[str, str]) -> list[str]:
    """Return the faults of the index of one subdir that concern these packages."""
    try:
        forms = repodata.forms(lambda name: target.read(subdir, name), f"{target.url}/{subdir}")
    except FeedstockError as error:
        return [str(error).splitlines()[0]]
    if repodata.JSON not in forms:
        return [f"there is no {subdir}/{repodata.JSON}"]
    return [
        f"{subdir}/{form} does not list {name} with sha256 {sha256}"
        for form, entries in forms.items()
        for name, sha256 in wanted.items()
        if entries.get(name, {}).get("sha256") != sha256
    ]
