"""The variants: the packages that conda_build_config.yaml asks for."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import paths
from .errors import UsageError

if TYPE_CHECKING:
    from rattler_build import RenderedVariant

# the minor version of the Python that runs the command, "3.11"
THIS_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
PLATFORMS = ("linux-64", "linux-aarch64", "osx-arm64")
# one flavour for each BLAS; see default_flavours
DEFAULT_FLAVOURS = ("mkl-2025", "openblas")
# in the place of a release, a Python or a flavour: every one of them
ALL = "all"
# the lists of the build config by which two variants of a platform differ
_KEYS = ("numpy_release", "python", "blas_impl")


@dataclass(frozen=True)
class Variant:
    """One package to build: a numpy release, a Python and a BLAS flavour on a platform."""

    version: str
    sha256: str
    python: str  # "3.11"
    blas: str  # "mkl" or "openblas"
    blas_version: str  # "2025.3", or "" where the build config names none
    platform: str  # "linux-64"
    build_string: str
    source_url: str
    keys: tuple[tuple[str, str], ...]  # pairs: (name of a list in the build config, value)

    @property
    def filename(self) -> str:
        """Name of the package file."""
        return f"numpy-{self.version}-{self.build_string}.conda"

    @property
    def flavour(self) -> str:
        """The BLAS, with its major version where the build config names one: "mkl-2025"."""
        return f"{self.blas}-{self.blas_version.split('.')[0]}".removesuffix("-")

    def __str__(self) -> str:
        return f"numpy {self.version} python {self.python} {self.flavour}"


def known_releases() -> dict[str, str]:
    """Return {version: sha256} of every release in the build config, switched on or not.

    Raises UsageError when the build config cannot be read.
    """
    found = {}
    for text in _values("numpy_release"):
        known = re.fullmatch(r"(\d+(?:\.\d+)*) ([0-9a-fA-F]{64})", text)
        if not known:
            raise _wrong_config("numpy_release", "a version and the sha256 of its source", text)
        found[known[1]] = known[2]
    return found


def known_pythons() -> list[str]:
    """Return the Python minor versions of the build config, ["3.11", ...].

    Raises UsageError when the build config cannot be read.
    """
    found = []
    for text in _values("python"):
        known = re.fullmatch(r"(\d+\.\d+)(\.\*.*)?", text)
        if not known:
            raise _wrong_config("python", "a minor version, as in 3.11.* *_cpython", text)
        found.append(known[1])
    return found


def _values(key: str) -> list[str]:
    """Return the values of a list in the build config, switched on or not."""
    import yaml

    try:
        content = yaml.safe_load(paths.BUILD_CONFIG.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{paths.BUILD_CONFIG} cannot be read", found=error) from None
    lines = content.get(key) if isinstance(content, dict) else None
    if not isinstance(lines, list) or not lines:
        raise _wrong_config(key, "a list", lines)
    values = []
    for line in lines:
        value = line.get("then") if isinstance(line, dict) else line
        if not isinstance(value, str):
            raise _wrong_config(key, "a text, or an `if` with a text in its `then`", line)
        values.append(value)
    return values


def _wrong_config(key: str, expected: str, found: object) -> UsageError:
    return UsageError(
        f"{key} in {paths.BUILD_CONFIG} is not right", expected=expected, found=repr(found)[:300]
    )


def load(platform: str, releases: Sequence[str] | None = None) -> list[Variant]:
    """Return every variant of a platform, rendered from the recipe, in the order to build them.

    platform : "linux-64"
    releases : versions to render, switched on or not; None for those that are switched on

    Two variants that share much of what is compiled stand beside each other, because the
    second finds it in the compiler cache: first the flavours of a release and a Python, then
    the releases of a Python.

    Raises UsageError when the build config cannot be read, or has nothing for the platform.
    """
    from rattler_build import RattlerBuildError

    known, override = known_releases(), {}
    if releases:
        override["numpy_release"] = [f"{release} {known[release]}" for release in releases]
    for key in _KEYS:
        _values(key)
    try:
        every = render(platform, override)
    except RattlerBuildError as error:
        raise UsageError(
            f"the recipe does not render with {paths.BUILD_CONFIG}",
            expected=f"lists with a line for {platform}: {', '.join(_KEYS)}",
            found=error,
        ) from None
    # without a release that is switched on, the recipe takes one of its own
    found = [describe(rendered) for rendered in every if "numpy_release" in rendered.variant]
    return sorted(found, key=lambda each: (numbers(each.python), numbers(each.version)))


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to sort by: "2.3.5" is before "2.3.10"."""
    return tuple(map(int, version.split(".")))


def render(platform: str, override: dict[str, list[str]]) -> list["RenderedVariant"]:
    """Return rattler-build's rendered variants.

    override : lists that replace those of the build config
    """
    from rattler_build import JinjaConfig, PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

    target = PlatformConfig(
        target_platform=platform, build_platform=platform, host_platform=platform
    )
    config = VariantConfig.from_file_with_context(paths.BUILD_CONFIG, JinjaConfig(platform=target))
    recipe = Stage0Recipe.from_file(paths.RECIPE)
    return recipe.render(config.merge(VariantConfig(override)), RenderConfig(platform=target))


def recorded(recipe: Path) -> "RenderedVariant":
    """Return rattler-build's rendered variant of a recipe that travelled in a package.

    recipe : the folder info/recipe; it holds the variant that was built
    """
    import yaml
    from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

    keys = yaml.safe_load((recipe / "variant_config.yaml").read_text())
    target = PlatformConfig(target_platform=keys["target_platform"])
    config = VariantConfig({key: [value] for key, value in keys.items()})
    stage0 = Stage0Recipe.from_file(recipe / "recipe.yaml")
    (rendered,) = stage0.render(config, RenderConfig(platform=target))
    return rendered


def select(
    releases: Sequence[str] | None,
    pythons: Sequence[str] | None,
    flavours: Sequence[str] | None,
    platform: str,
) -> list[Variant]:
    """Return the variants that match, in the order to build them.

    releases : None for those that are switched on
    pythons : None for all
    flavours : "mkl-2025", or "mkl" for all of its major versions; None for all

    "all" in a list stands for all that the build config knows. All releases on all Pythons
    are the matrix (see in_matrix).

    Raises UsageError, which names the known values, for a value that matches nothing, and
    when nothing is left.
    """
    known_versions = list(known_releases())
    _refuse_unknown("numpy release", releases, known_versions)
    _refuse_unknown("python", pythons, known_pythons())
    every_release = ALL in (releases or ())
    variants = load(platform, known_versions if every_release else releases)
    if not variants:
        raise UsageError(
            f"no numpy release is switched on for {platform}: numpy_release in "
            f"{paths.BUILD_CONFIG}",
            known=", ".join(known_versions),
            remedy="name a release with --numpy, or switch one on",
        )
    known = {v.blas for v in variants} | {v.flavour for v in variants}
    _refuse_unknown("blas", flavours, sorted(known), f" for {platform}")
    named_pythons, named_flavours = _named(pythons), _named(flavours)
    if every_release and not named_pythons:
        variants = in_matrix(variants, platform)
    found = []
    for v in variants:
        if named_pythons and v.python not in named_pythons:
            continue
        if named_flavours and v.blas not in named_flavours and v.flavour not in named_flavours:
            continue
        found.append(v)
    if not found:
        raise UsageError(
            f"nothing that was asked for is switched on for {platform}: {paths.BUILD_CONFIG}",
            known=", ".join(sorted({f"python {v.python} {v.flavour}" for v in variants})),
        )
    return found


def in_matrix(variants: Sequence[Variant], platform: str) -> list[Variant]:
    """Return the variants that this project builds and records: its matrix.

    They are the releases that the build config switches on, for every Python, and the other
    releases for the first Python.
    """
    switched_on = {v.version for v in load(platform)}
    first, *_ = known_pythons()
    return [v for v in variants if v.version in switched_on or v.python == first]


def default_flavours(platform: str) -> list[str]:
    """Return the flavours that are built and measured when the user names none.

    They are one for each BLAS that the platform has.
    """
    # any release will do: one need not be switched on
    there = {v.flavour for v in load(platform, list(known_releases())[:1])}
    return [flavour for flavour in DEFAULT_FLAVOURS if flavour in there]


def _named(values: Sequence[str] | None) -> Sequence[str]:
    """Return the values, or nothing when they stand for all."""
    if values is None or ALL in values:
        return ()
    return values


def one_of_each(flavours: Sequence[str] | None, platform: str) -> list[str]:
    """Return flavours that name one package each. A BLAS alone stands for its default flavour.

    flavours : None for one of each BLAS that the platform has
    """
    if not flavours:
        return default_flavours(platform)
    defaults = {name.split("-")[0]: name for name in DEFAULT_FLAVOURS}
    return [defaults.get(name, name) for name in flavours]


def _refuse_unknown(
    what: str, wanted: Sequence[str] | None, known: list[str], where: str = ""
) -> None:
    for value in wanted or []:
        if value != ALL and value not in known:
            raise UsageError(
                f"unknown {what}: {value}",
                known=f"{', '.join(known)} ({paths.BUILD_CONFIG.name}{where})",
            )


def describe(rendered: "RenderedVariant") -> Variant:
    """Return the Variant for a rendered variant of rattler-build.

    Raises UsageError when no line of a list is switched on for the platform.
    """
    recipe: dict[str, Any] = rendered.recipe.to_dict()
    keys = rendered.variant
    for key in _KEYS:
        if key not in keys:
            wanted = f"a line that is switched on for {keys['target_platform']}"
            raise _wrong_config(key, wanted, "none")
    blas, _, blas_version = keys["blas_impl"].partition(" ")
    return Variant(
        version=recipe["package"]["version"],
        sha256=recipe["source"][0]["sha256"],
        python=keys["python"].split(".*")[0],
        blas=blas,
        blas_version=blas_version,
        platform=keys["target_platform"],
        build_string=recipe["build"]["string"],
        source_url=recipe["context"]["upstream"],
        keys=tuple((key, keys[key]) for key in _KEYS),
    )
