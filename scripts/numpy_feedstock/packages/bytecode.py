"""Bytecode of a changed source file, compiled by a Python of the same minor version."""

import _imp
import base64
import functools
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = 16
# how Python compares bytecode with its source, by the flags of the header (PEP 552)
TIME_STAMP, UNCHECKED_HASH, CHECKED_HASH = 0, 1, 3
_MINORS = ("3.11", "3.12", "3.13", "3.14")
_COMPILE_SECONDS = 60
# strings in marshal's format: the bytes that say their kind, the bytes of their length
_STRING_KINDS = ((b"zZ", 1), (b"aAu", 4))
_MARSHAL_REFERENCE = 0x80  # set in the kind of a value that others refer to
_LONGEST_PATH = 4096
# Python's own bytecode names its source once; each more costs a search
_MOST_PLACES = 100

# Runs in a fresh Python, because one that has compiled other files may mark the
# constants of this one as shared, and would give other bytes.
_COMPILER = """
import base64, importlib.util, json, marshal, sys
request = json.load(sys.stdin)
source = base64.b64decode(request["source"])
code = compile(source, request["filename"], "exec", dont_inherit=True,
               optimize=request["optimization"])
print(json.dumps({
    "code": base64.b64encode(marshal.dumps(code)).decode(),
    "hash": importlib.util.source_hash(source).hex(),
}))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter that compiles, and the magic number of its bytecode."""

    program: Path
    magic: bytes


def find_pythons(named: Iterable[Path] = ()) -> list[Python]:
    """Return the named Pythons, this one, and those of PATH: one for each magic number."""
    this = Python(Path(sys.executable), importlib.util.MAGIC_NUMBER)
    found = [_inspect(program) for program in named]
    found.append(this)
    for minor in _MINORS:
        program = shutil.which(f"python{minor}")
        if program:
            found.append(_inspect(Path(program)))
    by_magic: dict[bytes, Python] = {}
    for python in found:
        if python:
            by_magic.setdefault(python.magic, python)
    return list(by_magic.values())


def _inspect(program: Path) -> Python | None:
    """Return the Python behind a program; None if the program does not run."""
    script = "import importlib.util as u; print(u.MAGIC_NUMBER.hex())"
    try:
        done = subprocess.run(
            [program, "-I", "-S", "-c", script],
            capture_output=True,
            text=True,
            timeout=_COMPILE_SECONDS,
        )
        return Python(program, bytes.fromhex(done.stdout.strip())) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


@dataclass(frozen=True)
class Header:
    """What bytecode says about its source."""

    kind: int
    stamp: bytes
    magic: bytes

    def is_of(self, source: bytes) -> bool:
        """Return whether it has the hash of a source; for a time stamp, its size."""
        if self.kind == TIME_STAMP:
            return self.stamp[4:] == _four_bytes(len(source))
        # the hash of Python 3.11 and later, which have the magic number in it
        key = int.from_bytes(self.magic, "little")
        return self.stamp == _imp.source_hash(key, source)

    def has_date(self, mtime: int) -> bool:
        """Return whether a time stamp has this date, in seconds since 1970."""
        return self.stamp[:4] == _four_bytes(mtime)


def _four_bytes(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "little")


def header_of(data: bytes) -> Header | None:
    """Return the header of bytecode; None where Python finds none."""
    kind = int.from_bytes(data[4:8], "little")
    is_known = kind in (TIME_STAMP, UNCHECKED_HASH, CHECKED_HASH)
    if len(data) < HEADER_BYTES or not is_known:
        return None
    return Header(kind, data[8:HEADER_BYTES], data[:4])


def recompiled(old: bytes, name: str, source: bytes, pythons: list[Python]) -> bytes | None:
    """Return bytecode of ``source`` with the header, file name and optimization of ``old``.

    old : bytecode that was compiled from an earlier text of the same file
    name : of the bytecode file, "numpy/__pycache__/__init__.cpython-311.opt-1.pyc"

    It is None if no Python has the magic number of ``old``.
    """
    python = next((each for each in pythons if each.magic == old[:4]), None)
    if python is None or len(old) < HEADER_BYTES:
        return None
    filename = recorded_filename(old) or name
    compiled = _compile(python.program, source, filename, _optimization(name))
    flags = int.from_bytes(old[4:8], "little")
    if flags & 1:  # the header has a hash of the source
        stamp = compiled.source_hash
    else:  # the header has the source's date and size
        stamp = old[8:12] + _four_bytes(len(source))
    return old[:8] + stamp + compiled.code


@dataclass(frozen=True)
class _Compiled:
    code: bytes
    source_hash: bytes


@functools.cache
def _compile(program: Path, source: bytes, filename: str, optimization: int) -> _Compiled:
    request = {
        "source": base64.b64encode(source).decode(),
        "filename": filename,
        "optimization": optimization,
    }
    done = subprocess.run(
        [program, "-I", "-S", "-c", _COMPILER],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
        timeout=_COMPILE_SECONDS,
        # the hash of a string decides the order of a set's constants
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    answer = json.loads(done.stdout)
    return _Compiled(base64.b64decode(answer["code"]), bytes.fromhex(answer["hash"]))


def _optimization(name: str) -> int:
    match = re.search(r"\.opt-([12])\.pyc$", name)
    return int(match[1]) if match else 0


def recorded_filename(bytecode: bytes) -> str | None:
    """Return the path of the source file that bytecode names; None if it names none.

    The bytecode is searched, not loaded: `marshal` must not read what strangers made.
    """
    places = re.finditer(rb"[/\\]numpy[/\\]__init__\.py", bytecode)
    for end in itertools.islice(places, _MOST_PLACES):
        for kinds, width in _STRING_KINDS:
            found = _string_ending_at(bytecode, end.end(), kinds, width)
            if found:
                return found
    return None


def _string_ending_at(data: bytes, end: int, kinds: bytes, width: int) -> str | None:
    """Return the text of marshal's string that ends there; None when no string does."""
    for start in range(end - 1, max(width, end - _LONGEST_PATH), -1):
        kind = data[start - width - 1] & ~_MARSHAL_REFERENCE
        length = int.from_bytes(data[start - width : start], "little")
        if kind in kinds and length == end - start:
            text = data[start:end]
            if text.isascii() and text.decode().isprintable():
                return text.decode()
    return None
