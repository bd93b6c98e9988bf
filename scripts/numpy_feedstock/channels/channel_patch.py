"""The repodata patch of a channel: what the indexer changes in the entries of listed packages."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rattler.package_streaming import extract
from rattler_build import assemble_package

from .. import files
from ..errors import FeedstockError, UsageError
from ..packages.package_info import read_index
from ..progress import Say
from . import channel_folder, repodata
from .broken import BrokenBuild
from .channel_folder import PATCH_PACKAGE
from .repodata import Entries, Entry

Json = dict[str, Any]
Instructions = dict[str, Json]  # {subdir: the content of its patch_instructions.json}

# No package has this name. Conda's own indexer adds it to the dependencies of a revoked build.
# The instructions `revoke` and `remove` do not help: py-rattler's indexer ignores `revoke`. It
# leaves the entry of a removed build in its place, and conda, unlike rattler, still takes it.
UNSATISFIABLE = "package_has_been_revoked"
# the keys of an entry that solvers and installers use
_COMPARED_KEYS = ("depends", "constrains", "track_features", "sha256")
# the keys that other tools patch
_PATCHED_KEYS = ("depends", "constrains", "track_features", "features")


def desired(builds: Sequence[BrokenBuild], folder: Path) -> Instructions:
    """Return the instructions for the listed builds that the channel holds.

    Raises UsageError when a file has a listed name and another sha256.
    """
    found: Instructions = {}
    for build in builds:
        path = folder / build.package
        if not path.is_file():
            continue
        _check_file(path, build)
        own = read_index(path)
        depends, constrains = own.get("depends", []), own.get("constrains", [])
        if build.only_with:
            # no version is that old
            change = {"constrains": [*constrains, f"{build.only_with} <0a0"]}
        else:
            change = {"depends": [*depends, UNSATISFIABLE]}
        sections = found.setdefault(build.subdir, {})
        sections.setdefault(repodata.section(build.filename), {})[build.filename] = change
    return found


def _check_file(path: Path, build: BrokenBuild) -> None:
    if not build.sha256:
        return
    sha256 = files.sha256(path)
    if sha256 != build.sha256:
        raise UsageError(
            f"another file than the list means: {path}",
            expected=f"sha256 {build.sha256}",
            found=sha256,
            remedy="correct the list, or name a list of your own with --list",
        )


def changes_in(instructions: Instructions) -> dict[str, Json]:
    """Return {"subdir/file name": the changed keys of its entry}."""
    return {
        f"{subdir}/{filename}": change
        for subdir, sections in instructions.items()
        for section in repodata.SECTIONS
        for filename, change in sections.get(section, {}).items()
    }


def current(folder: Path) -> Instructions:
    """Return the instructions of the patch package in the channel; {} without one."""
    package = folder / "noarch" / PATCH_PACKAGE
    if not package.exists():
        return {}
    with unpacked(package) as content:
        found = {
            path.parent.name: json.loads(path.read_text())
            for path in content.glob("*/patch_instructions.json")
        }
    return {subdir: sections for subdir, sections in found.items() if sections}


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a package for the time of a block. Raises UsageError for one that is not whole."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            extract(path, Path(folder))
        except Exception as error:
            raise UsageError(f"not a whole conda package: {path}", found=error) from None
        yield Path(folder)


def add(folder: Path, instructions: Instructions) -> None:
    """Put the patch package with these instructions into the channel."""
    name, version, build = PATCH_PACKAGE.removesuffix(".conda").rsplit("-", 2)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as content:
        # Each subdir is in it, also one without instructions: the indexer would keep what was
        # patched there before.
        for path in folder.glob("*/repodata.json"):
            written = Path(content, path.parent.name, "patch_instructions.json")
            written.parent.mkdir()
            written.write_text(json.dumps(instructions.get(path.parent.name, {}), indent=1))
        package = assemble_package(
            name,
            version,
            "noarch",
            build,
            made,
            files_dir=content,
            noarch="generic",
            detect_prefix=False,
            summary="Changes to this channel's index, which its indexer applies; "
            "nothing to install.",
        )
        channel_folder.copy(Path(package.path), folder / "noarch" / PATCH_PACKAGE, os.replace)


def read_entries(folder: Path) -> Entries:
    """Return {"subdir/file name": its entry in the index}, without the patch package.

    Raises FeedstockError for an index that is not whole.
    """
    found: Entries = {}
    for path in sorted(folder.glob("*/repodata.json")):
        for filename, entry in repodata.parse(path.read_bytes(), str(path)).items():
            if filename != PATCH_PACKAGE:
                found[f"{path.parent.name}/{filename}"] = entry
    return found


def predicted(
    folder: Path, before: Entries, desired: Instructions, current: Instructions
) -> Entries:
    """Return the index as it will be with the desired instructions instead of the current ones."""
    wanted = changes_in(desired)
    touched = wanted.keys() | changes_in(current).keys()
    after = dict(before)
    for package in sorted(touched & before.keys()):
        if not (folder / package).is_file():
            continue
        own = read_index(folder / package)
        requirements = {key: own.get(key, []) for key in ("depends", "constrains")}
        entry = {**before[package], **requirements, **wanted.get(package, {})}
        # the indexer leaves out empty values
        after[package] = {
            key: value for key, value in entry.items() if value != [] or key in before[package]
        }
    return after


def check_applied(entries: Entries, instructions: Instructions) -> None:
    """Raise FeedstockError unless the index says what the instructions do."""
    for package, change in changes_in(instructions).items():
        found = entries.get(package, {})
        if any(found.get(key) != value for key, value in change.items()):
            raise FeedstockError(
                f"the indexer did not apply the patch to {package}", expected=change, found=found
            )


def refuse_other_patches(folder: Path, entries: Entries, ours: Sequence[Instructions]) -> None:
    """Raise UsageError when another tool changed the index. A new index would lose its changes.

    ours : instructions that entries may be changed by; a run that was cut off leaves some changed
    """
    own_changes = [{}, *(changes_in(each) for each in ours)]
    changed = []
    for package, entry in entries.items():
        path = folder / package
        if not path.is_file():
            continue
        own = read_index(path)
        states = [{**own, **changes.get(package, {})} for changes in own_changes]
        if not any(_are_alike(entry, state) for state in states):
            changed.append(package)
    changed += _removed(folder)
    if changed:
        shown = ", ".join(sorted(changed)[:3])
        raise UsageError(
            f"another tool has patched the index of {folder}, which would be lost",
            found=f"{len(changed)} entries that differ from their packages: {shown}",
            remedy="mark the builds with that tool, or index the channel once without its patch",
        )


def _are_alike(entry: Json, own: Json) -> bool:
    return all(_as_list(entry.get(key)) == _as_list(own.get(key)) for key in _PATCHED_KEYS)


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return list(repodata.normal(value or []))


def _removed(folder: Path) -> list[str]:
    """Return the packages that are there and that the index names as removed."""
    found = []
    for path in folder.glob("*/repodata.json"):
        removed = json.loads(path.read_bytes()).get("removed") or []
        found += [
            f"{path.parent.name}/{name}" for name in removed if (path.parent / str(name)).is_file()
        ]
    return found


@dataclasses.dataclass(frozen=True)
class Change:
    """The index before and after."""

    before: Entries
    after: Entries

    def differences(self) -> dict[str, dict[str, list[str]]]:
        """Return {"subdir/file name": `difference` of its entry} for each entry that differs."""
        changed = {}
        for package in sorted(self.before.keys() | self.after.keys()):
            found = difference(self.before.get(package, {}), self.after.get(package, {}))
            if found:
                changed[package] = found
        return changed


def change_index(folder: Path, builds: Sequence[BrokenBuild], is_dry_run: bool, say: Say) -> Change:
    """Make the index say what the list says; in a dry run only predict it."""
    before = read_entries(folder)
    wanted, known = desired(builds, folder), current(folder)
    after = predicted(folder, before, wanted, known)
    # an earlier run may have been cut off after it had put the patch
    if (wanted, before) == (known, after):
        if not is_dry_run:
            channel_folder.remove_old_indexes(folder, say)
        return Change(before, after)
    refuse_other_patches(folder, before, [known, wanted])
    _name_unmarked(wanted, known, say)
    if is_dry_run:
        return Change(before, after)
    add(folder, wanted)
    # force: the indexer skips file names it has seen, and the patch package keeps its name
    channel_folder.index(folder, say, force=True)
    after = read_entries(folder)
    check_applied(after, wanted)
    return Change(before, after)


def _name_unmarked(wanted: Instructions, known: Instructions, say: Say) -> None:
    unmarked = changes_in(known).keys() - changes_in(wanted).keys()
    for package in sorted(unmarked):
        say(f"not in the list, so no longer marked: {package}")


def difference(before: Entry, after: Entry) -> dict[str, list[str]]:
    """Return {key: what an entry of the index lost ("- ...") and gained ("+ ...")}."""
    changes = {}
    for key in _COMPARED_KEYS:
        old, new = _listed(before.get(key)), _listed(after.get(key))
        lines = [f"- {each}" for each in old if each not in new]
        lines += [f"+ {each}" for each in new if each not in old]
        if lines:
            changes[key] = lines
    return changes


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
