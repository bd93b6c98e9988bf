"""The list of broken builds, broken.yaml. It names the exact file and the reason of each."""

import dataclasses
import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError

PATH = Path(__file__).with_name("broken.yaml")


@dataclasses.dataclass(frozen=True)
class BrokenBuild:
    """One entry of the list."""

    package: str  # "linux-64/numpy-2.3.5-py311h2e04523_0.conda"
    reason: str
    added: datetime.date
    sha256: str = ""  # of that file, "" where it is not known
    only_with: str = ""  # name of the package that it is broken together with, "" for always

    @property
    def subdir(self) -> str:
        return self.package.partition("/")[0]

    @property
    def filename(self) -> str:
        return self.package.partition("/")[2]


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value))


def _is_package(value: Any) -> bool:
    # imported here, because the import takes long
    import rattler

    subdirs = "|".join(str(subdir) for subdir in rattler.Subdir.all())
    return _matches(rf"({subdirs})/[a-z0-9_.-]+-[\w.!+]+-[\w.+]+\.(conda|tar\.bz2)")(value)


@dataclasses.dataclass(frozen=True)
class _Field:
    """What a key of an entry may hold: in words, and as a test of a value."""

    form: str
    is_right: Callable[[Any], bool]
    is_optional: bool = False


_FIELDS = {
    "package": _Field("subdir/name-version-build.conda or .tar.bz2", _is_package),
    "reason": _Field("a text", _matches(r"(?s).*\S.*")),
    "added": _Field("a date, 2026-11-25", lambda value: type(value) is datetime.date),
    "sha256": _Field("64 hexadecimal digits", _matches("[0-9a-f]{64}"), True),
    "only_with": _Field("the name of a package", _matches("[a-z0-9_][a-z0-9_.-]*"), True),
}


def read(path: Path = PATH) -> list[BrokenBuild]:
    """Return the entries of a list. Raises UsageError that names the line of what is wrong."""
    try:
        loader = yaml.SafeLoader(path.read_text())
        tree = loader.get_single_node()
        if not isinstance(tree, yaml.SequenceNode):
            # an empty file is refused, too: it would unmark all builds
            raise UsageError(
                f"not a list: {path}", expected="entries that begin with a dash, or [] for none"
            )
        entries = [
            (node.start_mark.line + 1, _keys(node), loader.construct_object(node, deep=True))
            for node in tree.value
        ]
    except OSError as error:
        raise UsageError(f"the list cannot be read: {path}", found=error.strerror) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the list is not YAML: {path}", found=" ".join(str(error).split())
        ) from None
    return _checked(entries, path)


def _checked(entries: list[tuple[int, list[str], Any]], path: Path) -> list[BrokenBuild]:
    first_lines: dict[str, int] = {}
    builds = []
    for line, keys, entry in entries:
        _check(entry, keys, f"{path} line {line}")
        build = BrokenBuild(**entry)
        if build.package in first_lines:
            raise UsageError(
                f"{path} line {line}: listed twice: {build.package}",
                found=f"first on line {first_lines[build.package]}",
            )
        first_lines[build.package] = line
        builds.append(build)
    return builds


def _keys(node: yaml.Node) -> list[str]:
    # the dict keeps only the last value of a key that is there twice
    if not isinstance(node, yaml.MappingNode):
        return []
    return [str(key.value) for key, _ in node.value]


def _check(entry: Any, keys: list[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: not an entry", expected=", ".join(_FIELDS), found=entry)
    for key in keys:
        if key not in _FIELDS:
            raise UsageError(f"{where}: unknown key: {key}", known=", ".join(_FIELDS))
        if keys.count(key) > 1:
            raise UsageError(
                f"{where}: the key {key} is there twice", remedy="begin each entry with a dash"
            )
    for key, field in _FIELDS.items():
        if key in entry or not field.is_optional:
            _check_value(entry, key, field, where)


def _check_value(entry: dict[str, Any], key: str, field: _Field, where: str) -> None:
    if key in entry and field.is_right(entry[key]):
        return
    details = {"expected": field.form, "found": entry.get(key)}
    if key == "package":
        details["remedy"] = (
            "name each build; feedstock mark-broken CHANNEL_FOLDER --list-unmarked prints them"
        )
    what = "wrong" if key in entry else "missing"
    raise UsageError(f"{where}: {key} is {what}", **details)
