#!/usr/bin/env python3
"""List the numpys of a host that can hang when a static constructor imports them (numpy#31284).

This is one file, and it needs only the standard library of Python 3.6. Copy it to a host and run
it there. It only reads. It imports and runs nothing of what it finds.

Give it folders. It walks through them and follows symbolic links, each folder once. It audits
each prefix of conda, pixi or venv, each site-packages folder, and each other folder with a numpy.
"""

import argparse
import ast
import collections
import contextlib
import fnmatch
import functools
import json
import operator
import os
import platform
import pwd
import re
import resource
import shlex
import signal
import stat
import struct
import sys
import time
from errno import EBADF, ELOOP
from importlib.util import MAGIC_NUMBER

# An older Python stops at this line, and shows it.
NEEDED: str = "Python 3.6 or later: run this file with python3"

EPILOG = """\
verdicts:
  AFFECTED  the import multiplies matrices, with MKL: it can hang
  LATENT    the import multiplies matrices, with another BLAS: MKL would make it hang
  FIXED     the import multiplies none: patched, 2.4.5 or later, or older than 2.3.5
  UNKNOWN   this could not be decided; the reason is given

The last line says what was looked at, left out and could not be read.

exit code:
  0  everything was looked at, everything was decided, and nothing is AFFECTED
  1  something is AFFECTED
  2  nothing is AFFECTED, but the audit is not complete: a numpy is UNKNOWN, or something that may
     hold an environment was left out or could not be read; also wrong use

--json prints one JSON object a line: a `numpy` for each numpy, a `trouble` for each thing that was
left out or not read, and one `end` as the last line. A file without an `end` was cut off.
docs/audit-json.md describes the fields.

--quick looks only at each FOLDER, at the folders in it, and at the environments in their `envs`.
Other folders there count as left out. What lies inside a prefix is not searched.

examples:
  audit_numpy.py /opt/conda                        a conda and all its environments
  audit_numpy.py /opt/conda/envs '/home/*/.conda'  quoted patterns are expanded on the host
  audit_numpy.py --json / | grep AFFECTED          one line for each numpy, for a fleet tool
  audit_numpy.py --exclude .snapshots /home        a folder that you know to hold no environment
  audit_numpy.py --quick /opt/conda/envs           fast, where the environments are known to lie
  audit_numpy.py --channel https://conda.example.com/fixed /opt/conda
"""
JSON_SCHEMA = 1
# packages with an extension that imports numpy from a static constructor, and how that is known
IMPORTERS = {
    "csp": "named in numpy#31284 and Point72/csp#703; the wheels 0.13.2 to 0.19.1, so also those "
    "after csp#705, hung when _cspimpl.so was loaded by itself (glibc 2.36); `import csp` imports "
    "pandas first, and so numpy",
}
WORKAROUNDS = """\
Until then, one of
  import numpy before the extension: no cost, but every program has to do it
  MKL_THREADING_LAYER=TBB set before the program starts: keeps MKL's threads; it did not hang
  MKL_THREADING_LAYER=SEQUENTIAL or MKL_NUM_THREADS=1 set before the program starts:
    costs all of MKL's threads for the life of the process"""
GATE_TEXT = {
    "ungated": "the import multiplies matrices",
    "gated": "the import multiplies matrices on macOS alone",
    "absent": "the import multiplies no matrices",
}
AFFECTED, LATENT, FIXED, UNKNOWN = VERDICTS = "AFFECTED", "LATENT", "FIXED", "UNKNOWN"
# releases that have a patched build of this project
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
# sha256 of the files of heal_numpy.py's second way: they gate the check when Python starts
STARTUP_FILES = {
    "_numpy_31284.py": "d69a3f7f72dfd24b174813cdd45a415f960646ec78f015a91ab1da7e376f6ad0",
    "_numpy_31284.pth": "30f2cb94b5cbd0d273c9ec8db06c7123e5cd8976f5ab36d2996b755b5d839f90",
}
# releases that define the check, gated or not
RELEASES_WITH_CHECK = r"(2\.3\.5|2\.4\.\d+|2\.5\.\d+)(?!\d)"
# what the released texts have after the check: a text that ends before it was cut off
AFTER_THE_CHECK = (b"hugepage_setup", b"_pyinstaller_hooks_dir")
# parts of the names of libraries and of the build strings of conda's libblas
BLAS_NAMES = ("mkl", "openblas", "blis", "accelerate", "netlib", "atlas", "nvpl", "armpl")
# a folder with one of these is a prefix: of conda or pixi; of venv
PREFIX_MARKERS = ("conda-meta", "pyvenv.cfg")
# where a prefix has its folders of packages: LIBRARY/PYTHON*/PACKAGES, or LIBRARY/PACKAGES
LIBRARY_FOLDERS = ("lib", "lib64", "Lib", "local/lib")
PYTHON_FOLDERS = ("python3", "pypy3")
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
SITE_PATH = re.compile(
    r"(?P<prefix>.*?)/([Ll]ib(64)?|local/lib)(/(?P<python>(python|pypy)3[^/]*))?"
    r"/(site|dist)-packages$"
)
# where numpy 2 has its extension, and numpy 1
EXTENSION_FOLDERS = ("_core", "core")
EXTENSION = "_multiarray_umath."
# copies of the past that a file server or a file system keeps
SNAPSHOT_FOLDERS = (".snapshot", ".snapshots", ".zfs")
# written into the root of a cache by the tools that follow the convention
CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
# file systems in which the kernel shows itself
KERNEL_FILE_SYSTEMS = ("proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs")
# what may stand after the last dot in the name of a program
PROGRAM_SUFFIX = re.compile(r"[.](\d[^.]*|app|bin|elf|linux|out|run|x86_64|aarch64)$")
# how PyInstaller marks the end of the archive in a program that is one file
FROZEN_COOKIE, FROZEN_COOKIE_SIZE = b"MEI\014\013\012\013\016", 88
MIN_FROZEN = 1 << 20  # bytes; such a program has a whole Python inside
MAX_BYTES = 1 << 24  # of a record in conda-meta
MAX_SOURCE = 1 << 18  # of numpy/__init__.py; the released ones have 27 kB
MAX_BYTECODE = 1 << 20
MAX_SMALL = 1 << 16  # of activation scripts, pyvenv.cfg, .pth and the like
MAX_SEGMENTS = 128  # of an ELF file
MAX_DYNAMIC = 1 << 16  # bytes of an ELF file's dynamic segment
MAX_LINKS = 40  # from link to link, as the kernel has it
MAX_STEPS = 200000  # of the walk through a syntax tree
CHILD_SECONDS, CHILD_BYTES = 20, 1 << 30
FLUSH_SECONDS = 0.5
SETTINGS = ("MKL_THREADING_LAYER", "MKL_NUM_THREADS")
# raised when a file is something else than it should be
BROKEN = (
    SyntaxError,
    ValueError,
    AttributeError,
    TypeError,
    IndexError,
    KeyError,
    RecursionError,
    MemoryError,
    OverflowError,
    struct.error,
)


# --- the gate: what importing numpy/__init__.py runs, read from its syntax tree

CHECK = "blas_fpe_check"
# names that stand for a matrix product: matmul, dot, and the check when it is defined elsewhere
_PRODUCTS = {"matmul", "dot", CHECK}
# multiplies two elements, in every release: starts no thread
_HARMLESS = "_sanity_check"
_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
}
_TEXT_METHODS = ("startswith", "endswith", "lower", "upper", "casefold", "strip", "get")
# what is true of each import of an installed numpy
_KNOWN_VALUES = {
    "__NUMPY_SETUP__": False,
    "TYPE_CHECKING": False,
    "__debug__": True,
    "__name__": "numpy",
}
_GOES_ON, _BREAKS, _RAISES, _RETURNS = "", "break", "raise", "return"
_UNDECIDED = object()

# state: "ungated", "gated", "absent" or "undecided"; line: where the product is, or the doubt
Gate = collections.namedtuple("Gate", "state line defines_check")


def gate(source) -> str:
    """Whether the import runs a matrix product.

    Returns "ungated" (it does, on Linux), "gated" (on macOS alone) or "absent" (nowhere). What the
    text does not decide counts as "ungated"; `decide_gate` tells the two apart.

    source : the text of numpy/__init__.py, str or bytes. Raises SyntaxError.
    """
    state = decide_gate(source).state
    if state == "undecided":
        return "ungated"
    return state


def decide_gate(source) -> Gate:
    """What the import runs, as a Gate; its state is "undecided" where the text does not tell.

    source : the text of numpy/__init__.py, str or bytes. Raises SyntaxError.
    """
    tree = ast.parse(source)
    defines_check = any(
        isinstance(node, ast.FunctionDef) and node.name == CHECK for node in ast.walk(tree)
    )
    linux = _Import(tree, "linux", "Linux", "linux-x86_64", "")
    if linux.product:
        return Gate("ungated", linux.product, defines_check)
    if linux.doubt:
        return Gate("undecided", linux.doubt, defines_check)
    darwin = _Import(tree, "darwin", "Darwin", "macosx-14.0-arm64", "14.0")
    line = darwin.product or darwin.doubt
    if line:
        return Gate("gated", line, defines_check)
    return Gate("absent", 0, defines_check)


class _Dotted(str):
    """The dotted path of a module, a function or a value that is not known."""


class _Import(ast.NodeVisitor):
    """Walks the statements that an import runs on one system.

    product : line of a matrix product that is run, 0 for none
    doubt : line of the condition that decides whether a product is run, 0 for none

    A visit of a statement returns how it ends: empty if the next statement is run.
    """

    def __init__(self, tree, platform_name: str, system: str, target: str, mac_version: str):
        self.facts = {
            "sys.platform": platform_name,
            "platform.system()": system,
            "os.uname().sysname": system,
            "platform.uname().system": system,
            "os.name": "posix",
            "sysconfig.get_platform()": target,
            "platform.mac_ver()": (mac_version, ("", "", ""), ""),
        }
        self.values = dict(_KNOWN_VALUES)
        self.functions = {}  # name: [(body, names of parameters)]
        self.methods = {}  # the same, of classes
        self.products = set(_PRODUCTS)
        self.running = []
        self.product = self.doubt = self.condition = self.steps = 0
        # what a function may rebind from afar is never known
        self.unsure = {
            name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Global, ast.Nonlocal))
            for name in node.names
        }
        self.run(tree.body)

    def visit(self, node):
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ValueError("the statements are too many to follow")
        return super().visit(node) or _GOES_ON

    def run(self, body) -> str:
        for statement in body:
            end = self.visit(statement)
            if end:
                return end
        return _GOES_ON

    def found(self, node) -> None:
        """Note a matrix product; `condition` is the line of the test that it hangs on."""
        if not self.condition:
            self.product = self.product or node.lineno
        else:
            self.doubt = self.doubt or self.condition

    @contextlib.contextmanager
    def perhaps(self, line: int):
        """What is visited inside may or may not be run."""
        before, self.condition = self.condition, self.condition or line
        yield
        self.condition = before

    def run_one_of(self, line: int, bodies) -> str:
        """Visit bodies when it is not known which one is run."""
        before, after, ends = self.values, [], []
        for body in bodies:
            self.values = dict(before)
            with self.perhaps(line):
                ends.append(self.run(body))
            if not ends[-1]:
                after.append(self.values)
        self.values = _common(after or [before])
        if all(ends):
            return min(ends, key=(_BREAKS, _RETURNS, _RAISES).index)
        if _RETURNS in ends or _BREAKS in ends:
            # the rest of the function is run only if the other branch was taken
            self.condition = self.condition or line
        return _GOES_ON

    # conditions

    def visit_If(self, node):
        self.visit(node.test)
        truth = self.truth(node.test)
        if truth is None:
            return self.run_one_of(node.test.lineno, [node.body, node.orelse])
        if truth:
            return self.run(node.body)
        return self.run(node.orelse)

    def visit_IfExp(self, node):
        self.visit(node.test)
        truth = self.truth(node.test)
        if truth is None:
            with self.perhaps(node.test.lineno):
                self.visit(node.body)
                self.visit(node.orelse)
        elif truth:
            self.visit(node.body)
        else:
            self.visit(node.orelse)

    def visit_BoolOp(self, node):
        before, decisive = self.condition, isinstance(node.op, ast.Or)
        for value in node.values:
            self.visit(value)
            truth = self.truth(value)
            if truth is decisive:
                break
            if truth is None:
                self.condition = self.condition or value.lineno
        self.condition = before

    def visit_Match(self, node):
        self.visit(node.subject)
        return self.run_one_of(node.lineno, [case.body for case in node.cases] + [[]])

    def visit_Assert(self, node):
        self.generic_visit(node)
        return _RAISES if self.truth(node.test) is False else _GOES_ON

    # statements that hold others

    def visit_Try(self, node):
        before = dict(self.values)
        ends = [self.run(node.body + node.orelse)]
        after = [self.values]
        for handler in node.handlers:
            self.values = dict(before)
            if ends[0] == _RAISES:
                ends.append(self.run(handler.body))
            else:
                with self.perhaps(handler.lineno):
                    ends.append(self.run(handler.body))
            after.append(self.values)
        self.values = _common(after)
        end = self.run(node.finalbody)
        if end or all(ends):
            return end or ends[0]
        if ends[0] in (_RETURNS, _BREAKS):
            self.condition = self.condition or node.lineno
        return _GOES_ON

    visit_TryStar = visit_Try

    def visit_With(self, node):
        for item in node.items:
            self.visit(item.context_expr)
            self.forget(item.optional_vars)
        end = self.run(node.body)
        if end == _RAISES:
            # the context manager may swallow the exception
            self.condition = self.condition or node.lineno
            return _GOES_ON
        return end

    def visit_For(self, node):
        self.visit(node.iter)
        items = self.evaluate(node.iter)
        if isinstance(items, (tuple, str, dict)) and not isinstance(items, _Dotted) and not items:
            return self.run(node.orelse)
        self.forget(node)
        return self.loop(node)

    def visit_While(self, node):
        self.forget(node)
        self.visit(node.test)
        truth = self.truth(node.test)
        if truth is False:
            return self.run(node.orelse)
        if truth:
            return self.loop(node)
        with self.perhaps(node.lineno):
            return self.loop(node)

    def loop(self, node) -> str:
        before = self.condition
        end = self.run(node.body)
        if end in (_RETURNS, _RAISES):
            return end
        self.condition = before
        if any(isinstance(inner, ast.Return) for inner in ast.walk(node)):
            self.condition = self.condition or node.lineno
        return self.run(node.orelse)

    def visit_Return(self, node):
        self.generic_visit(node)
        return _RETURNS

    def visit_Raise(self, node):
        self.generic_visit(node)
        return _RAISES

    def visit_Break(self, node):
        return _BREAKS

    visit_Continue = visit_Break

    # definitions and calls

    def visit_FunctionDef(self, node):
        for expression in node.decorator_list + node.args.defaults:
            self.visit(expression)
        body = [] if node.name == _HARMLESS else node.body
        self.define(node.name, body, node.args)
        if node.decorator_list:
            self.run_perhaps(self.functions[node.name], node)

    def visit_AsyncFunctionDef(self, node):
        self.forget(node)

    def visit_Lambda(self, node):
        self.run_perhaps([([node.body], _parameters(node.args))], node)

    def define(self, name: str, body, arguments) -> None:
        function = (body, _parameters(arguments))
        if self.condition:
            self.functions.setdefault(name, []).append(function)
        else:
            self.functions[name] = [function]
        self.values[name] = _UNDECIDED

    def visit_ClassDef(self, node):
        for expression in node.decorator_list + node.bases:
            self.visit(expression)
        outer, self.functions = self.functions, dict(self.functions)
        values, self.values = self.values, dict(self.values)
        self.run(node.body)
        for name, functions in self.functions.items():
            if outer.get(name) is not functions:
                self.methods.setdefault(name, []).extend(functions)
        constructor = self.functions.get("__init__")
        self.functions, self.values = outer, values
        self.values[node.name] = _UNDECIDED
        if constructor:
            self.functions[node.name] = constructor

    def call(self, functions, node) -> None:
        """Run the bodies that a name stands for."""
        if len(functions) > 1:
            self.run_perhaps(functions, node)
            return
        for body, parameters in functions:
            if any(body is running for running in self.running):
                continue
            condition, values = self.condition, self.values
            self.values = dict(values)
            self.values.update((name, _UNDECIDED) for name in parameters)
            for statement in body:
                self.forget(statement)
            self.running.append(body)
            self.run(body)
            self.running.pop()
            self.condition, self.values = condition, values

    def run_perhaps(self, functions, node) -> None:
        """A function is handed on, so it may be called."""
        with self.perhaps(node.lineno):
            for function in list(functions):
                self.call([function], node)

    def visit_Call(self, node):
        for argument in node.args + node.keywords:
            self.visit(argument)
        function = node.func
        if isinstance(function, ast.Name):
            self.call_name(function.id, node)
        elif isinstance(function, ast.Lambda):
            self.call([([function.body], _parameters(function.args))], node)
        elif isinstance(function, ast.Attribute):
            self.visit(function.value)
            if function.attr in self.products:
                self.found(node)
            self.run_perhaps(self.methods.get(function.attr, ()), node)
        else:
            self.visit(function)

    def call_name(self, name: str, node) -> None:
        if name in self.functions:
            self.call(self.functions[name], node)
        elif name in self.products:
            self.found(node)
        elif name in ("exec", "eval"):
            self.run_text(node)

    def run_text(self, node) -> None:
        text = self.evaluate(node.args[0]) if node.args else _UNDECIDED
        if isinstance(text, str) and not isinstance(text, _Dotted):
            try:
                body = ast.parse(text).body
            except BROKEN:
                return
            for inner in [each for statement in body for each in ast.walk(statement)]:
                inner.lineno = node.lineno
            self.run(body)
        else:
            with self.perhaps(node.lineno):
                self.found(node)

    def visit_Name(self, node):
        """What is named may be called later, under another name or by what it is handed to."""
        if isinstance(node.ctx, ast.Load):
            self.run_perhaps(self.functions.get(node.id, ()), node)
            if node.id in self.products and node.id not in self.functions:
                with self.perhaps(node.lineno):
                    self.found(node)

    def visit_Attribute(self, node):
        self.visit(node.value)
        if isinstance(node.ctx, ast.Load):
            self.run_perhaps(self.methods.get(node.attr, ()), node)
            if node.attr in self.products:
                with self.perhaps(node.lineno):
                    self.found(node)

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.MatMult):
            self.found(node)

    def visit_AugAssign(self, node):
        self.visit_BinOp(node)
        self.forget(node.target)

    # names and their values

    def visit_Assign(self, node):
        value, names = node.value, [each.id for each in node.targets if isinstance(each, ast.Name)]
        if isinstance(value, ast.Lambda) and names:
            for name in names:
                self.define(name, [value.body], value.args)
            return
        if isinstance(value, ast.Name) and value.id in self.functions and names:
            for name in names:
                self.functions[name] = self.functions[value.id]
            return
        if isinstance(value, ast.Name) and value.id in self.products and names:
            self.products.update(names)
            return
        self.visit(value)
        result = self.evaluate(value)
        for target in node.targets:
            self.forget(target)
        for name in names:
            self.assign(name, result)

    def visit_AnnAssign(self, node):
        if node.value is not None:
            assignment = ast.Assign(targets=[node.target], value=node.value)
            self.visit_Assign(ast.copy_location(assignment, node))

    def visit_NamedExpr(self, node):
        self.visit(node.value)
        self.assign(node.target.id, self.evaluate(node.value))

    def visit_Delete(self, node):
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.values.pop(target.id, None)

    def assign(self, name: str, value) -> None:
        if name in _KNOWN_VALUES:
            return
        if not self.condition:
            self.functions.pop(name, None)
        self.values[name] = _UNDECIDED if name in self.unsure else value

    def forget(self, node) -> None:
        """The names that a node binds are not known any more."""
        if node is None:
            return
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                if inner.id not in _KNOWN_VALUES:
                    self.values[inner.id] = _UNDECIDED
            elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                self.facts.pop(_Dotted("%s.%s" % (self.evaluate(inner.value), inner.attr)), None)

    def visit_Import(self, node):
        for alias in node.names:
            top = alias.name.split(".")[0]
            self.assign(alias.asname or top, _Dotted(alias.name if alias.asname else top))

    def visit_ImportFrom(self, node):
        for alias in node.names:
            name = alias.asname or alias.name
            if node.level == 0 and node.module in ("sys", "os", "platform", "sysconfig"):
                self.assign(name, self.look_up("%s.%s" % (node.module, alias.name)))
            elif alias.name in _PRODUCTS:
                self.products.add(name)
            else:
                self.assign(name, _UNDECIDED)

    def look_up(self, path: str):
        return self.facts.get(path, _Dotted(path))

    def truth(self, node):
        """Of a condition: True, False, or None if it is not known."""
        value = self.evaluate(node)
        if value is _UNDECIDED or isinstance(value, _Dotted):
            return None
        return bool(value)

    def evaluate(self, node):
        """The value of an expression, a _Dotted path, or _UNDECIDED."""
        method = getattr(self, "value_of_" + type(node).__name__, None)
        try:
            if method is None:
                return ast.literal_eval(node)
            return method(node)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            return _UNDECIDED

    def known(self, node):
        """The value of an expression. Raises ValueError if it is not known."""
        value = self.evaluate(node)
        if value is _UNDECIDED or isinstance(value, _Dotted):
            raise ValueError("not known")
        return value

    def value_of_Name(self, node):
        return self.values.get(node.id, _UNDECIDED)

    def value_of_Attribute(self, node):
        base = self.evaluate(node.value)
        if isinstance(base, _Dotted):
            return self.look_up("%s.%s" % (base, node.attr))
        return _UNDECIDED

    def value_of_Subscript(self, node):
        base, index = self.evaluate(node.value), node.slice
        if type(index).__name__ == "Index":  # until Python 3.8
            index = index.value
        if isinstance(base, _Dotted) and base.endswith("uname()") and self.known(index) == 0:
            return self.look_up(base + (".sysname" if base[:2] == "os" else ".system"))
        if isinstance(index, ast.Slice):
            ends = [each and self.known(each) for each in (index.lower, index.upper, index.step)]
            return self.known(node.value)[slice(*ends)]
        return self.known(node.value)[self.known(index)]

    def value_of_Compare(self, node):
        values = [self.known(each) for each in [node.left] + node.comparators]
        return all(
            _COMPARE[type(compare)](left, right)
            for compare, left, right in zip(node.ops, values, values[1:])
        )

    def value_of_BoolOp(self, node):
        decisive, truths = isinstance(node.op, ast.Or), [self.truth(each) for each in node.values]
        if decisive in truths:
            return decisive
        if None in truths:
            return _UNDECIDED
        return not decisive

    def value_of_UnaryOp(self, node):
        if isinstance(node.op, ast.Not):
            return not self.known(node.operand)
        return ast.literal_eval(node)

    def value_of_IfExp(self, node):
        return self.evaluate(node.body if self.known(node.test) else node.orelse)

    def value_of_NamedExpr(self, node):
        return self.evaluate(node.value)

    def value_of_Tuple(self, node):
        return tuple(self.known(each) for each in node.elts)

    value_of_List = value_of_Set = value_of_Tuple

    def value_of_Dict(self, node):
        return {self.known(key): self.known(value) for key, value in zip(node.keys, node.values)}

    def value_of_Call(self, node):
        function = node.func
        if node.keywords:
            return _UNDECIDED
        if isinstance(function, ast.Name) and function.id in self.functions:
            ((body, parameters),) = self.functions[function.id]
            if parameters:
                return _UNDECIDED
            return self.result_of(body)
        if isinstance(function, ast.Name) and function.id == "getattr":
            owner, attribute = self.evaluate(node.args[0]), self.known(node.args[1])
            return self.look_up("%s.%s" % (owner, attribute))
        if isinstance(function, ast.Name) and function.id == "bool":
            return bool(self.known(node.args[0]))
        if isinstance(function, ast.Name) and not node.args:
            return self.look_up(self.values[function.id] + "()")
        base = self.evaluate(function.value)
        if isinstance(base, _Dotted) and node.args:
            return _UNDECIDED
        if isinstance(base, _Dotted):
            return self.look_up("%s.%s()" % (base, function.attr))
        if function.attr in _TEXT_METHODS:
            return getattr(self.known(function.value), function.attr)(*map(self.known, node.args))
        return _UNDECIDED

    def result_of(self, body):
        """What a function returns that only tests and returns."""
        for statement in body:
            if isinstance(statement, ast.expr):  # a lambda's body
                return self.evaluate(statement)
            if isinstance(statement, ast.Return):
                return self.evaluate(statement.value)
            if isinstance(statement, ast.If):
                chosen = statement.body if self.known(statement.test) else statement.orelse
                if chosen:
                    return self.result_of(chosen)
            elif not isinstance(statement, ast.Expr):
                return _UNDECIDED
        return _UNDECIDED


def _parameters(arguments):
    """The names of a function's parameters."""
    return [inner.arg for inner in ast.walk(arguments) if isinstance(inner, ast.arg)]


def _common(values):
    """What several sets of values agree on."""
    first = values[0]
    result = {}
    for name in set().union(*values):
        same = all(name in each and each[name] is first.get(name) for each in values)
        equal = same or all(name in each and each[name] == first.get(name) for each in values)
        result[name] = _UNDECIDED
        if equal:
            result[name] = first[name]
    return result


# --- files, on a host that changes meanwhile


class Survey:
    """What a run looked at, left out and could not read: counts, and one call of `say` for each.

    say : called with (kind, path, text); kind is "left out", "unreadable", "broken" or "note"
    """

    COUNTS = ("folders", "prefixes", "numpys", "left_out", "unreadable", "caches", "excluded")

    def __init__(self, say=lambda kind, path, text: None):
        self.say = say
        self.counts = {name: 0 for name in self.COUNTS}

    def count(self, name: str) -> None:
        self.counts[name] += 1

    def left_out(self, path: str, why: str) -> None:
        """Something that may hold an environment was not looked at."""
        self.count("left_out")
        self.say("left out", path, why)

    def unreadable(self, path: str, why: str) -> None:
        self.count("unreadable")
        self.say("unreadable", path, why)

    def broken(self, path: str, why: str) -> None:
        self.say("broken", path, why)

    def note(self, path: str, text: str) -> None:
        self.say("note", path, text)

    @contextlib.contextmanager
    def reading(self, path: str):
        """What is missing counts as empty; what else goes wrong is said."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self.unreadable(path, error.strerror or str(error))
        except BROKEN as error:
            self.broken(path, "broken: %s" % (error or type(error).__name__))


def open_regular(path: str):
    """The stream of a regular file. Raises OSError.

    The file is looked at before it is opened: to open a pipe or a device has effects.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    stream = open(os.open(path, flags), "rb", buffering=0)
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise OSError("not a regular file")


def read(path: str, survey: Survey, limit: int = MAX_SMALL):
    """The bytes of a file, or None if it is missing, unreadable or larger than the limit."""
    with survey.reading(path), open_regular(path) as stream:
        data = stream.read(limit + 1)
        if len(data) <= limit:
            return data
        survey.broken(path, "larger than %d bytes: not read" % limit)
    return None


def list_names(folder: str, survey: Survey):
    """The names in a folder, in order; none if it is missing or unreadable."""
    with survey.reading(folder):
        return sorted(os.listdir(folder))
    return []


def run_limited(function, argument):
    """The result of a function, run in a child with limits. Raises ValueError if the child dies.

    A crafted file can crash Python's own parser; this costs the child and not the run.
    The result has to be JSON.
    """
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        try:
            os.close(read_end)
            _limit_this_process()
            os.write(write_end, json.dumps(function(argument)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as stream:
        result = stream.read()
    status = os.waitpid(child, 0)[1]
    if not result:
        raise ValueError("the child that parsed it ended with status %d" % status)
    return json.loads(result.decode())


def _limit_this_process() -> None:
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CHILD_SECONDS),
        (resource.RLIMIT_AS, CHILD_BYTES),
    ):
        hard = resource.getrlimit(limit)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(limit, (most, hard))


def elf_needed(path: str):
    """The sonames that a 64-bit ELF file needs. Raises OSError, ValueError or struct.error."""
    with open_regular(path) as stream:
        return _needed_names(stream.fileno())


def _needed_names(file: int):
    header = os.pread(file, 4096, 0)
    if header[:5] != b"\x7fELF\x02":
        raise ValueError("not a 64-bit ELF file")
    order = "<"
    if header[5] == 2:
        order = ">"
    (table,) = struct.unpack_from(order + "Q", header, 32)
    size, count = struct.unpack_from(order + "HH", header, 54)
    if size != 56 or count > MAX_SEGMENTS:
        raise ValueError("%d program headers of %d bytes" % (count, size))
    # kind, flags, offset, address, physical address, size in the file, in memory, alignment
    headers = os.pread(file, size * count, table)
    segments = list(struct.iter_unpack(order + "IIQQQQQQ", headers))
    tags = []
    for segment in segments:
        if segment[0] == 2:
            tags += _dynamic_tags(file, order, segment)
    # the table of strings is named by its address: it lies in a segment that is loaded
    strings, length = dict(tags).get(5, 0), dict(tags).get(10, 0)
    starts = [
        segment[2] + strings - segment[3]
        for segment in segments
        if segment[0] == 1 and segment[3] <= strings < segment[3] + segment[5]
    ]
    needed = [value for tag, value in tags if tag == 1]
    if not needed:
        return []
    if not starts or not 0 < length <= MAX_SOURCE or max(needed) >= length:
        raise ValueError("no table of strings where the dynamic segment says")
    text = os.pread(file, length, starts[0])
    return [text[at : text.index(b"\0", at)].decode("utf-8", "replace") for at in needed]


def _dynamic_tags(file: int, order: str, segment):
    offset, length = segment[2], segment[5]
    if length > MAX_DYNAMIC:
        raise ValueError("a dynamic segment of %d bytes" % length)
    data = os.pread(file, length - length % 16, offset)
    tags = []
    for tag, value in struct.iter_unpack(order + "QQ", data):
        if tag == 0:
            return tags
        tags.append((tag, value))
    raise ValueError("a dynamic segment without an end")


# --- bytecode: what Python runs without looking at the source

# words of which a gate is made, in the source and among the names and constants of bytecode
GATE_WORDS = frozenset("platform darwin Darwin linux Linux system uname sysname".split())
MAX_DEPTH = 100
Code = collections.namedtuple("Code", "name names constants")


def read_code(data: bytes) -> Code:
    """The code object in bytecode of CPython 3.11 or later, read without running any of it.

    data : what follows the header of a .pyc file. Raises ValueError, IndexError or struct.error.
    """
    reader = _Marshal(data)
    code = reader.value(0)
    if not isinstance(code, Code):
        raise ValueError("no code object")
    return code


class _Marshal:
    """Reads the format of CPython's `marshal`."""

    CONSTANTS = {
        b"N": None,
        b"F": False,
        b"T": True,
        b"S": StopIteration,
        b".": Ellipsis,
        b"0": None,
    }
    SIZES = {b"i": 4, b"g": 8, b"y": 16}

    def __init__(self, data: bytes):
        self.data, self.at, self.references = data, 0, []

    def take(self, size: int) -> bytes:
        piece = self.data[self.at : self.at + size]
        if size < 0 or len(piece) != size:
            raise ValueError("the bytecode is cut off")
        self.at += size
        return piece

    def number(self, size: int = 4) -> int:
        return int.from_bytes(self.take(size), "little", signed=size > 1)

    def value(self, depth: int):
        if depth > MAX_DEPTH:
            raise ValueError("the constants are nested too deep")
        first = self.take(1)[0]
        kind, place = bytes([first & 127]), None
        if first & 128:
            # a container takes its number before what it holds
            place = len(self.references)
            self.references.append(None)
        result = self.value_of(kind, depth + 1)
        if place is not None:
            self.references[place] = result
        return result

    def value_of(self, kind: bytes, depth: int):
        if kind in self.CONSTANTS:
            return self.CONSTANTS[kind]
        if kind in self.SIZES:
            return self.take(self.SIZES[kind])
        if kind == b"l":
            return self.take(2 * abs(self.number()))
        if kind == b"r":
            return self.references[self.number()]
        if kind == b"c":
            return self.code(depth)
        if kind in b"saAtuzZ":
            return self.text(kind)
        return self.values(kind, depth)

    def values(self, kind: bytes, depth: int):
        if kind == b":":
            size = 3
        elif kind == b")":
            size = self.number(1)
        elif kind in b"(<>[":
            size = self.number()
        else:
            raise ValueError("a constant of the unknown kind %r" % kind)
        return tuple(self.value(depth) for _ in range(size))

    def text(self, kind: bytes):
        piece = self.take(self.number(1 if kind in b"zZ" else 4))
        if kind == b"s":
            return piece
        return piece.decode("utf-8", "replace")

    def code(self, depth: int) -> Code:
        self.take(20)  # numbers of arguments, size of the stack, flags
        self.value(depth)  # the instructions
        constants, names = self.value(depth), self.value(depth)
        for _ in range(3):  # local variables, their kinds, the name of the source
            self.value(depth)
        name = self.value(depth)
        self.value(depth)  # the qualified name
        self.take(4)
        for _ in range(2):  # the tables of lines and of exceptions
            self.value(depth)
        return Code(name, names, constants)


def words_in_code(code: Code):
    """The gate words of the check in a module's code, or None if it has no check."""
    functions = [each for each in code.constants if isinstance(each, Code) and each.name == CHECK]
    if not functions:
        return None
    words, todo = set(), list(functions)
    while todo:
        each = todo.pop()
        if isinstance(each, Code):
            todo += [each.names, each.constants]
        elif isinstance(each, tuple):
            todo += each
        elif isinstance(each, str):
            words.add(each)
    return words & GATE_WORDS


def words_in_source(source: bytes):
    """The gate words of the check in a source, or None if it defines none. Raises SyntaxError."""
    words = None
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and function.name == CHECK:
            words = words or set()
            for node in ast.walk(function):
                words.update(str(value) for _, value in ast.iter_fields(node))
    return words and words & GATE_WORDS


def same_code(data: bytes, source: bytes, level: int) -> bool:
    """Whether bytecode is what this Python makes of a source: for `run_limited`."""
    import marshal

    code = marshal.loads(data)
    return code == compile(source, code.co_filename, "exec", dont_inherit=True, optimize=level)


def bytecode_gate(data: bytes, source: bytes, optimisation: int):
    """What bytecode runs: None if the same as its source, else (state, reason).

    data : the whole .pyc file
    optimisation : level of `python -O`, 0 for none
    """
    if CHECK.encode() not in data:
        return None
    try:
        found, expected = words_in_code(read_code(data[16:])), words_in_source(source)
        if found is None or (found and found == expected):
            return None
        if data[:4] == MAGIC_NUMBER and run_limited(
            lambda level: same_code(data[16:], source, level), optimisation
        ):
            return None
    except BROKEN as error:
        return None, "cannot be read: %s" % error
    if not found and (expected or expected is None):
        return "ungated", "still multiplies matrices"
    if data[:4] != MAGIC_NUMBER:
        return None, "cannot be compared with its source here: run the audit by the same Python"
    return None, "is of another text than numpy/__init__.py"


# --- where environments are

# kind: "prefix" (of conda, pixi or venv), "packages" (site-packages), "folder" (with a numpy) or
# "program" (one file, with a numpy inside)
Place = collections.namedtuple("Place", "kind path")
_Folder = collections.namedtuple("_Folder", "path names folders links programs")


def expand(pattern: str, survey: Survey):
    """The folders that a pattern names. What may not be read on the way is unreadable."""
    found = [pattern] if os.path.isdir(pattern) else []
    if not found:
        found = ["/" if pattern.startswith("/") else "."]
        for part in pattern.split("/"):
            found = [path for base in found for path in _matches(base, part, survey)]
    return [os.path.abspath(path) for path in found if _is_folder(path, survey)]


def _matches(base: str, part: str, survey: Survey):
    if not re.search(r"[*?[]", part):
        return [os.path.join(base, part)]
    if not _is_folder(base, survey):
        return []
    hidden = part.startswith(".")
    return [
        os.path.join(base, name)
        for name in list_names(base, survey)
        if fnmatch.fnmatchcase(name, part) and (hidden or not name.startswith("."))
    ]


def _is_folder(path: str, survey: Survey) -> bool:
    with survey.reading(path):
        return stat.S_ISDIR(os.stat(path).st_mode)
    return False


def find_places(roots, survey: Survey, excluded=()):
    """Yield each Place below some folders, once each by device and inode.

    Symbolic links are followed after all else, so that a place is named by its own path.
    roots : absolute paths
    excluded : patterns of names or paths that hold no environment, as the caller says
    """
    seen, above, kernel = set(), _folders_above(roots), _kernel_devices()
    todo, links = list(reversed(roots)), []
    while todo or links:
        if todo:
            path = todo.pop()
        else:
            path = links.pop()
            if _leads_above(path, above, survey):
                continue
        folder = _scan(path, seen, kernel, survey)
        if folder is None or _is_cache(folder, survey):
            continue
        survey.count("folders")
        for program in folder.programs:
            if holds_numpy(program, survey):
                yield Place("program", program)
        kind = _kind_of(folder, survey)
        if kind:
            yield Place(kind, path)
        todo += _below(folder, folder.folders, kind, survey, excluded)
        links += _below(folder, folder.links, kind, survey, excluded)
        if kind:
            links += _named_by_files(folder, kind, survey)


def find_places_quickly(roots, survey: Survey, excluded=()):
    """Yield the prefixes of the known layout: the roots, their folders, and those in `envs`."""
    seen, kernel = set(), _kernel_devices()
    for root in roots:
        folder = _scan(root, seen, kernel, survey)
        if folder is None:
            continue
        todo = _below(folder, folder.folders + folder.links, "", survey, excluded)
        if _is_prefix(folder.names):
            yield Place("prefix", root)
            todo = [os.path.join(root, "envs")] if "envs" in folder.names else []
        for path in reversed(todo):
            yield from _quick_places(path, seen, survey)


def _quick_places(path: str, seen, survey: Survey):
    status = None
    with survey.reading(path):
        status = os.stat(path)
    if status is None or (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    if _has_marker(path):
        survey.count("folders")
        yield Place("prefix", path)
        if _is_folder(os.path.join(path, "envs"), survey):
            yield from _quick_places(os.path.join(path, "envs"), seen, survey)
    elif os.path.basename(path) == "envs":
        for name in list_names(path, survey):
            if _is_folder(os.path.join(path, name), survey):
                yield from _quick_places(os.path.join(path, name), seen, survey)
    elif stat.S_ISDIR(status.st_mode):
        survey.left_out(path, "no prefix, and --quick looks no further")


def _folders_above(roots):
    """The real paths of all folders that hold one of the roots."""
    above = set()
    for root in roots:
        path = os.path.realpath(root)
        while path != os.path.dirname(path):
            path = os.path.dirname(path)
            above.add(path)
    return above


def _leads_above(link: str, above, survey: Survey) -> bool:
    if os.path.realpath(link) not in above:
        return False
    survey.left_out(link, "a link to a folder that holds the ones that were asked for")
    return True


def _kernel_devices():
    """The devices of the file systems in which the kernel shows itself.

    A chroot or a container has mounts of its own, which are other devices.
    """
    devices = set()
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", errors="replace") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            if rest.split(" ")[0] in KERNEL_FILE_SYSTEMS:
                major, minor = fields.split()[2].split(":")
                devices.add(os.makedev(int(major), int(minor)))
    return devices


def _scan(path: str, seen, kernel, survey: Survey):
    """What is in a folder; None if it was seen before, is the kernel's, or cannot be read."""
    try:
        status = os.stat(path)
        if status.st_dev in kernel:
            return None
        if (status.st_dev, status.st_ino) in seen:
            survey.note(path, "was looked at under another name")
            return None
        seen.add((status.st_dev, status.st_ino))
        names, folders, links, files = set(), [], [], []
        with os.scandir(path) as entries:
            for entry in entries:
                names.add(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_symlink():
                    links.append(entry.name)
                elif "." not in entry.name or PROGRAM_SUFFIX.search(entry.name):
                    files.append(entry)
        return _Folder(
            path, names, folders, links, [each.path for each in files if _is_program(each)]
        )
    except OSError as error:
        survey.unreadable(path, error.strerror or str(error))
    return None


def _is_program(entry) -> bool:
    """Whether a file may be a program with a Python and its packages inside."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    executable = stat.S_ISREG(status.st_mode) and status.st_mode & 0o111
    return bool(executable) and status.st_size > MIN_FROZEN


def holds_numpy(path: str, survey: Survey) -> bool:
    """Whether a program that PyInstaller made into one file has a numpy inside."""
    with survey.reading(path), open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        tail = os.pread(stream.fileno(), MAX_SMALL, max(0, size - MAX_SMALL))
        at = tail.rfind(FROZEN_COOKIE)
        if at < 0:
            return False
        # size of the archive, which ends with the cookie; where in it the names are, how many bytes
        whole, names, length = struct.unpack_from("!III", tail, at + len(FROZEN_COOKIE))
        end = size - len(tail) + at + FROZEN_COOKIE_SIZE
        table = os.pread(stream.fileno(), min(length, MAX_BYTES), max(0, end - whole + names))
        return EXTENSION.encode() in table
    return False


def _is_cache(folder: _Folder, survey: Survey) -> bool:
    """Whether a folder is an unpacked package, known by what is in it and never by its name."""
    names, path = folder.names, folder.path
    if _is_prefix(names):
        return False
    unpacked = "info" in names and _is_index(os.path.join(path, "info", "index.json"), survey)
    if not unpacked and "numpy" in names:
        # uv keeps unpacked wheels in CACHE/archive-v0/ID
        tag = os.path.join(path, os.pardir, os.pardir, "CACHEDIR.TAG")
        tagged = os.path.exists(tag) and (read(tag, survey) or b"").startswith(CACHE_TAG)
        unpacked = tagged and any(name.endswith(".dist-info") for name in names)
    # packages that were unpacked over each other are an environment without conda's records
    if not unpacked or ("bin" in names and _has_python_and_numpy(path, survey)):
        return False
    survey.count("caches")
    survey.note(path, "an unpacked package in a cache")
    return True


def _has_python_and_numpy(path: str, survey: Survey) -> bool:
    programs = list_names(os.path.join(path, "bin"), survey)
    return any(name.startswith(PYTHON_FOLDERS) for name in programs) and any(
        os.path.isdir(os.path.join(site, "numpy")) for site in _site_packages(path, survey)
    )


def _is_index(path: str, survey: Survey) -> bool:
    """Whether a file is the index of a package of conda."""
    try:
        index = json.loads((read(path, survey) or b"").decode("utf-8"))
        return {"name", "version", "build"} <= set(index)
    except BROKEN:
        return False


def _is_prefix(names) -> bool:
    return any(marker in names for marker in PREFIX_MARKERS)


def _has_marker(path: str) -> bool:
    return any(os.path.lexists(os.path.join(path, marker)) for marker in PREFIX_MARKERS)


def _kind_of(folder: _Folder, survey: Survey) -> str:
    """The kind of Place that a folder is; empty if it is none."""
    if _is_prefix(folder.names):
        return "prefix"
    if os.path.basename(folder.path) in PACKAGE_FOLDERS:
        return "packages"
    if "numpy" in folder.names and is_numpy(os.path.join(folder.path, "numpy"), survey):
        return "folder"
    return ""


def is_numpy(path: str, survey: Survey) -> bool:
    """Whether a folder called numpy is one, and no namesake and no folder of its licences."""
    names = list_names(path, survey)
    if "__init__.py" in names and "version.py" in names and "core" in names:
        return True
    return bool(_extensions(path, survey))


def _extensions(numpy: str, survey: Survey, python: str = ""):
    """The paths of numpy's extension: one, unless several Pythons share the folder.

    python : name of the folder of Python's library
    """
    usual = "%scpython-3%s-%s-linux-gnu.so" % (EXTENSION, python[8:], platform.machine())
    path = os.path.join(numpy, EXTENSION_FOLDERS[0], usual)
    if python.startswith("python3.") and os.path.exists(path):
        return [path]
    return [
        os.path.join(numpy, core, name)
        for core in EXTENSION_FOLDERS
        for name in list_names(os.path.join(numpy, core), survey)
        if name.startswith(EXTENSION) and name.endswith((".so", ".pyd"))
    ]


def _below(folder: _Folder, names, kind: str, survey: Survey, excluded):
    """The paths in a folder to look at next, the first one last."""
    if SITE_PATH.match(folder.path):
        return []  # packages; numpy's is audited
    if "os.py" in folder.names and "site.py" in folder.names:
        names = [name for name in names if name in PACKAGE_FOLDERS]  # Python's own library
    if "HEAD" in folder.names and "objects" in folder.names and "refs" in folder.names:
        # of git; a bare repository may have its working trees inside
        names = [name for name in names if name != "objects"]
    if kind:
        names = [name for name in names if name != "conda-meta"]
    if kind and "numpy" in names and is_numpy(os.path.join(folder.path, "numpy"), survey):
        names = [name for name in names if name != "numpy"]
    paths = [os.path.join(folder.path, name) for name in sorted(names, reverse=True)]
    return [path for path in paths if _is_wanted(path, excluded, survey)]


def _is_wanted(path: str, excluded, survey: Survey) -> bool:
    name = os.path.basename(path)
    excluded = [pattern.rstrip("/") for pattern in excluded]
    if any(pattern in (name, path) or fnmatch.fnmatchcase(path, pattern) for pattern in excluded):
        survey.count("excluded")
        survey.note(path, "excluded")
        return False
    if name in SNAPSHOT_FOLDERS:
        survey.left_out(path, "snapshots of a file system; give it as a FOLDER, or --exclude it")
        return False
    if os.path.islink(path):
        return _link_to_folder(path, survey)
    return True


def _link_to_folder(path: str, survey: Survey) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == ELOOP:
            survey.note(path, "a link that leads nowhere")
        else:
            survey.unreadable(path, error.strerror)
    return False


def _named_by_files(folder: _Folder, kind: str, survey: Survey):
    """Other folders that a Python imports from: by .pth files, and the base of a venv."""
    found = []
    if kind == "prefix" and "pyvenv.cfg" in folder.names:
        settings = venv_settings(folder.path, survey)
        base = os.path.dirname(settings.get("home", "").rstrip("/"))
        takes_from_base = settings.get("include-system-site-packages", "").lower() == "true"
        if takes_from_base and base.startswith("/"):
            found += [path for path in _site_packages(base, survey)]
    if kind == "packages":
        for name in sorted(folder.names):
            if name.endswith(".pth"):
                found += _paths_in_pth(os.path.join(folder.path, name), survey)
    return found


def _paths_in_pth(path: str, survey: Survey):
    """The folders with a numpy that a .pth file adds, by a line or by code on a line."""
    text = (read(path, survey) or b"").decode("utf-8-sig", "surrogateescape")
    named = []
    for line in text.splitlines():
        if line.startswith(("import ", "import\t")):
            named += re.findall(r"[\"'](/[^\"'\0]+)[\"']", line)
        elif line.strip() and "\0" not in line and not line.startswith("#"):
            named.append(line.strip())
    folders = [os.path.join(os.path.dirname(path), each) for each in named]
    return [each for each in folders if _is_folder(os.path.join(each, "numpy"), survey)]


def venv_settings(prefix: str, survey: Survey):
    """The settings in a prefix's pyvenv.cfg, keys in lower case."""
    text = (read(os.path.join(prefix, "pyvenv.cfg"), survey) or b"").decode("utf-8", "replace")
    pairs = [line.partition("=") for line in text.splitlines()]
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


# --- one prefix

# folder: the folder of packages; prefix: what it belongs to; names: what is in it
Site = collections.namedtuple("Site", "prefix folder names python")
# as in the name of a file in conda-meta
Record = collections.namedtuple("Record", "name version build")
_RECORDS = ("numpy-", "libblas-", "blas-") + tuple(name + "-" for name in IMPORTERS)


def audit(places, survey: Survey, full: bool = True):
    """Yield a row, which is a dict as --json prints it, for each numpy in some places.

    full : also tell the activation settings and all importers
    """
    seen = {}
    for place in places:
        if place.kind == "prefix":
            survey.count("prefixes")
        try:
            if place.kind == "program":
                survey.count("numpys")
                reason = "a frozen program in one file, which is not looked into"
                yield unknown_row(place.path, place.path, reason)
            elif full:
                yield from audit_place(place, survey, seen)
            else:
                yield from _audit_quickly(place, survey, seen)
        except Exception as error:
            # one bad prefix never costs another its row
            reason = "the audit failed here: %s: %s" % (type(error).__name__, error)
            yield unknown_row(place.path, place.path, reason)


def audit_place(place: Place, survey: Survey, seen, full: bool = True):
    """Yield the rows of one place.

    seen : {(device, inode) of a folder of packages: the prefixes that have its rows}
    """
    if not os.path.isdir(place.path):
        survey.unreadable(place.path, "gone meanwhile")
        return
    prefix, folders = find_sites(place, survey)
    records = conda_records(prefix, survey)
    rows = 0
    for folder in folders:
        if _was_audited(folder, prefix, place.kind, seen):
            rows += folder != place.path or "numpy" in os.listdir(folder)
            continue
        for row in site_rows(_site(prefix, folder, survey), records, survey, full):
            rows += 1
            survey.count("numpys")
            yield row
    if "numpy" in records and not rows:
        survey.count("numpys")
        row = unknown_row(prefix, prefix, "conda-meta has a record of numpy, which is not there")
        row.update(version=records["numpy"].version, build=records["numpy"].build)
        yield row


def _audit_quickly(place: Place, survey: Survey, seen):
    """Yield the rows of a prefix of conda whose numpy is where conda puts it; else all its rows."""
    records, found = conda_records(place.path, survey), False
    library = os.path.join(place.path, "lib")
    pythons = []
    if "numpy" in records:
        pythons = list_names(library, survey)
    for python in pythons:
        folder = os.path.join(library, python, "site-packages")
        numpy = os.path.join(folder, "numpy")
        if not python.startswith("python3.") or python == "python3.1" or not os.path.isdir(numpy):
            continue
        if not _was_audited(folder, place.path, place.kind, seen):
            found = True
            survey.count("numpys")
            yield numpy_row(Site(place.path, folder, (), python), records, survey, False)
    if not found:
        yield from audit_place(place, survey, seen, False)


def _was_audited(folder: str, prefix: str, kind: str, seen) -> bool:
    """Whether a folder of packages has its rows; two prefixes may share one by a link."""
    status = os.stat(folder)
    prefixes = seen.setdefault((status.st_dev, status.st_ino), set())
    if prefix in prefixes or (prefixes and kind != "prefix"):
        return True
    prefixes.add(prefix)
    return False


def find_sites(place: Place, survey: Survey):
    """The prefix that a place belongs to, and the folders there that may hold a numpy."""
    match = SITE_PATH.match(place.path)
    if place.kind == "prefix":
        return place.path, [place.path] + _site_packages(place.path, survey)
    if match:
        return match.group("prefix") or "/", [place.path]
    return place.path, [place.path]


def _site(prefix: str, folder: str, survey: Survey) -> Site:
    return Site(prefix, folder, list_names(folder, survey), _python_folder(folder))


def _python_folder(folder: str) -> str:
    """The name of the folder of Python's library that holds a folder of packages; or empty."""
    match = SITE_PATH.match(folder)
    if match and match.group("python"):
        return match.group("python")
    return ""


def conda_records(prefix: str, survey: Survey):
    """What conda-meta records of the packages of interest: {name: Record}."""
    records = {}
    folder = os.path.join(prefix, "conda-meta")
    with survey.reading(folder):
        # a prefix has hundreds of records, so that all but these have to be cheap
        for name in [name for name in os.listdir(folder) if name.startswith(_RECORDS)]:
            parts = name[: -len(".json")].rsplit("-", 2)
            if name.endswith(".json") and parts[0] + "-" in _RECORDS and len(parts) == 3:
                records[parts[0]] = Record(*parts)
    return records


def _site_packages(prefix: str, survey: Survey):
    """The folders of packages of a prefix, each once, by its own path rather than by a link."""
    found = {}
    for library in LIBRARY_FOLDERS:
        base = os.path.join(prefix, library)
        names = [name for name in list_names(base, survey) if name.startswith(PYTHON_FOLDERS)]
        for parent in [os.path.join(base, name) for name in names] + [base]:
            for path in [os.path.join(parent, name) for name in PACKAGE_FOLDERS]:
                with survey.reading(path):
                    status = os.stat(path)
                    if stat.S_ISDIR(status.st_mode):
                        found.setdefault((status.st_dev, status.st_ino), []).append(path)
    # conda's python3.1 is a link to python3.11, and a venv's lib64 may be one to its lib
    return [min(paths, key=_number_of_links) for paths in found.values()]


def _number_of_links(path: str) -> int:
    """How many of the last three folders of a path are symbolic links."""
    links = 0
    for _ in range(3):
        links += os.path.islink(path)
        path = os.path.dirname(path)
    return links


def site_rows(site: Site, records, survey: Survey, full: bool):
    """Yield the rows of one folder of packages."""
    if "numpy" in site.names and is_numpy_of_site(site, survey):
        yield numpy_row(site, records, survey, full)
        reason = _beside(site)
    else:
        reason = _beside(site) or _only_recorded(site)
    if reason:
        row = unknown_row(site.prefix, os.path.join(site.folder, "numpy"), reason)
        row["version"] = _recorded_version(site.names)
        yield row


def is_numpy_of_site(site: Site, survey: Survey) -> bool:
    """In a folder of packages everything called numpy is one; elsewhere it has to look so."""
    if SITE_PATH.match(site.folder) or os.path.basename(site.folder) in PACKAGE_FOLDERS:
        return True
    return is_numpy(os.path.join(site.folder, "numpy"), survey)


def _beside(site: Site) -> str:
    """Why a folder may import a numpy that is not in it; empty if it does not."""
    for name in site.names:
        low = name.lower()
        if low.startswith("numpy-") and low.endswith(".egg"):
            return "%s is an egg, which is not looked into" % name
        if low in ("_numpy_editable_loader.py", "numpy-editable.pth", "numpy.egg-link"):
            return "%s: an editable install, whose files are elsewhere" % name
        if low.startswith(("__editable__.numpy-", "__editable___numpy_")):
            return "%s: an editable install, whose files are elsewhere" % name
    return ""


def _only_recorded(site: Site) -> str:
    """Why a folder without a numpy may have had one; empty if it had none."""
    for name in site.names:
        if _is_numpy_record(name):
            return "%s is there and its numpy is not: an editable install, or half removed" % name
    return ""


def _is_numpy_record(name: str) -> bool:
    return name.startswith("numpy-") and name.endswith((".dist-info", ".egg-info"))


def _recorded_version(names) -> str:
    """The version by numpy's dist-info, egg-info or egg; empty if there is none."""
    for name in names:
        if _is_numpy_record(name) or (name.startswith("numpy-") and name.endswith(".egg")):
            return name.rsplit(".", 1)[0].split("-")[1]
    return ""


def unknown_row(prefix: str, numpy: str, reason: str):
    """A row for what could not be looked at."""
    return {
        "verdict": UNKNOWN,
        "prefix": prefix,
        "numpy": numpy,
        "owner": owner_of(prefix),
        "installer": "",
        "version": "",
        "build": "",
        "channel": "",
        "gate": None,
        "blas": None,
        "blas_by": "",
        "activation": {},
        "importers": [],
        "healed": False,
        "reason": reason,
    }


def owner_of(path: str) -> str:
    """The name of a path's owner, or the number if it has no name; empty if it is gone."""
    try:
        return user_name(os.stat(path).st_uid)
    except OSError:
        return ""


@functools.lru_cache(maxsize=None)
def user_name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def numpy_row(site: Site, records, survey: Survey, full: bool):
    """The row of a numpy that is there."""
    numpy = os.path.join(site.folder, "numpy")
    extensions = _extensions(numpy, survey, site.python)
    version = _version(numpy, site.names, survey)
    blas, by = _blas(extensions, site.prefix, records, survey)
    state, detail = gate_of_numpy(numpy, version, site.python, survey)
    unclear = state is None
    if state is not None:
        foreign = _foreign(extensions, state)
        unclear = bool(foreign)
        detail = foreign or ": ".join(filter(None, [GATE_TEXT[state], detail]))
    row = unknown_row(site.prefix, numpy, "%s; BLAS: %s" % (detail, by))
    record = _conda_record(site, records, version, by)
    row.update(gate=state, blas=blas, blas_by=by, version=version)
    if not unclear:
        row["verdict"] = _verdict(state, blas)
    row["importers"] = [
        name
        for name in sorted(IMPORTERS)
        if name in records or any(each.split("-")[0] == name for each in site.names)
    ]
    if record:
        row["version"], row["build"] = record.version, record.build
        row["channel"] = _channel(site.prefix, record, survey)
    row["installer"] = installer_of(site, row, survey)
    if state == "gated" and is_healed(site, row, survey):
        row["healed"] = True
        row["reason"] += "; healed in place by heal_numpy.py"
    if row["verdict"] in (AFFECTED, LATENT) and has_startup_file(site, survey):
        row.update(verdict=FIXED, healed=True)
        row["reason"] += "; the start-up file of heal_numpy.py gates it (python -S skips that file)"
    if full:
        row["activation"] = _activation(site.prefix, survey)
    return row


def is_healed(site: Site, row, survey: Survey) -> bool:
    """Whether heal_numpy.py noted that it mended this numpy, and no other one before it.

    row : with the version and the build of this numpy
    """
    for name in site.names:
        if name == "numpy-%s.dist-info" % row["version"]:
            if os.path.exists(os.path.join(site.folder, name, HEAL_NOTE + ".txt")):
                return True
    history = read(os.path.join(site.prefix, "conda-meta", "history"), survey, MAX_BYTES) or b""
    note = r"(?m)^(#|//) %s \S+ \S+ healed numpy(-base)?-%s-%s in place "
    words = HEAL_NOTE, re.escape(row["version"]), re.escape(row["build"])
    return re.search((note % words).encode("utf-8", "surrogateescape"), history) is not None


def has_startup_file(site: Site, survey: Survey) -> bool:
    """Whether the start-up file of heal_numpy.py gates the check of a released numpy."""
    if not os.path.lexists(os.path.join(site.folder, min(STARTUP_FILES))):
        return False
    if not starts_from(site.prefix, site.folder):
        return False
    source = read(os.path.join(site.folder, "numpy", "__init__.py"), survey, MAX_SOURCE)
    return _sha256(source) in PATCHED_TEXTS and all(
        _sha256(read(os.path.join(site.folder, name), survey)) == wanted
        for name, wanted in STARTUP_FILES.items()
    )


def starts_from(prefix: str, folder: str) -> bool:
    """Whether a Python reads the .pth files in a folder of packages when it starts.

    prefix : the one that the folder belongs to
    """
    if not _python_folder(folder):
        return False
    program = os.path.join(prefix, "bin", "python3")
    return _has_marker(prefix) or prefix.endswith("/.local") or os.path.lexists(program)


def _sha256(data) -> str:
    import hashlib  # costs 5 ms, and few hosts have such a file

    return hashlib.sha256(data or b"").hexdigest()


def _verdict(state: str, blas) -> str:
    if state != "ungated":
        return FIXED
    if blas is None:
        return UNKNOWN
    if blas == "mkl":
        return AFFECTED
    return LATENT


def _conda_record(site: Site, records, version: str, blas_by: str):
    """The record of conda's numpy, if that is the one which is there; else None."""
    record = records.get("numpy")
    if record is None or os.path.basename(site.folder) == "dist-packages":
        return None
    # a wheel over conda's numpy leaves the record as it was
    if (version and version != record.version) or "scipy_openblas" in blas_by:
        return None
    return record


def _foreign(extensions, state: str) -> str:
    """Why a numpy for another system cannot be judged; empty if it is for Linux."""
    if any(path.endswith(".pyd") for path in extensions) and state == "ungated":
        return "a numpy for Windows: only Linux's libraries are read"
    if any(path.endswith("darwin.so") for path in extensions) and state != "absent":
        return "a numpy for macOS: only Linux's libraries are read"
    return ""


def gate_of_numpy(numpy: str, version: str, python: str, survey: Survey):
    """(state, "") of a numpy, or (None, why it is not known)."""
    path = os.path.join(numpy, "__init__.py")
    source = read(path, survey, MAX_SOURCE)
    if source is None:
        return None, _no_source(path)
    state, reason = _gate_of_source(source, re.match(RELEASES_WITH_CHECK, version) is not None)
    if state == "absent" and not version:
        return None, "the version is not known, and numpy/__init__.py has no check"
    if state in ("gated", "absent"):
        for name in list_names(numpy, survey):
            if name.startswith("__init__.") and name.endswith(".so"):
                return None, "%s, which Python runs instead of numpy/__init__.py" % name
        return _gate_of_bytecode(path, source, python, survey) or (state, "")
    return state, reason


def _no_source(path: str) -> str:
    if os.path.exists(path + "c"):
        return "numpy/__init__.pyc without its source: a frozen program"
    if os.path.lexists(path):
        return "numpy/__init__.py is larger than %d bytes or cannot be read" % MAX_SOURCE
    return "there is no numpy/__init__.py: a frozen program, or half removed"


@functools.lru_cache(maxsize=None)
def _gate_of_source(source: bytes, has_check: bool):
    """(state, ""), or (None, why it is not known): once for each text, since prefixes share a few.

    has_check : whether the release is known to define the check
    """
    try:
        state, line, defines_check = run_limited(decide_gate, source)
    except BROKEN as error:
        what = "numpy/__init__.py is nothing that Python %s can parse: %s"
        return None, what % (platform.python_version(), error)
    if state == "undecided":
        text = source.splitlines()[line - 1].strip().decode("utf-8", "replace")
        what = "whether the import multiplies matrices depends on line %d of numpy/__init__.py: %s"
        return None, what % (line, text[:100])
    if state == "absent" and has_check:
        after = source[source.rfind(b"def " + CHECK.encode()) :]
        if not defines_check:
            return None, "this release has the check, and numpy/__init__.py does not define it"
        if not any(name in after for name in AFTER_THE_CHECK):
            return None, "numpy/__init__.py ends before the check is called"
    return state, ""


def _gate_of_bytecode(path: str, source: bytes, python: str, survey: Survey):
    """(state or None, reason) if Python runs bytecode that is not its source's; else None."""
    folder = os.path.join(os.path.dirname(path), "__pycache__")
    tag = python.replace("python", "cpython-").replace(".", "")
    for name in list_names(folder, survey):
        match = re.match(r"__init__\.([^.]+)(?:\.opt-([12]))?\.pyc$", name)
        if not match or (tag.startswith("cpython-3") and tag[9:] and match.group(1) != tag):
            continue
        data = read(os.path.join(folder, name), survey, MAX_BYTECODE)
        if data is None:
            return None, "__pycache__/%s cannot be read" % name
        found = _judge_bytecode(data, source, int(match.group(2) or 0))
        if found and _is_run(data, path, source):
            return found[0], "__pycache__/%s, which Python runs, %s" % (name, found[1])
    return None


@functools.lru_cache(maxsize=256)
def _judge_bytecode(data: bytes, source: bytes, optimisation: int):
    return bytecode_gate(data, source, optimisation)


_64_BITS = (1 << 64) - 1


def _is_run(data: bytes, path: str, source: bytes) -> bool:
    """Whether Python runs bytecode in the place of its source."""
    flags, date, size = struct.unpack_from("<III", data, 4)
    if flags & 1 and flags & 2:
        return data[8:16] == source_hash(int.from_bytes(data[:4], "little"), source)
    if flags & 1:
        return True
    status = os.stat(path)
    return (date, size) == (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)


@functools.lru_cache(maxsize=256)
def source_hash(key: int, data: bytes) -> bytes:
    """The hash of its source in checked bytecode of Python 3.11 and later: SipHash-1-3.

    key : the magic number of the bytecode
    """
    state = [
        key ^ 0x736F6D6570736575,
        0x646F72616E646F6D,
        key ^ 0x6C7967656E657261,
        0x7465646279746573,
    ]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        state[3] ^= word
        _mix(state)
        state[0] ^= word
    state[2] ^= 0xFF
    for _ in range(3):
        _mix(state)
    return struct.pack("<Q", state[0] ^ state[1] ^ state[2] ^ state[3])


def _mix(state) -> None:
    """One round of SipHash."""
    a, b, c, d = state
    a = (a + b) & _64_BITS
    b = _rotate(b, 13) ^ a
    c = (c + d) & _64_BITS
    d = _rotate(d, 16) ^ c
    a = (_rotate(a, 32) + d) & _64_BITS
    d = _rotate(d, 21) ^ a
    c = (c + b) & _64_BITS
    b = _rotate(b, 17) ^ c
    state[:] = a, b, _rotate(c, 32), d


def _rotate(word: int, by: int) -> int:
    return ((word << by) | (word >> (64 - by))) & _64_BITS


def _version(numpy: str, names, survey: Survey) -> str:
    """The version that numpy itself names, else the one in pip's record, else empty."""
    text = read(os.path.join(numpy, "version.py"), survey) or b""
    match = re.search(rb"^(?:version|short_version) = [\"']([^\"']+)", text, re.M)
    if match:
        return match.group(1).decode("utf-8", "replace")
    return _recorded_version(names)


_RECORD_HEAD = 4096  # bytes of a record, in which conda and pixi write the channel


def _channel(prefix: str, record: Record, survey: Survey) -> str:
    path = os.path.join(prefix, "conda-meta", "-".join(record) + ".json")
    # the record lists each file of the package: to read all of it would take the longest here
    data, end = b"", b""
    with survey.reading(path), open_regular(path) as stream:
        data = stream.read(_RECORD_HEAD)
        size = os.fstat(stream.fileno()).st_size
        end = os.pread(stream.fileno(), 64, max(0, size - 64))
        if b'"channel"' not in data:
            data += stream.read(MAX_BYTES)
    match = re.search(rb'"channel"\s*:\s*"([^"]*)"', data)
    if not match or not end.rstrip().endswith(b"}"):
        survey.broken(path, "no whole JSON object with a channel")
    if not match:
        return ""
    # without the subdir, and without names and tokens, which are secret
    url = re.sub("//[^/]*@", "//", match.group(1).decode("utf-8", "replace"))
    return re.sub("/((noarch|(linux|osx|win)-[^/]*)/*)?$", "", re.sub("/t/[^/]*", "", url))


def _blas(extensions, prefix: str, records, survey: Survey):
    """The BLAS and what says so; None and the reason where it is not known."""
    needed = _needed_by(extensions, survey)
    # the first name is MKL's: of several extensions that are there, the worst one counts
    for name in BLAS_NAMES:
        for soname in needed or ():
            if name in soname:
                return name, soname
    # conda-forge's numpy calls an interface, and libblas says what is behind it
    interfaces = [soname for soname in needed or () if "blas" in soname]
    if needed is not None and not interfaces:
        return "none", "its extension needs none"
    recorded, by = _recorded_blas(records)
    # what the loader opens is the file: a record may be older
    for soname in interfaces:
        target = _end_of_links(os.path.join(prefix, "lib", soname))
        for name in BLAS_NAMES:
            if name in target and name != recorded:
                return name, target
    if recorded:
        return recorded, by
    what = ", ".join(interfaces) or "no extension that could be read"
    return None, "%s, and no record of libblas" % what


def _recorded_blas(records):
    """The BLAS behind conda's interface by its record, and the record; None and "" without one."""
    for record in (records[name] for name in ("libblas", "blas") if name in records):
        if record.build.split("_")[-1] in BLAS_NAMES:
            return record.build.split("_")[-1], "-".join(record)
    return None, ""


def _end_of_links(path: str) -> str:
    """The name of the file that a library's links lead to; realpath would look at each folder."""
    for _ in range(MAX_LINKS):
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except OSError:
            break
    return os.path.basename(path)


def _needed_by(extensions, survey: Survey):
    """What numpy's extension needs; None where there is none to read."""
    needed = None
    for path in extensions:
        if not path.endswith((".pyd", "darwin.so")):
            with survey.reading(path):
                needed = (needed or []) + elf_needed(path)
    return needed


# --- what activation sets

_VALUE = r"""["']?(?:\$\{\w+:?[-=](\w*)\}|([\w$]+))"""
# of sh, xonsh and PowerShell; of csh and fish
_SETTINGS = [
    re.compile(pattern % ("|".join(SETTINGS), _VALUE), re.M)
    for pattern in (
        r"(?:^|[\s;&({$:])(%s)\s*=(?!=)\s*%s",
        r"(?:^|[\s;&])(?:setenv|set(?:\s+-\S+)+)\s+(%s)\s+%s",
    )
]
_DEFAULT = re.compile(r"\$\{(%s):?=(\w+)\}" % "|".join(SETTINGS))
_UNSET = re.compile(r"\b(?:unset|unsetenv|set\s+-\w*e\w*)\b[^\n;]*?\b(%s)\b" % "|".join(SETTINGS))


def _activation(prefix: str, survey: Survey):
    """What activating a prefix sets of the variables that keep MKL from hanging: {name: value}."""
    found = {}
    scripts = os.path.join(prefix, "etc", "conda", "activate.d")
    for name in list_names(scripts, survey):
        found.update(script_settings(read(os.path.join(scripts, name), survey) or b""))
    packages = os.path.join(prefix, "etc", "conda", "env_vars.d")
    files = [os.path.join(packages, name) for name in list_names(packages, survey)]
    for path in files:
        found.update(_json_settings(path, None, survey))
    found.update(_json_settings(os.path.join(prefix, "conda-meta", "state"), "env_vars", survey))
    # conda writes this for a variable that it shall take away
    return {name: value for name, value in found.items() if value != "***unset***"}


def script_settings(script: bytes):
    """What an activation script sets of SETTINGS: {name: value}."""
    found = {}
    for line in script.decode("utf-8", "replace").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line)
        for name in _UNSET.findall(line):
            found.pop(name, None)
        for pattern in _SETTINGS:
            for name, default, value in pattern.findall(_UNSET.sub("", line)):
                found[name] = default or value
        found.update(_DEFAULT.findall(line))
    return {name: value for name, value in found.items() if value}


def _json_settings(path: str, key, survey: Survey):
    """What a JSON file sets of SETTINGS; key is where in it, None for the top."""
    with survey.reading(path):
        data = json.loads((read(path, survey, MAX_BYTES) or b"{}").decode("utf-8"))
        variables = data.get(key, {}) if key else data
        return {name: str(variables[name]) for name in SETTINGS if name in variables}
    return {}


# --- what made an environment, and the command of that tool that mends it

_IMAGE_LAYER = re.compile(
    r"/(overlay2?|overlayfs|snapshots)/[^/]+/(diff|merged|fs)(/|$)"
    r"|/(docker|containers/storage)/(vfs/dir|btrfs/subvolumes|zfs/graph)/"
    r"|/io[.]containerd[.]snapshotter[.]v1[.][^/]+/"
)
# where Nix and Guix keep what they built; nobody may change it
STORE = re.compile(r"/(nix|gnu)/store/[^/]+")
_NEWER = "numpy>=2.4.5"
# files by which these tools mark their environments
INSTALLER_FILES = (
    ("pipx_metadata.json", "pipx"),
    ("uv-receipt.toml", "uv tool"),
    ("conda-meta/pixi", "pixi pypi"),
)


def installer_of(site: Site, row, survey: Survey) -> str:
    """What installed a numpy: a key of REMEDIES."""
    prefix = site.prefix
    if _IMAGE_LAYER.search(site.folder) or site.folder.startswith(_overlay_layers()):
        return "image"
    if row["build"]:
        return _conda_installer(prefix, row["channel"])
    if _in_store(site):
        return "store"
    recorded = _recorded_installer(site, survey)
    if recorded in ("rpm", "debian", "dpkg") or site.folder.endswith("lib/python3/dist-packages"):
        return "system"
    for name, installer in INSTALLER_FILES:
        if os.path.exists(os.path.join(prefix, name)):
            return installer
    if recorded == "poetry" or "/pypoetry/virtualenvs/" in prefix:
        return "poetry"
    if recorded == "uv" or "uv" in venv_settings(prefix, survey):
        return "uv"
    return _pip_installer(site)


def _pip_installer(site: Site) -> str:
    if site.prefix.endswith("/.local"):
        return "pip user"
    if not python_of(site):
        return "folder"
    if "pip" in site.names:
        return "pip"
    return "no pip"


@functools.lru_cache(maxsize=None)
def _overlay_layers():
    """The folders, each with a slash, that are lower layers of the overlays mounted here."""
    text = read("/proc/self/mounts", Survey(), MAX_BYTES) or b""
    return lower_layers(os.fsdecode(text))


def lower_layers(mounts: str):
    """The lower layers that the text of /proc/self/mounts names."""
    found = []
    for options in re.findall(r"^\S+ \S+ overlay (\S+)", mounts, re.M):
        for layers in re.findall(r"(?:^|,)lowerdir\+?=([^,]*)", options):
            found += re.split(r"(?<!\\):", layers)
    # the kernel writes special characters as \040
    decoded = [re.sub(r"\\([0-7]{3})", _character, each) for each in found]
    # a sandbox has all of this system as its lower layer: that makes no image of it
    return tuple(each.rstrip("/") + "/" for each in decoded if re.match("/+[^/]", each))


def _character(octal) -> str:
    return chr(int(octal.group(1), 8))


def _conda_installer(prefix: str, channel: str) -> str:
    home = os.path.dirname(os.path.dirname(prefix))
    if os.path.exists(os.path.join(home, "manifests", "pixi-global.toml")):
        return "pixi global"
    if os.path.exists(os.path.join(prefix, "conda-meta", "pixi")) or "/.pixi/envs/" in prefix:
        return "pixi"
    if os.path.exists(os.path.join(prefix, "bin", "conda-unpack")):
        return "conda-pack"
    if re.search(r"(^|/)(pkgs/\w+|defaults)$", channel):
        return "anaconda"
    return "conda"


def _recorded_installer(site: Site, survey: Survey) -> str:
    """The first word in the INSTALLER of numpy's dist-info, in lower case; empty if none."""
    for name in site.names:
        if _is_numpy_record(name):
            data = read(os.path.join(site.folder, name, "INSTALLER"), survey) or b""
            return (data.decode("utf-8", "replace").lower().split() or [""])[0]
    return ""


def python_of(site: Site) -> str:
    """The path of the Python that imports from a folder of packages; empty if it is not known."""
    folder, names = os.path.join(site.prefix, "bin"), [site.python]
    if _has_marker(site.prefix):
        names += ["python3", "python"]
    for name in names:
        path = os.path.join(folder, name)
        if name and os.path.lexists(path):
            return path
    return ""


def quote(text: str) -> str:
    """A word for a shell, in printable ASCII whatever bytes the text has."""
    if re.fullmatch("[ -~]*", text):
        return shlex.quote(text)
    special = {ord("'"): "\\'", ord("\\"): "\\\\"}
    return "$'%s'" % "".join(
        special.get(byte, chr(byte)) if 32 <= byte < 127 else "\\%03o" % byte
        for byte in os.fsencode(text)
    )


# wanted: what conda is asked for; channels: conda's options
class Repair(collections.namedtuple("Repair", "wanted channels site")):
    @property
    def python(self) -> str:
        """The path of the environment's Python."""
        return python_of(self.site)


def _conda(repair: Repair) -> str:
    return "conda install -p %s %s %s" % (quote(repair.site.prefix), repair.channels, repair.wanted)


def _conda_pack(repair: Repair) -> str:
    return "conda install -p SOURCE %s %s && conda pack -p SOURCE" % (
        repair.channels,
        repair.wanted,
    )


def _pixi(repair: Repair) -> str:
    workspace = _pixi_workspace(repair.site.prefix)
    channel = re.match(r"-c (\S+) -c ", repair.channels)
    add = ""
    if channel:
        add = "pixi workspace channel add --prepend %s && " % channel.group(1)
    return "cd %s && %spixi add %s" % (quote(workspace), add, repair.wanted)


def _pixi_pypi(repair: Repair) -> str:
    workspace = _pixi_workspace(repair.site.prefix)
    return "cd %s && pixi add --pypi '%s'" % (quote(workspace), _NEWER)


def _pixi_workspace(prefix: str) -> str:
    """The folder of the manifest that pixi wrote down in an environment."""
    data = read(os.path.join(prefix, "conda-meta", "pixi"), Survey()) or b""
    try:
        manifest = json.loads(data.decode("utf-8"))["manifest_path"]
        return os.path.dirname(manifest) or "WORKSPACE"
    except BROKEN:
        workspace, inside, _ = prefix.partition("/.pixi/envs/")
        return workspace if inside else "WORKSPACE"


def _pixi_global(repair: Repair) -> str:
    name = os.path.basename(repair.site.prefix)
    return "pixi global add -e %s '%s'" % (quote(name), _NEWER)


def _pip(repair: Repair) -> str:
    options = ""
    library = os.path.dirname(repair.site.folder)
    if os.path.exists(os.path.join(library, "EXTERNALLY-MANAGED")):
        options = "--break-system-packages "
    return "%s -m pip install %s'%s'" % (quote(repair.python), options, _NEWER)


def _pip_user(repair: Repair) -> str:
    return "%s -m pip install --user '%s'" % (repair.site.python or "python3", _NEWER)


def _pip_from_outside(repair: Repair) -> str:
    return "python3 -m pip --python %s install '%s'" % (quote(repair.python), _NEWER)


def _pip_target(repair: Repair) -> str:
    python = repair.site.python or "python3"
    for path in _extensions(os.path.join(repair.site.folder, "numpy"), Survey()):
        tag = re.search(r"\.cpython-3(\d+)", path)
        if tag and "." not in python:
            python = "python3." + tag.group(1)
    target = quote(repair.site.folder)
    return "%s -m pip install --upgrade --target %s '%s'" % (python, target, _NEWER)


def _uv(repair: Repair) -> str:
    project = os.path.dirname(repair.site.prefix)
    if os.path.exists(os.path.join(project, "uv.lock")):
        return "uv add --project %s '%s'" % (quote(project), _NEWER)
    python = repair.python or repair.site.prefix
    return "uv pip install --python %s '%s'" % (quote(python), _NEWER)


def _uv_tool(repair: Repair) -> str:
    name = os.path.basename(repair.site.prefix)
    return "uv tool install --with '%s' %s" % (_NEWER, quote(name))


def _pipx(repair: Repair) -> str:
    return "pipx runpip %s install '%s'" % (quote(os.path.basename(repair.site.prefix)), _NEWER)


def _poetry(repair: Repair) -> str:
    project = os.path.dirname(repair.site.prefix)
    if not os.path.exists(os.path.join(project, "pyproject.toml")):
        return "cd PROJECT && poetry add '%s'" % _NEWER
    return "cd %s && poetry add '%s'" % (quote(project), _NEWER)


def _system(repair: Repair) -> str:
    path = quote(os.path.join(repair.site.folder, "numpy", "__init__.py"))
    if repair.site.folder.endswith("dist-packages"):
        return "dpkg -S %s" % path
    return "rpm -qf %s" % path


def _store(repair: Repair) -> str:
    path = _in_store(repair.site)
    command = "nix-store --query --roots"
    if "/gnu/store/" in path:
        command = "guix gc --referrers"
    return "%s %s" % (command, quote(path))


def _in_store(site: Site) -> str:
    """The path in the store of Nix or Guix that holds a numpy; empty if it is elsewhere."""
    # profiles are folders of links into the store
    path = os.path.realpath(os.path.join(site.folder, "numpy", "__init__.py"))
    found = STORE.search(path)
    if found:
        return path[: found.end()]
    return ""


def _image(repair: Repair) -> str:
    return "build the image again with '%s'" % _NEWER


# installer: the function that makes its command, and what has to be said beside it
REMEDIES = {
    "conda": (_conda, ""),
    "anaconda": (
        _conda,
        "our builds need conda-forge's libblas, which Anaconda's channel has not. So the command "
        "adds conda-forge, and Anaconda's numpy-base, mkl_fft and mkl_random are removed",
    ),
    "conda-pack": (_conda_pack, "SOURCE is the environment that this one was packed from"),
    "pixi": (_pixi, ""),
    "pixi pypi": (_pixi_pypi, ""),
    "pixi global": (_pixi_global, ""),
    "pip": (_pip, ""),
    "pip user": (_pip_user, ""),
    "no pip": (_pip_from_outside, "the environment has no pip; any pip from 22.3 on can do it"),
    "folder": (_pip_target, ""),
    "uv": (_uv, ""),
    "uv tool": (_uv_tool, ""),
    "pipx": (_pipx, ""),
    "poetry": (_poetry, "PROJECT, if it is named, is the folder with the project's pyproject.toml"),
    "system": (
        _system,
        "the system's package manager owns this numpy: the command names the package, and the "
        "system's provider has to update it; pip would overwrite its files",
    ),
    "store": (
        _store,
        "nothing may change in the store of Nix or Guix: the command names what uses this numpy, "
        "which has to be built again with a patched or a newer one",
    ),
    "image": (_image, "a layer of an image or an overlay: a change here is lost or breaks it"),
}


# installers whose files heal_numpy.py refuses to change
OTHERS_OWN = ("system", "store", "image")


def remedies(row, channel: str):
    """The commands that mend a numpy, the quickest one first; and a note, which may be empty.

    channel : the one with the patched builds
    """
    folder = os.path.dirname(row["numpy"])
    python = _python_folder(folder)
    site = Site(row["prefix"], folder, (), python)
    theirs = row["channel"] or "conda-forge"
    channels = "-c %s" % quote(theirs)
    wanted = quote(_NEWER)
    if _has_patched_build(row, python):
        if row["installer"] == "anaconda":
            theirs = "conda-forge"
        channels = "-c %s -c %s" % (quote(channel), quote(theirs))
        wanted = quote("numpy=%s=%s*_1*" % (row["version"], row["blas"]))
    make, note = REMEDIES[row["installer"]]
    commands = [make(Repair(wanted, channels, site))]
    if re.fullmatch(PATCHED, row["version"]) and row["installer"] not in OTHERS_OWN:
        commands.insert(0, "python3 heal_numpy.py --apply %s" % quote(row["prefix"]))
    return commands, note


def _has_patched_build(row, python: str) -> bool:
    if python.endswith("t") or not re.fullmatch(PATCHED, row["version"]):
        return False
    return row["blas"] in ("mkl", "openblas")


# --- what is printed


def shown(value) -> str:
    """Text for any terminal: a name may hold what is no text, or what steers a terminal."""
    return re.sub(
        "[^ -~]", lambda match: match.group().encode("unicode_escape").decode(), str(value)
    )


HEADER = ("VERDICT", "NUMPY", "CHANNEL", "BLAS", "ACTIVATION SETS", "IMPORTERS", "PREFIX")


def table_lines(rows):
    """The rows as a table, the worst first."""
    lines = [HEADER]
    for row in sorted(rows, key=lambda row: (VERDICTS.index(row["verdict"]), row["numpy"])):
        activation = " ".join("%s=%s" % item for item in sorted(row["activation"].items()))
        cells = [
            row["verdict"],
            row["version"] + " " + row["build"],
            row["channel"].split("/")[-1],
            row["blas"],
            activation,
            " ".join(row["importers"]),
            row["prefix"],
        ]
        lines.append([shown(cell or "").strip() or "-" for cell in cells])
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()


def reason_lines(rows, verbose: bool):
    """Why each numpy is UNKNOWN, or all reasons; and what is known of the importers."""
    for row in rows:
        if row["verdict"] == UNKNOWN or verbose:
            yield shown("%s: %s" % (row["numpy"], row["reason"]))
    for name in sorted({name for row in rows for name in row["importers"]}):
        yield "%s imports numpy from a static constructor: %s" % (name, IMPORTERS[name])


def remedy_lines(rows):
    """What to do about the affected ones."""
    affected = [row for row in rows if row["verdict"] == AFFECTED]
    if not affected:
        return
    yield "\nTo fix it, one line of each (YOUR_CHANNEL has the patched builds; --channel names it;"
    yield "heal_numpy.py mends an environment in place and lies beside this file):"
    for row in sorted(affected, key=lambda row: row["prefix"]):
        for command in row["remedies"]:
            yield "  " + shown(command)
    for note in sorted({row["remedy_note"] for row in affected if row["remedy_note"]}):
        yield "Note: " + note
    yield WORKAROUNDS


def summary_line(end) -> str:
    """The last line of each run."""
    return (
        "Looked at: {folders} folders, {prefixes} prefixes, {numpys} numpys. "
        "Left out: {left_out}. Unreadable: {unreadable}. "
        "Holding no environment: {caches} cached packages, {excluded} excluded.".format(**end)
    )


def exit_code(counts, verdicts) -> int:
    """1 if something is AFFECTED, 2 if the audit is not complete, else 0."""
    if verdicts[AFFECTED]:
        return 1
    if verdicts[UNKNOWN] or counts["left_out"] or counts["unreadable"]:
        return 2
    return 0


class Printer:
    """Prints what a run finds: each thing at once as JSON, or all of it as a table at the end."""

    def __init__(self, as_json: bool, verbose: bool):
        self.as_json, self.verbose, self.rows = as_json, verbose, []
        self.verdicts, self.flushed = {verdict: 0 for verdict in VERDICTS}, 0.0
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.common = {"schema": JSON_SCHEMA, "date": date, "host": platform.node()}

    def print_json(self, kind: str, fields) -> None:
        line = dict(self.common, type=kind)
        line.update(fields)
        # to hand on each line by itself would take a third of the time
        flush = time.monotonic() - self.flushed > FLUSH_SECONDS
        print(json.dumps(line), flush=flush)
        if flush:
            self.flushed = time.monotonic()

    def say(self, kind: str, path: str, text: str) -> None:
        if kind == "note" and not self.verbose:
            return
        if self.as_json and kind != "note":
            self.print_json("trouble", {"kind": kind, "path": path, "trouble": text})
        if self.verbose or not self.as_json:
            sys.stderr.write(shown("audit_numpy: %s: %s: %s" % (kind, path, text)) + "\n")

    def add(self, row) -> None:
        self.verdicts[row["verdict"]] += 1
        if self.as_json:
            self.print_json("numpy", row)
        else:
            self.rows.append(row)

    def finish(self, end) -> None:
        if self.as_json:
            self.print_json("end", end)
            return
        for lines in (table_lines(self.rows), reason_lines(self.rows, self.verbose)):
            print("\n".join(lines))
        print(", ".join("%d %s" % (self.verdicts[each], each) for each in VERDICTS))
        for line in remedy_lines(self.rows):
            print(line)
        print(summary_line(end))


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="a prefix, or a folder to look for some in"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--quick", action="store_true", help="look only at the known layout; see below"
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a name or a path that you know to hold no environment; may be repeated",
    )
    parser.add_argument(
        "--channel", default="YOUR_CHANNEL", metavar="URL", help="the one with the patched builds"
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also print each reason, and which folders were not looked at",
    )
    return parser, parser.parse_args(argv)


def main(argv=None) -> int:
    """The exit code."""
    parser, args = parse_arguments(argv)
    printer = Printer(args.json, args.verbose)
    survey = Survey(printer.say)
    roots = []
    for pattern in args.folders:
        found = expand(pattern, survey)
        if not found:
            survey.broken(pattern, "no such folder")
        roots += found
    find = find_places_quickly if args.quick else find_places
    for row in audit(find(roots, survey, args.exclude), survey, not args.quick):
        row["remedies"], row["remedy_note"] = [], ""
        if row["verdict"] in (AFFECTED, LATENT):
            row["remedies"], row["remedy_note"] = remedies(row, args.channel)
        printer.add(row)
    end = dict(survey.counts, roots=roots, verdicts=printer.verdicts, quick=args.quick)
    end["exit"] = exit_code(survey.counts, printer.verdicts) if roots else 2
    if not roots and not args.json:
        parser.error("none of the folders is there")
    printer.finish(end)
    return end["exit"]


def run_program(name: str, program, failed: int, left: str) -> int:
    """The exit code of a program, which says in one sentence why it ended early.

    program : function without parameters, which returns an exit code
    failed : the exit code where the result cannot be printed
    left : what that means for whoever reads the result
    """
    try:
        if sys.stdout is None:
            raise OSError(EBADF, "the output is closed")
        code = program()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        code, why = 130, "interrupted"
    except BrokenPipeError:
        os._exit(failed)
    except OSError as error:
        code, why = failed, error.strerror or str(error)
    sys.stderr.write("%s: %s: %s\n" % (name, why, left))
    with contextlib.suppress(OSError):
        # Python would try once more to print what it still holds, and change the exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


if __name__ == "__main__":
    # as any tool whose output is piped into head
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(run_program("audit_numpy", main, 2, "what was printed is not complete"))
