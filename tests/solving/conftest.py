"""The channels of three days, made once."""

import pytest

from helpers import conda_forge, solves


@pytest.fixture(scope="session")
def days(tmp_path_factory):
    """{"2026-05-05": solves.Channels}: conda-forge as of three days, and ours as built from it."""
    return {
        date: solves.make_channels(tmp_path_factory.mktemp(date), date)
        for date in conda_forge.DATES
    }


@pytest.fixture(params=conda_forge.DATES)
def day(days, request):
    """The channels of each day in turn: solves.Channels."""
    return days[request.param]


@pytest.fixture(scope="session")
def newest(days):
    """The channels of the newest day of the records."""
    return days[conda_forge.DATES[-1]]
