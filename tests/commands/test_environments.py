"""Environments for other programs: what pip is set to does not change them."""

import pytest

from helpers import small
from numpy_feedstock import paths
from numpy_feedstock.building import environments


@pytest.mark.parametrize("variable", ["PIP_TARGET", "PIP_DRY_RUN", "PIP_USER"])
def test_pip_installs_into_the_environment_whatever_it_is_set_to(tmp_path, monkeypatch, variable):
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere") if variable == "PIP_TARGET" else "1")
    lock = tmp_path / "requirements.txt"
    lock.write_text(small.requirement(tmp_path))
    assert (environments.site_packages(lock) / "tiny.py").exists()
    assert not (tmp_path / "elsewhere").exists()
