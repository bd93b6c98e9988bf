"""What the build config and the recipe render to, on every platform."""

import re

import pytest

from numpy_feedstock import paths, variant
from numpy_feedstock.errors import UsageError

FLAVOURS = {
    "linux-64": {"mkl", "openblas"},
    "linux-aarch64": {"openblas"},
    "osx-arm64": {"openblas"},
}
COMPILERS = {
    "linux-64": {"gcc_linux-64", "gxx_linux-64", "sysroot_linux-64 2.28.*"},
    "linux-aarch64": {"gcc_linux-aarch64", "gxx_linux-aarch64", "sysroot_linux-aarch64 2.28.*"},
    "osx-arm64": {
        "clang_osx-arm64",
        "clangxx_osx-arm64",
        "macosx_deployment_target_osx-arm64 11.0.*",
    },
}
# numpy-feedstock at conda-forge, 2.3.5 and 2.4.4
CONDA_FORGE_RUN_EXPORTS = {"weak": ["numpy >=1.23,<3"]}
CONDA_FORGE_RUN_CONSTRAINTS = ["numpy-base <0a0"]


@pytest.mark.parametrize("platform", variant.PLATFORMS)
def test_every_variant_of_every_known_release_renders(platform):
    variants = variant.load(platform, list(variant.known_releases()))
    assert {v.blas for v in variants} == FLAVOURS[platform]
    assert len(variants) == 6 * 4 * len(FLAVOURS[platform])
    assert len({v.filename for v in variants}) == len(variants)
    for v in variants:
        assert re.fullmatch(
            rf"{v.blas}_py{v.python.replace('.', '')}h[0-9a-f]{{7}}_100", v.build_string
        )
        assert v.sha256 == variant.known_releases()[v.version]
        assert v.source_url.endswith(f"/v{v.version}/numpy-{v.version}.tar.gz")


def test_the_last_release_of_each_affected_line_is_on():
    assert {v.version for v in variant.load("linux-64")} == {"2.3.5", "2.4.4"}
    assert variant.known_pythons() == ["3.11", "3.12", "3.13", "3.14"]


def test_switching_a_release_on_is_one_line(monkeypatch, tmp_path):
    text = paths.BUILD_CONFIG.read_text()
    changed = re.sub(r"\{if: false, then: 2\.4\.1 ", "{if: true, then: 2.4.1 ", text)
    assert sum(a != b for a, b in zip(text.splitlines(), changed.splitlines(), strict=True)) == 1
    (tmp_path / "conda_build_config.yaml").write_text(changed)
    monkeypatch.setattr(paths, "BUILD_CONFIG", tmp_path / "conda_build_config.yaml")
    assert {v.version for v in variant.load("linux-64")} == {"2.3.5", "2.4.1", "2.4.4"}


@pytest.mark.parametrize("platform", variant.PLATFORMS)
def test_requirements(platform):
    for rendered in variant.render(platform, {}):
        requirements, blas = (
            rendered.recipe.to_dict()["requirements"],
            rendered.variant["blas_impl"],
        )
        assert COMPILERS[platform] <= set(requirements["build"])
        assert {"mkl": "mkl-devel 2025.*", "openblas": "openblas"}[blas] in requirements["host"]
        assert f"libblas * *_{blas}" in requirements["run"]
        assert requirements["run_exports"] == CONDA_FORGE_RUN_EXPORTS
        assert requirements["run_constraints"] == CONDA_FORGE_RUN_CONSTRAINTS


def test_what_is_not_named_is_all_that_is_switched_on():
    assert variant.select(None, None, None, "linux-64") == variant.load("linux-64")
    (one,) = variant.select(["2.4.4"], ["3.12"], ["mkl"], "linux-64")
    assert (one.version, one.python, one.blas) == ("2.4.4", "3.12", "mkl")


def test_what_is_unknown_is_answered_with_what_is_known():
    with pytest.raises(
        UsageError, match=r"unknown numpy release: 2\.3\.4\n  known: 2\.3\.5, 2\.4\.0, .*2\.4\.4"
    ):
        variant.select(["2.3.4"], ["3.11"], ["mkl"], "linux-64")
    with pytest.raises(UsageError, match=r"unknown python: 3\.10\n  known: 3\.11"):
        variant.select(["2.3.5"], ["3.10"], ["mkl"], "linux-64")
    with pytest.raises(UsageError, match="unknown blas: blis\n  known: mkl, openblas"):
        variant.select(["2.3.5"], ["3.11"], ["blis"], "linux-64")
