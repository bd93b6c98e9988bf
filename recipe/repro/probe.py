"""Asked by repro.py in fresh interpreters: what this Python is, and what importing numpy does to it.

Each question prints its answer as one line of JSON, the last one on stdout.
"""

import ast
import ctypes
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import sysconfig

LINUX = sys.platform == "linux"
BLAS = r"/lib(mkl_rt|mkl_intel_i?lp64|mkl_gf_i?lp64|\w*openblas)[^/]*$"


def describe():
    """Print what the host is and what it takes to build for this Python; numpy stays unimported."""
    spec = importlib.util.find_spec("numpy")
    print(
        json.dumps(
            {
                "python": sys.version.split()[0],
                "executable": sys.executable,
                "include": sysconfig.get_path("include"),
                "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
                "numpy_path": spec and spec.origin,
                "cores": len(os.sched_getaffinity(0)) if LINUX else os.cpu_count(),
                "libc": os.confstr("CS_GNU_LIBC_VERSION") if LINUX else sys.platform,
            }
        )
    )


def measure(checked=True):
    """Import numpy, with its check or without, and print the BLAS and the threads that are there."""
    if not checked:
        sys.meta_path.insert(0, WithoutCheck)
    import numpy

    # Counted before the BLAS is asked anything, which might start threads.
    os_threads = len(os.listdir("/proc/self/task")) if LINUX else None
    print(
        json.dumps(
            {
                "numpy": getattr(numpy, "__version__", "unknown"),
                "os_threads": os_threads,
                "removed": WithoutCheck.removed,
                **loaded_blas(),
            }
        )
    )


class WithoutCheck(importlib.machinery.SourceFileLoader):
    """Load numpy/__init__.py less its `blas_fpe_check()` statement; no file is touched.

    The class is also the finder, to be put first in sys.meta_path.
    """

    removed = 0

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname != "numpy":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec and spec.origin:
            spec.loader = cls(fullname, spec.origin)
        return spec

    def get_code(self, fullname):
        # Not the inherited one: it reads and writes bytecode.
        path = self.get_filename(fullname)
        tree = RemoveCheck().visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)


class RemoveCheck(ast.NodeTransformer):
    def visit_Expr(self, node):
        if ast.unparse(node) != "blas_fpe_check()":
            return node
        WithoutCheck.removed += 1
        return ast.copy_location(ast.Pass(), node)


def loaded_blas():
    """Return library, thread limit, threading layer and kernels of the BLAS in this process."""
    facts = {"library": "other", "max_threads": None, "layer": "unknown", "kernels": "unknown"}
    for path in mapped_files(BLAS):  # of MKL's, libmkl_rt comes last and is the one told
        library = ctypes.CDLL(path)
        for name in ("openblas_{}", "openblas_{}64_", "scipy_openblas_{}", "scipy_openblas_{}64_"):
            if hasattr(library, name.format("get_num_threads")):
                facts["max_threads"] = library[name.format("get_num_threads")]()
                parallel = library[name.format("get_parallel")]()
                facts["layer"] = ("sequential", "pthreads", "OpenMP")[parallel]
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
            facts[key] = re.search(pattern, path).group(1)
    return facts


def mapped_files(pattern):
    """Return the files mapped into this process whose path matches, in order."""
    if not LINUX:
        return []
    with open("/proc/self/maps") as maps:
        paths = {line.split(None, 5)[5].rstrip("\n") for line in maps if "/" in line}
    return sorted(path for path in paths if re.search(pattern, path))
