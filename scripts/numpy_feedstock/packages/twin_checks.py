"""The checks of twins: packages that `hotfix` made of unpatched ones."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from audit_numpy import PATCHED_TEXTS, gate

from ..policy import policy
from . import bytecode, hotfix, patch
from .archive import ABOUT, INDEX
from .unpacked import Fault, Unpacked

_INIT = re.compile(r"(?!info/)(.*/)?numpy/__init__\.py")


def check_twin(unpacked: Unpacked) -> Iterator[Fault]:
    """The text is a released one with our patch, and the package names its original."""
    yield from _faults_of_origin(unpacked)
    yield from _faults_of_build(unpacked)
    texts = [name for name in unpacked.members if _INIT.fullmatch(name)]
    if not texts and not _needs_a_twin(unpacked):
        yield "numpy/__init__.py", "missing", "in it, or in the twin of numpy-base that it needs"
    for name in texts:
        data = unpacked.members[name].data
        if not _is_patched(data):
            yield name, f"sha256 {hashlib.sha256(data).hexdigest()}", "a released text, patched"


def _faults_of_origin(unpacked: Unpacked) -> Iterator[Fault]:
    ours = patch.file().read_bytes()
    if unpacked.members[patch.TWIN_MEMBER].data != ours:
        yield patch.TWIN_MEMBER, "another patch", "the patch of this project"
    expected = {
        "original": rf"{unpacked.index['name']}-{re.escape(unpacked.release)}-[^/]+",
        "original_sha256": "[0-9a-f]{64}",
        "patch_sha256": hashlib.sha256(ours).hexdigest(),
    }
    origin = hotfix.origin_of(unpacked.members)
    for key, pattern in expected.items():
        if not re.fullmatch(pattern, str(origin.get(key))):
            yield ABOUT, f"{key}: {origin.get(key)}", f"{key}: {pattern}"


def _faults_of_build(unpacked: Unpacked) -> Iterator[Fault]:
    number = str(unpacked.index.get("build_number"))
    pattern = policy()["twins"]["build_number"]
    if not re.fullmatch(pattern, number):
        yield INDEX, f"build_number: {number}", f"build_number: {pattern}"
    if not str(unpacked.index.get("build")).endswith(f"_{number}"):
        yield INDEX, f"build: {unpacked.index.get('build')}", f"build: ..._{number}"
    stem = f"{unpacked.index['name']}-{unpacked.release}-{unpacked.index.get('build')}"
    if unpacked.path.name != f"{stem}.conda":
        yield INDEX, f"index of {stem}", f"index of {unpacked.path.name}"


def _needs_a_twin(unpacked: Unpacked) -> bool:
    number = policy()["twins"]["build_number"]
    pattern = rf"{hotfix.BASE} {re.escape(unpacked.release)} \S+_{number}"
    return any(re.fullmatch(pattern, spec) for spec in unpacked.specs)


def _is_patched(data: bytes) -> bool:
    """Return whether the patch makes this text from a released one.

    Texts of Windows have other line ends and no known hash. There the hunk decides.
    """
    if hashlib.sha256(data).hexdigest() in PATCHED_TEXTS.values():
        return True
    if b"\r\n" not in data:
        return False
    try:
        patch.undone(data)
        return str(gate(data.decode())) == "gated"
    except (patch.NotPatchable, SyntaxError, ValueError, RecursionError):
        return False


def differences(unpacked: Unpacked, original: Path) -> Iterator[Fault]:
    """Yield each member that differs from what `hotfix` makes from the original.

    Raises FeedstockError for an original that cannot be healed.
    """
    opened = hotfix.open_original(original, original.name)
    made = hotfix.heal_or_repin(opened, bytecode.find_pythons())
    allowed = policy()["twins"]["members"]
    for name in sorted(made.members.keys() | unpacked.members.keys()):
        found, expected = unpacked.members.get(name), made.members.get(name)
        if found == expected:
            continue
        is_named = any(re.fullmatch(pattern, name) for pattern in allowed)
        what = f"what hotfix makes of {original.name}" if is_named else "the original's"
        yield name, "missing" if found is None else "other bytes", what
