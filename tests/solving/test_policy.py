"""What `verify` allows, held against the numpy packages that conda-forge really has."""

import re
from types import SimpleNamespace

import pytest

from helpers import conda_forge
from numpy_feedstock.packages import checks

METADATA = checks.policy()["metadata"]


def numpy_rows(platform):
    """conda-forge's records of the releases that the policy is about."""
    found = [row for row in conda_forge.rows() if row["name"] == "numpy"]
    return [
        row
        for row in found
        if row["subdir"] == platform and re.fullmatch(METADATA["releases"], row["version"])
    ]


def dependency_faults(row, **changes):
    """What `verify` says of a record's dependencies, as of an unpacked package."""
    package = SimpleNamespace(
        patched=False, index={"subdir": row["subdir"]}, specs=row["depends"], **changes
    )
    return list(checks._dependencies(package, None))


@pytest.mark.parametrize("platform", conda_forge.PLATFORMS)
def test_conda_forges_own_packages_are_allowed(platform):
    rows = numpy_rows(platform)
    assert len(rows) > 2
    assert {row["fn"]: dependency_faults(row) for row in rows if dependency_faults(row)} == {}


def test_a_package_for_x86_says_which_glibc_it_needs():
    (row, *_) = numpy_rows("linux-64")
    without = [spec for spec in row["depends"] if not spec.startswith("__glibc")]
    (fault,) = dependency_faults({**row, "depends": without})
    assert fault[0] == "depends: no __glibc"


def test_some_of_them_were_cross_compiled():
    """Those have the Python that cross-python exports."""
    specs = {spec for row in numpy_rows("linux-aarch64") for spec in row["depends"]}
    assert "python 3.12.* *_cpython" in specs and "python 3.13.* *_cp313" in specs
