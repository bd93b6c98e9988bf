"""What the build config and the recipe render to, on every platform."""

import re

import pytest
from rattler_build import (
    JinjaConfig,
    PlatformConfig,
    RattlerBuildError,
    RenderConfig,
    Stage0Recipe,
    VariantConfig,
)

from numpy_feedstock import cli, paths, variant
from numpy_feedstock.errors import UsageError

FLAVOURS = {
    "linux-64": {"mkl-2025", "mkl-2026", "openblas"},
    "linux-aarch64": {"openblas"},
    "osx-arm64": {"openblas"},
}
COMPILERS = {
    "linux-64": {"gcc_linux-64 14.*", "gxx_linux-64 14.*", "sysroot_linux-64 2.28.*"},
    "linux-aarch64": {
        "gcc_linux-aarch64 14.*",
        "gxx_linux-aarch64 14.*",
        "sysroot_linux-aarch64 2.28.*",
    },
    "osx-arm64": {
        "clang_osx-arm64 19.*",
        "clangxx_osx-arm64 19.*",
        "macosx_deployment_target_osx-arm64 11.0.*",
    },
}
LIBRARIES = {
    "mkl-2025": {"mkl-devel 2025.3.*"},
    "mkl-2026": {"mkl-devel 2026.0.*"},
    # conda-forge's openblas exports nothing: libopenblas does
    "openblas": {"openblas", "libopenblas"},
}
# numpy-feedstock at conda-forge, 2.3.5 and 2.4.4
CONDA_FORGE_RUN_EXPORTS = {"weak": ["numpy >=1.23,<3"]}
CONDA_FORGE_RUN_CONSTRAINTS = ["numpy-base <0a0"]


@pytest.mark.parametrize("platform", variant.PLATFORMS)
def test_every_variant_of_every_known_release_renders(platform):
    variants = variant.load(platform, list(variant.known_releases()))
    assert {v.flavour for v in variants} == FLAVOURS[platform]
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
        requirements = rendered.recipe.to_dict()["requirements"]
        v = variant.describe(rendered)
        assert COMPILERS[platform] <= set(requirements["build"])
        assert LIBRARIES[v.flavour] <= set(requirements["host"])
        assert f"libblas * *_{v.blas}" in requirements["host"]
        assert f"libblas * *_{v.blas}" in requirements["run"]
        assert requirements["ignore_run_exports"] == {"by_name": ["libblas"]}
        assert requirements["run_exports"] == CONDA_FORGE_RUN_EXPORTS
        assert requirements["run_constraints"] == CONDA_FORGE_RUN_CONSTRAINTS


def test_what_is_not_named_is_all_that_is_switched_on():
    assert variant.select(None, None, None, "linux-64") == variant.load("linux-64")
    (one,) = variant.select(["2.4.4"], ["3.12"], ["mkl-2026"], "linux-64")
    assert (one.version, one.python, one.flavour) == ("2.4.4", "3.12", "mkl-2026")


def test_all_releases_on_all_pythons_are_the_matrix():
    found = variant.select(["all"], ["all"], variant.DEFAULT_FLAVOURS, "linux-64")
    on_each_python = {(v.version, v.python) for v in found}
    first = {(release, "3.11") for release in variant.known_releases()}
    others = {(r, p) for r in ("2.3.5", "2.4.4") for p in ("3.12", "3.13", "3.14")}
    assert on_each_python == first | others
    assert len(found) == len({v.filename for v in found}) == 24


def test_a_named_release_or_python_gets_more_than_the_matrix():
    def pairs(releases, pythons):
        found = variant.select(releases, pythons, ["openblas"], "linux-64")
        return [(v.version, v.python) for v in found]

    assert pairs(["2.4.1"], ["all"]) == [("2.4.1", p) for p in variant.known_pythons()]
    assert pairs(["all"], ["3.13"]) == [(r, "3.13") for r in variant.known_releases()]
    assert pairs(["all", "2.4.1"], ["3.13", "all"]) == pairs(["all"], None)


def test_all_flavours_are_those_of_the_platform():
    found = variant.select(["2.3.5"], ["3.11"], ["all"], "linux-64")
    assert {v.flavour for v in found} == FLAVOURS["linux-64"]


def test_what_shares_the_compiler_cache_is_built_one_after_the_other():
    found = variant.load("linux-64", list(variant.known_releases()))
    order = [(v.python, v.version) for v in found]
    # no release and Python comes back after another one, and the releases of a Python ascend
    assert order == sorted(order)
    flavours = [v.flavour for v in found if (v.python, v.version) == order[0]]
    assert flavours == ["mkl-2025", "mkl-2026", "openblas"]
    assert variant.numbers("2.3.10") > variant.numbers("2.3.9")


def test_a_blas_without_a_version_is_all_of_its_versions():
    found = variant.select(["2.4.4"], ["3.12"], ["mkl"], "linux-64")
    assert [(v.blas, v.flavour) for v in found] == [("mkl", "mkl-2025"), ("mkl", "mkl-2026")]
    assert variant.one_of_each(["mkl", "openblas"], "linux-64") == ["mkl-2025", "openblas"]
    assert variant.one_of_each(["mkl-2026"], "linux-64") == ["mkl-2026"]


@pytest.mark.parametrize(
    ("platform", "flavours"),
    [("linux-64", ["mkl-2025", "openblas"]), ("linux-aarch64", ["openblas"])],
)
def test_what_is_built_and_measured_by_default_is_there_on_the_platform(platform, flavours):
    assert variant.default_flavours(platform) == variant.one_of_each(None, platform) == flavours


@pytest.mark.parametrize("other", ["blis", "netlib"])
def test_a_blas_that_the_recipe_does_not_know_is_refused_with_a_sentence(other):
    with pytest.raises(RattlerBuildError, match=f"blas_impl is mkl or openblas, not {other}'"):
        variant.render("linux-64", {"blas_impl": ["openblas", "mkl", other]})


@pytest.mark.parametrize("platform", ["linux-aarch64", "osx-arm64"])
def test_the_flavours_of_another_platform_are_refused_with_a_sentence(platform):
    """As conda-build takes them, which evaluates the build config for the running machine."""
    with pytest.raises(RattlerBuildError, match=f"mkl is for linux-64, not for {platform}'"):
        variant.render(platform, {"blas_impl": ["mkl 2025.3", "openblas"]})


def test_conda_forges_names_of_the_flavours_render_without_a_version():
    found = variant.render("linux-64", {"blas_impl": ["openblas", "mkl"]})
    hosts = {tuple(each.recipe.to_dict()["requirements"]["host"][:2]) for each in found}
    assert hosts == {("mkl-devel", "libblas * *_mkl"), ("openblas", "libopenblas")}


def test_a_cross_build_has_the_same_cython_on_both_sides():
    build = PlatformConfig(
        build_platform="linux-64", host_platform="linux-aarch64", target_platform="linux-aarch64"
    )
    config = VariantConfig.from_file_with_context(paths.BUILD_CONFIG, JinjaConfig(platform=build))
    recipe = Stage0Recipe.from_file(paths.RECIPE)
    for rendered in recipe.render(config, RenderConfig(platform=build)):
        requirements = rendered.recipe.to_dict()["requirements"]
        assert "cross-python_linux-aarch64" in requirements["build"]
        assert "cython <3.3" in requirements["build"] and "cython <3.3" in requirements["host"]


def test_the_recipe_renders_without_the_build_configs_release():
    """As programs do that read recipes alone, conda-smithy among them."""
    others = {"c_compiler": ["gcc"], "cxx_compiler": ["gxx"], "c_stdlib": ["sysroot"]}
    keys = {"blas_impl": ["openblas"], "python": ["3.11.* *_cpython"], **others}
    config = VariantConfig({**keys, "fortran_compiler": ["gfortran"]})
    recipe = Stage0Recipe.from_file(paths.RECIPE)
    target = PlatformConfig(target_platform="linux-64")
    (rendered,) = recipe.render(config, RenderConfig(platform=target))
    package = rendered.recipe.to_dict()
    (source,) = package["source"]
    assert package["package"]["version"] == "2.3.5"
    assert source["sha256"] == variant.known_releases()["2.3.5"]


def test_another_place_of_the_source_changes_no_build_string(monkeypatch):
    before = variant.load("linux-64")
    monkeypatch.setenv("NUMPY_SOURCE", "file:///mirror/numpy.tar.gz")
    (source,) = variant.render("linux-64", {})[0].recipe.to_dict()["source"]
    assert source["url"] == "file:///mirror/numpy.tar.gz"
    # equal in the build string, and in upstream's URL, too
    assert variant.load("linux-64") == before


def test_what_is_unknown_is_answered_with_what_is_known():
    with pytest.raises(
        UsageError, match=r"unknown numpy release: 2\.3\.4\n  known: 2\.3\.5, 2\.4\.0, .*2\.4\.4"
    ):
        variant.select(["2.3.4"], ["3.11"], ["mkl"], "linux-64")
    with pytest.raises(UsageError, match=r"unknown python: 3\.10\n  known: 3\.11"):
        variant.select(["2.3.5"], ["3.10"], ["mkl"], "linux-64")
    with pytest.raises(
        UsageError,
        match="unknown blas: blis\n  known: mkl, mkl-2025, mkl-2026, openblas",
    ):
        variant.select(["2.3.5"], ["3.11"], ["blis"], "linux-64")


@pytest.fixture
def changed_config(monkeypatch, tmp_path):
    """A function that changes a place of the build config; its text."""
    monkeypatch.setattr(paths, "BUILD_CONFIG", tmp_path / "conda_build_config.yaml")
    text = (paths.ROOT / "conda_build_config.yaml").read_text()

    def change(old, new):
        changed = re.sub(old, new, text, flags=re.MULTILINE)
        assert changed != text
        paths.BUILD_CONFIG.write_text(changed)

    return change


def test_without_a_release_that_is_switched_on_one_has_to_be_named(changed_config):
    changed_config("if: true, ", "if: false,")
    assert variant.load("linux-64") == []
    (one,) = variant.select(["2.4.1"], ["3.12"], ["openblas"], "linux-64")
    assert one.version == "2.4.1"
    assert variant.default_flavours("linux-64") == ["mkl-2025", "openblas"]
    matrix = variant.select(["all"], ["all"], ["openblas"], "linux-64")
    assert {v.python for v in matrix} == {"3.11"} and len(matrix) == 6
    with pytest.raises(
        UsageError, match="no numpy release is switched on for linux-64(?s:.*)--numpy"
    ):
        variant.select(None, None, None, "linux-64")


def test_a_python_that_is_switched_off_is_named_as_such(changed_config):
    changed_config("- (3.14.*)$", r"- {if: false, then: \1}")
    assert len(variant.select(["2.3.5"], None, ["openblas"], "linux-64")) == 3
    with pytest.raises(UsageError, match="nothing that was asked for is switched on"):
        variant.select(["2.3.5"], ["3.14"], None, "linux-64")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (r" 784db1\w+", "", "numpy_release in .*\n.*sha256 of its source"),
        (" 784db1", " ", "numpy_release in .*\n.*sha256 of its source"),
        ("then: 2.3.5 ", "else: 2.3.5 ", "numpy_release in "),
        ("^numpy_release:", "numpy_releases:", "numpy_release in "),
        ("^python:", "pythons:", "python in "),
        ("^blas_impl:", "blas:", "blas_impl in "),
        ("^python:", "python: 3.11\nothers:", "python in "),
        (r"3.11.\* \*_cpython", "3.11", "python in "),
        (r"- 3.11.\* \*_cpython", "-", "python in "),
        (r"3.11.\* \*_cpython", "'>=3.11'", "python in "),
        ("- openblas", "- {if: osx, then: openblas}", ""),
        (r"- (3\.1.*)$", r"- {if: false, then: \1}", "a line for linux-64: .*python"),
        ("if: linux and x86_64", "if: linux and ((", "does not render"),
        ("- openblas", "- blis", "does not render"),
        ("^blas_impl:", "  - [", "cannot be read"),
        (r"\A", "\0", "cannot be read"),
        (r"(?s)\A.*\Z", "", "numpy_release in "),
        (r"(?s)\A.*\Z", "- numpy_release", "numpy_release in "),
    ],
)
def test_a_build_config_that_is_wrong_is_an_error_that_names_file_and_key(
    changed_config, capsys, old, new, problem
):
    changed_config(old, new)
    for verb in (["variants"], ["variants", "--numpy", "2.4.1", "--platform", "linux-64"]):
        code = cli.main(verb)
        said = capsys.readouterr().err
        if not problem:
            assert (code, said) == (0, "")
            continue
        assert code == 2
        assert str(paths.BUILD_CONFIG) in said
        assert re.search(problem, said), said


@pytest.mark.parametrize("kind", ["missing", "folder", "no UTF-8"])
def test_a_build_config_that_cannot_be_read_is_an_error(monkeypatch, tmp_path, capsys, kind):
    path = tmp_path / "conda_build_config.yaml"
    monkeypatch.setattr(paths, "BUILD_CONFIG", path)
    if kind == "folder":
        path.mkdir()
    if kind == "no UTF-8":
        path.write_bytes(b"python: \xff")
    assert cli.main(["variants"]) == 2
    assert f"{path} cannot be read" in capsys.readouterr().err


def test_a_build_config_of_more_packages_than_were_chosen_is_refused(capsys):
    words = ["variants", "--platform", "linux-64", "--python", "all", "--build-config"]
    assert cli.main([*words, "--numpy", "all"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "expected: 36 packages\n  found:    72 packages" in err
    assert cli.main([*words, "--numpy", "2.4.1"]) == 0


def test_a_platform_that_is_named_twice_is_listed_once(capsys):
    for words in (["linux-64"], ["linux-64", "--platform", "linux-64"]):
        assert cli.main(["variants", "--json", "--platform", *words]) == 0
    once, twice = capsys.readouterr().out.splitlines()
    assert once == twice


def test_an_unknown_flavour_names_its_platform(capsys):
    platforms = ["--platform", "linux-64", "--platform", "osx-arm64"]
    assert cli.main(["variants", *platforms, "--blas", "mkl"]) == 2
    assert "known: openblas (conda_build_config.yaml for osx-arm64)" in capsys.readouterr().err
