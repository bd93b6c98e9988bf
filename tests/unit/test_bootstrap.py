"""The bootstrap channel's rules: wheels to recipes, and what the machine lacks."""

import email

import pytest

from numpy_feedstock import bootstrap, paths
from numpy_feedstock.errors import UsageError


def test_requirements_become_match_specs():
    metadata = email.message_from_string(
        "Requires-Dist: packaging>=24.0\n"
        "Requires-Dist: pyproject_hooks\n"
        "Requires-Dist: colorama; os_name == 'nt'\n"
        "Requires-Dist: uv>=0.1; extra == 'uv'\n"
        "Requires-Dist: build<2,>=1.0; python_version >= '3.8'\n"
    )
    assert list(bootstrap.run_requirements(metadata)) == [
        "packaging >=24.0",
        "pyproject_hooks",
        "python-build <2,>=1.0",
    ]


def test_every_wheel_is_pinned_by_hash():
    lines = (bootstrap.HERE / "wheels.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pins and all("==" in pin and pin.endswith("\\") for pin in pins)


def test_a_machine_without_a_compiler_is_told_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError,
        match=r"missing on this machine: gcc, g\+\+\n"
        r"  remedy: on Debian: apt-get install gcc g\+\+",
    ):
        bootstrap.inspect_machine(_running())


def test_a_machine_without_apt_compiles_with_its_own_gcc_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    said = []
    assert bootstrap.download_gcc("12.2.0", said.append) is None
    assert "the machine's gcc 12.2.0 compiles, for want of Debian's: no archive" in said[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_gcc_that_is_new_enough_needs_no_other(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    assert bootstrap.download_gcc("14.2.0", pytest.fail) is None


def test_a_python_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no python3.99 on PATH"):
        bootstrap.find_interpreter("3.99")


def _running():
    import sys

    return f"{sys.version_info[0]}.{sys.version_info[1]}"
