"""A package of numpy, unpacked into a folder, and what its own files say about it."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UsageError, shown
from ..policy import limits, policy
from . import archive, elf, patch, safe_yaml
from .archive import INDEX, PATHS, RUN_EXPORTS, Member, Unsafe

# what a check yields: the file, what was found, and what is allowed there
Fault = tuple[str, str, str]


@dataclass(frozen=True)
class ListedFile:
    """What paths.json says about one file.

    prefix : the placeholder in the file, which an installer replaces by the prefix, or None
    """

    name: str
    kind: str  # "hardlink", "softlink" or "directory"
    sha256: str | None
    size: int | None  # bytes
    prefix: bytes | None


@dataclass(frozen=True)
class Unpacked:
    """A package of numpy for Linux, or a twin that `hotfix` made, for any platform.

    path : of the package
    folder : the folder into which its files were unpacked
    files : {name inside of the package: path}; links are in it too
    members : {name: Member}
    """

    path: Path
    folder: Path
    members: dict[str, Member]
    index: dict[str, Any]
    listed: tuple[ListedFile, ...]
    run_exports: dict[str, Any]

    @property
    def release(self) -> str:
        """The version of numpy, "2.3.5"."""
        return str(self.index["version"])

    @property
    def specs(self) -> list[str]:
        """The match specs of its dependencies."""
        return [spec.strip() for spec in self.index["depends"]]

    @functools.cached_property
    def files(self) -> dict[str, Path]:
        return {name: self.folder / name for name in sorted(self.members)}

    @property
    def patched(self) -> bool:
        """Whether the release needs the patch."""
        return self.release in patch.applies_to()

    @property
    def is_twin(self) -> bool:
        """Whether `hotfix` made it from an unpatched package."""
        return patch.TWIN_MEMBER in self.members

    @functools.cached_property
    def prefixes(self) -> dict[str, bytes]:
        """The placeholder in each file that has one."""
        return {each.name: each.prefix for each in self.listed if each.prefix}

    @functools.cached_property
    def elves(self) -> dict[str, elf.Elf]:
        """The ELF files that can be read."""
        return self._elves_and_broken[0]

    @functools.cached_property
    def broken_elves(self) -> dict[str, str]:
        """The faults of the ELF files that cannot be read."""
        return self._elves_and_broken[1]

    @functools.cached_property
    def _elves_and_broken(self) -> tuple[dict[str, elf.Elf], dict[str, str]]:
        elves, broken = {}, {}
        for name, member in sorted(self.members.items()):
            if member.link:
                continue
            try:
                found = elf.parse(member.data)
            except ValueError as error:
                broken[name] = str(error)
                continue
            if found:
                elves[name] = found
        return elves, broken

    def text(self, name: str) -> str:
        """Return a file's text; "" for a link, and for a file that is not there."""
        member = self.members.get(name)
        if member is None or member.link:
            return ""
        return member.data.decode(errors="replace")

    def yaml(self, name: str) -> Any:
        """Return the content of a YAML file; None when it is not there. Raises UnsafeYaml."""
        return safe_yaml.load(self.text(name), f"{name} of {self.path.name}")


def unpack(path: Path, folder: Path) -> Unpacked:
    """Unpack a package into an empty folder.

    Raises UsageError for a file that is no package of numpy for Linux. Raises archive.Unsafe
    for a package that exceeds a limit of policy.yaml or reaches out of its folder.
    """
    members = _read(path)
    index = _json(path, members, INDEX, _check_index)
    kind = f"{index['name']} for {index['subdir']}"
    is_twin = patch.TWIN_MEMBER in members
    if not re.fullmatch(policy()["twins" if is_twin else "built"]["kind"], kind):
        raise UsageError(
            f"not a package of numpy for Linux: {path}", expected="numpy for linux-*", found=kind
        )
    content = _json(path, members, PATHS, _check_paths)
    run_exports = {}
    if RUN_EXPORTS in members:
        run_exports = _json(path, members, RUN_EXPORTS, _check_mapping)
    _write(path, members, folder)
    listed = tuple(map(_listed, content["paths"]))
    return Unpacked(path, folder, members, index, listed, run_exports)


def _read(path: Path) -> dict[str, Member]:
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    try:
        return archive.read(path)
    except Unsafe:
        raise
    except archive.BadArchive as error:
        raise UsageError(str(error)) from None


def _json(
    path: Path, members: dict[str, Member], name: str, check: Callable[[Any], bool]
) -> dict[str, Any]:
    """Return the content of a JSON file. Raises UsageError when it has not the right shape."""
    try:
        member = members[name]
        if member.link or len(member.data) > limits().text_bytes:
            raise ValueError(f"a link, or larger than {limits().text_bytes} bytes")
        content: dict[str, Any] = json.loads(member.data)
        if not check(content):
            raise ValueError("not as conda's packages have it")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"not a whole conda package: {path}",
            found=f"{name}: {shown(str(error))[:200]}",
            remedy="name a .conda file, or get it again",
        ) from None
    return content


def _check_mapping(content: Any) -> bool:
    return isinstance(content, dict)


def _check_index(content: Any) -> bool:
    texts = ("name", "version", "build", "subdir")
    depends = content["depends"]
    return (
        all(isinstance(content.get(key, ""), str) for key in texts)
        and isinstance(content["name"], str)
        and isinstance(content["version"], str)
        and isinstance(content["subdir"], str)
        and isinstance(depends, list)
        and all(isinstance(spec, str) and spec.strip() for spec in depends)
    )


def _check_paths(content: Any) -> bool:
    return all(
        isinstance(entry["_path"], str)
        and isinstance(entry.get("prefix_placeholder") or "", str)
        and isinstance(entry.get("sha256") or "", str)
        and isinstance(entry.get("size_in_bytes") or 0, int)
        for entry in content["paths"]
    )


def _listed(entry: dict[str, Any]) -> ListedFile:
    prefix = entry.get("prefix_placeholder")
    return ListedFile(
        name=entry["_path"],
        kind=str(entry.get("path_type", "hardlink")),
        sha256=entry.get("sha256"),
        size=entry.get("size_in_bytes"),
        prefix=prefix.encode() if prefix else None,
    )


def _write(path: Path, members: dict[str, Member], folder: Path) -> None:
    """Write the files, then the links, so that nothing is written through a link."""
    links = [name for name, member in members.items() if member.link]
    for name, member in members.items():
        _check_folders(path, members, name)
        if not member.link:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(member.data)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)
    for name in links:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(members[name].data.decode())
    inside = folder.resolve()
    for name in links:
        if not (folder / name).resolve().is_relative_to(inside):
            raise Unsafe(
                f"a link of {path} leaves the package: {name}",
                expected="a link inside the package",
                found=f"a link to {members[name].data.decode()}",
            )


def _check_folders(path: Path, members: dict[str, Member], name: str) -> None:
    """Raise Unsafe when a folder above a member is a file or a link of the package."""
    for parent in PurePosixPath(name).parents:
        if str(parent) in members:
            raise Unsafe(
                f"a member of {path}: {name}",
                expected="a folder above it",
                found=f"a file or a link: {parent}",
            )
