"""JSON files that hold a dataclass: each value is checked against its annotation."""

import dataclasses
import json
import math
import reprlib
import stat
import types
import typing
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from .errors import shown

# bytes; the largest file of ours has 200 kB
MAX_BYTES = 16 << 20

Kind = TypeVar("Kind")

_NAMES = {str: "text", int: "an integer", float: "a number", bool: "true or false"}


def read(path: Path, kind: type[Kind]) -> Kind:
    """Return the content of a file as a dataclass.

    Raises OSError, or ValueError with one line that says what is wrong with the content.
    """
    status = path.stat()
    # a pipe would block, and a device may have no end
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"it has {status.st_size:,} bytes, and {MAX_BYTES:,} are allowed")
    return parse(path.read_bytes().decode(), kind)


def parse(text: str, kind: type[Kind]) -> Kind:
    """Return a JSON text as a dataclass. Raises ValueError with one line."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None
    made: Kind = _typed(content, kind, "")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _typed(value: Any, kind: Any, where: str) -> Any:
    """Return a value of JSON as what an annotation says, or raise ValueError.

    where : the keys that lead to the value
    """
    if dataclasses.is_dataclass(kind):
        return _dataclass(value, kind, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        (wanted,) = (each for each in inner if each is not types.NoneType)
        return None if value is None else _typed(value, wanted, where)
    if origin is Literal:
        return _one_of(value, inner, where)
    if origin is dict:
        _check(isinstance(value, dict), "an object", value, where)
        return {key: _typed(each, inner[1], f"{where}.{key}") for key, each in value.items()}
    if origin in (list, tuple):
        return _sequence(value, origin, inner, where)
    _check(_is_plain(value, kind), _NAMES[kind], value, where)
    return value


def _dataclass(value: Any, kind: Any, where: str) -> Any:
    _check(isinstance(value, dict), "an object", value, where)
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name in value.keys() - known.keys():
        raise ValueError(f"unknown key: {_shown_place(f'{where}.{name}')}")
    for name, field in known.items():
        has_default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
        if name not in value and not has_default:
            raise ValueError(f"missing key: {_shown_place(f'{where}.{name}')}")
    return kind(
        **{name: _typed(each, hints[name], f"{where}.{name}") for name, each in value.items()}
    )


def _sequence(value: Any, origin: Any, inner: tuple[Any, ...], where: str) -> Any:
    _check(isinstance(value, list), "an array", value, where)
    if origin is tuple and inner[-1] is not Ellipsis:
        _check(len(value) == len(inner), f"an array of {len(inner)}", value, where)
    return origin(_typed(each, inner[0], f"{where}.{number}") for number, each in enumerate(value))


def _one_of(value: Any, known: tuple[Any, ...], where: str) -> Any:
    _check(isinstance(value, str) and value in known, " or ".join(known), value, where)
    return value


def _is_plain(value: Any, kind: type) -> bool:
    if kind is not float:
        return type(value) is kind
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _check(is_right: bool, expected: str, found: Any, where: str) -> None:
    if not is_right:
        raise ValueError(
            f"{_shown_place(where)} has to be {expected}, and is {shown(reprlib.repr(found))}"
        )


def _shown_place(where: str) -> str:
    return shown(where.removeprefix(".")) or "the content"
