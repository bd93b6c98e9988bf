"""Hotfixes: an unpatched package becomes its patched twin without a compiler.

A twin differs from its original in the text of numpy/__init__.py, its bytecode, and
the metadata that name them. Its bytes depend on the original and on the patch alone.
"""

import base64
import contextlib
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit_numpy import PATCHED_TEXTS, gate

from .. import files, variant
from ..errors import FeedstockError, shown
from ..policy import limits
from . import archive, patch
from .archive import ABOUT, INDEX, PATHS, Member
from .bytecode import Python, recompiled

# above conda-forge's build numbers, below those of compiled packages
BUILD_NUMBER_OFFSET = 50
PLATFORMS = ("linux-64", "linux-aarch64", "osx-64", "osx-arm64", "win-64")
BASE = "numpy-base"
_INIT = re.compile(
    r"(?P<site>(?:lib/python3\.\d+t?|Lib)/site-packages)/numpy/__init__\.py", re.IGNORECASE
)
# what Python imports as numpy, wherever it is; an extension module comes before the text
_ANY_INIT = re.compile(r"(?!info/)(.*/)?numpy/__init__\.(py|.*so|.*pyd)", re.IGNORECASE)
_Json = dict[str, Any]


class Refused(FeedstockError):
    """A package that is not healed, with the reason."""


class NotAffected(Refused):
    """A package that needs no healing."""


@dataclass(frozen=True)
class Original:
    """An unpatched package.

    sha256 : of its file
    url : where it came from, without credentials; its file name for a local file
    """

    filename: str
    sha256: str
    url: str
    members: dict[str, Member]
    index: _Json


@dataclass(frozen=True)
class Twin:
    """A healed package.

    compiled : names of bytecode files that were compiled again
    left_out : names of bytecode files that no Python at hand could compile
    changed : names of members that differ from the original's
    """

    original: Original
    index: _Json
    members: dict[str, Member]
    compiled: list[str]
    left_out: list[str]
    changed: list[str]

    @property
    def filename(self) -> str:
        return "{name}-{version}-{build}.conda".format(**self.index)


@contextlib.contextmanager
def _odd_metadata_refused() -> Iterator[None]:
    """Raise Refused for metadata that no package builder makes, whatever is odd about them."""
    try:
        yield
    except FeedstockError:
        raise
    except Exception as error:
        raise Refused(
            "its metadata are not as conda's packages have them",
            found=shown(f"{type(error).__name__}: {error}")[:200],
        ) from None


@_odd_metadata_refused()
def open_original(path: Path, url: str) -> Original:
    """Read an unpatched package. Raises BadArchive, Refused or NotAffected."""
    members = archive.read(path)
    index = _json(members, INDEX)
    for key in ("name", "version", "build", "subdir"):
        if not isinstance(index.get(key), str):
            raise Refused(f"{INDEX} has no {key}", found=repr(index.get(key)))
    depends = index.get("depends")
    if not isinstance(depends, list) or not all(isinstance(spec, str) for spec in depends):
        raise Refused(f"depends of {INDEX} is not a list of specs", found=shown(repr(depends)[:80]))
    stem = "{name}-{version}-{build}".format(**index)
    if archive.stem(path) != stem:
        raise Refused(
            "the file is not named as its package", expected=shown(stem), found=shown(path.name)
        )
    return Original(path.name, files.sha256(path), url, members, index)


@_odd_metadata_refused()
def needed_base(path: Path) -> tuple[str, str | None]:
    """Return the subdir of a package, and the exact numpy-base that it needs.

    That is "numpy-base-2.3.5-py311h_0" for a numpy of Anaconda's defaults, and None for every
    other package. Raises BadArchive or Refused.
    """
    index = _json(archive.read(path, info_only=True), INDEX)
    for spec in index.get("depends", []):
        if _names_base(spec):
            return str(index["subdir"]), "-".join(_words(spec))
    return str(index["subdir"]), None


def check_same(twin: Twin, path: Path) -> None:
    """Raise Refused unless a package that is there already is this twin."""
    if archive.read(path) != twin.members:
        raise Refused(
            f"another package of this name is there: {path}",
            remedy="name another --output, or remove it",
        )


@_odd_metadata_refused()
def heal(original: Original, pythons: list[Python]) -> Twin:
    """Return the twin of a package that holds numpy/__init__.py.

    Raises Refused or NotAffected.
    """
    _check_identity(original)
    _check_paths(original)
    name, site = _find_init(original)
    members = dict(original.members)
    text = members[name].data
    patched = patched_text(text)
    _check_number(original)
    members[name] = _with_data(members[name], patched)
    compiled, left_out = _renew_bytecode(members, f"{site}/numpy", members[name].data, pythons)
    _correct_record(members, site, original.index["version"])
    index = _renumbered(original.index)
    return _finished(original, index, members, compiled, left_out)


@_odd_metadata_refused()
def repin(original: Original) -> Twin:
    """Return the twin of a numpy of Anaconda's defaults: it needs the twin of its numpy-base."""
    _check_identity(original)
    _check_number(original)
    _check_paths(original)
    code = next(filter(_ANY_INIT.fullmatch, original.members), None)
    if code:
        raise Refused("a numpy that needs a numpy-base, and holds code itself", found=code)
    index = _renumbered(original.index)
    index["depends"] = [_raised(spec) if _names_base(spec) else spec for spec in index["depends"]]
    return _finished(original, index, dict(original.members), [], [])


def origin_of(members: dict[str, Member]) -> dict[str, Any]:
    """Return {"original", "original_sha256", "patch_sha256"} as a twin states them.

    A package that is no twin has an empty dict.
    """
    try:
        origin = json.loads(members[ABOUT].data)["extra"]["hotfix"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return origin if isinstance(origin, dict) else {}


def heal_or_repin(original: Original, pythons: list[Python]) -> Twin:
    """Return the twin of a package of either kind. Raises Refused or NotAffected."""
    if any(map(_names_base, original.index.get("depends", []))):
        return repin(original)
    return heal(original, pythons)


def write(twin: Twin, path: Path) -> None:
    """Make the package file of a twin."""
    archive.write(path, twin.members)


def patched_text(text: bytes) -> bytes:
    """Return the patched text of a released numpy/__init__.py. Raises Refused or NotAffected.

    A text that upstream released for Linux and macOS is known by its hash. Windows'
    wheels have other line ends and a preamble, so there the hunk decides.
    """
    before = _gate_of(text)
    if before != "ungated":
        raise NotAffected("numpy/__init__.py needs no patch", found=f"the check is {before}")
    expected = PATCHED_TEXTS.get(hashlib.sha256(text).hexdigest())
    if expected is None and b"\r\n" not in text:
        raise Refused(
            "numpy/__init__.py is not the text that upstream released",
            expected="the sha256 of a released text",
            found=hashlib.sha256(text).hexdigest(),
            remedy="build the package instead: feedstock build",
        )
    after = patch.applied(text)
    if expected and hashlib.sha256(after).hexdigest() != expected:
        raise Refused("the patched numpy/__init__.py is not the known one", expected=expected)
    if _gate_of(after) != "gated":
        raise Refused("the patch does not gate the check in numpy/__init__.py")
    return after


def gate_state(member: Member) -> str:
    """What numpy/__init__.py of a package runs, as audit_numpy.gate says it. Raises Refused."""
    if member.link:
        raise Refused("numpy/__init__.py is a link")
    return _gate_of(member.data)


def _gate_of(text: bytes) -> str:
    if len(text) > limits().text_bytes:
        raise Refused(
            "numpy/__init__.py is too large",
            expected=f"at most {limits().text_bytes} bytes (policy.yaml)",
            found=len(text),
        )
    try:
        return str(gate(text.decode()))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        found = shown(str(error) or type(error).__name__)
        raise Refused("numpy/__init__.py is not Python", found=found) from None


def _check_identity(original: Original) -> None:
    index = original.index
    if index["name"] not in ("numpy", BASE):
        raise Refused("not a package of numpy", found=index["name"])
    if index["subdir"] not in PLATFORMS:
        expected = f"one of {', '.join(PLATFORMS)}"
        raise Refused("a platform without numpy", expected=expected, found=index["subdir"])
    if index["version"] not in variant.known_releases():
        raise NotAffected("a release without the fault", found=f"numpy {index['version']}")
    number = index.get("build_number")
    is_number = isinstance(number, int) and not isinstance(number, bool) and number >= 0
    if not is_number or not index["build"].endswith(f"_{number}"):
        found = shown(f"{index['build']} and {number!r}")
        raise Refused("the build string does not end in the build number", found=found)


def _check_number(original: Original) -> None:
    """Refuse an unpatched package whose build number would put its twin above compiled ones."""
    number = original.index["build_number"]
    if patch.TWIN_MEMBER in original.members or number >= BUILD_NUMBER_OFFSET:
        raise Refused(
            "it is numbered like a patched package, but it is not patched",
            expected=f"a build number below {BUILD_NUMBER_OFFSET}",
            found=f"build number {number}",
            remedy="build the package instead: feedstock build",
        )


def _check_paths(original: Original) -> None:
    """Refuse a package whose list of files is not about the files that it holds."""
    listed = {}
    for entry in _json(original.members, PATHS).get("paths", []):
        # an empty folder is no member, and installers make it by this list
        if entry.get("path_type") != "directory":
            listed[entry["_path"]] = entry
    there = {name for name in original.members if not name.startswith("info/")}
    if there != listed.keys():
        odd = sorted(there ^ listed.keys())[0]
        raise Refused(f"{PATHS} does not list the package's files", found=shown(odd))
    for name, entry in listed.items():
        member = original.members[name]
        digest = hashlib.sha256(member.data).hexdigest()
        if not member.link and entry.get("sha256") not in (None, digest):
            raise Refused(
                f"{name} is not the file of {PATHS}", expected=entry["sha256"], found=digest
            )


def _find_init(original: Original) -> tuple[str, str]:
    """Return the name of numpy/__init__.py in a package, and its site-packages."""
    names = sorted(filter(_ANY_INIT.fullmatch, original.members))
    match = _INIT.fullmatch(names[0]) if len(names) == 1 else None
    if match is None:
        raise Refused(
            "not one numpy in the package",
            expected="one numpy/__init__.py, in site-packages",
            found=", ".join(names) or "none",
        )
    if original.members[names[0]].link:
        raise Refused("numpy/__init__.py is a link", found=names[0])
    return names[0], match["site"]


def _renew_bytecode(
    members: dict[str, Member], package: str, source: bytes, pythons: list[Python]
) -> tuple[list[str], list[str]]:
    """Replace the bytecode of numpy/__init__.py.

    Returns the names of the files that were compiled, and of those that had to be left out.

    Old bytecode never stays: Python runs the kind with an unchecked hash without a
    look at the source, and that would bring the product back.
    """
    compiled, left_out = [], []
    pattern = re.compile(re.escape(package) + r"/(__pycache__/__init__\.[^/]+|__init__)\.pyc")
    for name in sorted(filter(pattern.fullmatch, members)):
        code = recompiled(members[name].data, name, source, pythons)
        if code is None:
            del members[name]
            left_out.append(name)
        else:
            members[name] = _with_data(members[name], code)
            compiled.append(name)
    return compiled, left_out


def _correct_record(members: dict[str, Member], site: str, version: str) -> None:
    """Let pip's list of installed files say what is there now."""
    name = f"{site}/numpy-{version}.dist-info/RECORD"
    record = members.get(name)
    if record is None:
        return
    rows = []
    for row in csv.reader(io.StringIO(record.data.decode())):
        if len(row) < 2:
            rows.append(row)  # an empty line
            continue
        file = f"{site}/{row[0]}"
        if file not in members and row[0].endswith(".pyc"):
            continue
        if row[1] and re.fullmatch(r"numpy/(__init__\.py|__pycache__/__init__\..*\.pyc)", row[0]):
            row[1:] = _record_hash(members[file].data), str(len(members[file].data))
        rows.append(row)
    stream = io.StringIO()
    ends = "\r\n" if b"\r\n" in record.data else "\n"
    csv.writer(stream, lineterminator=ends).writerows(rows)
    members[name] = _with_data(record, stream.getvalue().encode())


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return "sha256=" + digest.decode().rstrip("=")


def _renumbered(index: _Json) -> _Json:
    """Return the index of a twin: the build number, also in the build string, is higher."""
    number = index["build_number"]
    raised = number + BUILD_NUMBER_OFFSET
    build = index["build"].removesuffix(f"_{number}") + f"_{raised}"
    return {**index, "build": build, "build_number": raised}


def _raised(spec: str) -> str:
    """Return the spec of a numpy-base's twin, "numpy-base 2.3.5 py311h_50", for an exact spec."""
    match = re.fullmatch(rf"({BASE} \S+ \S+_)(\d+)", " ".join(_words(spec)))
    if match is None:
        raise Refused("the numpy-base that it needs is not named exactly", found=spec)
    return f"{match[1]}{int(match[2]) + BUILD_NUMBER_OFFSET}"


def _names_base(spec: Any) -> bool:
    return _words(spec)[:1] == [BASE]


def _words(spec: Any) -> list[str]:
    """Return name, version and build of a spec. Some tools write "==2.3.5" for "2.3.5"."""
    return [word.removeprefix("==") for word in str(spec).split()]


def _finished(
    original: Original,
    index: _Json,
    members: dict[str, Member],
    compiled: list[str],
    left_out: list[str],
) -> Twin:
    """Return a twin with the metadata of its members, and the patch among them."""
    patch_data = patch.file().read_bytes()
    members[patch.TWIN_MEMBER] = Member(patch_data, 0o644, original.members[INDEX].mtime)
    _write_json(members, INDEX, index)
    about = _json(members, ABOUT)
    about.setdefault("extra", {})["hotfix"] = {
        "original": original.filename,
        "original_sha256": original.sha256,
        "patch_sha256": hashlib.sha256(patch_data).hexdigest(),
    }
    _write_json(members, ABOUT, about)
    _write_paths(members)
    _drop_from_list(members, left_out)
    changed = sorted(_changed(original.members, members))
    return Twin(original, index, members, compiled, left_out, changed)


def _write_paths(members: dict[str, Member]) -> None:
    paths = _json(members, PATHS)
    kept = []
    for entry in paths["paths"]:
        member = members.get(entry["_path"])
        if member is None and entry.get("path_type") != "directory":
            continue  # bytecode that was left out
        kept.append(entry)
        if member and not member.link:
            digest = hashlib.sha256(member.data).hexdigest()
            if entry.get("sha256") != digest:
                entry.pop("sha256_in_prefix", None)
            entry["sha256"] = digest
            entry["size_in_bytes"] = len(member.data)
    paths["paths"] = kept
    _write_json(members, PATHS, paths)


def _drop_from_list(members: dict[str, Member], left_out: list[str]) -> None:
    """Drop files from the plain list that conda-build's packages have beside paths.json."""
    files = members.get("info/files")
    if files is None or not left_out:
        return
    kept = [line for line in files.data.decode().splitlines() if line not in left_out]
    members["info/files"] = _with_data(files, ("\n".join(kept) + "\n").encode())


def _changed(before: dict[str, Member], after: dict[str, Member]) -> Iterator[str]:
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            yield name


def _with_data(member: Member, data: bytes) -> Member:
    return Member(data, member.mode, member.mtime)


def _json(members: dict[str, Member], name: str) -> _Json:
    member = members.get(name)
    if member is None:
        raise Refused(f"the package has no {name}")
    if member.link or len(member.data) > limits().text_bytes:
        raise Refused(
            f"{name} is a link, or too large",
            expected=f"a file of at most {limits().text_bytes} bytes (policy.yaml)",
        )
    try:
        content = json.loads(member.data)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name} is not JSON", found=error) from None
    if not isinstance(content, dict):
        raise Refused(f"{name} is not a JSON object", found=type(content).__name__)
    return content


def _write_json(members: dict[str, Member], name: str, content: _Json) -> None:
    members[name] = _with_data(members[name], (json.dumps(content, indent=2) + "\n").encode())
