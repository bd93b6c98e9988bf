"""The packages themselves: what they declare, what travels in them, what solvers make of them."""

import json
import re
import subprocess

import pytest
import yaml
from rattler.package_streaming import extract
from rattler_build import Package, PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

from helpers.shipped import PYTHON, RELEASE, solve
from numpy_feedstock import paths
from numpy_feedstock.channels.prefix import activated

pytestmark = [pytest.mark.packages, pytest.mark.parametrize("blas", ["mkl", "openblas"])]

# of numpy 2.3.5 at conda-forge (linux-64, Python 3.11); versions are floors that follow the build;
# less libstdcxx, which is linked statically
CONDA_FORGE_RUN = {"python", "python_abi", "libblas", "libcblas", "liblapack", "libgcc", "__glibc"}
OURS = {"mkl": {"mkl"}, "openblas": {"libopenblas"}}


@pytest.fixture
def unpacked(packages, blas, tmp_path):
    extract(packages[blas], tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_name_and_record(packages, records, blas):
    record = records[blas]
    assert re.fullmatch(
        rf"numpy-{RELEASE}-{blas}_py{PYTHON.replace('.', '')}h\w{{7}}_100\.conda", record.filename
    )
    assert record.passed and set(record.tests) == {
        "imports",
        "f2py",
        "blas",
        "repro",
        "numpy's own tests",
    }


def test_it_declares_what_conda_forge_declares_and_the_blas_it_is_linked_to(packages, blas):
    package = Package.from_file(packages[blas])
    assert {spec.split()[0] for spec in package.depends} == CONDA_FORGE_RUN | OURS[blas]
    assert f"libblas * *_{blas}" in package.depends
    assert package.constrains == ["numpy-base <0a0"]
    assert package.build_number == 100


def test_run_exports_and_programs(unpacked, blas):
    assert json.loads((unpacked / "info/run_exports.json").read_text()) == {
        "weak": ["numpy >=1.23,<3"]
    }
    assert {path.name for path in (unpacked / "bin").iterdir()} == {"f2py", "numpy-config"}
    assert (unpacked / "info/licenses/LICENSE.txt").exists()


def test_it_is_linked_to_its_own_blas(unpacked, blas):
    (extension,) = unpacked.glob("lib/python3.*/site-packages/numpy/_core/_multiarray_umath.*.so")
    data = extension.read_bytes()
    names = {"mkl": b"libmkl_rt.so.2\0", "openblas": b"libopenblas.so.0\0"}
    assert {flavour for flavour, name in names.items() if name in data} == {blas}


def test_it_can_be_rebuilt_from_itself(unpacked, packages, blas, tmp_path):
    """info/recipe holds the patch and the repro, and renders to the same build string."""
    recipe = unpacked / "info" / "recipe"
    for relative in ("patches", "repro"):
        for source in (paths.RECIPE.parent / relative).iterdir():
            if source.is_file():
                assert (recipe / relative / source.name).read_bytes() == source.read_bytes()
    assert not [path for path in recipe.rglob("*") if path.is_symlink()]
    platform = PlatformConfig(target_platform="linux-64")
    keys = yaml.safe_load((recipe / "variant_config.yaml").read_text())
    config = VariantConfig({key: [value] for key, value in keys.items()})
    (rendered,) = Stage0Recipe.from_file(recipe / "recipe.yaml").render(
        config, RenderConfig(platform=platform)
    )
    assert (
        rendered.recipe.to_dict()["build"]["string"]
        == Package.from_file(packages[blas]).build_string
    )


def test_the_flavour_is_picked_by_build_string_and_by_the_blas_metapackage(channels, blas):
    by_string = solve(channels, [f"numpy={RELEASE}={blas}*_1*"])
    assert by_string["numpy"].startswith(f"{blas}_py")
    assert by_string["libblas"].endswith(f"_{blas}")
    by_metapackage = solve(channels, [f"blas=*={blas}", f"numpy={RELEASE}"])
    assert by_metapackage["numpy"].startswith(f"{blas}_py")


def test_the_public_names_are_those_of_the_control(prefixes, controls, blas):
    def names(prefix):
        command = [prefix / "bin" / "python", "-c", "import numpy; print(sorted(dir(numpy)))"]
        return subprocess.check_output(command, env=activated(prefix), text=True)

    assert names(prefixes[blas]) == names(controls[blas])


def test_show_config_names_its_blas(prefixes, blas):
    code = (
        "import numpy; print(numpy.show_config(mode='dicts')['Build Dependencies']['blas']['name'])"
    )
    shown = subprocess.check_output(
        [prefixes[blas] / "bin" / "python", "-c", code], env=activated(prefixes[blas]), text=True
    )
    assert shown.strip() == {"mkl": "mkl-sdl", "openblas": "openblas"}[blas]
