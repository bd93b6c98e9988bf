"""The output channel: the packages that `build` put there."""

from collections.abc import Sequence
from pathlib import Path

from .. import paths
from ..errors import UsageError
from ..packages.record import NotTested, passed_record


def all_packages() -> list[Path]:
    """Return the path of every package in output/. Raises UsageError when there is none."""
    found = sorted(paths.OUTPUT.rglob("*.conda"))
    if not found:
        raise UsageError(
            f"no packages in {paths.OUTPUT}", remedy="feedstock build, or name a .conda file"
        )
    return found


def tested(release: str, flavours: Sequence[str] | None, output: Path) -> dict[str, Path]:
    """Return {flavour: path} of the tested packages of a release for the running Python.

    flavours : "mkl" for the default flavour of MKL; None for one of each BLAS, "all" for all
    output : folder of the channel

    Raises UsageError for a package that is not built and tested, or has a red test.
    """
    from .. import variant
    from . import channel

    if release == variant.ALL:
        raise UsageError(
            "--numpy takes one release here, found all",
            known=", ".join(variant.known_releases()),
        )

    platform = channel.this_platform()
    one_of_each = variant.one_of_each(flavours, platform)
    wanted = variant.select([release], [variant.THIS_PYTHON], one_of_each, platform)
    found = {v.flavour: Path(output, platform, v.filename) for v in wanted}
    for flavour, path in found.items():
        try:
            passed_record(path)
        except NotTested as error:
            raise UsageError(
                f"not built and tested yet: {path}",
                found=error.state,
                remedy=f"feedstock build --numpy {release} --blas {flavour}",
            ) from None
    return found
