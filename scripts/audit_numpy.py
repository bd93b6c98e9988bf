#!/usr/bin/env python3
"""Find the numpys that hang when a static constructor imports them (numpy#31284).

One file and the standard library of Python 3.6: copy it to a host and run it there. It only
reads; nothing is imported or run. Inside a prefix (of conda, pixi or venv) it looks into
site-packages; elsewhere for prefixes, site-packages and folders with a numpy in them.
"""

import argparse
import ast
import contextlib
import functools
import glob
import json
import operator
import os
import platform
import re
import shlex
import signal
import stat
import struct
import sys

EPILOG = """\
verdicts:
  AFFECTED  the import multiplies matrices, with MKL: it can hang
  LATENT    the import multiplies matrices, with another BLAS: MKL would make it hang
  FIXED     it multiplies none: patched, 2.4.5 or later, or older than 2.3.5
  UNKNOWN   could not be told, for the reason that is given

exit code: 0 nothing is AFFECTED, 1 something is, 2 wrong use

examples:
  audit_numpy.py /opt/conda                        a conda and all its environments
  audit_numpy.py /opt/conda/envs '/home/*/.conda'  quoted patterns are expanded on the host
  audit_numpy.py --json / | grep AFFECTED          one line for each numpy, for a fleet tool
  audit_numpy.py --channel https://conda.example.com/fixed /opt/conda
"""
# packages with an extension that imports numpy from a static constructor, and how that is known
IMPORTERS = {
    "csp": "named in numpy#31284 and Point72/csp#703; the wheels 0.13.2 to 0.19.1, so also those after csp#705, "
    "hung when _cspimpl.so was loaded by itself (glibc 2.36); `import csp` imports pandas first, and so numpy",
}
WORKAROUNDS = """\
Until then, one of
  import numpy before the extension: no cost, but every program has to do it
  MKL_THREADING_LAYER=SEQUENTIAL or MKL_NUM_THREADS=1 set before the program starts:
    costs all of MKL's threads for the life of the process"""
SAID = {
    "ungated": "the import multiplies matrices",
    "gated": "the import multiplies matrices on macOS alone",
    "absent": "the import multiplies no matrices",
}
AFFECTED, LATENT, FIXED, UNKNOWN = VERDICTS = "AFFECTED", "LATENT", "FIXED", "UNKNOWN"
# releases that have a patched build
PATCHED = r"2\.3\.5|2\.4\.[0-4]"
# sha256 of numpy/__init__.py: {as released: with the patch}. Linux and macOS have the same texts.
PATCHED_TEXTS = {
    # 2.3.5
    "93924ac4b793328947dfd9eb9355e54eccdfd26a92c8dd52188aed2e52c7eb38": (
        "371ad487f360d52a117c494b289c9c6f896c331b8612ef18eeb4a947f605b929"
    ),
    # 2.4.0 to 2.4.4
    "2e8da3e4385e79c4885b3f7324a8b957e6f01732b239e99e266a12c62a008b8d": (
        "d1f930b17d10bd377be36639625d6caf04f348be53c914c2f67e8c8b928f5073"
    ),
}
# heal_numpy.py puts a line with this word into PREFIX/conda-meta/history, or else writes the
# file numpy-VERSION.dist-info/heal_numpy.txt: so a healed numpy is told from a patched package
HEAL_NOTE = "heal_numpy"
# by their names in those of libraries and in the build strings of conda's libblas
BLAS = ("mkl", "openblas", "blis", "accelerate", "netlib", "atlas", "nvpl", "armpl")
# of a prefix of conda or pixi, of a venv
MARKS = ("conda-meta", "pyvenv.cfg")
# what tells a numpy outside of a prefix from a namesake and from its licences
BARE = ("__init__.py", "version.py", "core")
# where numpy 2 has its extension, and numpy 1
CORES = ("_core", "core")
# no environments: unpacked packages, a file server's past, the kernel's files
SKIPPED = {
    "pkgs",
    ".cache",
    ".snapshot",
    ".git",
    "node_modules",
    "__pycache__",
    "/proc",
    "/sys",
    "/dev",
}
# bytes: no file of interest is longer
LIMIT = 1 << 24
SETTINGS = ("MKL_THREADING_LAYER", "MKL_NUM_THREADS")
# of sh, csh and fish
SETTING = re.compile(
    r"^\s*(?:export\s+|setenv\s+|set\s+-\w+\s+)?(%s)(?:=|[ \t]+)[\"']?(\w+)" % "|".join(SETTINGS),
    re.M,
)
# raised by parsing what is something else than it should be
UNREADABLE = (
    SyntaxError,
    ValueError,
    AttributeError,
    TypeError,
    RecursionError,
    MemoryError,
    struct.error,
)


# --- the gate: what importing numpy/__init__.py runs, by its syntax tree

CHECK = "blas_fpe_check"
# what calls a BLAS by name, as the operator @ does; the check itself, where its definition is not to be seen
_PRODUCTS = {"matmul", "dot", CHECK}
# two elements, in every release: starts no thread
_HARMLESS = "_sanity_check"
_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def gate(source):
    """Whether the import runs a matrix product: "ungated" (on Linux), "gated" (on macOS alone) or "absent".

    What the text does not decide counts as run. Raises SyntaxError.
    """
    tree = ast.parse(source)
    for state, name, system in (("ungated", "linux", "Linux"), ("gated", "darwin", "Darwin")):
        walk = _Import(
            {
                "sys.platform": name,
                "platform.system()": system,
                "os.uname().sysname": system,
                "os.name": "posix",
            }
        )
        walk.run(tree.body)
        if walk.product:
            return state
    return "absent"


class _Import(ast.NodeVisitor):
    """Follows the statements that are run where the facts hold; a visit returns True when nothing after it is."""

    def __init__(self, facts):
        self.facts = facts
        self.functions = {}  # name: the bodies that were defined under it and not run yet
        self.product = False

    def run(self, body):
        return any(self.visit(statement) for statement in body)

    def visit_If(self, node):
        self.visit(node.test)
        truth = self.truth(node.test)
        bodies = [node.body] * (truth is not False) + [node.orelse] * (truth is not True)
        return all([self.run(body) for body in bodies])

    def visit_Try(self, node):
        ends = [
            self.run(body)
            for body in [node.body + node.orelse] + [handler.body for handler in node.handlers]
        ]
        return self.run(node.finalbody) or all(ends)

    def visit_Return(self, node):
        self.generic_visit(node)
        return True

    visit_Raise = visit_Return

    def visit_FunctionDef(self, node):
        self.functions.setdefault(node.name, []).append([] if node.name == _HARMLESS else node.body)

    def visit_ImportFrom(self, node):
        # under another name it would not be known again
        self.product = self.product or any(
            alias.asname and alias.name in _PRODUCTS for alias in node.names
        )

    def visit_Name(self, node):
        """What is named may be called: at once, under another name, or by what it is handed to."""
        if isinstance(node.ctx, ast.Load) and node.id in self.functions:
            bodies, self.functions[node.id] = self.functions[node.id], []
            for body in bodies:
                self.run(body)
        elif isinstance(node.ctx, ast.Load):
            self.product = self.product or node.id in _PRODUCTS

    def visit_Attribute(self, node):
        self.generic_visit(node)
        self.product = self.product or node.attr in _PRODUCTS

    def visit_BinOp(self, node):
        self.generic_visit(node)
        self.product = self.product or isinstance(node.op, ast.MatMult)

    visit_AugAssign = visit_BinOp

    def truth(self, node):
        """Of a condition where the facts hold: True, False, or None for what is not known."""
        try:
            if isinstance(node, ast.BoolOp):
                decisive, truths = (
                    isinstance(node.op, ast.Or),
                    [self.truth(value) for value in node.values],
                )
                return decisive if decisive in truths else None if None in truths else not decisive
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                return {True: False, False: True}.get(self.truth(node.operand))
            if isinstance(node, ast.Compare):
                (compare,), (right,) = node.ops, node.comparators
                return _COMPARE[type(compare)](
                    self.facts[_dotted(node.left)], ast.literal_eval(right)
                )
            if isinstance(node, ast.Call) and node.func.attr == "startswith":
                return self.facts[_dotted(node.func.value)].startswith(
                    *map(ast.literal_eval, node.args)
                )
            return bool(ast.literal_eval(node))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


def _dotted(node):
    """The source text of a name, an attribute or a call without arguments."""
    if isinstance(node, ast.Attribute):
        return "%s.%s" % (_dotted(node.value), node.attr)
    return (
        _dotted(node.func) + "()"
        if isinstance(node, ast.Call) and not node.args
        else getattr(node, "id", "?")
    )


# --- files, on a host that changes meanwhile; report(path, what) takes what went wrong


def opened(path):
    """The stream of a regular file: a pipe would keep us waiting. Raises OSError."""
    stream = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise OSError("not a regular file")


@contextlib.contextmanager
def reporting(path, report):
    """What is missing is as good as empty; what else goes wrong is reported."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        report(path, error.strerror or error)
    except UNREADABLE as error:
        report(path, "broken: %s" % error)


def read(path, report):
    """The bytes of a file, or None."""
    with reporting(path, report), opened(path) as stream:
        # asked for more than there is, Python would first make room for all of it
        return stream.read(min(LIMIT, os.fstat(stream.fileno()).st_size))


def names(folder, report):
    """The names in a folder, in order."""
    with reporting(folder, report):
        return sorted(os.listdir(folder))
    return []


def elf_needed(path):
    """The sonames that a 64-bit ELF file needs. Raises OSError, ValueError or struct.error."""
    with opened(path) as stream:

        def unpack(layout, offset):
            stream.seek(offset)
            return struct.unpack(order + layout, stream.read(struct.calcsize("=" + layout)))

        def string(offset):
            stream.seek(offset)
            return stream.read(256).split(b"\0")[0].decode("utf-8", "replace")

        identity = stream.read(6)
        if identity[:5] != b"\x7fELF\x02":
            raise ValueError("not a 64-bit ELF file")
        order = "<" if identity[5] == 1 else ">"
        (table,), (size, count) = unpack("Q", 32), unpack("HH", 54)
        # kind, flags, offset, address, physical address, size in the file
        segments = [unpack("IIQQQQ", table + i * size) for i in range(count)]
        tags = []
        for _, _, offset, _, _, length in [segment for segment in segments if segment[0] == 2]:
            for at in range(offset, offset + min(length, LIMIT), 16):
                tags.append(unpack("QQ", at))
                if tags[-1][0] == 0:
                    break
        # the table of strings goes by its address: that of a segment which is loaded
        strings = dict(tags).get(5, 0)
        starts = [
            offset + strings - address
            for kind, _, offset, address, _, length in segments
            if kind == 1 and address <= strings < address + length
        ]
        return [string(starts[0] + value) for tag, value in tags if starts and tag == 1]


def find(root, seen, report, note):
    """Yield the prefixes below a root, and the folders elsewhere that numpy may be imported from.

    seen : (device, inode) of the folders that were looked at
    note : as report, for what is no trouble
    """
    todo = [root]
    while todo:
        folder = todo.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                note(folder, "seen under another name")
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                found = {entry.name: entry for entry in entries}
        except OSError as error:
            report(folder, error.strerror)
            continue
        prefix = not found.keys().isdisjoint(MARKS)
        packages = os.path.basename(folder) in ("site-packages", "dist-packages")
        if (
            prefix
            or packages
            or "numpy" in found
            and all(os.path.exists(os.path.join(folder, "numpy", name)) for name in BARE)
        ):
            yield folder
        # a conda keeps its environments inside its own
        below = [] if packages else {"envs"}.intersection(found) if prefix else found
        todo += [
            found[name].path
            for name in sorted(below, reverse=True)
            if _leads_on(found[name], report, note)
        ]


def _leads_on(entry, report, note):
    """Whether an entry is a folder, or a link to a prefix: another link may lead anywhere."""
    try:
        if not entry.is_dir() or {entry.name, entry.path} & SKIPPED:
            return False
        if not entry.is_symlink() or any(
            os.path.lexists(os.path.join(entry.path, mark)) for mark in MARKS
        ):
            return True
        note(entry.path, "a link to what is no prefix: not followed")
    except OSError as error:
        report(entry.path, error.strerror)
    return False


# --- one prefix


def examine(folder, report):
    """What there is to say about each numpy of a prefix or of a folder of packages: a list of rows, as --json has them."""
    if not os.path.isdir(folder):
        report(folder, "gone meanwhile")
    inside = re.match(r"(.+?)/lib(64)?/(python|pypy)3[^/]*/(site|dist)-packages$", folder)
    prefix = inside.group(1) if inside else folder
    records = {}  # name of a package: name, version, build
    for name in names(os.path.join(prefix, "conda-meta"), report):
        parts = name[: -len(".json")].rsplit("-", 2)
        if name.endswith(".json") and len(parts) == 3:
            records[parts[0]] = parts
    sites = [folder] if inside else [folder] + _site_packages(prefix, report)
    contents = [(site, names(site, report)) for site in sites]
    inhabited = [(site, here) for site, here in contents if "numpy" in here] or contents[:1] * (
        "numpy" in records
    )
    return [_row(prefix, site, here, records, report) for site, here in inhabited]


def _site_packages(prefix, report):
    # a venv's lib64 may be a link to its lib, as conda's python3.1 is one to python3.11
    libs = [
        path
        for path in (os.path.join(prefix, name) for name in ("lib", "lib64"))
        if not os.path.islink(path)
    ]
    pythons = [
        os.path.join(lib, name)
        for lib in libs
        for name in names(lib, report)
        if name.startswith(("python3", "pypy3"))
    ]
    return [
        os.path.join(python, "site-packages") for python in pythons if not os.path.islink(python)
    ]


def _row(prefix, site, here, records, report):
    folder = os.path.join(site, "numpy")
    source = read(os.path.join(folder, "__init__.py"), report)
    state, unclear = (
        (None, "there is no numpy/__init__.py that could be read")
        if source is None
        else _gate_of(source)
    )
    blas, by = _blas(folder, prefix, records, report)
    if state is None or state == "ungated" and blas is None:
        verdict = UNKNOWN
    else:
        verdict = FIXED if state != "ungated" else AFFECTED if blas == "mkl" else LATENT
    version = _version(folder, here, report)
    recorded = records.get("numpy", ("", "", ""))
    # a wheel over conda's numpy leaves the record as it was
    conda = (
        "numpy" in records
        and (not version or version == recorded[1])
        and "scipy_openblas" not in by
    )
    return {
        "verdict": verdict,
        "host": platform.node(),
        "prefix": prefix,
        "numpy": folder,
        "version": version or recorded[1],
        "build": recorded[2] if conda else "",
        "channel": _channel(
            os.path.join(prefix, "conda-meta", "-".join(recorded) + ".json"), report
        )
        if conda
        else "",
        "gate": state,
        "blas": blas,
        "blas_by": by,
        "activation": _activation(prefix, report),
        "importers": sorted(
            IMPORTERS.keys() & (records.keys() | {name.split("-")[0] for name in here})
        ),
        "reason": "%s; BLAS: %s" % (unclear or SAID[state], by),
    }


@functools.lru_cache(maxsize=None)
def _gate_of(source):
    """(state, ""), or (None, why not): once for each text, of which a thousand prefixes have a few."""
    try:
        return gate(source), ""
    except UNREADABLE as error:
        return None, "numpy/__init__.py is nothing that Python %s can parse: %s" % (
            platform.python_version(),
            error,
        )


def _version(folder, here, report):
    """By numpy itself, else by its dist-info, else ""."""
    said = re.search(
        rb"^version = [\"']([^\"']+)", read(os.path.join(folder, "version.py"), report) or b"", re.M
    )
    named = [
        name.split("-")[1][: -len(".dist")]
        for name in here
        if name.startswith("numpy-") and name.endswith(".dist-info")
    ]
    return said.group(1).decode("utf-8", "replace") if said else "".join(named[:1])


def _channel(record, report):
    data = read(record, report) or b""
    # parsing all of the JSON would take longer than everything else
    said = re.search(rb'"channel"\s*:\s*"([^"]*)"', data)
    if not said or not data.rstrip().endswith(b"}"):
        report(record, "no whole JSON object with a channel")
    url = said.group(1).decode("utf-8", "replace") if said else ""
    # without the subdir; without names and tokens, which are nobody's business
    return re.sub(
        "/((noarch|(linux|osx|win)-[^/]*)/*)?$",
        "",
        re.sub("/t/[^/]*", "", re.sub("//[^/]*@", "//", url)),
    )


def _blas(folder, prefix, records, report):
    """The BLAS and what says so; None and the reason where it is not known."""
    needed = _needed(folder, report)
    for soname in needed or ():
        for name in BLAS:
            if name in soname:
                return name, soname
    # conda-forge's numpy calls an interface, and libblas says what is behind it
    interfaces = [soname for soname in needed or () if re.match("lib(c|flexi)?blas[.]", soname)]
    if needed is not None and not interfaces:
        return "none", "its extension needs none"
    for record in (records[name] for name in ("libblas", "blas") if name in records):
        if record[2].split("_")[-1] in BLAS:
            return record[2].split("_")[-1], "-".join(record)
    for target in (
        os.path.basename(os.path.realpath(os.path.join(prefix, "lib", soname)))
        for soname in interfaces
    ):
        for name in BLAS:
            if name in target:
                return name, target
    return None, "%s, and no record of libblas" % (
        ", ".join(interfaces) or "no extension that could be read"
    )


def _needed(folder, report):
    """What numpy's extension needs; None where there is none to read."""
    found = [
        os.path.join(folder, core, name)
        for core in CORES
        for name in names(os.path.join(folder, core), report)
        if name.startswith("_multiarray_umath.") and name.endswith(".so")
    ]
    for path in found[:1]:
        with reporting(path, report):
            return elf_needed(path)
    return None


def _activation(prefix, report):
    """What activating the environment sets of the variables that keep MKL from hanging: {name: value}."""
    scripts = os.path.join(prefix, "etc", "conda", "activate.d")
    texts = [read(os.path.join(scripts, name), report) or b"" for name in names(scripts, report)]
    found = {
        name: value
        for text in texts
        for name, value in SETTING.findall(text.decode("utf-8", "replace"))
    }
    state = os.path.join(prefix, "conda-meta", "state")
    with reporting(state, report):
        variables = json.loads((read(state, report) or b"{}").decode("utf-8")).get("env_vars", {})
        found.update((name, str(variables[name])) for name in SETTINGS if name in variables)
    return found


# --- what to do, and how it is said


def remedy(row, channel):
    """The command that gets a numpy without the hang; channel is the one with the patched builds."""
    patched = re.fullmatch(PATCHED, row["version"]) and row["blas"] in ("mkl", "openblas")
    spec = shlex.quote(
        "numpy=%s=%s*_1*" % (row["version"], row["blas"]) if patched else "numpy>=2.4.5"
    )
    channel, theirs = shlex.quote(channel), shlex.quote(row["channel"] or "conda-forge")
    if not row["build"]:
        python = os.path.join(row["prefix"], "bin", "python3")
        return (
            "%s -m pip install 'numpy>=2.4.5'" % shlex.quote(python)
            if os.path.exists(python)
            else "put numpy 2.4.5 or later there"
        )
    workspace, pixi, _ = row["prefix"].partition("/.pixi/envs/")
    if pixi:
        return "cd %s && pixi workspace channel add --prepend %s && pixi add %s" % (
            shlex.quote(workspace),
            channel,
            spec,
        )
    return "conda install -p %s -c %s -c %s %s" % (
        shlex.quote(row["prefix"]),
        channel,
        theirs,
        spec,
    )


def shown(value):
    """Text for any terminal: a name may hold what is no text, or what steers it."""
    return re.sub(
        "[^ -~]", lambda match: match.group().encode("unicode_escape").decode(), str(value)
    )


def table(rows, verbose):
    """The lines for a person: the worst first."""
    lines = [("VERDICT", "NUMPY", "CHANNEL", "BLAS", "ACTIVATION SETS", "IMPORTERS", "PREFIX")]
    for row in sorted(rows, key=lambda row: (VERDICTS.index(row["verdict"]), row["numpy"])):
        activation = " ".join("%s=%s" % item for item in sorted(row["activation"].items()))
        about = (
            row["version"] + " " + row["build"],
            row["channel"].split("/")[-1],
            row["blas"],
            activation,
            " ".join(row["importers"]),
        )
        lines.append(
            (row["verdict"],)
            + tuple(shown(cell or "").strip() or "-" for cell in about)
            + (shown(row["prefix"]),)
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    yield from (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines
    )
    for row in rows:
        if row["verdict"] == UNKNOWN or verbose:
            yield shown("%s: %s" % (row["numpy"], row["reason"]))
    for name in sorted({name for row in rows for name in row["importers"]}):
        yield "%s imports numpy from a static constructor: %s" % (name, IMPORTERS[name])
    yield ", ".join(
        "%d %s" % (sum(row["verdict"] == verdict for row in rows), verdict) for verdict in VERDICTS
    )
    affected = [row for row in rows if row["verdict"] == AFFECTED]
    if affected:
        yield "\nTo fix it (YOUR_CHANNEL has the patched builds; --channel names it):"
        yield from sorted("  " + shown(row["fix"]) for row in affected)
        yield WORKAROUNDS


def main(argv=None):
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "roots", nargs="+", metavar="FOLDER", help="a prefix, or where to look for some"
    )
    parser.add_argument(
        "--json", action="store_true", help="one line of JSON for each numpy and for each trouble"
    )
    parser.add_argument(
        "--channel", default="YOUR_CHANNEL", metavar="URL", help="the one with the patched builds"
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also the reasons, and where there was no numpy or no look",
    )
    args = parser.parse_args(argv)

    def note(path, what, wanted=args.verbose):
        if wanted:
            sys.stderr.write(shown("audit_numpy: %s: %s" % (path, what)) + "\n")

    def report(path, what):
        if args.json:
            print(json.dumps({"host": platform.node(), "trouble": str(what), "path": path}))
        note(path, what, not args.json)

    found = {
        pattern: [pattern]
        if os.path.isdir(pattern)
        else sorted(filter(os.path.isdir, glob.glob(pattern)))
        for pattern in args.roots
    }
    for pattern in args.roots:
        if not found[pattern]:
            report(pattern, "no such folder")
    if not any(found.values()):
        parser.error("none of the folders is there")
    rows, seen = [], set()
    roots = [os.path.abspath(root) for pattern in args.roots for root in found[pattern]]
    for folder in (folder for root in roots for folder in find(root, seen, report, note)):
        here = examine(folder, report)
        for row in here:
            row["fix"] = remedy(row, args.channel) if row["verdict"] in (AFFECTED, LATENT) else ""
            if args.json:
                print(json.dumps(row), flush=True)
        if not here:
            note(folder, "no numpy")
        rows += here
    if not args.json:
        print("\n".join(table(rows, args.verbose)))
    return int(any(row["verdict"] == AFFECTED for row in rows))


if __name__ == "__main__":
    # as any tool whose output is piped into head
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
