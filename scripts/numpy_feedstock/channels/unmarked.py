"""Find unpatched builds of numpy in a channel: builds not in the list, and builds with twins."""

import datetime
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .. import files
from ..errors import FeedstockError, shown
from ..packages import archive, hotfix, patch
from . import channel_folder
from .broken import BrokenBuild

# (entries of a list, a line for each package that could not be judged)
Found = tuple[list[BrokenBuild], list[str]]

_INIT = re.compile(r"lib/python3[^/]*/site-packages/numpy/__init__\.py")
_NEEDS_MKL = re.compile(r"mkl\b|(libblas|blas) .*mkl")


@functools.cache
def _numpy() -> re.Pattern[str]:
    releases = "|".join(map(re.escape, sorted(patch.applies_to())))
    # in Anaconda's own channel the files are in numpy-base
    return re.compile(rf"numpy(-base)?-({releases})-")


def find(folder: Path, builds: Sequence[BrokenBuild]) -> Found:
    """Return entries for the builds of numpy in a channel that need the patch and are not listed.

    A build needs it when its import multiplies matrices.
    """
    listed = {build.package for build in builds}
    packages = (
        path
        for path in channel_folder.packages_in(folder)
        if path.parent.name.startswith("linux-") and _package(path) not in listed
    )
    return _entries(packages, _unpatched)


def find_healed(folder: Path) -> Found:
    """Return entries for the originals in a channel whose twin, made by `hotfix`, is there too."""
    return _entries(channel_folder.packages_in(folder), _healed)


def _entries(packages: Iterable[Path], entry_for: Callable[[Path], BrokenBuild | None]) -> Found:
    """Return the entries that a function has for packages. One odd package hides no other."""
    found, odd = [], []
    for path in packages:
        if _numpy().match(path.name):
            try:
                entry = entry_for(path)
            except FeedstockError as error:
                odd.append(shown(f"{_package(path)}: {' '.join(str(error).split())}"))
            else:
                found += [entry] if entry else []
    return found, odd


def _package(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _unpatched(path: Path) -> BrokenBuild | None:
    original = hotfix.open_original(path, path.name)
    texts = [name for name in original.members if _INIT.fullmatch(name)]
    if not any(hotfix.gate_state(original.members[name]) == "ungated" for name in texts):
        return None
    # A build that takes the environment's BLAS is broken only when that is MKL.
    needs_mkl = any(_NEEDS_MKL.match(spec) for spec in original.index["depends"])
    reason = "the import hangs inside dlopen with MKL (numpy#31284)"
    return _entry(path, reason, "" if needs_mkl else "mkl")


def _healed(path: Path) -> BrokenBuild | None:
    """Return the entry for the original of a twin; None for another package."""
    origin = hotfix.origin_of(archive.read(path, info_only=True))
    name = str(origin.get("original"))
    original = path.parent / name
    # a name with a slash is no file of this folder
    if not _numpy().match(name) or original.parent != path.parent or not original.is_file():
        return None
    if files.sha256(original) != origin.get("original_sha256"):
        return None
    return _entry(original, f"healed: {path.name} is in the channel (numpy#31284)")


def _entry(path: Path, reason: str, only_with: str = "") -> BrokenBuild:
    today = datetime.datetime.now(datetime.UTC).date()
    return BrokenBuild(_package(path), reason, today, files.sha256(path), only_with)
