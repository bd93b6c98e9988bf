"""The recipe's environments, solved against real records of conda-forge as of three days."""

import pytest

from helpers import conda_forge, solves
from numpy_feedstock import variant


@pytest.mark.parametrize("platform", conda_forge.PLATFORMS)
def test_every_variant_can_be_built_and_tested(day, platform):
    """Its build and host environment, and each environment of its tests with the package itself."""
    answers = solves.recipe_answers(day, platform)
    assert len(answers) == len(variant.load(platform))
    refused = {
        label: answer
        for label, answer in answers.items()
        if answer != solves.SOLVED and not answer.startswith(solves.NO_RECORD)
    }
    assert not refused


@pytest.mark.parametrize("platform", conda_forge.PLATFORMS)
def test_the_newest_day_lacks_no_record(newest, platform):
    assert set(solves.recipe_answers(newest, platform).values()) == {solves.SOLVED}


@pytest.mark.parametrize("platform", conda_forge.PLATFORMS)
def test_each_package_requires_the_library_that_it_is_linked_to(newest, platform):
    """Which no solve would miss: an import would."""
    for row in solves.our_rows(newest.conda_forge, platform):
        library = {"mkl": "mkl", "openblas": "libopenblas"}[row["build"].split("_")[0]]
        assert [spec for spec in row["depends"] if spec.split()[0] == library], row["fn"]


def test_the_compilers_are_those_of_conda_forges_numpy(newest):
    """A newer libstdcxx than conda-forge's own numpy asks for keeps ours out of environments."""
    theirs = {
        spec
        for row in conda_forge.rows()
        if row["name"] == "numpy" and row["version"] in variant.known_releases()
        for spec in row["depends"]
        if spec.startswith("libstdcxx")
    }
    for row in solves.our_rows(newest.conda_forge, "linux-64"):
        assert [spec for spec in row["depends"] if spec.startswith("libstdcxx")] == list(theirs)
