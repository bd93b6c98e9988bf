"""Find unpatched builds of numpy in a channel: builds not in the list, and builds with twins."""

import datetime
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from audit_numpy import gate

from .. import files
from ..packages import archive, hotfix, patch
from ..packages.package_info import read_index
from . import channel_folder, channel_patch
from .broken import BrokenBuild

_NEEDS_MKL = re.compile(r"mkl\b|(libblas|blas) .*mkl")


@functools.cache
def _numpy() -> re.Pattern[str]:
    releases = "|".join(map(re.escape, sorted(patch.applies_to())))
    # in Anaconda's own channel the files are in numpy-base
    return re.compile(rf"numpy(-base)?-({releases})-")


def find(folder: Path, builds: Sequence[BrokenBuild]) -> list[BrokenBuild]:
    """Return entries for the builds of numpy in a channel that need the patch and are not listed.

    A build needs it when its import multiplies matrices.
    """
    listed = {build.package for build in builds}
    found = []
    for path in channel_folder.packages_in(folder):
        package = f"{path.parent.name}/{path.name}"
        is_candidate = path.parent.name.startswith("linux-") and _numpy().match(path.name)
        if is_candidate and package not in listed and _is_unpatched(path):
            found.append(_entry_for(path, package))
    return found


def find_healed(folder: Path) -> list[BrokenBuild]:
    """Return entries for the originals in a channel whose twin, made by `hotfix`, is there too."""
    found = []
    for path in channel_folder.packages_in(folder):
        if not _numpy().match(path.name):
            continue
        members = archive.read(path, info_only=True)
        origin = hotfix.origin_of(members)
        original = path.with_name(str(origin.get("original")))
        if original.is_file() and files.sha256(original) == origin.get("original_sha256"):
            package = f"{original.parent.name}/{original.name}"
            reason = f"healed: {path.name} is in the channel (numpy#31284)"
            today = datetime.datetime.now(datetime.UTC).date()
            found.append(BrokenBuild(package, reason, today, files.sha256(original)))
    return found


def _is_unpatched(path: Path) -> bool:
    with channel_patch.unpacked(path) as content:
        sources = content.glob("lib/python3.*/site-packages/numpy/__init__.py")
        return any(gate(source.read_text(errors="replace")) == "ungated" for source in sources)


def _entry_for(path: Path, package: str) -> BrokenBuild:
    depends = read_index(path).get("depends", [])
    # A build that takes the environment's BLAS is broken only when that is MKL.
    needs_mkl = any(_NEEDS_MKL.match(spec) for spec in depends)
    return BrokenBuild(
        package,
        "the import hangs inside dlopen with MKL (numpy#31284)",
        datetime.datetime.now(datetime.UTC).date(),
        files.sha256(path),
        "" if needs_mkl else "mkl",
    )
