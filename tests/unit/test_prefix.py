"""Prefixes: the variables of an activated one, and what a rootfs is taken to provide."""

import json
import os

import pytest

from numpy_feedstock import paths
from numpy_feedstock.building import builder
from numpy_feedstock.channels import channel, prefix


@pytest.fixture
def folder(tmp_path):
    """An empty prefix; its path has a space."""
    made = tmp_path / "a prefix"
    (made / "conda-meta").mkdir(parents=True)
    (made / "bin").mkdir()
    return made


def test_the_variables_that_conda_keeps_in_its_state_are_set(folder, monkeypatch):
    monkeypatch.setenv("FROM_THE_SHELL", "stays")
    variables = {"MKL_THREADING_LAYER": "SEQUENTIAL", "QUOTED": 'a "b"\nc'}
    state = {"env_vars": {**variables, "MKL_NUM_THREADS": "***unset***"}}
    (folder / "conda-meta" / "state").write_text(json.dumps(state))
    found = prefix.activated(folder)
    assert "MKL_NUM_THREADS" not in found
    assert {name: found[name] for name in variables} == variables
    assert found["CONDA_PREFIX"] == str(folder)
    assert found["PATH"].split(":")[0] == str(folder / "bin")
    assert found["FROM_THE_SHELL"] == "stays"


def test_the_scripts_of_its_packages_are_run(folder):
    scripts = folder / "etc" / "conda" / "activate.d"
    scripts.mkdir(parents=True)
    (scripts / "compiler.sh").write_text('export CXX="$CONDA_PREFIX/bin/g++"\n')
    assert prefix.activated(folder)["CXX"] == f"{folder}/bin/g++"


INHERITED = ["MKL_NUM_THREADS", "GOMP_SPINCOUNT", "PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH"]
INHERITED += ["NPY_DISABLE_CPU_FEATURES", "CONDA_DEFAULT_ENV"]


def test_no_inherited_variable_changes_what_it_does(folder, monkeypatch):
    for name in INHERITED:
        monkeypatch.setenv(name, "")
    assert not prefix.activated(folder).keys() & {*INHERITED}
    assert os.environ["PYTHONPATH"] == ""


def test_a_file_that_the_users_shells_read_changes_nothing(folder, tmp_path, monkeypatch):
    expected = prefix.activated(folder)
    (tmp_path / "bashrc").write_text("echo hello; export PATH=/nowhere:$PATH MKL_NUM_THREADS=1\n")
    monkeypatch.setenv("BASH_ENV", str(tmp_path / "bashrc"))
    assert prefix.activated(folder) == expected


def listed(folder, *packages):
    """A channel whose index lists packages: (name, version, build, depends). Its URL."""
    entries = {}
    for name, version, build, depends in packages:
        entries[f"{name}-{version}-{build}.conda"] = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "depends": depends,
            "subdir": channel.this_platform(),
            "sha256": "0" * 64,
            "size": 1,
        }
    for subdir, index in ((channel.this_platform(), entries), ("noarch", {})):
        (folder / subdir).mkdir(parents=True)
        repodata = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": index}
        (folder / subdir / "repodata.json").write_text(json.dumps(repodata))
    return channel.url(folder)


def test_a_package_with_conda_forges_requirements_is_solved_for_a_rootfs(tmp_path):
    # no channel has libgcc 14 or Python here: the rootfs has
    blas = ("libopenblas", "0.3.33", "0", ["libgcc >=14", "libstdcxx >=14"])
    url = listed(tmp_path / "channel", blas)
    (tmp_path / "stand-ins").mkdir()
    prefix._write_stand_ins(tmp_path / "stand-ins", "openblas_py311h0000000_100")
    needs = [
        "libgcc >=14",
        "libstdcxx >=14",
        "libopenblas >=0.3.33,<1.0a0",
        "python >=3.11,<3.12.0a0",
        "python_abi 3.11.* *_cp311",
    ]
    solved = prefix.solve([channel.url(tmp_path / "stand-ins"), url], needs)
    assert [each.name.normalized for each in solved if "stand-ins" not in each.url] == [
        "libopenblas"
    ]


def test_a_package_of_pure_python_goes_to_the_python_of_the_rootfs(tmp_path, monkeypatch):
    """No record of a channel tells where that is: the stand-in for Python does."""
    monkeypatch.setattr(paths, "PACKAGE_CACHE", tmp_path / "cache")
    (tmp_path / "stand-ins").mkdir()
    prefix._write_stand_ins(tmp_path / "stand-ins", "openblas_py312h0000000_100")
    recipe = {
        "package": {"name": "pure", "version": "1"},
        "build": {
            "noarch": "python",
            "script": 'mkdir -p "$PREFIX/site-packages" && touch "$PREFIX/site-packages/pure.py"',
        },
        "requirements": {"run": ["python"]},
    }
    builder.build_recipe(recipe, tmp_path / "channel", {}, print)
    urls = [channel.url(tmp_path / name) for name in ("stand-ins", "channel")]
    folder = prefix.install(urls, ["pure"], tmp_path / "prefix")
    assert (folder / "lib/python3.12/site-packages/pure.py").is_file()
