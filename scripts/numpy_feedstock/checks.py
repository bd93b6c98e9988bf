"""The checks on an unpacked package: each yields (file, found, allowed) for whatever policy.yaml does not allow."""

import ast
import dataclasses
import fnmatch
import functools
import json
import os
import re
import tempfile
import textwrap
import zipfile
from pathlib import Path

from audit_numpy import CHECK, gate

from . import elf, paths
from .canonical import PREFIX
from .errors import UsageError
from .specs import lowest_allowed


@functools.cache
def policy():
    """What policy.yaml says."""
    import yaml

    return yaml.safe_load(Path(__file__).with_name("policy.yaml").read_text())


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is wrong with one file of one package."""

    package: str
    file: str
    check: str
    found: str
    allowed: str


class Unpacked:
    """A package of numpy for Linux, unpacked into a folder. Raises UsageError for anything else."""

    def __init__(self, path, folder):
        from rattler.package_streaming import extract

        if not path.is_file():
            raise UsageError(f"no such file: {path}")
        try:
            # a file that lost its end is unpacked all the same, and found out by the indexer only
            zipfile.ZipFile(path).close()
            extract(path, folder)
            self.index, placed, self.run_exports = (
                _json(folder / f"info/{name}.json") for name in ("index", "paths", "run_exports")
            )
            kind = f"{self.index['name']} for {self.index['subdir']}"
            self.release, self.specs = (
                self.index["version"],
                [spec.strip() for spec in self.index["depends"]],
            )
            replaced = [entry for entry in placed["paths"] if entry.get("prefix_placeholder")]
            self.prefixes = {
                entry["_path"]: entry["prefix_placeholder"].encode() for entry in replaced
            }
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            zipfile.BadZipFile,
        ) as error:
            raise UsageError(
                f"not a whole conda package: {path}",
                found=error,
                remedy="name a .conda file, or get it again",
            ) from None
        if not re.fullmatch("numpy for linux-.*", kind):
            raise UsageError(
                f"not a package of numpy for Linux: {path}",
                expected="numpy for linux-*",
                found=kind,
            )
        self.folder = folder
        self.files = {
            str(file.relative_to(folder)): file
            for file in sorted(folder.rglob("*"))
            if file.is_symlink() or file.is_file()
        }
        self.elves, self.broken = {}, {}
        for name, file in self.files.items():
            try:
                if not file.is_symlink() and (found := elf.read(file)):
                    self.elves[name] = found
            except ValueError as error:
                self.broken[name] = str(error)
        self.patched = self.release in applies_to()

    def text(self, name):
        """A file's text; empty where there is none."""
        return (
            self.files[name].read_text(errors="replace")
            if name in self.files and self.files[name].is_file()
            else ""
        )


def _json(path):
    # run_exports.json is there only where something is exported
    return json.loads(path.read_text()) if path.exists() or path.stem != "run_exports" else {}


def applies_to():
    """The releases that need the patch, by its own header."""
    headers = "\n".join(
        patch.read_text() for patch in (paths.RECIPE.parent / "patches").glob("*.patch")
    )
    return set(
        re.findall(r"\d[\d.]+", " ".join(re.findall(r"^Applies-to: (.*)$", headers, re.MULTILINE)))
    )


def symbols(package):
    """No symbol version newer than what the declared floors promise."""
    for name, error in package.broken.items():
        yield name, error, "a whole ELF file"
    declared, limit = package.specs, policy()["symbols"]
    gcc = elf.order(lowest_allowed(declared, "libstdcxx") or "0")
    libstdcxx = [line for line in limit["libstdcxx"] if (line["gcc"],) <= gcc] or limit[
        "libstdcxx"
    ][:1]
    limits = {"GLIBC": lowest_allowed(declared, "__glibc") or limit["glibc"], **libstdcxx[-1]}
    for name, file in package.elves.items():
        for family in ("GLIBC", "GLIBCXX", "CXXABI"):
            newest = file.newest(family)
            if newest and elf.order(newest) > elf.order(limits[family]):
                yield name, f"{family}_{newest}", f"{family}_{limits[family]} by its dependencies"


def libraries(package):
    """Every library that is needed comes with a declared dependency."""
    declared = {"", *(spec.split()[0] for spec in package.specs)}
    allowed = [
        soname
        for name, sonames in policy()["libraries"].items()
        if name in declared
        for soname in sonames
    ]
    for name, file in package.elves.items():
        for needed in file.needed:
            if not any(fnmatch.fnmatch(needed, soname) for soname in allowed):
                yield name, needed, " ".join(allowed)


def rpath(package):
    """Libraries are searched relative to the file, and inside the prefix."""
    for name, file in package.elves.items():
        for entry in file.search:
            origin, _, rest = entry.replace("${ORIGIN}", "$ORIGIN").partition("/")
            if origin != "$ORIGIN" or os.path.normpath(
                os.path.join(os.path.dirname(name), rest)
            ).startswith(".."):
                yield name, entry or "an empty entry", "$ORIGIN/..., inside the prefix"


def build_paths(package):
    """No path of the machine that built it, but for the prefixes that are replaced when it is installed."""
    # "/root" may also be the middle of another path
    folders = [
        ("" if folder.count("/") > 1 else r"(?<![\w.-])") + re.escape(folder + "/")
        for folder in building_folders(package)
    ]
    pattern = re.compile("|".join([*folders, *map(re.escape, policy()["paths"]["marks"])]).encode())
    canonical_form = set(package.prefixes.values()) == {PREFIX.encode()}
    for name, file in package.files.items():
        record = name in policy()["paths"]["records"]
        if record and not canonical_form:
            continue
        data = os.fsencode(file.readlink()) if file.is_symlink() else file.read_bytes()
        if record or name in package.prefixes:
            data = data.replace(PREFIX.encode() if record else package.prefixes[name], b"")
        for found in dict.fromkeys(_path_around(data, match) for match in pattern.finditer(data)):
            yield name, found, "no path of the building machine"


# what packages name as well, such as /usr/local; only below them is a folder a person's
_SHARED_FOLDERS = {"dev", "etc", "mnt", "opt", "proc", "run", "srv", "sys", "tmp", "usr", "var"}


def building_folders(package):
    """Folders that only the building machine has: two levels of what the record names, this checkout, the home folder."""
    record = package.text("info/recipe/rendered_recipe.yaml") + package.text("info/about.json")
    built = re.findall(r"(?:(?:prefix|_dir): |file://)(/[^/\s]+/[^/\s]+)/", record)
    return {folder for folder in (*built, str(paths.ROOT), _home()) if folder.strip("/")}


def _home() -> str:
    """Return the home folder, "" without one, and for one that every machine has, such as /tmp."""
    try:
        home = Path.home()
    except RuntimeError:
        # a user without an entry in passwd, and without HOME
        return ""
    top, depth = "".join(home.parts[1:2]), len(home.parts) - 1
    is_at_the_top = depth < 2 and top != "root"
    is_shared = depth == 2 and top in _SHARED_FOLDERS
    return "" if is_at_the_top or is_shared else str(home)


def _path_around(data, match):
    before = re.search(rb"[\w./:+@-]*$", data[max(0, match.start() - 300) : match.start()])[0]
    after = re.match(rb"[\w./+@-]*", data[match.start() : match.start() + 300])[0]
    # one and the same text for all files, however long the placeholder
    return re.sub(r"(_placehold)+.*", "_placehold...", (before + after).decode(errors="replace"))


def the_gate(package):
    """The import runs no matrix product on Linux; in a release that needs the patch, because of the patch."""
    name = next(
        (
            name
            for name in package.files
            if re.fullmatch(r"lib/python3[^/]*/site-packages/numpy/__init__\.py", name)
        ),
        None,
    )
    if name is None:
        yield "numpy/__init__.py", "missing", "in every package"
        return
    text, allowed = package.text(name), ["gated"] if package.patched else ["gated", "absent"]
    try:
        state = gate(text)
    except (SyntaxError, ValueError) as error:
        state = f"not Python: {error}"
    if state not in allowed:
        yield name, state, " or ".join(allowed)
    elif package.patched and definition(text) not in _definitions_left_by_patches(package):
        yield name, "another check", "the one that the patch in info/recipe leaves"


def _definitions_left_by_patches(package):
    for name in package.files:
        if name.endswith(".patch"):
            try:
                yield definition(left_by(package.text(name)))
            except SyntaxError:  # a patch of other places: not a text of its own
                pass


def definition(source):
    """That of numpy's check, without layout and comments, to compare; None where there is none."""
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name == CHECK
    ]
    return ast.dump(found[0]) if found else None


def left_by(patch):
    """The lines that a patch of one hunk leaves behind, as source text of their own."""
    hunk = patch.partition("\n@@")[2].splitlines()[1:]
    return textwrap.dedent("\n".join(line[1:] for line in hunk if line[:1] in (" ", "+")))


def recipe(package):
    """The patch, the reproduction and the licence travel with the package."""
    wanted = policy()["recipe"]
    for name in wanted["every"] + (wanted["patched"] if package.patched else []):
        if not package.text(name).strip():
            yield name, "empty" if name in package.files else "missing", "there"


def metadata(package):
    """conda-forge's metadata of the release, and ours where a difference has a name."""
    rules, name = policy()["metadata"], "info/index.json"
    if not re.fullmatch(rules["releases"], package.release):
        yield name, f"numpy {package.release}", f"numpy {rules['releases']}"
        return
    blas = next(
        (blas for blas in rules["flavours"] if f"libblas * *_{blas}" in package.specs), None
    )
    yield from ((name, *what) for what in _dependencies(package, blas))
    theirs = rules["conda-forge"]
    for file, key, found in (
        (name, "license", package.index.get("license")),
        (name, "constrains", package.index.get("constrains", [])),
        ("info/run_exports.json", "run_exports", package.run_exports),
    ):
        if found != theirs[key]:
            yield file, f"{key}: {found}", f"{key}: {theirs[key]}"
    for key in ("build_number", "build") if package.patched else ():
        (pattern,) = (_with_blas(line[key], blas) for line in rules["differences"] if key in line)
        if not re.fullmatch(pattern, str(package.index.get(key))):
            yield name, f"{key}: {package.index.get(key)}", f"{key}: {pattern}"


def _dependencies(package, blas):
    rules = policy()["metadata"]
    allowed = {name: [pattern] for name, pattern in rules["conda-forge"]["depends"].items()}
    for name, pattern in [
        item for line in rules["differences"] for item in line.get("depends", {}).items()
    ]:
        # a release without the patch may be conda-forge's own
        allowed[name] = [_with_blas(pattern, blas), *([] if package.patched else allowed[name])]
    allowed |= {name: [pattern] for name, pattern in rules["flavours"].get(blas, {}).items()}
    for spec in package.specs:
        name, _, rest = spec.partition(" ")
        if name not in allowed:
            yield f"depends: {spec}", f"no {name}"
        elif not any(re.fullmatch(pattern, rest) for pattern in allowed[name]):
            yield f"depends: {spec}", f"{name} {' or '.join(allowed[name])}"
    optional = {
        name
        for line in rules["differences"]
        for name in line.get("optional", [])
        if package.patched
    }
    if not package.patched:
        theirs = rules["conda-forge"]["optional"]
        optional |= set(theirs.get(package.index.get("subdir"), []))
    for name in sorted(allowed.keys() - optional - {spec.split()[0] for spec in package.specs}):
        yield f"depends: no {name}", f"{name} {' or '.join(allowed[name])}".strip()


def _with_blas(pattern, blas):
    return str(pattern).replace("{blas}", blas or f"({'|'.join(policy()['metadata']['flavours'])})")


CHECKS = {
    "symbols": symbols,
    "libraries": libraries,
    "rpath": rpath,
    "paths": build_paths,
    "gate": the_gate,
    "recipe": recipe,
    "metadata": metadata,
}


def verify(path, say):
    """Every Finding of every check. Raises UsageError for what is not a package of numpy."""
    with tempfile.TemporaryDirectory() as folder:
        return findings(path, Unpacked(path, Path(folder)), say)


def findings(path, package, say):
    """The same, of a package that is unpacked already."""
    every = []
    for name, check in CHECKS.items():
        found = [Finding(path.name, file, name, *what) for file, *what in check(package)]
        say(
            f"{name}: {len(found)} findings in {len(package.files)} files, {len(package.elves)} of them ELF"
        )
        every += found
    return every
