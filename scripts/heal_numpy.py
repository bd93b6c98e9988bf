#!/usr/bin/env python3
"""Heal numpys that hang when a static constructor imports them (numpy#31284), in place.

Copy this file and audit_numpy.py into one folder of a host and run it there. It needs Python 3.6
and nothing else: no solver, no network. It applies the patch of this project to the installed
numpy/__init__.py, and corrects the bytecode and the records of pip and conda with it. Without
--apply it changes nothing. --undo gives every file its old bytes again.

It is a bridge: it protects a prefix until the patched packages arrive. An installer that puts the
released numpy there again brings the hang back. Run the audit regularly.
"""

import _imp
import argparse
import base64
import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import marshal
import os
import platform
import pwd
import re
import select
import shlex
import signal
import stat
import struct
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

# An older Python stops at this line, and shows it.
NEEDED: str = "Python 3.6 or later: run this file with python3"

# no bytecode of the audit may stay behind on the host
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import audit_numpy
except ImportError:
    audit_numpy = None  # main() says what is missing

EPILOG = """\
results, one for each numpy that is found:
  would-heal, would-undo   the dry run found work to do
  healed, undone           done; the files that changed are listed
  unchanged                nothing to do, for the reason that is given
  refused                  nothing was written, for the reason that is given
  failed                   something went wrong; run the same command again

exit code: 0 all is done, 1 there is work to do (dry run), or something was refused, failed or
could not be read, 2 wrong use

--json prints one object for each numpy, with these fields:
  host, prefix, numpy (its folder), version, way ("in place" or "start-up file"), result,
  reason, remedy ("" where there is none), changed (paths of files), notes (list of sentences)
one object for each trouble: host, path, trouble; and one object at the end:
  host, summary: {result: count}, troubles: count

examples:
  heal_numpy.py /opt/conda '/home/*/.conda'          what would change
  heal_numpy.py --apply /opt/conda                   heal
  heal_numpy.py --undo --dry-run /opt/conda          what --undo would change
  heal_numpy.py --undo /opt/conda                    take it back
  heal_numpy.py --apply --startup-file /srv/envs/a   leave numpy's own files alone
"""

# the change that the patch makes, from recipe/patches; a test compares the two
HUNK = """\
     del _mac_os_check
 
     def blas_fpe_check():
-        # Check if BLAS adds spurious FPEs, mostly seen on M4 arms with Accelerate.
-        with errstate(all='raise'):
-            x = ones((20, 20))
-            try:
-                x @ x
-            except FloatingPointError:
-                res = _core._multiarray_umath._blas_supports_fpe(False)
-                if res:  # res was not modified (hardcoded to True for now)
-                    warnings.warn(
-                        "Spurious warnings given by blas but suppression not "
-                        "set up on this platform. Please open a NumPy issue.",
-                        UserWarning, stacklevel=2)
+        # Check if BLAS adds spurious FPEs, seen on M4 arms with Accelerate.
+        # Everywhere else return before a BLAS is called: its thread pool may
+        # need the loader's lock, which a dlopen that imports NumPy holds
+        # (gh-31284). os.uname is free here; platform would be one more import.
+        if sys.platform != "darwin" or os.uname().machine != "arm64":
+            return
+
+        # One thread for the product below: no pool is started by an import.
+        limits = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
+        before = {name: os.environ.get(name) for name in limits}
+        try:
+            os.environ.update(dict.fromkeys(limits, "1"))
+            with errstate(all='raise'):
+                x = ones((20, 20))
+                try:
+                    x @ x
+                except FloatingPointError:
+                    res = _core._multiarray_umath._blas_supports_fpe(False)
+                    if res:  # res was not modified (hardcoded to True for now)
+                        warnings.warn(
+                            "Spurious warnings given by blas but suppression not "
+                            "set up on this platform. Please open a NumPy issue.",
+                            UserWarning, stacklevel=2)
+        finally:
+            for name, value in before.items():
+                if value is None:
+                    os.environ.pop(name, None)
+                else:
+                    os.environ[name] = value
 
     blas_fpe_check()
     del blas_fpe_check
"""  # noqa: W293

# the files of the second way
STARTUP_NAME = "_numpy_31284"
STARTUP_PTH = "import %s\n" % STARTUP_NAME
STARTUP_MODULE = '''\
"""Keeps `import numpy` from multiplying matrices (numpy#31284).

heal_numpy.py --startup-file put this file here. heal_numpy.py --startup-file --undo removes it.
The .pth file of the same name loads it when Python starts; python -S skips both.
"""

import sys


def _without_check(code):
    def blas_fpe_check():
        pass

    consts = [
        blas_fpe_check.__code__ if getattr(each, "co_name", "") == "blas_fpe_check" else each
        for each in code.co_consts
    ]
    return code.replace(co_consts=tuple(consts))


class _Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "numpy" or path is not None:
            return None
        from importlib.machinery import PathFinder, SourceFileLoader

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            get_code = spec.loader.get_code
            spec.loader.get_code = lambda fullname: _without_check(get_code(fullname))
        return spec


if sys.platform != "darwin":
    sys.meta_path.insert(0, _Finder)
'''

# begins the name of each file that exists only while this tool works
OUR_PREFIX = ".heal_numpy."
LOCK_NAME = OUR_PREFIX + "lock"
NOTE_FILE = "heal_numpy.txt"
# the end of bytecode of ours, after the bytecode that was there before and its length
TRAILER = b"heal_numpy: the original is before this"
# of bytecode, PEP 552
CHECKED_HASH, UNCHECKED_HASH = 3, 1
HEADER_BYTES = 16
# seconds; compiling takes some milliseconds
COMPILE_TIMEOUT = 60
IMMUTABLE, APPEND_ONLY = 0x10, 0x20  # of linux/fs.h
FS_IOC_GETFLAGS = 0x80086601
# where container engines keep the layers of images and containers
LAYERS = re.compile(
    r"/(docker|containers/storage|containerd|buildkit|podman)/.*/(diff|fs|merged)/"
    r"|/(docker|containers/storage)/(vfs/dir|btrfs/subvolumes|zfs/graph)/"
    r"|/io[.]containerd[.]snapshotter[.]v1[.][^/]+/"
)
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
INSTALLERS = re.compile(r"(^|/)(conda|mamba|micromamba|pixi|pip[0-9.]*|uv|poetry|pdm)$")
PROGRESS_SECONDS = 5.0

# what another Python is told to do: compile one text per line, each field in hexadecimal
COMPILE_SERVER = """\
import _imp, marshal, sys
magic = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
sys.stdout.write(magic.hex() + "\\n")
sys.stdout.flush()
codes = {}
for line in sys.stdin:
    path, optimize, text = line.split()
    if (optimize, text) not in codes:
        source = bytes.fromhex(text)
        codes[optimize, text] = compile(
            source, "numpy", "exec", dont_inherit=True, optimize=int(optimize))
    code = codes[optimize, text]
    _imp._fix_co_filename(code, bytes.fromhex(path).decode("utf-8", "surrogateescape"))
    sys.stdout.write(marshal.dumps(code).hex() + "\\n")
    sys.stdout.flush()
"""


class Refusal(Exception):
    """Nothing was written. The arguments are the reason and what can be done about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


class ChangedMeanwhileError(Exception):
    """A file is not the one that was read."""


class Numpy(NamedTuple):
    """An installed numpy."""

    prefix: str
    site: str  # the folder that numpy is imported from

    @property
    def folder(self) -> str:
        return os.path.join(self.site, "numpy")

    @property
    def place(self) -> str:
        """The folder that is there and tells the owner."""
        if os.path.lexists(self.folder):
            return self.folder
        return self.site

    @property
    def source(self) -> str:
        return os.path.join(self.folder, "__init__.py")

    @property
    def meta(self) -> str:
        return os.path.join(self.prefix, "conda-meta")


class File(NamedTuple):
    """What was read of a file; data and status are None where there is no file."""

    path: str
    data: Optional[bytes]
    status: Optional[os.stat_result]


class Pair(NamedTuple):
    """A file, and its bytes beside a released and beside a healed numpy. None: no file."""

    file: File
    released: Optional[bytes]
    healed: Optional[bytes]


class Change(NamedTuple):
    """A file that gets other bytes. None: it is removed."""

    file: File
    data: Optional[bytes]


class Plan(NamedTuple):
    """What has to be written, in this order. Without changes, reason says why."""

    changes: List[Change]
    notes: List[str]
    reason: str = ""


class Options(NamedTuple):
    """What the command line asks for."""

    undo: bool
    write: bool
    startup: bool
    pythons: List[str]


# --- the texts


def _blocks() -> Tuple[bytes, bytes]:
    """The lines that the hunk replaces, and the lines that it puts there."""
    lines = HUNK.splitlines(True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    return old.encode(), new.encode()


class Texts(NamedTuple):
    """numpy/__init__.py as it was released and as the patch leaves it."""

    released: bytes
    healed: bytes


@functools.lru_cache(maxsize=None)
def known_texts(source: bytes) -> Optional[Texts]:
    """Both texts, when the source is one of them as far as the table knows; else None."""
    table = audit_numpy.PATCHED_TEXTS
    digest = sha256(source)
    old, new = _blocks()
    if digest in table:
        texts = Texts(source, source.replace(old, new))
    elif digest in table.values():
        texts = Texts(source.replace(new, old), source)
    else:
        return None
    if table.get(sha256(texts.released)) != sha256(texts.healed):
        raise Refusal("the table of texts in audit_numpy.py does not fit the hunk in heal_numpy.py")
    return texts


@functools.lru_cache(maxsize=32)
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- reading


def read_file(path: str) -> File:
    """The bytes and the status of a regular file. Raises OSError."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            raise Refusal(
                "%s is a symbolic link: what it leads to may belong to others" % path,
                "heal the folder that it leads to, or use --startup-file",
            )
        with audit_numpy.open_regular(path) as stream:
            return File(path, _limited(stream, path), os.fstat(stream.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        return File(path, None, None)


def _limited(stream: Any, path: str) -> bytes:
    """All bytes of a stream. Raises Refusal when these are too many for a file of numpy's."""
    data = stream.read(audit_numpy.MAX_BYTES + 1)
    if len(data) > audit_numpy.MAX_BYTES:
        raise Refusal(
            "%s is larger than %d bytes" % (path, audit_numpy.MAX_BYTES),
            "look at that file; reinstall this numpy, then heal it",
        )
    return data


def same_file(file: File) -> bool:
    """Whether the file on disk still is the one that was read."""
    try:
        now = os.lstat(file.path)
    except (FileNotFoundError, NotADirectoryError):
        return file.status is None
    if file.status is None:
        return False
    before = file.status
    return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) == (
        before.st_dev,
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )


def listed(folder: str) -> List[str]:
    """The names in a folder, in order; none where there is no folder. Raises OSError."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


# --- bytecode


def source_hash(magic: bytes, text: bytes) -> bytes:
    """What hash-based bytecode of Python 3.11 and later has of its source: SipHash 1-3."""
    return audit_numpy.source_hash(int.from_bytes(magic, "little"), text)


class Bytecode(NamedTuple):
    """Bytecode in a file, and what was there before this tool came."""

    data: bytes
    original: Optional[bytes]

    @property
    def magic(self) -> bytes:
        return self.data[:4]

    @property
    def flags(self) -> int:
        return int.from_bytes(self.data[4:8], "little")

    def fits(self, text: bytes, seconds: int) -> bool:
        """Whether Python takes it for the bytecode of a text.

        seconds : time of the source's last change
        """
        if self.flags == 0:
            size = len(text) & 0xFFFFFFFF
            return self.data[8:HEADER_BYTES] == struct.pack("<II", seconds & 0xFFFFFFFF, size)
        return self.data[8:HEADER_BYTES] == source_hash(self.magic, text)

    def header_for(self, text: bytes, seconds: int) -> bytes:
        """The head of bytecode of the same kind for another text."""
        if self.flags in (CHECKED_HASH, UNCHECKED_HASH):
            return self.data[:8] + source_hash(self.magic, text)
        size = len(text) & 0xFFFFFFFF
        return self.magic + struct.pack("<III", 0, seconds & 0xFFFFFFFF, size)


def parse_bytecode(data: bytes) -> Optional[Bytecode]:
    """The Bytecode in a file; None when it is none."""
    if len(data) < HEADER_BYTES or data[2:4] != b"\r\n":
        return None
    if not data.endswith(TRAILER):
        return Bytecode(data, None)
    end = len(data) - len(TRAILER) - 8
    packed = data[max(0, end) : end + 8].rjust(8, b"\0")
    (length,) = struct.unpack("<Q", packed)
    if end - length < HEADER_BYTES:
        return Bytecode(data, None)
    return Bytecode(data, data[end - length : end])


def with_original(data: bytes, original: bytes) -> bytes:
    """Bytecode, followed by what it replaces: Python ignores what follows the code."""
    return data + original + struct.pack("<Q", len(original)) + TRAILER


class Compiler:
    """Makes bytecode for each Python that has some, by this Python or another one.

    A Python of a prefix is run as the owner of the prefix, once for each kind of bytecode.
    """

    def __init__(self, pythons: List[str], run: bool) -> None:
        """
        pythons : paths of Pythons that may be run
        run : False when nothing will be written; then what is made is empty
        """
        self.pythons = list(pythons)
        self.run = run
        self.codes = {}  # type: Dict[Tuple[int, bytes], Any]
        self.servers = {}  # type: Dict[bytes, Optional[subprocess.Popen]]

    def compile(self, bytecode: Bytecode, text: bytes, file: File, numpy: Numpy) -> Optional[bytes]:
        """The code of a text, as it is in a file of bytecode; None when no Python can make it."""
        optimize = 0
        said = re.search(r"[.]opt-([12])[.]pyc$", file.path)
        if said:
            optimize = int(said.group(1))
        if not self.run:
            return b""
        if bytecode.magic == importlib.util.MAGIC_NUMBER:
            if (optimize, text) not in self.codes:
                code = compile(text, "numpy", "exec", dont_inherit=True, optimize=optimize)
                self.codes[optimize, text] = code
            _imp._fix_co_filename(self.codes[optimize, text], numpy.source)
            return marshal.dumps(self.codes[optimize, text])
        server = self._server(bytecode.magic, _python_of(file.path, numpy))
        if server is None:
            return None
        path = numpy.source.encode("utf-8", "surrogateescape").hex()
        line = "%s %d %s\n" % (path, optimize, text.hex())
        try:
            server.stdin.write(line.encode())
            server.stdin.flush()
            return bytes.fromhex(_line_of(server))
        except (OSError, ValueError):
            self.servers[bytecode.magic] = None
            server.kill()
            return None

    def _server(self, magic: bytes, python: str) -> Optional[subprocess.Popen]:
        while magic not in self.servers and self.pythons:
            self._start(self.pythons.pop(0))
        if magic not in self.servers and may_run(python):
            self._start(python)
        return self.servers.get(magic)

    def _start(self, python: str) -> None:
        try:
            # a session of its own: it cannot type into the terminal of this one
            server = subprocess.Popen(
                [python, "-I", "-S", "-B", "-c", COMPILE_SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            return
        try:
            self.servers.setdefault(bytes.fromhex(_line_of(server)), server)
        except (OSError, ValueError):
            server.kill()

    def close(self) -> None:
        """End the other Pythons."""
        for server in self.servers.values():
            if server is not None:
                server.stdin.close()
                server.kill()
                server.wait()
                server.stdout.close()


def _line_of(server: subprocess.Popen) -> str:
    """The next line that another Python writes. Raises OSError when it does not."""
    data = b""
    end = time.monotonic() + COMPILE_TIMEOUT
    while not data.endswith(b"\n"):
        left = max(0.0, end - time.monotonic())
        ready, _, _ = select.select([server.stdout], [], [], left)
        part = b""
        if ready:
            part = os.read(server.stdout.fileno(), 1 << 16)
        if not part:
            raise OSError("no answer")
        data += part
    return data.decode("ascii", "replace").strip()


def _python_of(path: str, numpy: Numpy) -> str:
    """The Python of a prefix that a file of bytecode is for."""
    said = re.search(r"[.]cpython-(\d)(\d+t?)[.]", os.path.basename(path))
    if said:
        return os.path.join(numpy.prefix, "bin", "python%s.%s" % said.groups())
    return os.path.join(numpy.prefix, "bin", "python")


def may_run(python: str) -> bool:
    """Whether only root and who runs this can change a Python and its library."""
    real = os.path.realpath(python)
    library = os.path.join(os.path.dirname(os.path.dirname(real)), "lib")
    library = os.path.join(library, os.path.basename(python))
    paths = {real, library}
    for path in (real, library):
        while path != "/":
            path = os.path.dirname(path)
            paths.add(path)
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            return False
        others_write = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or others_write:
            return False
    return True


def bytecode_pair(
    file: File, texts: Texts, seconds: int, undo: bool, compiler: Compiler, numpy: Numpy
) -> Tuple[Pair, str]:
    """The two states of a file of bytecode, and a sentence about what could not be made.

    seconds : time of the source's last change
    """
    bytecode = parse_bytecode(file.data or b"")
    same = Pair(file, file.data, file.data)
    if bytecode is None:
        return same, ""
    if bytecode.original is not None:
        return Pair(file, bytecode.original, file.data), ""
    text = texts.healed
    if undo:
        text = texts.released
    if bytecode.fits(text, seconds):
        return same, ""
    if undo and not bytecode.fits(texts.healed, seconds):
        # it was of no use before this tool came, or an undo that was killed put it back
        return same, ""
    made, sentence = _made(bytecode, compiler.compile(bytecode, text, file, numpy), text, seconds)
    if sentence:
        sentence = "%s %s" % (file.path, sentence)
    if undo:
        return Pair(file, made, file.data), sentence
    if made != bytecode.data:
        made = with_original(made, bytecode.data)
    return Pair(file, file.data, made), sentence


def _made(
    bytecode: Bytecode, code: Optional[bytes], text: bytes, seconds: int
) -> Tuple[bytes, str]:
    """New bytecode, and the end of a sentence about what could not be made."""
    if code is not None:
        return bytecode.header_for(text, seconds) + code, ""
    cost = (
        "no Python that may be run can make it anew; each import compiles the source "
        "(10 to 16 ms) until Python can write there"
    )
    if bytecode.flags != UNCHECKED_HASH:
        return bytecode.data, "stays and is not used: " + cost
    # Python compares a checked hash with the source, and does not take the code
    flags = struct.pack("<I", CHECKED_HASH)
    head = bytecode.magic + flags + bytecode.data[8:HEADER_BYTES]
    return head, "was disabled: " + cost


# --- the records of installers


def dist_info_pair(record: File, pairs: List[Pair], site: str) -> Pair:
    """The two states of pip's RECORD.

    pairs : the files that the record may name
    """
    released = healed = record.data
    for pair in pairs:
        name = os.fsencode(os.path.relpath(pair.file.path, site).replace(os.sep, "/"))
        released = _row_set(released, name, pair, pair.released)
        healed = _row_set(healed, name, pair, pair.healed)
    return Pair(record, released, healed)


def _row(name: bytes, data: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(bytes.fromhex(sha256(data))).rstrip(b"=")
    return b"%s,sha256=%s,%d" % (name, digest, len(data))


def _row_set(record: bytes, name: bytes, pair: Pair, data: Optional[bytes]) -> bytes:
    """RECORD with the row of a file for other bytes of it; a row for something else stays."""
    start, end = _row_place(record, name)
    row = record[start:end].rstrip(b"\r\n")
    if data is None:
        return record[:start] + record[end:]
    if not row and pair.released is None:
        # of ours: it goes before the row of numpy/__init__.py
        start, end = _row_place(record, b"numpy/__init__.py")
        first = record[start:end]
        if not first:
            return record
        line_end = first[len(first.rstrip(b"\r\n")) :] or b"\n"
        return record[:start] + _row(name, data) + line_end + record[start:]
    for known in (pair.released, pair.healed):
        if row and known is not None and row == _row(name, known):
            return record[:start] + _row(name, data) + record[start + len(row) :]
    return record


def _row_place(record: bytes, name: bytes) -> Tuple[int, int]:
    """Where the row of a file begins and ends in RECORD, its line end included."""
    start = 0
    if not record.startswith(name + b","):
        start = record.find(b"\n" + name + b",") + 1
        if start == 0:
            return 0, 0
    end = record.find(b"\n", start) + 1
    return start, end or len(record)


def conda_pair(record: File, pairs: List[Pair], prefix: str) -> Pair:
    """The two states of a record in conda-meta.

    pairs : the files that the record may name
    """
    released = healed = record.data
    for pair in pairs:
        path = os.path.relpath(pair.file.path, prefix).replace(os.sep, "/")
        released = _entry_set(released, path, pair, pair.released)
        healed = _entry_set(healed, path, pair, pair.healed)
    return Pair(record, released, healed)


def _entry_set(record: bytes, path: str, pair: Pair, data: Optional[bytes]) -> bytes:
    """The record with the checksums of a file for other bytes of it; those of others stay."""
    start = _entry_start(record, path)
    if start < 0 or data is None:
        return record
    end = record.index(b"}", start) + 1
    entry = record[start:end]
    for known in (pair.released, pair.healed):
        if known is None or sha256(known).encode() not in entry:
            continue
        entry = entry.replace(sha256(known).encode(), sha256(data).encode())
        entry = re.sub(
            rb'("size_in_bytes"\s*:\s*)%d\b' % len(known),
            lambda found: found.group(1) + str(len(data)).encode(),
            entry,
        )
        break
    return record[:start] + entry + record[end:]


def _entry_start(record: bytes, path: str) -> int:
    """Where the object of a path begins in a record of conda, or -1."""
    named = json.dumps(path).encode()
    at = record.find(named)
    while at >= 0:
        start = record.rfind(b"{", 0, at)
        end = record.find(b"}", at)
        try:
            if not re.search(rb'"_path"\s*:\s*$', record[max(0, at - 40) : at]):
                raise ValueError("the path stands in another list")
            entry = json.loads(record[start : end + 1].decode("utf-8"))
            if entry.get("_path") == path:
                return start
        except (ValueError, AttributeError):
            pass
        at = record.find(named, at + 1)
    return -1


def conda_records(numpy: Numpy) -> List[File]:
    """The records of conda, pixi or mamba that name this numpy's __init__.py."""
    path = os.path.relpath(numpy.source, numpy.prefix).replace(os.sep, "/")
    found = []
    for name in listed(numpy.meta):
        if re.match(r"numpy(-base)?-[^-]+-[^-]+[.]json$", name):
            record = read_file(os.path.join(numpy.meta, name))
            if record.data is not None and _entry_start(record.data, path) >= 0:
                found.append(record)
    return found


def dist_infos(numpy: Numpy) -> List[str]:
    """The folders of numpy's dist-info that have a RECORD, the one of its release first."""
    names = [name for name in listed(numpy.site) if re.match(r"numpy-[^-]+[.]dist-info$", name)]
    if len(names) > 1:
        # a killed installer left the one of another release
        own = "numpy-%s.dist-info" % version_of(numpy)
        names.sort(key=lambda name: name != own)
    folders = [os.path.join(numpy.site, name) for name in names]
    return [folder for folder in folders if os.path.lexists(os.path.join(folder, "RECORD"))]


# --- the note: what was done, for the next person


def note_line(name: str, prefix: str) -> bytes:
    """name : of the package"""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    text = "%s %s healed %s in place (numpy#31284); undo: heal_numpy.py --undo %s"
    line = text % (audit_numpy.HEAL_NOTE, now, name, audit_numpy.shown(shlex.quote(prefix)))
    return line.encode()


def history_pair(history: File, name: str, prefix: str) -> Pair:
    """conda-meta/history without and with the note.

    name : of the package that is healed; notes about others stay
    """
    data = history.data
    pattern = rb"(\n|^)(#|//) %s \S+ \S+ healed %s in place [^\n]*(\n?)" % (
        audit_numpy.HEAL_NOTE.encode(),
        re.escape(name.encode()),
    )
    found = re.search(pattern, data)
    if found:
        between = b""
        if found.group(1) and found.group(3):
            between = b"\n"
        return Pair(history, data[: found.start()] + between + data[found.end() :], data)
    # conda reads lines with # as comments of the revision above; before the first one, and in
    # pixi's file, there is none
    mark = b"// "
    if b"==>" in data:
        mark = b"# "
    line = mark + note_line(name, prefix)
    if not data or data.endswith(b"\n"):
        return Pair(history, data, data + line + b"\n")
    return Pair(history, data, data + b"\n" + line)


def note_pair(numpy: Numpy, records: List[File], infos: List[str]) -> Pair:
    """The note of a prefix: a line in conda-meta/history, or a file in numpy's dist-info."""
    installer = b"conda"
    if infos:
        installer = (read_file(os.path.join(infos[0], "INSTALLER")).data or b"conda").strip()
    if records and installer == b"conda":
        history = read_file(os.path.join(numpy.meta, "history"))
        if history.data is not None:
            name = audit_numpy.shown(os.path.basename(records[0].path)[: -len(".json")])
            return history_pair(history, name, numpy.prefix)
    if not infos:
        raise Refusal(
            "neither a record in conda-meta nor a dist-info with a RECORD belongs to this numpy: "
            "nobody knows who put it there",
            "ask who put it there, or use --startup-file",
        )
    note = read_file(os.path.join(infos[0], NOTE_FILE))
    if note.data is not None:
        return Pair(note, None, note.data)
    name = audit_numpy.shown(os.path.basename(infos[0])[: -len(".dist-info")])
    return Pair(note, None, note_line(name, numpy.prefix) + b"\n")


# --- the plan


def make_plan(numpy: Numpy, undo: bool, compiler: Compiler) -> Plan:
    """What has to be written to heal a numpy, or to undo that. Raises Refusal and OSError."""
    if os.path.islink(numpy.folder) or os.path.islink(numpy.site):
        raise Refusal(
            "%s is a symbolic link: what it leads to may belong to others" % numpy.folder,
            "heal the folder that it leads to, or use --startup-file",
        )
    source = read_file(numpy.source)
    if source.data is None:
        return Plan([], [], "there is no numpy/__init__.py")
    texts = known_texts(source.data)
    if texts is None:
        if undo:
            _check_not_noted(numpy)
        return _nothing_to_do(numpy, undo, _unknown_text(source.data, version_of(numpy)))
    records = conda_records(numpy)
    infos = dist_infos(numpy)
    note = note_pair(numpy, records, infos)
    noted = note.file.data == note.healed
    if not noted and source.data == texts.healed:
        return _nothing_to_do(numpy, undo, "patched by its package, not by this tool")
    if not noted and undo:
        return Plan([], [], "not healed by this tool: nothing to undo")
    seconds = source.status.st_mtime_ns // 10**9
    sources = Pair(source, texts.released, texts.healed)
    pairs, unchecked, notes = [], [], []
    for name in listed(os.path.join(numpy.folder, "__pycache__")):
        if re.match(r"__init__[.].*[.]pyc$", name):
            file = read_file(os.path.join(numpy.folder, "__pycache__", name))
            pair, sentence = bytecode_pair(file, texts, seconds, undo, compiler, numpy)
            flags = int.from_bytes((pair.released or b"")[4:8], "little")
            (unchecked if flags == UNCHECKED_HASH else pairs).append(pair)
            notes += [sentence] * bool(sentence)
    # Python takes unchecked bytecode whatever the source is: it goes first
    pairs = unchecked + [sources] + pairs
    listed_pairs = pairs + [note] * (note.released is None)
    dist_records = [
        dist_info_pair(read_file(os.path.join(info, "RECORD")), listed_pairs, numpy.site)
        for info in infos
    ]
    conda = [conda_pair(record, pairs + dist_records, numpy.prefix) for record in records]
    # The note is there as long as anything else may be, and so is the bytecode of ours, which
    # tells both checksums of bytecode that a record may have.
    order = [note] + pairs + dist_records + conda
    if undo:
        order = conda + dist_records + pairs + [note]
    return Plan(_changes(order, undo), notes, _done_reason(undo))


def _nothing_to_do(numpy: Numpy, undo: bool, reason: str) -> Plan:
    """The plan for a sound text. Raises Refusal when Python runs something else than that text."""
    if not undo:
        python = os.path.basename(os.path.dirname(numpy.site))
        version = version_of(numpy)
        state, why = audit_numpy.gate_of_numpy(numpy.folder, version, python, audit_numpy.Survey())
        if state not in ("gated", "absent"):
            raise Refusal(why, "remove that file, and run the audit")
    return Plan([], [], reason)


def _check_not_noted(numpy: Numpy) -> None:
    """Raise Refusal when this tool healed a numpy whose text is another one now."""
    try:
        note = note_pair(numpy, conda_records(numpy), dist_infos(numpy))
    except Refusal:
        return  # a numpy without a record has no note either
    if note.file.data is not None and note.file.data == note.healed:
        raise Refusal(
            "numpy/__init__.py was edited after it was healed: its old bytes are not known",
            "reinstall this numpy: that replaces the healed files",
        )


def _done_reason(undo: bool) -> str:
    if undo:
        return "undone already"
    return "healed already"


def _changes(pairs: List[Pair], undo: bool) -> List[Change]:
    changes = []
    for pair in pairs:
        data = pair.healed
        if undo:
            data = pair.released
        if data != pair.file.data:
            changes.append(Change(pair.file, data))
    return changes


def _unknown_text(source: bytes, version: str) -> str:
    """Why a text is left alone. Raises Refusal when its import multiplies matrices."""
    state = _gate_of(source)
    # a release with the check whose text has none is cut off, or was edited
    is_sound = version and not re.match(audit_numpy.PATCHED, version)
    if state == "gated" or (state == "absent" and is_sound):
        return "no need: %s" % audit_numpy.GATE_TEXT[state]
    raise Refusal(
        "numpy/__init__.py is no text of numpy 2.3.5 or 2.4.0 to 2.4.4 as released: it was edited "
        "(sha256 %s)" % sha256(source),
        "reinstall this numpy, then heal it",
    )


@functools.lru_cache(maxsize=None)
def _gate_of(source: bytes) -> str:
    try:
        return audit_numpy.run_limited(audit_numpy.gate, source)
    except audit_numpy.BROKEN:
        return "unknown"


def make_startup_plan(numpy: Numpy, undo: bool) -> Plan:
    """What has to be written for the second way. Raises Refusal and OSError."""
    module = read_file(os.path.join(numpy.site, STARTUP_NAME + ".py"))
    pth = read_file(os.path.join(numpy.site, STARTUP_NAME + ".pth"))
    cache = os.path.join(numpy.site, "__pycache__")
    if undo:
        found = [
            read_file(os.path.join(cache, name))
            for name in listed(cache)
            if name.startswith(STARTUP_NAME + ".")
        ]
        # without its module, the .pth file would be an error at every start of Python
        files = [file for file in [pth, module] + found if file.data is not None]
        return Plan([Change(file, None) for file in files], [], "there is no start-up file")
    with audit_numpy.open_regular(numpy.source) as stream:
        source = _limited(stream, numpy.source)
    texts = known_texts(source)
    if texts is None:
        return Plan([], [], _unknown_text(source, version_of(numpy)))
    if source == texts.healed:
        return Plan([], [], "no need: this numpy is patched or healed")
    if not audit_numpy.starts_from(numpy.prefix, numpy.site):
        raise Refusal(
            "no Python reads start-up files in %s: programs find it by PYTHONPATH or the like"
            % numpy.site,
            "heal it in place, without --startup-file",
        )
    wanted = [Change(module, STARTUP_MODULE.encode()), Change(pth, STARTUP_PTH.encode())]
    changes = [change for change in wanted if change.data != change.file.data]
    return Plan(changes, [], "the start-up file is there already")


# --- reasons to write nothing


def check_all(numpy: Numpy, changes: List[Change], packages: Dict[str, str]) -> None:
    """Raise Refusal when something speaks against the changes.

    packages : {path: package} of a distribution's package manager
    """
    _check_place(numpy)
    if os.path.lexists(os.path.join(numpy.meta, "frozen")):
        raise Refusal(
            "the prefix is frozen: %s" % os.path.join(numpy.meta, "frozen"),
            "ask who froze it, remove that file, and put it back after healing",
        )
    for change in changes:
        package = packages.get(change.file.path)
        if package:
            raise Refusal(
                "%s belongs to the package %s of this distribution" % (change.file.path, package),
                "use --startup-file, or update that package",
            )
    for folder in sorted({os.path.dirname(change.file.path) for change in changes}):
        _check_folder(folder)
    for change in changes:
        if change.file.status is not None:
            _check_owner(change.file.path, change.file.status)
            _check_attributes(change.file.path)
    _check_installers(numpy)


def _check_place(numpy: Numpy) -> None:
    site, prefix = os.path.realpath(numpy.site), os.path.realpath(numpy.prefix)
    if site != prefix and not site.startswith(prefix.rstrip("/") + "/"):
        raise Refusal(
            "%s leads out of its prefix to %s" % (numpy.site, site),
            "heal the prefix that it belongs to",
        )
    folder = site
    while folder != "/":
        if os.path.lexists(os.path.join(folder, "info", "index.json")):
            raise Refusal("%s is an unpacked package in a cache" % folder, "heal the environments")
        folder = os.path.dirname(folder)
    if audit_numpy.STORE.search(site):
        raise Refusal(
            "%s is in the store of Nix or Guix, where nothing may change after it was built" % site,
            "apply the patch to numpy in the package set that it was built from",
        )
    if "/archive-v0/" in site:
        raise Refusal("%s is in the cache of uv" % site, "heal the environments")
    inside = [layer for layer in overlay_layers() if site.startswith(layer.rstrip("/") + "/")]
    if inside or LAYERS.search(site + "/"):
        raise Refusal(
            "%s is in a layer of an image or a container" % (inside or [site])[0],
            "heal inside the container, or build the image anew",
        )


@functools.lru_cache(maxsize=1)
def overlay_layers() -> List[str]:
    """The folders that mounted overlays are made of."""
    found = []
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", errors="replace") as lines:
        for line in lines:
            kind, _, rest = line.partition(" - ")[2].partition(" ")
            if kind != "overlay":
                continue
            options = rest.split()[-1]
            for value in re.findall(r"(?:lowerdir|upperdir)\+?=((?:\\,|[^,])*)", options):
                parts = re.split(r"(?<!\\):", value)
                found += [_unescaped(part) for part in parts if part]
    return [path for path in found if path.startswith("/") and path != "/"]


def _unescaped(path: str) -> str:
    path = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), path)
    return path.replace("\\:", ":").replace("\\,", ",")


def _check_folder(folder: str) -> None:
    if os.path.islink(folder):
        raise Refusal("%s is a symbolic link" % folder, "heal the folder that it leads to")
    status = os.stat(folder)
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise Refusal(
            "%s is on a file system that is mounted read-only" % folder,
            "heal it on the host that can write there",
        )
    _check_attributes(folder)
    _check_owner(folder, status)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Refusal(
            "%s cannot be written: its mode is %o" % (folder, stat.S_IMODE(status.st_mode)),
            "let its owner allow it",
        )


def _check_owner(path: str, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise Refusal(
            "%s belongs to user %s, and this runs as user %s"
            % (path, audit_numpy.user_name(status.st_uid), audit_numpy.user_name(os.geteuid())),
            "run this as root; if it says the same as root, give all files of numpy one owner",
        )


def _check_attributes(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise Refusal("%s cannot be read: %s" % (path, error.strerror))
    try:
        flags = struct.unpack("i", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(4)))[0]
    except OSError:
        return  # a file system without such attributes
    finally:
        os.close(descriptor)
    if flags & (IMMUTABLE | APPEND_ONLY):
        raise Refusal(
            "%s has the attribute immutable or append-only" % path,
            "ask who set it; chattr -i or chattr -a removes it",
        )


def _check_installers(numpy: Numpy) -> None:
    now = int(time.monotonic())
    for pid, arguments in _installers(now):
        if _is_about(arguments, pid, numpy.prefix):
            raise Refusal(
                "an installer works there: process %d, %s" % (pid, " ".join(arguments)[:200]),
                "wait until it has ended",
            )


@functools.lru_cache(maxsize=1)
def _installers(second: int) -> List[Tuple[int, List[str]]]:
    """The processes of installers: (process id, command line).

    second : of the clock; the list of one second is kept
    """
    found = []
    for name in filter(str.isdigit, listed("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/cmdline" % name, "rb") as stream:
            command = [os.fsdecode(part) for part in stream.read().split(b"\0")]
            words = command[:2]
            if command[1:2] == ["-m"]:
                words = command[2:3]
            if any(INSTALLERS.search(word) for word in words):
                found.append((int(name), command))
    return found


def _is_about(arguments: List[str], pid: int, prefix: str) -> bool:
    """Whether an installer may change a prefix."""
    prefix = os.path.realpath(prefix)
    folder = "/"
    with contextlib.suppress(OSError):
        folder = os.readlink("/proc/%d/cwd" % pid)
    # as in --prefix=PATH and -pPATH
    values = [re.sub(r"^(--[^=]*=|-\w(?=.))", "", each) for each in arguments]
    for value in values:
        above, name = os.path.split(os.path.join(folder, value))
        # the Python of a venv is a link to another prefix
        path = os.path.join(os.path.realpath(above), name)
        is_inside = "/" in value and path.startswith(prefix + "/")
        if is_inside or (value and os.path.realpath(path) == prefix):
            return True
    options = {each.split("=")[0] if each.startswith("--") else each[:2] for each in arguments}
    if {"-n", "--name"} & options:
        names = {os.path.basename(prefix)}
        if os.path.lexists(os.path.join(prefix, "bin", "conda")):
            names.add("base")
        return not names.isdisjoint(values)
    if {"-p", "--prefix", "--python", "--target", "-t"} & options:
        return False
    return _starts_in(pid, folder, prefix)


def _starts_in(pid: int, folder: str, prefix: str) -> bool:
    """Whether a process works on a prefix that its command line does not name.

    folder : the one that it works in
    """
    with contextlib.suppress(OSError), open("/proc/%d/environ" % pid, "rb") as stream:
        variables = stream.read().split(b"\0")
        for name in (b"CONDA_PREFIX=", b"VIRTUAL_ENV="):
            if name + os.fsencode(prefix) in variables:
                return True
    # uv and pixi work on the environment of the folder that they are started in
    project = re.sub(r"/(\.venv|\.pixi/envs/[^/]+)$", "", prefix)
    return project != prefix and (folder + "/").startswith(project + "/")


def distribution_packages(numpys: List[Numpy]) -> Dict[str, str]:
    """{path of numpy/__init__.py: package} of those that rpm or dpkg installed. Raises Refusal."""
    sources = [numpy.source for numpy in numpys]
    if not sources:
        return {}
    found = {}  # type: Dict[str, str]
    if os.path.exists("/usr/bin/dpkg-query"):
        shown = _asked(["dpkg-query", "-S", "*/numpy/__init__.py"], (0, 1))
        owners = {}
        for line in shown.splitlines():
            package, _, path = line.partition(": ")
            owners[os.path.realpath(path)] = package
        real = {source: os.path.realpath(source) for source in sources}
        found.update((path, owners[real[path]]) for path in sources if real[path] in owners)
    if os.path.exists("/usr/bin/rpm"):
        for source in sources if _rpm_owns(sources) else []:
            name = _rpm_owns([source])
            if name:
                found[source] = name
    return found


def _rpm_owns(paths: List[str]) -> str:
    """The package of one of the paths, or ""."""
    for start in range(0, len(paths), 500):
        some = paths[start : start + 500]
        shown = _asked(["rpm", "-qf", "--qf", "%{NAME}\\n", "--"] + some, range(0, 256))
        for line in shown.splitlines():
            if line and "is not owned by any package" not in line:
                return line
    return ""


def _asked(command: List[str], good: Any) -> str:
    """What a program of the distribution prints. Raises Refusal when it fails."""
    environment = {"PATH": SYSTEM_PATH, "LC_ALL": "C"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if done.returncode not in good:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise Refusal("%s failed: %s" % (command[0], said))
    return done.stdout.decode("utf-8", "surrogateescape")


# --- writing


def lock_folder(numpy: Numpy) -> str:
    """Where the lock is: one for a prefix."""
    if os.path.isdir(numpy.meta):
        return numpy.meta
    return numpy.site


@contextlib.contextmanager
def exclusive(numpy: Numpy) -> Iterator[None]:
    """Keep other runs of this tool and installers out. Raises Refusal when one is in."""
    path = os.path.join(lock_folder(numpy), LOCK_NAME)
    busy = Refusal("another run of heal_numpy.py works there: %s" % path, "wait until it has ended")
    with contextlib.ExitStack() as stack:
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            holder = stack.enter_context(os.fdopen(descriptor, "r+"))
            try:
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy
            # who had it before may have removed the file after it was opened here
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                    break
        stack.callback(os.unlink, path)
        uv = os.path.join(numpy.prefix, ".lock")
        pixi = os.path.join(numpy.prefix, ".guard")
        mamba = os.path.join(numpy.meta, "conda-meta.lock")
        _hold(stack, uv, fcntl.flock)
        _hold(stack, pixi, fcntl.flock)
        _hold(stack, mamba, fcntl.lockf)
        yield


def _hold(stack: contextlib.ExitStack, path: str, lock: Callable) -> None:
    """Take the lock of an installer where its file is there."""
    try:
        holder = stack.enter_context(open(path, "r+"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refusal("the lock %s cannot be opened: %s" % (path, error.strerror))
    try:
        lock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Refusal("an installer works there: it holds %s" % path, "wait until it has ended")


def folders_of(numpy: Numpy) -> List[str]:
    """The folders that this tool writes to."""
    cache = os.path.join(numpy.folder, "__pycache__")
    return [numpy.site, numpy.folder, cache, numpy.meta] + dist_infos(numpy)


def leftovers(numpy: Numpy) -> List[str]:
    """The paths of what a killed run left, or a live one has at the moment."""
    return [
        os.path.join(folder, name)
        for folder in folders_of(numpy)
        for name in listed(folder)
        if name.startswith(OUR_PREFIX)
    ]


def remove_leftovers(numpy: Numpy) -> None:
    """Remove what a killed run left. Whoever calls this holds the lock: there is no live run."""
    for path in leftovers(numpy):
        if os.path.basename(path) != LOCK_NAME:
            os.unlink(path)


def stage(change: Change, like: File) -> str:
    """Write the new file beside the old one; its path.

    like : the file that has the mode, group and attributes
    """
    folder, name = os.path.split(change.file.path)
    path = os.path.join(folder, OUR_PREFIX + name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(change.data)
            stream.flush()
            copy_attributes(like, descriptor)
            if name == "__init__.py":
                # bytecode that was made for the other text has the same time and another size
                status = change.file.status
                os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(descriptor)
    except BaseException:
        os.unlink(path)  # on a full disk, too, nothing is left
        raise
    return path


def copy_attributes(like: File, descriptor: int) -> None:
    """Give a new file group, mode, ACL and extended attributes of another. Raises Refusal."""
    status = like.status
    if os.fstat(descriptor).st_gid != status.st_gid:
        try:
            os.fchown(descriptor, -1, status.st_gid)
        except OSError:
            raise Refusal(
                "the group of %s cannot be kept: %d is none of this user"
                % (like.path, status.st_gid),
                "run this as root, or change the group of the file",
            )
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    if not hasattr(os, "listxattr"):
        return
    wanted = _attributes(like.path)
    found = _attributes(descriptor)
    for name in found:
        if name not in wanted and not name.startswith("security."):
            os.removexattr(descriptor, name)
    for name, value in wanted.items():
        if found.get(name) != value:
            try:
                os.setxattr(descriptor, name, value)
            except OSError as error:
                raise Refusal(
                    "the attribute %s of %s cannot be kept: %s" % (name, like.path, error.strerror),
                    "run this as root",
                )


def _attributes(file: Any) -> Dict[str, bytes]:
    """{name: value} of the extended attributes of a path or a descriptor."""
    try:
        return {name: os.getxattr(file, name) for name in os.listxattr(file)}
    except OSError:
        return {}  # a file system without such attributes


def write(numpy: Numpy, changes: List[Change]) -> None:
    """Write all changes: first all new files beside the old ones, then one rename after the other.

    Raises ChangedMeanwhileError, Refusal and OSError; before the first rename nothing is changed.
    """
    staged = {}  # type: Dict[str, str]
    try:
        for change in changes:
            if change.data is not None:
                like = change.file
                if like.status is None:
                    like = read_status(numpy.source)
                staged[change.file.path] = stage(change, like)
        if not all(same_file(change.file) for change in changes):
            raise ChangedMeanwhileError()
        for change in changes:
            path = change.file.path
            if change.data is None:
                os.unlink(path)
            else:
                os.rename(staged.pop(path), path)
    finally:
        for path in staged.values():
            with contextlib.suppress(OSError):
                os.unlink(path)
    for folder in {os.path.dirname(change.file.path) for change in changes}:
        _flush_folder(folder)


def read_status(path: str) -> File:
    return File(path, None, os.stat(path))


def _flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some file systems of networks cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- one numpy


def new_row(numpy: Numpy, options: Options) -> Dict[str, Any]:
    """A row, as --json prints it, of a numpy that nothing was done to."""
    way = "in place"
    if options.startup:
        way = "start-up file"
    return {
        "host": platform.node(),
        "prefix": numpy.prefix,
        "numpy": numpy.folder,
        "version": "",
        "way": way,
        "result": "failed",
        "reason": "",
        "remedy": "",
        "changed": [],
        "notes": [],
    }


def heal(
    numpy: Numpy, options: Options, compiler: Compiler, packages: Dict[str, str]
) -> Dict[str, Any]:
    """Heal one numpy, undo it, or say what would be done: a row, as --json prints it."""
    row = new_row(numpy, options)
    row["version"] = version_of(numpy)
    try:
        for _ in range(3):
            try:
                _work(numpy, options, compiler, packages, row)
                return row
            except ChangedMeanwhileError:
                row["reason"] = "another program changes these files"
        row["remedy"] = "wait until it has ended, and run this again"
    except Refusal as refusal:
        row.update(result="refused", reason=str(refusal), remedy=refusal.remedy, changed=[])
    except OSError as error:
        reason = "%s: %s" % (error.filename or numpy.folder, error.strerror or error)
        row.update(reason=reason, remedy="mend that, and run the same command again", changed=[])
    except Exception as error:
        # what a user put into one prefix never costs another prefix its healing
        reason = "something unexpected: %s: %s" % (type(error).__name__, error)
        row.update(reason=reason, remedy="report it; the other prefixes are not concerned")
        row["changed"] = []
    return row


def _work(
    numpy: Numpy,
    options: Options,
    compiler: Compiler,
    packages: Dict[str, str],
    row: Dict[str, Any],
) -> None:
    if options.startup:
        plan = make_startup_plan(numpy, options.undo)
    else:
        plan = make_plan(numpy, options.undo, compiler)
    row["notes"] = plan.notes
    row["changed"] = [change.file.path for change in plan.changes]
    if plan.changes:
        check_all(numpy, plan.changes, packages)
    if not plan.changes:
        row.update(result="unchanged", reason=plan.reason)
        if options.write and leftovers(numpy):
            with exclusive(numpy):
                remove_leftovers(numpy)
    elif not options.write:
        row["result"] = "would-undo" if options.undo else "would-heal"
    else:
        with exclusive(numpy):
            remove_leftovers(numpy)
            write(numpy, plan.changes)
            _remove_empty_cache(numpy, options)
        row["result"] = "undone" if options.undo else "healed"


def _remove_empty_cache(numpy: Numpy, options: Options) -> None:
    """Remove the folder that Python made for the start-up file's bytecode, if it is empty."""
    if options.startup and options.undo:
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(numpy.site, "__pycache__"))


def version_of(numpy: Numpy) -> str:
    """The version that numpy itself names, or ""."""
    try:
        with audit_numpy.open_regular(os.path.join(numpy.folder, "version.py")) as stream:
            said = re.search(rb"^version = [\"']([^\"']+)", stream.read(1 << 16), re.M)
    except OSError:
        return ""
    return said.group(1).decode("utf-8", "replace") if said else ""


# --- all of them


def find_numpys(roots: List[str], survey: Any, gone: bool = False) -> Iterator[Numpy]:
    """The numpys below some folders, each once, as the audit finds them.

    gone : also those that are not there any more, where a start-up file is left
    survey : audit_numpy.Survey, which is told what could not be looked at
    """
    found = set()
    for place in audit_numpy.find_places(roots, survey):
        prefix, sites = audit_numpy.find_sites(place, survey)
        for site in sites:
            numpy = Numpy(prefix, site)
            with survey.reading(numpy.folder):
                status = os.lstat(numpy.place)
                key = (status.st_dev, status.st_ino)
                is_startup = gone and numpy.place == site and has_startup_file(site)
                if key not in found and (is_startup or _is_numpy(numpy, survey)):
                    found.add(key)
                    yield numpy


def has_startup_file(site: str) -> bool:
    paths = [os.path.join(site, STARTUP_NAME + end) for end in (".py", ".pth")]
    return any(map(os.path.lexists, paths))


def _is_numpy(numpy: Numpy, survey: Any) -> bool:
    if not os.path.lexists(numpy.folder):
        return False
    site = audit_numpy.Site(numpy.prefix, numpy.site, (), "")
    return audit_numpy.is_numpy_of_site(site, survey)


def heal_all(numpys: List[Numpy], options: Options, say: Callable) -> Iterator[Dict[str, Any]]:
    """Yield a row for each numpy. As root, work on a user's prefix is done as that user."""
    packages = distribution_packages(numpys)
    owners = {}  # type: Dict[Tuple[int, int], List[Numpy]]
    for numpy in numpys:
        try:
            status = os.lstat(numpy.place)
        except OSError as error:
            say("unreadable", numpy.folder, error.strerror)
            continue
        owners.setdefault((status.st_uid, status.st_gid), []).append(numpy)
    for (uid, gid), theirs in owners.items():
        if os.geteuid() == 0 and uid != 0:
            yield from _heal_as(uid, gid, theirs, options, packages)
        else:
            yield from _heal_here(theirs, options, packages)


def _heal_here(
    numpys: List[Numpy], options: Options, packages: Dict[str, str]
) -> Iterator[Dict[str, Any]]:
    compiler = Compiler(options.pythons, options.write)
    try:
        for numpy in numpys:
            yield heal(numpy, options, compiler, packages)
    finally:
        compiler.close()


def _heal_as(
    uid: int, gid: int, numpys: List[Numpy], options: Options, packages: Dict[str, str]
) -> Iterator[Dict[str, Any]]:
    """The same in a child process that is the owner of the prefixes."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            become(uid, gid)
            with os.fdopen(writing, "w") as stream:
                for row in _heal_here(numpys, options, packages):
                    stream.write(json.dumps(row) + "\n")
                    stream.flush()
            status = 0
        finally:
            # nothing of the parent's may run here
            os._exit(status)
    os.close(writing)
    left = list(numpys)
    with os.fdopen(reading) as stream:
        for line in stream:
            left.pop(0)
            yield json.loads(line)
    os.waitpid(child, 0)
    for numpy in left:
        reason = "the process that worked as user %s ended early" % audit_numpy.user_name(uid)
        row = new_row(numpy, options)
        row.update(reason=reason, remedy="run the same command again")
        yield row


def become(uid: int, gid: int) -> None:
    """Be a user for good. Raises OSError."""
    groups = [gid]
    with contextlib.suppress(KeyError):
        entry = pwd.getpwuid(uid)
        groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
        gid = entry.pw_gid
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


# --- the command line


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The arguments; ends with exit code 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "roots", nargs="+", metavar="FOLDER", help="a prefix, or where to look for some"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="heal; without it nothing is changed")
    what.add_argument("--undo", action="store_true", help="give every file its old bytes again")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say what would be")
    parser.add_argument(
        "--startup-file",
        action="store_true",
        help="leave numpy's files alone: put a file beside them that Python loads when it starts",
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="a Python that may be run to make bytecode of its kind; can be repeated",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON for each numpy")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="also the files that change, and all notes"
    )
    args = parser.parse_args(argv)
    if audit_numpy is None or not hasattr(audit_numpy, "PATCHED_TEXTS"):
        parser.error(
            "audit_numpy.py of the same release is not beside this file, in %s. "
            "Copy both files there." % (os.path.dirname(os.path.abspath(__file__)))
        )
    for python in args.python:
        if not os.access(python, os.X_OK):
            parser.error("--python: %s is no program that can be run" % python)
        if os.geteuid() == 0 and not may_run(os.path.abspath(python)):
            parser.error(
                "--python: %s, or a folder above it, can be changed by others than root. "
                "Name another Python." % python
            )
    return args


def print_row(row: Dict[str, Any], verbose: bool) -> None:
    """Two lines for a person, or one."""
    shown = audit_numpy.shown
    print(shown("%-10s  numpy %s  %s" % (row["result"], row["version"] or "?", row["numpy"])))
    if row["reason"]:
        print(shown("            %s" % row["reason"]))
    if row["remedy"]:
        print(shown("            remedy: %s" % row["remedy"]))
    if verbose:
        for path in row["changed"]:
            print(shown("            %s" % path))
    for sentence in row["notes"] if verbose or row["result"] == "healed" else []:
        print(shown("            note: %s" % sentence))


def print_result(counts: Dict[str, int], troubles: int, args: argparse.Namespace) -> None:
    """The closing lines."""
    if args.json:
        print(json.dumps({"host": platform.node(), "summary": counts, "troubles": troubles}))
        return
    lines = ["%d %s" % (count, result) for result, count in sorted(counts.items())]
    if troubles:
        lines.append("%d that could not be looked at" % troubles)
    print(", ".join(lines) or "no numpy was found")
    if counts.get("would-heal"):
        print("Nothing was changed. --apply heals.")
    if counts.get("would-undo"):
        print("Nothing was changed. Without --dry-run, --undo takes the healing back.")
    if counts.get("healed"):
        print("Installing numpy anew, or a new environment, brings the hang back: run the audit")
        print("regularly. Programs that run already keep the numpy that they have loaded.")


def exit_code(counts: Dict[str, int], troubles: int) -> int:
    bad = {"would-heal", "would-undo", "refused", "failed"}
    return int(troubles > 0 or not bad.isdisjoint(counts))


class Printer:
    """Prints rows and troubles as they come, and counts them."""

    def __init__(self, as_json: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.verbose = verbose
        self.counts = {}  # type: Dict[str, int]
        self.troubles = 0

    def say(self, kind: str, path: str, text: str) -> None:
        """Take what the audit could not look at.

        kind : as audit_numpy.Survey has it; a note is no trouble
        """
        if kind == "note":
            return
        self.troubles += 1
        if self.as_json:
            print(json.dumps({"host": platform.node(), "path": path, "trouble": text}))
        else:
            sys.stderr.write(audit_numpy.shown("heal_numpy: %s: %s" % (path, text)) + "\n")

    def add(self, row: Dict[str, Any]) -> None:
        """Take a row."""
        self.counts[row["result"]] = self.counts.get(row["result"], 0) + 1
        if self.as_json:
            print(json.dumps(row), flush=True)
        else:
            print_row(row, self.verbose)


def main(argv: Optional[List[str]] = None) -> int:
    """The exit code."""
    args = parse(argv)
    printer = Printer(args.json, args.verbose)
    survey = audit_numpy.Survey(printer.say)
    roots = []
    for pattern in args.roots:
        folders = audit_numpy.expand(pattern, survey)
        if not folders:
            survey.broken(pattern, "no such folder")
        roots += folders
    if not roots:
        sys.stderr.write("heal_numpy: none of the folders is there\n")
        return 2
    numpys = list(find_numpys(roots, survey, args.undo and args.startup_file))
    write_it = (args.apply or args.undo) and not args.dry_run
    pythons = [os.path.abspath(python) for python in args.python]
    options = Options(args.undo, write_it, args.startup_file, pythons)
    last = time.monotonic()
    try:
        for row in heal_all(numpys, options, printer.say):
            printer.add(row)
            if time.monotonic() - last > PROGRESS_SECONDS:
                last = time.monotonic()
                done = sum(printer.counts.values())
                sys.stderr.write("heal_numpy: %d of %d\n" % (done, len(numpys)))
    except Refusal as refusal:
        printer.say("broken", ", ".join(args.roots), str(refusal))
    print_result(printer.counts, printer.troubles, args)
    return exit_code(printer.counts, printer.troubles)


def _stop(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    # what was begun is taken back before this ends
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGHUP, _stop)
    if audit_numpy is None:
        sys.exit(main())
    left = "not all is done; run the same command again"
    sys.exit(audit_numpy.run_program("heal_numpy", main, 1, left))
