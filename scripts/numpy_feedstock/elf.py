"""ELF files: what one wants of the system that loads it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Elf:
    needed: list  # sonames
    search: list  # entries of RPATH and RUNPATH
    symbols: list  # versions of the symbols it takes from others, "GLIBC_2.27"

    def newest(self, family):
        """The newest symbol version of a family, "2.27"; None without one."""
        versions = [
            name.removeprefix(family + "_")
            for name in self.symbols
            if name.startswith(family + "_")
        ]
        return max(versions, key=order, default=None)


def order(version):
    """Sort key of a version. One that is no number ("PRIVATE", "ABI_DT_RELR") is newer than all: no floor promises it."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else (float("inf"),)


def read(path):
    """The Elf of a file, or None when it is not one. Raises ValueError for a broken one."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return None
        try:
            return _read(ELFFile(stream))
        except (ELFError, AssertionError, UnicodeError, OverflowError) as error:
            raise ValueError(f"broken ELF file: {error}") from None


def _read(file):
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.gnuversions import GNUVerNeedSection

    if file.num_sections() == 0:
        raise ELFError("no section headers, so no symbol versions to read")
    tags = [
        tag
        for segment in file.iter_segments()
        if isinstance(segment, DynamicSegment)
        for tag in segment.iter_tags()
    ]
    versions = [
        section.iter_versions()
        for section in file.iter_sections()
        if isinstance(section, GNUVerNeedSection)
    ]
    return Elf(
        needed=[tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"],
        search=[
            entry
            for tag in tags
            for kind in ("rpath", "runpath")
            if tag.entry.d_tag == f"DT_{kind.upper()}"
            for entry in getattr(tag, kind).split(":")
        ],
        symbols=[
            symbol.name for libraries in versions for _, symbols in libraries for symbol in symbols
        ],
    )
