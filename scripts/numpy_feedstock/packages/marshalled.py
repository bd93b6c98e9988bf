"""Code objects in marshal's format, compared without loading them.

Python's `marshal` must not read what strangers made. This reads the format of CPython 3.11 to
3.14 (Python/marshal.c) into tuples. Two code objects that do the same give the same tuples, also
when a compiler marked other constants as shared.
"""

import struct
from collections.abc import Callable
from typing import Any

_SHARED = 0x80  # this bit is set in the kind of a value that later ones refer to
_CODE_INTEGERS = 5  # numbers at the start of a code object, before its other values
_DEEPEST = 200
# {letter of a kind of value: number of bytes that hold its length}
_TEXTS = {"z": 1, "Z": 1, "a": 4, "A": 4, "u": 4, "t": 4, "s": 4}
_SEQUENCES = {")": 1, "(": 4, "[": 4, "<": 4, ">": 4}
_FIXED = {"i": 4, "I": 8, "g": 8, "y": 16}
_NAMES = "NFTS."


class BadMarshal(ValueError):
    """The bytes are no values in marshal's format."""


def parse(data: bytes) -> Any:
    """Return the code object in these bytes as nested tuples. The file it names is left out.

    Raises BadMarshal.
    """
    reader = _Reader(data)
    try:
        value = reader.value(0)
    except (IndexError, struct.error, RecursionError) as error:
        raise BadMarshal(f"cut off or nested too deeply: {error}") from None
    if reader.rest():
        raise BadMarshal(f"{reader.rest()} bytes too many")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._shared: list[Any] = []

    def rest(self) -> int:
        return len(self._data) - self._at

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise BadMarshal("nested too deeply")
        kind_and_flag = self._take(1)[0]
        kind = chr(kind_and_flag & ~_SHARED)
        if kind == "r":
            return self._shared[self._number(4)]
        if not kind_and_flag & _SHARED:
            return self._content(kind, depth)
        # a value takes its place in the list before the values inside it take theirs
        place = len(self._shared)
        self._shared.append(None)
        self._shared[place] = self._content(kind, depth)
        return self._shared[place]

    def _content(self, kind: str, depth: int) -> Any:
        if kind in _NAMES:
            return kind
        if kind in _FIXED:
            return kind, self._take(_FIXED[kind])
        if kind in _TEXTS:
            return self._text(kind)
        if kind in _SEQUENCES:
            return self._sequence(kind, depth)
        special: dict[str, Callable[[int], Any]] = {
            "c": self._code,
            "l": self._long,
            "{": self._dict,
            ":": self._slice,
        }
        if kind not in special:
            raise BadMarshal(f"no kind of value: {kind!r}")
        return special[kind](depth)

    def _text(self, kind: str) -> Any:
        data = self._take(self._number(_TEXTS[kind]))
        # the kind of a text depends on the other texts that the compiler kept
        return ("bytes" if kind == "s" else "text"), data

    def _sequence(self, kind: str, depth: int) -> Any:
        number = self._number(_SEQUENCES[kind])
        values = [self.value(depth + 1) for _ in range(self._possible(number))]
        if kind in "<>":  # each process may order a set in another way
            values.sort(key=repr)
        return {")": "("}.get(kind, kind), tuple(values)

    def _code(self, depth: int) -> Any:
        integers = self._take(4 * _CODE_INTEGERS)
        # code, constants, names, local variables and their kinds
        values = [self.value(depth + 1) for _ in range(5)]
        self.value(depth + 1)  # the file that it was compiled from
        values += [self.value(depth + 1) for _ in range(2)]  # names of the function
        first_line = self._take(4)
        values += [self.value(depth + 1) for _ in range(2)]  # tables of lines and exceptions
        return "code", integers, first_line, tuple(values)

    def _long(self, depth: int) -> Any:
        number = struct.unpack("<i", self._take(4))[0]
        return "l", number, self._take(2 * abs(number))

    def _dict(self, depth: int) -> Any:
        values = []
        while self._data[self._at] != ord("0"):
            values.append(self.value(depth + 1))
        self._at += 1
        return "{", tuple(values)

    def _slice(self, depth: int) -> Any:
        return ":", tuple(self.value(depth + 1) for _ in range(3))

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _possible(self, number: int) -> int:
        """Return a number of values, each of which takes at least one byte."""
        if number > self.rest():
            raise BadMarshal("cut off")
        return number

    def _take(self, number: int) -> bytes:
        data = self._data[self._at : self._at + number]
        if len(data) != number:
            raise BadMarshal("cut off")
        self._at += number
        return data
