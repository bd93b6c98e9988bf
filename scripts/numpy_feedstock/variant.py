"""The variants: what conda_build_config.yaml says is to be built."""

from dataclasses import dataclass

from . import paths
from .errors import UsageError

PLATFORMS = ("linux-64", "linux-aarch64", "osx-arm64")


@dataclass(frozen=True)
class Variant:
    """One package to build: a numpy release, a Python and a BLAS flavour on a platform."""

    version: str
    sha256: str
    python: str  # "3.11"
    blas: str  # "mkl" or "openblas"
    platform: str  # "linux-64"
    build_string: str
    source_url: str
    keys: tuple  # of (key, value): what picks this variant out of the build config

    @property
    def filename(self):
        """Name of the package file."""
        return f"numpy-{self.version}-{self.build_string}.conda"

    def __str__(self):
        return f"numpy {self.version} python {self.python} {self.blas}"


def known_releases():
    """{version: sha256} of every release in the build config, switched on or not."""
    import yaml

    lines = yaml.safe_load(paths.BUILD_CONFIG.read_text())["numpy_release"]
    return dict((line["then"] if isinstance(line, dict) else line).split() for line in lines)


def known_pythons():
    """["3.11", ...]: the Python minor versions of the build config."""
    import yaml

    return [
        spec.split(".*")[0] for spec in yaml.safe_load(paths.BUILD_CONFIG.read_text())["python"]
    ]


def load(platform, releases=None):
    """Every variant of a platform, rendered from the recipe.

    releases : versions to render, switched on or not; those switched on without it
    """
    override = {}
    if releases:
        known = known_releases()
        override["numpy_release"] = [f"{release} {known[release]}" for release in releases]
    return [describe(rendered) for rendered in render(platform, override)]


def render(platform, override):
    """rattler-build's rendered variants; ``override`` replaces lists of the build config."""
    from rattler_build import JinjaConfig, PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

    target = PlatformConfig(
        target_platform=platform, build_platform=platform, host_platform=platform
    )
    config = VariantConfig.from_file_with_context(paths.BUILD_CONFIG, JinjaConfig(platform=target))
    recipe = Stage0Recipe.from_file(paths.RECIPE)
    return recipe.render(config.merge(VariantConfig(override)), RenderConfig(platform=target))


def recorded(recipe):
    """rattler-build's rendered variant of the recipe's folder that travelled in a package, as it was built."""
    import yaml
    from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

    keys = yaml.safe_load((recipe / "variant_config.yaml").read_text())
    target = PlatformConfig(target_platform=keys["target_platform"])
    config = VariantConfig({key: [value] for key, value in keys.items()})
    (rendered,) = Stage0Recipe.from_file(recipe / "recipe.yaml").render(
        config, RenderConfig(platform=target)
    )
    return rendered


def select(releases, pythons, flavours, platform):
    """The variants that match; UsageError names the known values of what matches nothing.

    releases, pythons, flavours : lists, or None for every one that is switched on
    """
    _known("numpy release", releases or [], list(known_releases()))
    _known("python", pythons or [], known_pythons())
    variants = load(platform, releases)
    _known("blas", flavours or [], sorted({v.blas for v in variants}))
    return [
        v
        for v in variants
        if v.python in (pythons or [v.python]) and v.blas in (flavours or [v.blas])
    ]


def _known(what, wanted, known):
    for value in wanted:
        if value not in known:
            raise UsageError(
                f"unknown {what}: {value}", known=f"{', '.join(known)} ({paths.BUILD_CONFIG.name})"
            )


def describe(rendered):
    """The Variant of rattler-build's rendered one."""
    recipe, keys = rendered.recipe.to_dict(), rendered.variant
    source = recipe["source"][0]
    return Variant(
        version=recipe["package"]["version"],
        sha256=source["sha256"],
        python=keys["python"].split(".*")[0],
        blas=keys["blas_impl"],
        platform=keys["target_platform"],
        build_string=recipe["build"]["string"],
        source_url=source["url"],
        keys=tuple((key, keys[key]) for key in ("numpy_release", "python", "blas_impl")),
    )
