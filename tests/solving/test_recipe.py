"""The recipe's environments, solved against real records of conda-forge as of three days."""

import pytest

from helpers import conda_forge
from numpy_feedstock import variant

# no lock file had a cython for these on that day: a refusal for want of a record proves nothing
NO_CYTHON = {("2026-05-05", "linux-aarch64", "3.11"), ("2026-05-05", "linux-aarch64", "3.12")}
# conda-forge's first mkl 2026 is of 2026-05-20
NO_MKL = {("2026-05-05", "mkl-2026")}


@pytest.fixture(scope="module", params=conda_forge.DATES)
def date(request):
    return request.param


@pytest.fixture(scope="module")
def channel(date, tmp_path_factory):
    """URL of conda-forge as of the date."""
    folder = tmp_path_factory.mktemp("conda-forge") / date
    return conda_forge.write_channel(folder, conda_forge.rows(date))


@pytest.mark.parametrize("platform", conda_forge.PLATFORMS)
def test_every_variant_finds_its_build_and_host_packages(channel, date, platform):
    for rendered in variant.render(platform, {}):
        found = conda_forge.environments(rendered, channel, platform)
        v = variant.describe(rendered)
        assert not found.build.refusal
        if (date, v.flavour) in NO_MKL:
            assert "mkl-devel" in found.host.refusal
        elif (date, platform, v.python) in NO_CYTHON:
            assert "cython" in found.host.refusal
        else:
            assert not found.host.refusal
