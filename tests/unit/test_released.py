"""Released wheels: what is said of bad input, before anything runs."""

import platform

import pytest

from numpy_feedstock.building import wheel
from numpy_feedstock.errors import UsageError
from numpy_feedstock.measuring import released


def test_a_release_without_a_wheel_for_this_python_is_none(monkeypatch):
    monkeypatch.setattr(wheel, "TAG", "cp99")
    assert released.unpack_release("2.3.5") is None


def test_a_wheel_with_another_sha256_is_refused_and_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(wheel.paths, "BUILD", tmp_path)
    with pytest.raises(UsageError) as caught:
        wheel.unpacked("iniconfig", "2.3.1", "0" * 64)
    assert "the wheel of iniconfig 2.3.1" in str(caught.value)
    assert f"expected: sha256 {'0' * 64}" in str(caught.value)
    assert not list(tmp_path.rglob("*.py"))


def test_without_a_compiler_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError,
        match=r"a C\+\+ compiler is needed\n.*\n  remedy: on Debian: apt-get install g\+\+",
    ):
        released.build_shim(tmp_path)


def test_where_mkl_has_no_wheels_it_says_so(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(UsageError, match="expected: Linux x86_64\n  found:    Linux aarch64"):
        released.check_platform()
