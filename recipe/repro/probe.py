"""Questions that repro.py puts to fresh interpreters: what this Python is, what an import does.

Each question prints its answer as one line of JSON, the last line on stdout.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

LINUX = sys.platform == "linux"
BLAS = r"/lib(mkl_rt|mkl_intel_i?lp64|mkl_gf_i?lp64|\w*openblas)[^/]*$"


def describe() -> None:
    """Print what the host is and what it takes to build for this Python; numpy stays unimported."""
    # First of all: what follows imports much.
    importers = imported_at_start()
    spec = importlib.util.find_spec("numpy")
    answer = {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "include": sysconfig.get_path("include"),
        "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
        "numpy_path": spec and spec.origin,
        "imported_at_start": importers,
        "cores": len(os.sched_getaffinity(0)) if LINUX else os.cpu_count(),
        "libc": os.confstr("CS_GNU_LIBC_VERSION") if LINUX else sys.platform,
    }
    print(json.dumps(answer))


def imported_at_start() -> str | None:
    """Return the files that may have imported numpy already; None if it is not imported."""
    if "numpy" not in sys.modules:
        return None
    texts = start_up_files()
    named = [path for path, text in texts.items() if "numpy" in text]
    return " or ".join(named or texts) or "an unknown file"


def start_up_files() -> dict[str, str]:
    """Return {path: text} of the files that Python runs before any code of ours."""
    paths = []
    for name in ("sitecustomize", "usercustomize"):
        if name in sys.modules:
            paths.append(Path(str(sys.modules[name].__file__)))
    for folder in sys.path:
        paths += sorted(Path(folder or ".").glob("*.pth"))
    texts = {}
    for path in paths:
        lines = path.read_text(errors="replace").splitlines()
        if path.suffix == ".pth":
            # Python runs those that begin with an import.
            lines = [line for line in lines if line.startswith(("import ", "import\t"))]
        if lines:
            texts[str(path)] = "\n".join(lines)
    return texts


def measure(checked: bool = True) -> None:
    """Import numpy, with its check or without it, and print the BLAS and the threads."""
    if not checked:
        sys.meta_path.insert(0, WithoutCheck)
    import numpy

    # Counted before the BLAS is asked anything, which might start threads.
    os_threads = len(os.listdir("/proc/self/task")) if LINUX else None
    answer = {
        "numpy": getattr(numpy, "__version__", "unknown"),
        "os_threads": os_threads,
        "removed": WithoutCheck.removed,
        **loaded_blas(),
    }
    print(json.dumps(answer))


class WithoutCheck(importlib.machinery.SourceFileLoader):
    """Loads numpy/__init__.py without its `blas_fpe_check()` statement. No file is touched.

    The class is also the finder, which comes first in sys.meta_path.
    """

    removed = 0

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != "numpy":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec and spec.origin:
            spec.loader = cls(fullname, spec.origin)
        return spec

    def get_code(self, fullname: str) -> Any:
        # Not the inherited one: it reads and writes bytecode.
        path = self.get_filename(fullname)
        tree = RemoveCheck().visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)


class RemoveCheck(ast.NodeTransformer):
    """Replaces the statement `blas_fpe_check()` by `pass`, and counts it."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if ast.unparse(node) != "blas_fpe_check()":
            return node
        WithoutCheck.removed += 1
        return ast.copy_location(ast.Pass(), node)


def loaded_blas() -> dict[str, Any]:
    """Return library, thread limit, threading layer and kernels of the BLAS in this process."""
    facts: dict[str, Any] = {
        "library": "other",
        "max_threads": None,
        "layer": "unknown",
        "kernels": "unknown",
    }
    # Several libraries of MKL are loaded. libmkl_rt comes last, and is the one that is named.
    for path in mapped_files(BLAS):
        library = ctypes.CDLL(path)
        facts.update(openblas_threads(library))
        if hasattr(library, "MKL_Get_Max_Threads"):
            facts["max_threads"] = library.MKL_Get_Max_Threads()
        if facts["max_threads"]:
            facts["library"] = os.path.basename(path)
    # MKL opens these by name when it is first used, which it was just now.
    for key, pattern in (
        ("layer", r"/libmkl_(\w+_thread|sequential)\b"),
        ("kernels", r"/libmkl_(def|mc3|avx\w*)\b"),
    ):
        for path in mapped_files(pattern):
            match = re.search(pattern, path)
            facts[key] = match and match.group(1)
    return facts


def openblas_threads(library: ctypes.CDLL) -> dict[str, Any]:
    """Return thread limit and threading layer of an OpenBLAS; nothing for another library."""
    for prefix in ("openblas_", "scipy_openblas_"):
        for suffix in ("", "64_"):
            name = prefix + "{}" + suffix
            if hasattr(library, name.format("get_num_threads")):
                parallel = library[name.format("get_parallel")]()
                return {
                    "max_threads": library[name.format("get_num_threads")](),
                    "layer": ("sequential", "pthreads", "OpenMP")[parallel],
                }
    return {}


def mapped_files(pattern: str) -> list[str]:
    """Return the files mapped into this process whose path matches, in order."""
    if not LINUX:
        return []
    with open("/proc/self/maps") as maps:
        paths = {line.split(None, 5)[5].rstrip("\n") for line in maps if "/" in line}
    return sorted(path for path in paths if re.search(pattern, path))
