"""Released numpy wheels, and a library that has them call MKL: no numpy is compiled."""

import platform
import shutil
import subprocess
from pathlib import Path

from .. import paths, wheel
from ..errors import FeedstockError, UsageError

HERE = Path(__file__).parent


def known():
    """{release: {tag of a CPython: sha256 of its wheel}}."""
    import yaml

    return yaml.safe_load((HERE / "wheels.yaml").read_text())


def check_platform():
    """UsageError where there are no wheels of MKL."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UsageError(
            "MKL has no wheels here",
            expected="Linux x86_64",
            found=f"{platform.system()} {platform.machine()}",
            remedy="run this on such a machine; `python tests/repro/repro.py` examines an installed numpy anywhere",
        )


def unpack_release(release):
    """A folder to import that numpy from; None where this Python has no wheel of it. Raises UsageError."""
    sha256 = known()[release].get(wheel.TAG)
    return sha256 and wheel.unpacked("numpy", release, sha256)


def unpack_mkl(wheels):
    """The path of libmkl_rt, unpacked once beside what it opens.

    wheels : folder with the wheels of MKL and of Intel's OpenMP
    """
    folder = paths.BUILD / "unpacked" / f"mkl-{wheels.name}"
    if not folder.exists():
        wheel.unpack([*wheels.glob("mkl-*.whl"), *wheels.glob("intel_openmp-*.whl")], folder, ".so")
    (library,) = folder.glob("mkl-*/data/lib/libmkl_rt.so.*")
    (openmp,) = folder.glob("intel_openmp-*/data/lib/libiomp5.so")
    beside = library.with_name(openmp.name)  # where MKL looks for it
    if not beside.exists():
        beside.symlink_to(openmp)
    return library


def build_shim(folder):
    """Compile mkl_shim.cpp into a folder; its path. Raises UsageError without a compiler."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise UsageError(
            "a C++ compiler is needed",
            found="neither g++ nor c++ on PATH",
            remedy="on Debian: apt-get install g++",
        )
    shim = Path(folder, "mkl_shim.so")
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O2",
        "-Wl,--as-needed",
        "-o",
        shim,
        HERE / "mkl_shim.cpp",
        "-ldl",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise FeedstockError("mkl_shim.cpp did not compile", found=result.stderr.strip())
    return shim
