"""Released numpy wheels, and a library that makes them call MKL: no numpy is compiled."""

import contextlib
import platform
import shutil
import subprocess
from pathlib import Path

from ... import paths
from ...building import wheel
from ...errors import FeedstockError, UsageError

HERE = Path(__file__).parent


def known() -> dict[str, dict[str, str]]:
    """Return {release: {tag of a CPython: sha256 of its wheel}}."""
    import yaml

    listed: dict[str, dict[str, str]] = yaml.safe_load((HERE / "wheels.yaml").read_text())
    return listed


def check_platform() -> None:
    """Raise UsageError where there are no wheels of MKL."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UsageError(
            "MKL has no wheels here",
            expected="Linux x86_64",
            found=f"{platform.system()} {platform.machine()}",
            remedy="run this on such a machine; `python tests/repro/repro.py` examines an "
            "installed numpy anywhere",
        )


def unpack_release(release: str) -> Path | None:
    """Return a folder to import that numpy from; None where this Python has no wheel of it.

    Raises UsageError when the wheel cannot be had.
    """
    sha256 = known()[release].get(wheel.TAG)
    if sha256 is None:
        return None
    folder: Path = wheel.unpacked("numpy", release, sha256)
    return folder


def unpack_mkl(wheels: Path) -> Path:
    """Return the path of libmkl_rt, unpacked once beside what it opens.

    wheels : folder with the wheels of MKL and of Intel's OpenMP
    """
    folder = paths.BUILD / "unpacked" / f"mkl-{wheels.name}"
    if not folder.exists():
        wheel.unpack([*wheels.glob("mkl-*.whl"), *wheels.glob("intel_openmp-*.whl")], folder, ".so")
    (library,) = folder.glob("mkl-*/data/lib/libmkl_rt.so.*")
    (openmp,) = folder.glob("intel_openmp-*/data/lib/libiomp5.so")
    beside = library.with_name(openmp.name)  # where MKL looks for it
    # another process may be at this line, too
    with contextlib.suppress(FileExistsError):
        beside.symlink_to(openmp)
    return library


def build_shim(folder: Path) -> Path:
    """Compile mkl_shim.cpp into a folder; return its path.

    Raises UsageError without a compiler, FeedstockError when it fails.
    """
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise UsageError(
            "a C++ compiler is needed",
            found="neither g++ nor c++ on PATH",
            remedy="on Debian: apt-get install g++",
        )
    shim = folder / "mkl_shim.so"
    options = ["-shared", "-fPIC", "-O2", "-Wl,--as-needed"]
    command: list[str | Path] = [compiler, *options, "-o", shim, HERE / "mkl_shim.cpp", "-ldl"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise FeedstockError("mkl_shim.cpp did not compile", found=result.stderr.strip())
    return shim
