"""The verbs that measure, on the packages: one row of each, and what they refuse."""

import json

import pytest

from helpers.command import feedstock
from numpy_feedstock.packages import junit
from numpy_feedstock.packages.record import RESULTS, beside

pytestmark = pytest.mark.packages


def test_a_row_tells_the_package_from_its_control(packages):
    result = feedstock(
        "hang-matrix",
        "--blas",
        "mkl",
        "--layer",
        "INTEL",
        "--threads",
        "2",
        "--trials",
        "6",
        "--timeout",
        "10",
        "--json",
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    package, control = found["rows"]
    # it ran on what the row says
    for row in found["rows"]:
        assert (row["library"], row["layer_found"]) == ("libmkl_rt.so.2", "intel_thread")
    assert (package["kind"], package["products"]) == ("package", 0)
    assert package["hangs_in_race"] == package["hangs_main_late"] == [0, 3]
    assert (control["kind"], control["products"]) == ("control", 1)
    assert control["hangs_main_late"] == [3, 3]
    assert control["stacks"] and not package["stacks"]
    assert found["versions"]["mkl"] and found["packages"]["mkl-2025"] == packages["mkl"].name


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--output", "nowhere", "--blas", "mkl"], "not built and tested yet: nowhere/"),
        (["--blas", "atlas"], "unknown blas: atlas"),
        (["--trials", "1"], "--trials: a whole number from 2 to"),
        (["--timeout", "0"], "--timeout: seconds from 1 to 3600 are needed, found '0'"),
        (["--threads", "0"], "--threads: a whole number from 1 to 1024 is needed, found '0'"),
    ],
)
def test_wrong_use_is_exit_2(packages, args, message):
    result = feedstock("hang-matrix", *args)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_dry_run_names_the_cells(packages):
    result = feedstock("hang-matrix", "--dry-run")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 2 + 4 * 3 + 3


def test_the_packages_own_results_are_beside_it(packages, records):
    for blas, path in packages.items():
        counts = junit.count(junit.outcomes(beside(path, RESULTS)))
        assert counts == records[blas].numpy_tests
        assert counts["failed"] == 0 and counts["passed"] > 40_000


def test_the_suite_on_the_control_fails_nowhere_that_the_package_does_not(packages):
    result = feedstock("compare-tests", "--blas", "openblas", "--json")
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)["rows"]
    assert row["only_package"] == [] and row["control"]["passed"] > 40_000


def test_the_benchmark_compares_with_the_released_wheel(packages):
    result = feedstock("benchmark", "--rounds", "1", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found["rows"]) > 35 and all(
        row["package"] > 0 and row["wheel"] > 0 for row in found["rows"]
    )
    assert found["package"] == packages["openblas"].name
    # compiled for the same CPUs
    assert found["same_simd"]
