"""The patch's branch for macOS on arm64, with an OpenBLAS that was built with OpenMP.

The branch limits the check to one thread. The limit must not stay.

Debian's libopenblas0-openmp stands in for the one that conda-forge has there.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.packages

# the statements of the patch's branch around a product, then one that is large enough for threads
PROBE = """
import ctypes, json, os, sys
library = ctypes.CDLL(sys.argv[1])

def multiply(n):
    a = (ctypes.c_double * (n * n))(*[1.0] * (n * n))
    c = (ctypes.c_double * (n * n))()
    one, zero = ctypes.c_double(1), ctypes.c_double(0)
    library.cblas_dgemm(101, 111, 111, n, n, n, one, a, n, a, n, zero, c, n)

limits = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")
before = {name: os.environ.get(name) for name in limits}
if sys.argv[2] == "checked":
    os.environ.update(dict.fromkeys(limits, "1"))
    multiply(20)
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
multiply(400)
print(json.dumps({
    "parallel": library.openblas_get_parallel(), "limit": library.openblas_get_num_threads(),
    "threads": len(os.listdir("/proc/self/task")),
}))
"""
OPENMP = 2  # what openblas_get_parallel() says of such a build


@pytest.fixture(scope="module")
def openblas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openmp")
    result = subprocess.run(
        ["apt-get", "download", "libopenblas0-openmp", "libgomp1"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        cause = result.stderr.strip().splitlines()[-1]
        pytest.skip(f"Debian's OpenBLAS with OpenMP cannot be downloaded: {cause}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    (library,) = folder.rglob("libopenblas.so.0")
    return library


def probe(openblas, prefix, how, **variables):
    libraries = [
        openblas.parents[1],
        *{path.parent for path in openblas.parents[4].rglob("libgomp.so.1")},
        prefix / "lib",
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries)), **variables}
    output = subprocess.check_output(
        [sys.executable, "-c", PROBE, openblas, how], env=environment, text=True
    )
    found = json.loads(output)
    assert found.pop("parallel") == OPENMP
    return found


def test_the_limit_around_the_check_does_not_stay(openblas, prefixes):
    plain = probe(openblas, prefixes["openblas"], "plain", OMP_NUM_THREADS="2")
    assert plain == {"limit": 2, "threads": 2}
    assert probe(openblas, prefixes["openblas"], "checked", OMP_NUM_THREADS="2") == plain
    # a limit that does stay would be seen
    assert probe(openblas, prefixes["openblas"], "plain", OMP_NUM_THREADS="1") == {
        "limit": 1,
        "threads": 1,
    }
