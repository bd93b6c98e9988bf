"""A fresh clone for each test."""

import pytest

from helpers.clone import Clone


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)
