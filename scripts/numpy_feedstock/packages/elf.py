"""ELF files: what a file needs from the system that loads it.

Follows the System V ABI's chapter "Dynamic Linking", and the Linux Standard Base on symbol
versions.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

# in one table of a file; no linker writes more
_MOST_ENTRIES = 100_000


@dataclass(frozen=True)
class Elf:
    """An ELF file.

    needed : sonames of the libraries that it loads
    search : entries of its RPATH and its RUNPATH
    symbols : versions of the symbols that it takes from others, "GLIBC_2.27"
    """

    needed: list[str]
    search: list[str]
    symbols: list[str]

    def newest(self, family: str) -> str | None:
        """Return the newest symbol version of a family, "2.27"; None without one.

        family : "GLIBC", "GLIBCXX" or "CXXABI"
        """
        start = family + "_"
        versions = [name.removeprefix(start) for name in self.symbols if name.startswith(start)]
        return max(versions, key=order, default=None)


def order(version: str) -> tuple[float, ...]:
    """Return the sort key of a symbol version.

    A version that is no number ("PRIVATE", "ABI_DT_RELR") is newer than all others, because no
    declared glibc promises it.
    """
    parts = version.split(".")
    if all(part.isascii() and part.isdigit() for part in parts):
        return tuple(map(int, parts))
    return (float("inf"),)


def read(path: Path | str) -> Elf | None:
    """Return the Elf of a file; None when it is no ELF file. Raises ValueError for a broken one."""
    return parse(Path(path).read_bytes())


def parse(data: bytes) -> Elf | None:
    """Return the Elf of a file's bytes; None when they are no ELF file.

    Raises ValueError for a broken ELF file.
    """
    from elftools.elf.elffile import ELFFile

    from ..policy import TooSlow

    if data[:4] != b"\x7fELF":
        return None
    try:
        return _read(ELFFile(io.BytesIO(data)))
    except TooSlow:
        raise
    except Exception as error:
        # pyelftools raises many kinds of errors: struct.error, KeyError, MemoryError ...
        raise ValueError(f"broken ELF file: {error or type(error).__name__}") from None


def _read(file: "ELFFile") -> Elf:
    if file.num_sections() == 0:
        raise ValueError("no section headers, so no symbol versions to read")
    needed, search = [], []
    for tag in _dynamic_tags(file):
        if tag.entry.d_tag == "DT_NEEDED":
            needed.append(tag.needed)
        elif tag.entry.d_tag == "DT_RPATH":
            search += tag.rpath.split(":")
        elif tag.entry.d_tag == "DT_RUNPATH":
            search += tag.runpath.split(":")
    return Elf(needed, search, list(_symbol_versions(file)))


def _dynamic_tags(file: "ELFFile") -> Iterator[Any]:
    from elftools.elf.dynamic import DynamicSegment

    for segment in file.iter_segments():
        if isinstance(segment, DynamicSegment):
            for number, tag in enumerate(segment.iter_tags()):
                _check_number(number)
                yield tag


def _symbol_versions(file: "ELFFile") -> Iterator[str]:
    from elftools.elf.gnuversions import GNUVerNeedSection

    for section in file.iter_sections():
        if not isinstance(section, GNUVerNeedSection):
            continue
        for number, (_, symbols) in enumerate(section.iter_versions()):
            _check_number(number)
            for each, symbol in enumerate(symbols):
                _check_number(each)
                yield symbol.name


def _check_number(number: int) -> None:
    if number > _MOST_ENTRIES:
        raise ValueError(f"more than {_MOST_ENTRIES} entries in a table")
