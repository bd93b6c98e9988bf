"""Checks of the code that Python runs when it imports numpy from a package, or starts."""

import ast
import base64
import contextlib
import functools
import hashlib
import json
import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from audit_numpy import CHECK, gate

from ..policy import limits, policy
from . import bytecode, known_texts, marshalled, patch
from .archive import PATHS
from .unpacked import Fault, ListedFile, Unpacked

_PYCACHE_NAME = re.compile(r"(?P<module>.+)\.cpython-\d+(\.opt-(?P<optimization>[12]))?\.pyc")
# This runs in a Python of the bytecode's own version. It prints the marshalled code of each
# source, or null for a source that is not Python.
_COMPILER = """
import base64, json, marshal, sys
for request in json.load(sys.stdin):
    try:
        code = compile(base64.b64decode(request["source"]), request["filename"], "exec",
                       dont_inherit=True, optimize=request["optimization"])
        print(json.dumps(base64.b64encode(marshal.dumps(code)).decode()))
    except (SyntaxError, ValueError):
        print("null")
"""


def numpy_folders(unpacked: Unpacked) -> list[str]:
    """Return every folder of the package that Python can import as numpy."""
    found = set()
    for name in unpacked.members:
        match = re.fullmatch(r"(?!info/)((?:.*/)?numpy)/__init__\.(py|pyc|.*so)", name)
        if match:
            found.add(match[1])
    return sorted(found)


def _modules_of(unpacked: Unpacked, folder: str) -> Iterator[str]:
    """Yield the files in a numpy folder that Python can import, but for its tests."""
    for name in sorted(unpacked.members):
        if not name.startswith(folder + "/") or "tests" in PurePosixPath(name).parts[:-1]:
            continue
        if name.endswith((".py", ".pyc", ".so", ".pyd")):
            yield name


def check_files(unpacked: Unpacked) -> Iterator[Fault]:
    """The package has the files that its list names, none of which runs outside of numpy."""
    yield from _unexpected(unpacked)
    yield from _unlisted(unpacked)
    for listed in unpacked.listed:
        yield from _unlike_its_entry(unpacked, listed)


def _unexpected(unpacked: Unpacked) -> Iterator[Fault]:
    rules = policy()["files"]
    release = re.escape(unpacked.release)
    allowed = [pattern.replace("{release}", release) for pattern in rules["allowed"]]
    for name in sorted(unpacked.members):
        startup = [
            what for what, pattern in rules["startup"].items() if re.fullmatch(pattern, name)
        ]
        if startup:
            yield name, startup[0], "conda-forge's numpy has none"
        elif not any(re.fullmatch(pattern, name) for pattern in allowed):
            yield name, "a file that is not numpy's", "numpy, its commands and its metadata"


def _unlisted(unpacked: Unpacked) -> Iterator[Fault]:
    listed = [each.name for each in unpacked.listed]
    for name in sorted(set(unpacked.members) - set(listed)):
        if not name.startswith("info/"):
            yield name, f"not in {PATHS}", "every installed file is in it"
    for name in sorted({name for name in listed if listed.count(name) > 1}):
        yield name, f"more than once in {PATHS}", "once"


def _unlike_its_entry(unpacked: Unpacked, listed: ListedFile) -> Iterator[Fault]:
    name = listed.name
    member = unpacked.members.get(name)
    if listed.kind == "directory":
        return
    if member is None:
        yield name, f"in {PATHS}, but missing", "a file"
    elif member.link != (listed.kind == "softlink"):
        kind = "link" if member.link else "file"
        yield name, f"a {kind}", f"{listed.kind}, by {PATHS}"
    elif not member.link:
        sha256 = hashlib.sha256(member.data).hexdigest()
        if listed.sha256 not in (None, sha256):
            yield name, f"sha256 {sha256}", f"sha256 {listed.sha256}, by {PATHS}"
        if listed.size not in (None, len(member.data)):
            yield name, f"{len(member.data)} bytes", f"{listed.size} bytes, by {PATHS}"


def check_gate(unpacked: Unpacked) -> Iterator[Fault]:
    """No import of numpy runs a matrix product on Linux, in any copy that is in the package.

    In a release that needs the patch, only the patch prevents the product.
    """
    folders = numpy_folders(unpacked)
    expected = _expected_folder(unpacked)
    if f"{expected}/__init__.py" not in unpacked.members:
        yield f"{expected}/__init__.py", "missing", "in every package"
    for folder in folders:
        name = f"{folder}/__init__.py"
        if folder != expected:
            yield folder, "another copy of numpy", f"only {expected}"
        if name in unpacked.members:
            yield from _faults_of_init(unpacked, name)


def _expected_folder(unpacked: Unpacked) -> str:
    """Return the folder in which the package's Python looks for numpy.

    The package's dependencies name the Python.
    """
    for spec in unpacked.specs:
        match = re.fullmatch(r"python_abi (3\.\d+)\.\* .*", spec)
        if match:
            return f"lib/python{match[1]}/site-packages/numpy"
    found = [folder for folder in numpy_folders(unpacked) if folder.startswith("lib/python3")]
    return found[0] if found else "lib/python3/site-packages/numpy"


def _faults_of_init(unpacked: Unpacked, name: str) -> Iterator[Fault]:
    member = unpacked.members[name]
    if member.link or len(member.data) > limits().text_bytes:
        yield name, "a link, or too large", f"a file of at most {limits().text_bytes} bytes"
        return
    text = unpacked.text(name)
    allowed = ["gated"] if unpacked.patched else ["gated", "absent"]
    state = _state(text)
    if state not in allowed:
        yield name, state, " or ".join(allowed)
    elif unpacked.patched and definition(text) not in _definitions_left_by_patches(unpacked):
        yield name, "another check", "the one that the patch in info/recipe leaves"
    elif unpacked.patched and not _is_upstreams(unpacked, member.data):
        yield name, "another text", "upstream's text with the patch applied"


def _state(text: str) -> str:
    try:
        return str(gate(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"not Python: {error or type(error).__name__}"


def _is_upstreams(unpacked: Unpacked, data: bytes) -> bool:
    known = known_texts.of_release(unpacked.release)
    if known is None:
        return True
    try:
        upstream = patch.undone(data)
    except patch.NotPatchable:
        return False
    return hashlib.sha256(upstream).hexdigest() == known.hashes["numpy/__init__.py"]


def _definitions_left_by_patches(unpacked: Unpacked) -> Iterator[str | None]:
    for name in unpacked.members:
        if name.endswith(".patch"):
            # the lines that a patch of several hunks leaves are no text of their own
            with contextlib.suppress(SyntaxError):
                yield definition(left_by(unpacked.text(name)))


def definition(source: str) -> str | None:
    """Return the definition of numpy's check without layout and comments; None without one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name == CHECK:
            return ast.dump(node)
    return None


def left_by(patch_text: str) -> str:
    """Return the lines that a patch of one hunk leaves, as source text of their own."""
    hunk = patch_text.partition("\n@@")[2].splitlines()[1:]
    left = [line[1:] for line in hunk if line.startswith((" ", "+"))]
    return textwrap.dedent("\n".join(left))


def check_modules(unpacked: Unpacked) -> Iterator[Fault]:
    """The modules of numpy are upstream's, and no other file shadows them."""
    known = known_texts.of_release(unpacked.release)
    for folder in numpy_folders(unpacked):
        for name in _modules_of(unpacked, folder):
            file = "numpy/" + name.removeprefix(folder + "/")
            if unpacked.members[name].link:
                yield name, "a link", "a file"
            elif name.endswith(".pyc"):
                if "/__pycache__/" not in name:
                    yield name, "bytecode without its source", "a source file"
            elif not name.endswith(".py"):
                yield from _faults_of_extension(unpacked, name, known)
            elif known is not None:
                yield from _faults_of_text(unpacked, name, file, known)


def _faults_of_extension(
    unpacked: Unpacked, name: str, known: known_texts.KnownTexts | None
) -> Iterator[Fault]:
    folder, _, filename = name.rpartition("/")
    module = filename.split(".")[0]
    if module == "__init__" or f"{folder}/{module}.py" in unpacked.members:
        yield name, f"an extension module in place of {module}.py", "the source file"
        return
    inside = re.sub(r"^.*?(?=numpy/)", "", f"{folder}/{module}")
    if known is not None and inside not in known.extensions:
        yield name, "an extension module", f"numpy {unpacked.release} has none of this name"


def _faults_of_text(
    unpacked: Unpacked, name: str, file: str, known: known_texts.KnownTexts
) -> Iterator[Fault]:
    data = unpacked.members[name].data
    if file == known_texts.CONFIG:
        text = unpacked.text(name)
        if len(data) > limits().text_bytes or not known_texts.is_from_template(text, known.config):
            yield name, "another text", f"{file}.in of numpy {unpacked.release}, filled in"
    elif file not in known.hashes:
        yield name, "a module", f"numpy {unpacked.release} has none of this name"
    elif file != "numpy/__init__.py" or not unpacked.patched:
        if unpacked.index["subdir"].startswith("win-"):
            data = data.replace(b"\r\n", b"\n")
        if hashlib.sha256(data).hexdigest() != known.hashes[file]:
            yield name, "another text", f"the text of numpy {unpacked.release}"


@dataclass(frozen=True)
class _Bytecode:
    """A bytecode file and the source beside it."""

    name: str
    source: str
    magic: bytes
    optimization: int


def check_bytecode(unpacked: Unpacked) -> Iterator[Fault]:
    """Python uses each bytecode file, which is compiled from the source beside it."""
    by_magic: dict[bytes, list[_Bytecode]] = {}
    for each in _bytecode_of(unpacked):
        by_magic.setdefault(each.magic, []).append(each)
    for magic, group in by_magic.items():
        python = _python_of(magic)
        if python is None:
            continue
        for each in group:
            yield from _faults_of_header(unpacked, each)
        yield from _unlike_their_sources(unpacked, group, python)


def _faults_of_header(unpacked: Unpacked, each: _Bytecode) -> Iterator[Fault]:
    """Yield what is wrong where Python does not use the bytecode, or ignores its source."""
    if unpacked.is_twin:
        yield from _faults_of_twins_header(unpacked, each)
        return
    source = unpacked.members[each.source]
    filename = PurePosixPath(each.source).name
    header = bytecode.header_of(unpacked.members[each.name].data)
    if header is None:
        yield each.name, "no header of bytecode", "a header (PEP 552)"
    elif not header.is_of(source.data):
        yield each.name, "the header is of another source", f"it is of {filename}"
    elif header.kind == bytecode.TIME_STAMP and not header.has_date(source.mtime):
        yield each.name, "another date", f"the date of {filename}"
    elif header.kind == bytecode.UNCHECKED_HASH:
        yield each.name, "an unchecked hash", f"Python compares it with {filename}"
    if each.source in unpacked.prefixes:
        yield each.name, f"of {filename}, which an installer changes", "no bytecode of it"


def _faults_of_twins_header(unpacked: Unpacked, each: _Bytecode) -> Iterator[Fault]:
    """Yield a fault of the bytecode that `hotfix` made. All other bytecode is the original's.

    It has the original's kind and date, which may be of any kind and any date.
    """
    if not each.source.endswith("/numpy/__init__.py"):
        return
    header = bytecode.header_of(unpacked.members[each.name].data)
    if header is None or not header.is_of(unpacked.members[each.source].data):
        yield each.name, "the header is of another source", "it is of the patched text"


def not_checked(unpacked: Unpacked) -> Iterator[str]:
    """Yield a text for each thing that these checks could not look at."""
    if known_texts.of_release(unpacked.release) is None:
        yield f"the texts of its modules, because those of numpy {unpacked.release} are not known"
    for magic in sorted({each.magic for each in _bytecode_of(unpacked)}):
        if _python_of(magic) is None:
            number = int.from_bytes(magic[:2], "little")
            yield f"its bytecode, because no Python here has the magic number {number}"


def _bytecode_of(unpacked: Unpacked) -> Iterator[_Bytecode]:
    for folder in numpy_folders(unpacked):
        for name in _modules_of(unpacked, folder):
            place, _, filename = name.rpartition("/__pycache__/")
            match = _PYCACHE_NAME.fullmatch(filename)
            if not place or match is None:
                continue
            source = f"{place}/{match['module']}.py"
            if source in unpacked.members:
                magic = unpacked.members[name].data[:4]
                yield _Bytecode(name, source, magic, int(match["optimization"] or 0))


@functools.cache
def _pythons() -> dict[bytes, bytecode.Python]:
    return {python.magic: python for python in bytecode.find_pythons()}


def _python_of(magic: bytes) -> bytecode.Python | None:
    return _pythons().get(magic)


def _unlike_their_sources(
    unpacked: Unpacked, group: list[_Bytecode], python: bytecode.Python
) -> Iterator[Fault]:
    compiled = _compile(unpacked, group, python)
    for each, code in zip(group, compiled, strict=True):
        found = unpacked.members[each.name].data[bytecode.HEADER_BYTES :]
        try:
            is_same = code is not None and marshalled.parse(found) == marshalled.parse(code)
        except marshalled.BadMarshal:
            is_same = False
        if not is_same:
            yield each.name, "other code", f"what {PurePosixPath(each.source).name} compiles to"


def _compile(
    unpacked: Unpacked, group: list[_Bytecode], python: bytecode.Python
) -> list[bytes | None]:
    """Return the marshalled code of each source; None for a source that is not Python."""
    requests = [
        {
            "source": base64.b64encode(unpacked.members[each.source].data).decode(),
            "filename": each.source,
            "optimization": each.optimization,
        }
        for each in group
    ]
    done = subprocess.run(
        [python.program, "-I", "-S", "-c", _COMPILER],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=limits().seconds,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    # if a source ends the compiler, the sources after it get no answer
    answers += [None] * (len(group) - len(answers))
    return [base64.b64decode(answer) if answer else None for answer in answers]
