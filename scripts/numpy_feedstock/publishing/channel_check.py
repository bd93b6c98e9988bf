"""The check of a channel: a row for every numpy in it, and for each file of its index."""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import rattler
from securesystemslib.signer import SSlibKey

from ..channels import channel_folder, repodata
from ..channels.repodata import Entries, Entry
from ..errors import FeedstockError
from . import provenance
from .known_hashes import KnownHashes
from .provenance import NotTrusted, Subject
from .targets import Target

# a file name that cannot lead out of its folder
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]*\.(conda|tar\.bz2)")
_NUMPY_FILE = re.compile(r"numpy-[^/]*\.(conda|tar\.bz2)")
_STATEMENT = re.compile(r"(?P<stem>numpy-[^/]*?)(\.publish)?\.intoto\.jsonl")


@dataclasses.dataclass(frozen=True)
class Row:
    """One package, or one file of the index, and what is wrong with it."""

    package: str
    subdir: str
    sha256: str
    fault: str
    objections: tuple[str, ...] = ()


def check(target: Target, keys: Sequence[SSlibKey], hashes: KnownHashes) -> list[Row]:
    """Return the rows of every subdir."""
    subdirs = sorted(str(subdir) for subdir in rattler.Subdir.all())
    return [row for subdir in subdirs for row in Subdir(target, subdir, keys, hashes).rows()]


def only(rows: Sequence[Row], filenames: Sequence[str]) -> list[Row]:
    """Return the rows of these packages. A package that the index lacks has a row, too."""
    found = [row for row in rows if row.package in filenames]
    missing = sorted(set(filenames) - {row.package for row in found})
    return [*found, *(Row(name, "", "", "not in the index") for name in missing)]


@dataclasses.dataclass(frozen=True)
class Subdir:
    """One subdir of a channel that is checked."""

    target: Target
    subdir: str
    keys: Sequence[SSlibKey]
    hashes: KnownHashes

    def rows(self) -> Iterator[Row]:
        """Yield the rows: files of the index that are not right, then the packages."""
        forms: dict[str, Entries] = {}
        yield from self._read_forms(forms)
        listed = forms.get(repodata.JSON, {})
        for form, entries in forms.items():
            fault = _difference(form, entries, listed)
            if fault:
                yield Row(form, self.subdir, "", fault)
        # a solver may read just one form of the index, so each form counts
        numpys: dict[str, Entry] = {}
        for entries in reversed(forms.values()):
            numpys |= _numpys(entries)
        for filename, entry in sorted(numpys.items()):
            yield self._package(filename, entry)
        yield from self._unlisted(numpys)

    def _read(self, name: str) -> bytes | None:
        return self.target.read(self.subdir, name)

    def _read_forms(self, forms: dict[str, Entries]) -> Iterator[Row]:
        """Read the forms of the index into ``forms``. Yields a row for each unreadable form."""
        names = (repodata.JSON, repodata.ZST, repodata.SHARDS, *channel_folder.OLD_INDEXES)
        for name in names:
            try:
                entries, faults = self._read_form(name, forms)
            except FeedstockError as error:
                yield Row(name, self.subdir, "", _one_line(error))
                continue
            if entries is not None:
                forms[name] = entries
            for fault in faults:
                yield Row(name, self.subdir, "", fault)

    def _read_form(self, name: str, forms: dict[str, Entries]) -> tuple[Entries | None, list[str]]:
        """Return the entries of one form (None when the form is not there), and its faults."""
        data = self._read(name)
        where = f"{self.target.url}/{self.subdir}/{name}"
        if data is None:
            return None, []
        if name == repodata.SHARDS:
            wanted = {"numpy"}
            for entries in forms.values():
                wanted |= {repodata.package_name(*item) for item in _numpys(entries).items()}
            found: Entries = {}
            for package in sorted(wanted):
                found |= repodata.sharded(self._read, where, package)
            return found, []
        text = repodata.decompress(name, data, where)
        if text is None:
            return None, ["not a form that is checked; remove it"]
        entries = repodata.parse(text, where)
        faults = [f"says {part}, which is not checked" for part in repodata.unknown_parts(text)]
        return entries, faults

    def _package(self, filename: str, entry: Entry) -> Row:
        if not _FILENAME.fullmatch(filename):
            return Row(filename, self.subdir, "", "not the file name of a package")
        found = self.hashes.find(self.subdir, filename)
        fault, objections = "", list[str]()
        if found is None:
            fault = "in the index, but not there"
        elif found != entry.get("sha256"):
            fault = f"sha256 {found}, by the index {entry.get('sha256')}"
        else:
            fault, objections = self._provenance(filename, found, entry)
        return Row(filename, self.subdir, found or "", fault, tuple(objections))

    def _provenance(self, filename: str, sha256: str, entry: Entry) -> tuple[str, list[str]]:
        """Return (the fault of a package's provenance or of its entry, its objections)."""
        subject = Subject(filename, sha256)
        signed = self._read(provenance.filename(filename))
        if signed is None:
            return "no provenance", []
        try:
            facts = provenance.facts(provenance.verify(signed, self.keys, subject))
            attestation = self._read(provenance.filename(filename, provenance.PUBLISH_ENDING))
            if attestation is not None:
                kind = provenance.PUBLISH_PREDICATE_TYPE
                provenance.verify(attestation, self.keys, subject, kind)
        except NotTrusted as error:
            return str(error), []
        differences = [str(each) for each in repodata.differences(entry, facts.index)]
        if differences:
            return f"the index changes it: {'; '.join(differences)}", facts.objections
        return "", facts.objections

    def _unlisted(self, numpys: Entries) -> Iterator[Row]:
        """Yield a row for each file that is in the folder and not in the index."""
        stems = {name.removesuffix(".conda").removesuffix(".tar.bz2") for name in numpys}
        for name in self.target.names(self.subdir):
            if _NUMPY_FILE.fullmatch(name) and name not in numpys:
                yield Row(name, self.subdir, "", "there, but not in the index")
            match = _STATEMENT.fullmatch(name)
            if match and match["stem"] not in stems:
                yield Row(name, self.subdir, "", "provenance of a package that is not in the index")


def _numpys(entries: Entries) -> Entries:
    """Return the entries that a solver knows as numpy, or whose files are named so."""
    return {
        filename: entry
        for filename, entry in entries.items()
        if repodata.package_name(filename, entry) == "numpy" or filename.startswith("numpy-")
    }


def _difference(form: str, entries: Entries, listed: Entries) -> str:
    """Return how a form of the index differs from repodata.json in what it says of numpy."""
    ours, theirs = _numpys(entries), _numpys(listed)
    # conda's current_repodata.json lists the newest packages only
    is_subset = form.startswith("current_repodata")
    names = sorted(ours.keys() if is_subset else ours.keys() | theirs.keys())
    different = [name for name in names if ours.get(name) != theirs.get(name)]
    if is_subset and not ours and theirs:
        return "lists no numpy; conda's classic solver reads it first"
    if not different:
        return ""
    return f"differs from repodata.json in {len(different)} of numpy's: {different[0]}"


def _one_line(error: FeedstockError) -> str:
    return " ".join(str(error).split())[:300]
