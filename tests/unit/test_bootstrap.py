"""The bootstrap channel's rules: wheels to recipes, and what the machine lacks."""

import email

import pytest
import yaml

from numpy_feedstock import paths
from numpy_feedstock.building import bootstrap
from numpy_feedstock.building.bootstrap import machine, wheels
from numpy_feedstock.errors import FeedstockError, UsageError


def test_requirements_become_match_specs():
    metadata = email.message_from_string(
        "Requires-Dist: packaging>=24.0\n"
        "Requires-Dist: pyproject_hooks\n"
        "Requires-Dist: colorama; os_name == 'nt'\n"
        "Requires-Dist: uv>=0.1; extra == 'uv'\n"
        "Requires-Dist: build<2,>=1.0; python_version >= '3.8'\n"
    )
    assert list(wheels.run_requirements(metadata)) == [
        "packaging >=24.0",
        "pyproject_hooks",
        "python-build <2,>=1.0",
    ]


@pytest.mark.parametrize("name", ["wheels.txt", "mkl-2026.txt"])
def test_every_wheel_is_pinned_by_hash(name):
    lines = (bootstrap.HERE / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pins and all("==" in pin and pin.endswith("\\") for pin in pins)


def test_a_machine_without_a_compiler_is_told_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError,
        match=r"missing on this machine: gcc, g\+\+\n"
        r"  remedy: on Debian: apt-get install gcc g\+\+",
    ):
        machine.inspect(_running())


@pytest.mark.parametrize("other", ["12.2.0", "15.1.0"])
def test_another_gcc_does_not_stand_in_for_the_one_that_is_pinned(monkeypatch, tmp_path, other):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    with pytest.raises(FeedstockError) as raised:
        bootstrap.download_gcc(other, print)
    said = str(raised.value)
    assert "Debian's gcc 14 cannot be downloaded: no archive" in said
    assert "expected: gcc 14, which conda_build_config.yaml pins" in said
    assert f"found:    gcc {other} on this machine" in said
    assert "remedy:   make gcc and g++ of version 14 the first on PATH" in said
    assert list(tmp_path.iterdir()) == []


def test_a_machine_whose_own_gcc_is_the_pinned_one_needs_no_other(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    assert bootstrap.download_gcc("14.2.0", pytest.fail) is None


def test_the_gcc_that_is_downloaded_is_the_one_that_the_build_config_pins():
    pinned = yaml.safe_load(paths.BUILD_CONFIG.read_text())
    wanted = str(yaml.safe_load(bootstrap.DEBIAN_GCC.read_text())["gcc"])
    for compiler in ("c", "cxx"):
        assert {"if": "linux", "then": wanted} in pinned[f"{compiler}_compiler_version"]
    assert pinned["fortran_compiler_version"] == [wanted]


def test_the_wheels_of_mkl_are_those_that_the_build_config_names():
    pinned = yaml.safe_load(paths.BUILD_CONFIG.read_text())["blas_impl"]
    named = [line["then"].split()[1] for line in pinned if isinstance(line, dict)]
    lists = [(bootstrap.HERE / name).read_text() for name in ("wheels.txt", "mkl-2026.txt")]
    for release, text in zip(named, lists, strict=True):
        assert f"\nmkl-devel=={release}." in text


def test_a_python_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no python3.99 on PATH"):
        machine.find_interpreter("3.99")


def _running():
    import sys

    return f"{sys.version_info[0]}.{sys.version_info[1]}"
