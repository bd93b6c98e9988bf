"""The controls of the packages in output/: the repro of each package has to fail on its own."""

import json

import pytest

from helpers.command import feedstock
from helpers.shipped import PYTHON, RELEASE
from numpy_feedstock import variant

pytestmark = pytest.mark.packages
EXPECTED = {"mkl": "AFFECTED", "openblas": "LATENT"}


def asked(release, python, flavour):
    """The row of a package, after the repro ran on its control."""
    args = ("--numpy", release, "--python", python, "--blas", flavour)
    done = feedstock("matrix", "--controls", *args, "--json")
    (row,) = json.loads(done.stdout)["rows"]
    print(done.stderr)
    return done.returncode, row


def test_the_repro_is_red_on_the_control_of_a_package(packages):
    code, row = asked(RELEASE, PYTHON, "openblas")
    assert (code, row["package"]) == (0, packages["openblas"].name)
    assert row["control"] == EXPECTED["openblas"]


@pytest.mark.matrix
@pytest.mark.parametrize(
    "wanted",
    variant.select(["all"], ["all"], variant.DEFAULT_FLAVOURS, "linux-64"),
    ids=lambda wanted: str(wanted).replace(" ", "-"),
)
def test_the_repro_is_red_on_the_control_of_each_built_package(wanted):
    code, row = asked(wanted.version, wanted.python, wanted.flavour)
    if not row["sha256"]:
        pytest.skip(f"not built: {wanted.filename}")
    assert (code, row["control"]) == (0, EXPECTED[wanted.blas])
