"""The checks of an unpacked package: what policy.yaml does not allow.

Each check yields (file, found, allowed). What Python runs is checked in python_checks.py.
"""

import contextlib
import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..errors import shown
from ..policy import TooSlow, policy, time_limit
from ..progress import Say
from . import elf, python_checks, twin_checks
from .archive import ENDINGS, INDEX, RUN_EXPORTS
from .canonical import PREFIX
from .specs import lowest_allowed
from .unpacked import Fault, Unpacked


@dataclass(frozen=True)
class Finding:
    """What is wrong with one file of one package.

    package : its file name
    file : its name inside of the package; "" for a finding about the whole package
    """

    package: str
    file: str
    check: str
    found: str
    allowed: str


def check_symbols(unpacked: Unpacked) -> Iterator[Fault]:
    """No symbol version is newer than the dependencies promise."""
    for name, error in unpacked.broken_elves.items():
        yield name, error, "a whole ELF file"
    limits = _symbol_limits(unpacked.specs)
    for name, file in unpacked.elves.items():
        for family in ("GLIBC", "GLIBCXX", "CXXABI"):
            newest = file.newest(family)
            if newest and elf.order(newest) > elf.order(limits[family]):
                yield name, f"{family}_{newest}", f"{family}_{limits[family]} by its dependencies"


def _symbol_limits(specs: list[str]) -> dict[str, str]:
    """Return the newest allowed version of each family of symbols."""
    rules = policy()["symbols"]
    gcc = elf.order(lowest_allowed(specs, "libstdcxx") or "0")
    promised = rules["libstdcxx"][0]
    for line in rules["libstdcxx"]:
        if (line["gcc"],) <= gcc:
            promised = line
    glibc = lowest_allowed(specs, "__glibc") or rules["glibc"]
    return {"GLIBC": glibc, "GLIBCXX": promised["GLIBCXX"], "CXXABI": promised["CXXABI"]}


def check_libraries(unpacked: Unpacked) -> Iterator[Fault]:
    """A declared dependency brings each library that a file needs."""
    declared = {"", *(spec.split()[0] for spec in unpacked.specs)}
    allowed = []
    for name, sonames in policy()["libraries"].items():
        if name in declared:
            allowed += sonames
    for name, file in unpacked.elves.items():
        for needed in file.needed:
            if not any(fnmatch.fnmatch(needed, soname) for soname in allowed):
                yield name, needed, " ".join(allowed)


def check_rpath(unpacked: Unpacked) -> Iterator[Fault]:
    """Libraries are searched relative to the file, and inside the prefix."""
    for name, file in unpacked.elves.items():
        for entry in file.search:
            origin, _, rest = entry.replace("${ORIGIN}", "$ORIGIN").partition("/")
            reached = os.path.normpath(os.path.join(os.path.dirname(name), rest))
            if origin != "$ORIGIN" or reached.startswith(".."):
                yield name, entry or "an empty entry", "$ORIGIN/..., inside the prefix"


def check_paths(unpacked: Unpacked) -> Iterator[Fault]:
    """No file names a path of the building machine, but for the prefix that is replaced."""
    pattern = _building_machine(unpacked)
    rules = policy()["paths"]
    is_canonical = set(unpacked.prefixes.values()) == {PREFIX.encode()}
    for name, member in sorted(unpacked.members.items()):
        data = member.data
        if name in rules["records"]:
            if not is_canonical:
                continue
            data = data.replace(PREFIX.encode(), b"")
        elif name in unpacked.prefixes:
            data = data.replace(unpacked.prefixes[name], b"")
        found = [_path_around(data, match) for match in pattern.finditer(data)]
        for path in dict.fromkeys(found):
            yield name, path, "no path of the building machine"


# packages name these as well, such as /usr/local; only folders below them are a person's
_SHARED_FOLDERS = {"dev", "etc", "mnt", "opt", "proc", "run", "srv", "sys", "tmp", "usr", "var"}


def _building_machine(unpacked: Unpacked) -> re.Pattern[bytes]:
    patterns = list(map(re.escape, policy()["paths"]["marks"]))
    for folder in building_folders(unpacked):
        # "/root" may also be the middle of another path
        start = "" if folder.count("/") > 1 else r"(?<![\w.-])"
        patterns.append(start + re.escape(folder + "/"))
    return re.compile("|".join(patterns).encode())


def building_folders(unpacked: Unpacked) -> set[str]:
    """Return folders that only the building machine has.

    These are two levels of each folder that the package's record names, this checkout, and the
    home folder.
    """
    record = unpacked.text("info/recipe/rendered_recipe.yaml") + unpacked.text("info/about.json")
    built = re.findall(r"(?:(?:prefix|_dir): |file://)(/[^/\s]+/[^/\s]+)/", record)
    folders = {*built, str(paths.ROOT), _home()}
    return {folder for folder in folders if folder.strip("/")}


def _home() -> str:
    """Return the home folder; "" without one, and for one that every machine has, such as /tmp."""
    try:
        home = Path.home()
    except RuntimeError:
        # a user without an entry in passwd, and without HOME
        return ""
    top, depth = "".join(home.parts[1:2]), len(home.parts) - 1
    is_at_the_top = depth < 2 and top != "root"
    is_shared = depth == 2 and top in _SHARED_FOLDERS
    if is_at_the_top or is_shared:
        return ""
    return str(home)


def _path_around(data: bytes, match: re.Match[bytes]) -> str:
    middle = match.start()
    start = max(0, middle - 300)
    before = re.search(rb"[\w./:+@-]*$", data[start:middle])
    after = re.match(rb"[\w./+@-]*", data[middle : middle + 300])
    assert before is not None and after is not None
    # the same text for all files, however long the placeholder is
    text = (before[0] + after[0]).decode(errors="replace")
    return re.sub(r"(_placehold)+.*", "_placehold...", text)


def check_recipe(unpacked: Unpacked) -> Iterator[Fault]:
    """The patch, the reproduction and the licence travel with the package."""
    rules = policy()["recipe"]
    wanted = list(rules["every"])
    if unpacked.patched:
        wanted += rules["patched"]
    for name in wanted:
        if name not in unpacked.members:
            yield name, "no such file", "a file"
        elif not unpacked.text(name).strip():
            yield name, "an empty file", "a file with text"


def check_metadata(unpacked: Unpacked) -> Iterator[Fault]:
    """The metadata are conda-forge's, and ours where policy.yaml names a difference."""
    rules = policy()["metadata"]
    yield from _filename(unpacked)
    if not re.fullmatch(rules["releases"], unpacked.release):
        yield INDEX, f"numpy {unpacked.release}", f"numpy {rules['releases']}"
        return
    blas = _flavour(unpacked.specs)
    for found, allowed in _dependencies(unpacked, blas):
        yield INDEX, found, allowed
    theirs = rules["conda-forge"]
    for file, key, value in (
        (INDEX, "license", unpacked.index.get("license")),
        (INDEX, "constrains", unpacked.index.get("constrains", [])),
        (RUN_EXPORTS, "run_exports", unpacked.run_exports),
    ):
        if value != theirs[key]:
            yield file, f"{key}: {value}", f"{key}: {theirs[key]}"
    if unpacked.patched:
        for key in ("build_number", "build"):
            pattern = _with_blas(rules["differences"][key], blas)
            value = unpacked.index.get(key)
            if not re.fullmatch(pattern, str(value)):
                yield INDEX, f"{key}: {value}", f"{key}: {pattern}"


def _filename(unpacked: Unpacked) -> Iterator[Fault]:
    index = unpacked.index
    stem = f"{index['name']}-{index['version']}-{index.get('build')}"
    if unpacked.path.name not in [stem + ending for ending in ENDINGS]:
        yield INDEX, f"index of {stem}", f"index of {unpacked.path.name}"


def _flavour(specs: list[str]) -> str | None:
    for blas in policy()["metadata"]["flavours"]:
        if f"libblas * *_{blas}" in specs:
            return str(blas)
    return None


def _dependencies(unpacked: Unpacked, blas: str | None) -> Iterator[tuple[str, str]]:
    """Yield (found, allowed) for each dependency that is missing, surplus or different."""
    rules = policy()["metadata"]
    allowed = _allowed_dependencies(unpacked.patched, blas)
    for spec in unpacked.specs:
        name, _, rest = spec.partition(" ")
        if name not in allowed:
            yield f"depends: {spec}", f"no {name}"
        elif not any(re.fullmatch(pattern, rest) for pattern in allowed[name]):
            yield f"depends: {spec}", f"{name} {' or '.join(allowed[name])}"
    if unpacked.patched:
        optional = set(rules["differences"]["optional"])
    else:
        optional = set(rules["conda-forge"]["optional"].get(unpacked.index["subdir"], []))
    found = {spec.split()[0] for spec in unpacked.specs}
    for name in sorted(allowed.keys() - optional - found):
        yield f"depends: no {name}", f"{name} {' or '.join(allowed[name])}".strip()


def _allowed_dependencies(patched: bool, blas: str | None) -> dict[str, list[str]]:
    """Return the patterns of each dependency's bounds, by its name."""
    rules = policy()["metadata"]
    allowed = {name: [pattern] for name, pattern in rules["conda-forge"]["depends"].items()}
    for name, pattern in rules["differences"]["depends"].items():
        ours = _with_blas(pattern, blas)
        # a release without the patch may be conda-forge's own
        allowed[name] = [ours] if patched else [ours, *allowed[name]]
    for name, pattern in rules["flavours"].get(blas, {}).items():
        allowed[name] = [pattern]
    return allowed


def _with_blas(pattern: Any, blas: str | None) -> str:
    any_flavour = f"({'|'.join(policy()['metadata']['flavours'])})"
    return str(pattern).replace("{blas}", blas or any_flavour)


CHECKS: dict[str, Callable[[Unpacked], Iterator[Fault]]] = {
    "symbols": check_symbols,
    "libraries": check_libraries,
    "rpath": check_rpath,
    "paths": check_paths,
    "files": python_checks.check_files,
    "gate": python_checks.check_gate,
    "twin": twin_checks.check_twin,
    "modules": python_checks.check_modules,
    "bytecode": python_checks.check_bytecode,
    "recipe": check_recipe,
    "metadata": check_metadata,
}


def names(unpacked: Unpacked) -> list[str]:
    """Return the names of the checks of a package."""
    kind = "twins" if unpacked.is_twin else "built"
    return list(policy()[kind]["checks"])


def findings(path: Path, unpacked: Unpacked, say: Say) -> list[Finding]:
    """Return all findings of all checks on a package.

    A check that fails on a package is a Finding, too: the other checks still run.
    """
    every: list[Finding] = []
    for name in names(unpacked):
        found = _run(name, CHECKS[name], path, unpacked)
        say(
            f"{name}: {len(found)} findings in {len(unpacked.members)} files, "
            f"{len(unpacked.elves)} of them ELF"
        )
        every += found
    return every


def _run(
    name: str,
    check: Callable[[Unpacked], Iterator[Fault]],
    path: Path,
    unpacked: Unpacked,
) -> list[Finding]:
    found: list[Finding] = []
    filename = shown(path.name)
    try:
        with time_limit(f"the check {name!r}"):
            for file, seen, allowed in check(unpacked):
                found.append(Finding(filename, shown(file), name, shown(seen), shown(allowed)))
    except TooSlow as error:
        found.append(Finding(filename, "", name, str(error), "a check that ends"))
    except Exception as error:
        # a stranger's file can raise any error; it must not hide other results
        what = f"the check failed: {type(error).__name__}: {str(error)[:200]}"
        found.append(Finding(filename, "", name, shown(what), "files that can be checked"))
    return found


def not_checked(unpacked: Unpacked) -> list[str]:
    """Return a line for each thing that could not be looked at on this machine."""
    with contextlib.suppress(TooSlow), time_limit("what was not checked"):
        return list(map(shown, python_checks.not_checked(unpacked)))
    return ["nothing was said in time"]
