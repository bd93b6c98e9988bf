"""Match specs: how packages name what they need, and how one package is named."""

from collections.abc import Iterable
from pathlib import Path


def lowest_allowed(depends: Iterable[str], name: str) -> str | None:
    """Return the lowest version that a package's dependencies allow, "2.28"; None without one.

    depends : match specs, ["__glibc >=2.28,<3.0.a0", ...]
    name : of the package that is depended on
    """
    from rattler import Version

    start = f"{name} >="
    bounds = [spec.removeprefix(start).split(",")[0] for spec in depends if spec.startswith(start)]
    return max(bounds, key=Version, default=None)


def oldest_glibc(path: Path) -> str:
    """Return the oldest glibc that a package's dependencies allow, "2.28"; "none" without one."""
    from rattler_build import Package

    return lowest_allowed(Package.from_file(path).depends, "__glibc") or "none"


def exactly(path: Path) -> str:
    """Return the match spec of exactly this package: "numpy==2.3.5=mkl_py311h..._100"."""
    return "{}=={}={}".format(*path.name.removesuffix(".conda").rsplit("-", 2))
