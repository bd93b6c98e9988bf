"""The index of a channel in its forms: repodata.json, its zst, and the shards."""

import bz2
import dataclasses
import functools
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgpack
import rattler
import zstandard

from ..errors import FeedstockError

Entry = dict[str, Any]
Entries = dict[str, Entry]  # {file name of a package: its entry in the index}
# a function that returns the bytes of a file of the subdir; None when there is none
Read = Callable[[str], bytes | None]

JSON = "repodata.json"
ZST = "repodata.json.zst"
SHARDS = "repodata_shards.msgpack.zst"
SECTIONS = ("packages", "packages.conda")
_KNOWN_KEYS = {*SECTIONS, "info", "removed", "repodata_version", "v3"}
_MAX_BYTES = 2 << 30
_EXPECTED = "a JSON object with the objects packages and packages.conda"


def section(filename: str) -> str:
    """Return the section of the index that a package is listed in."""
    return "packages" if filename.endswith(".tar.bz2") else "packages.conda"


def parse(data: bytes, where: str) -> Entries:
    """Return the entries of a repodata.json. Raises FeedstockError when it is not whole."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        found = f"not JSON: {error}" if data.strip() else "an empty file"
        raise _not_right(where, found) from None
    return _entries(content, where)


def _not_right(where: str, found: str) -> FeedstockError:
    return FeedstockError(
        f"the index is not right: {where}",
        expected=_EXPECTED,
        found=found,
        remedy="feedstock publish writes it again from the packages",
    )


def _entries(content: Any, where: str) -> Entries:
    if not isinstance(content, dict):
        raise _not_right(where, json.dumps(content)[:80])
    entries: Entries = {}
    for name in SECTIONS:
        listed = content.get(name, {})
        if not isinstance(listed, dict):
            raise _not_right(where, f"{name}: {json.dumps(listed)[:80]}")
        for filename, entry in listed.items():
            if not isinstance(entry, dict):
                raise _not_right(where, f"{filename}: {json.dumps(entry)[:80]}")
            entries[filename] = entry
    return entries


def unknown_parts(data: bytes) -> list[str]:
    """Return the keys of a repodata.json that no check reads and that change what solvers take."""
    content = json.loads(data)
    found = [key for key in content if key not in _KNOWN_KEYS]
    if content.get("v3"):
        found.append("v3")
    info = content.get("info") or {}
    if not isinstance(info, dict):
        found.append("info that is no object")
    elif info.get("base_url"):
        found.append("info.base_url")
    return sorted(found)


def unzst(data: bytes, where: str) -> bytes:
    """Return the uncompressed bytes of a .zst file. Raises FeedstockError."""
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as stream:
            content = stream.read(_MAX_BYTES)
            if stream.read(1):
                raise _not_right(where, f"more than {_MAX_BYTES >> 20} MB")
            return content
    except zstandard.ZstdError as error:
        raise _not_right(where, f"not zst: {error}") from None


def decompress(name: str, data: bytes, where: str) -> bytes | None:
    """Return the JSON in an index file by its ending; None for a form that is not read here."""
    if name.endswith(".json"):
        return data
    if name.endswith(".zst"):
        return unzst(data, where)
    modules: dict[str, Any] = {".bz2": bz2, ".gz": gzip}
    module = modules.get(name[name.rfind(".") :])
    if module is None:
        return None
    try:
        with module.open(io.BytesIO(data)) as stream:
            return bytes(stream.read(_MAX_BYTES))
    except (OSError, EOFError, ValueError) as error:
        raise _not_right(where, f"cannot be unpacked: {error}") from None


def sharded(read: Read, where: str, name: str) -> Entries:
    """Return the entries of one package's shard; none when the shards do not list the package.

    Raises FeedstockError when the list of shards or the shard is not whole.
    """
    shards = _unpack(read(SHARDS), where).get("shards") or {}
    if not isinstance(shards, dict):
        raise _not_right(where, f"shards: {type(shards).__name__}")
    digest = shards.get(name)
    if digest is None:
        return {}
    # a hash of another form could name a file elsewhere
    if not re.fullmatch("[0-9a-f]{64}", str(digest)):
        raise _not_right(where, f"the hash of the shard of {name}: {str(digest)[:80]}")
    filename = f"shards/{digest}.msgpack.zst"
    return _entries(_unpack(read(filename), f"{where.rpartition('/')[0]}/{filename}"), where)


def forms(read: Read, where: str, names: Iterable[str] = ("numpy",)) -> dict[str, Entries]:
    """Return {form: its entries} for each form of the index that is there.

    Only the shards of the packages with these ``names`` are read. Raises FeedstockError when a
    form is not whole.
    """
    found: dict[str, Entries] = {}
    data = read(JSON)
    if data is not None:
        found[JSON] = parse(data, f"{where}/{JSON}")
    data = read(ZST)
    if data is not None:
        found[ZST] = parse(unzst(data, f"{where}/{ZST}"), f"{where}/{ZST}")
    if read(SHARDS) is not None:
        found[SHARDS] = {}
        for name in names:
            found[SHARDS].update(sharded(read, f"{where}/{SHARDS}", name))
    return found


def _unpack(data: bytes | None, where: str) -> dict[str, Any]:
    if data is None:
        raise _not_right(where, "no file")
    try:
        content = _as_json(msgpack.unpackb(unzst(data, where), raw=False, strict_map_key=False))
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise _not_right(where, f"not msgpack: {error}") from None
    if not isinstance(content, dict):
        raise _not_right(where, type(content).__name__)
    return content


def _as_json(content: Any) -> Any:
    """Return a shard's content as JSON has it: hashes as hexadecimal digits."""
    if isinstance(content, bytes):
        return content.hex()
    if isinstance(content, dict):
        return {str(_as_json(key)): _as_json(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_as_json(value) for value in content]
    return content


def package_name(filename: str, entry: Entry) -> str:
    """Return the name that a solver knows an entry by."""
    return str(entry.get("name", filename.rsplit("-", 2)[0])).lower()


# keys that the indexer adds to the package's own index.json
_ADDED = {
    "md5",
    "sha256",
    "size",
    "indexed_timestamp",
    "legacy_bz2_md5",
    "legacy_bz2_size",
    "run_exports",
    "url",
    "fn",
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """A key that has one value in the index and another in the package's own index.json."""

    key: str
    listed: Any
    own: Any

    def __str__(self) -> str:
        if isinstance(self.listed, list) and isinstance(self.own, list):
            lost = [f"- {each}" for each in self.own if each not in self.listed]
            gained = [f"+ {each}" for each in self.listed if each not in self.own]
            if lost or gained:
                return f"{self.key}: {', '.join(lost + gained)}"
        return f"{self.key}: {self.listed!r} instead of {self.own!r}"


def differences(entry: Entry, own: Entry) -> Iterator[Difference]:
    """Yield where an entry of the index differs from the package's own index.json."""
    for key in sorted((entry.keys() | own.keys()) - _ADDED):
        # the indexer leaves out empty values
        listed, said = entry.get(key) or [], own.get(key) or []
        if normal(listed) != normal(said):
            yield Difference(key, listed, said)


def normal(value: Any) -> Any:
    """Return a value as the indexer writes it: it writes "name 1 0" as "name ==1 0"."""
    if isinstance(value, list):
        return [_normal_spec(each) if isinstance(each, str) else each for each in value]
    return value


@functools.cache
def _normal_spec(spec: str) -> str:
    try:
        return str(rattler.MatchSpec(spec))
    except Exception:
        # not a spec, or a spec that rattler refuses: the text itself is compared
        return spec
