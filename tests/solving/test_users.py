"""Users' environments, solved against real records of conda-forge, our channel listed first."""

import pytest

from helpers import conda_forge, solves

MKL, OPENBLAS = solves.MKL, solves.OPENBLAS


@pytest.mark.parametrize("platform", conda_forge.PLATFORMS)
def test_ours_goes_with_what_users_have(day, platform):
    """Where conda-forge's own numpy does; four Pythons, each flavour, the usual packages."""
    answers = solves.user_answers(day, platform)
    assert list(answers.values()).count(solves.SOLVED) > len(answers) / 2
    refused = {
        key: answer
        for key, answer in answers.items()
        if answer != solves.SOLVED and not answer.startswith(solves.NO_RECORD)
    }
    assert not refused


@pytest.mark.parametrize("command", solves.documented_specs())
def test_a_documented_command_brings_our_build(day, command):
    specs = [*solves.documented_specs()[command], "python=3.11"]
    solved = conda_forge.solve([day.ours, day.conda_forge], specs)
    assert not solved.refusal
    assert solves.is_ours(solved["numpy"])


def test_every_page_has_a_command():
    """So that a changed form of the commands does not leave the test above empty."""
    assert len(solves.documented_specs()) >= 4


@pytest.mark.parametrize("major", ["2025", "2026"])
def test_the_pin_picks_the_build_for_the_mkl_that_is_there(newest, major):
    specs = [MKL, f"mkl={major}", "python=3.11"]
    solved = conda_forge.solve([newest.ours, newest.conda_forge], specs)
    assert not solved.refusal
    assert f"mkl >={major}" in " ".join(solved["numpy"].depends)


def test_pytorch_of_mkl_2026_has_ours(newest):
    specs = [MKL, "pytorch=2.12=cpu_mkl*", "python=3.11"]
    solved = conda_forge.solve([newest.ours, newest.conda_forge], specs)
    assert not solved.refusal and solves.is_ours(solved["numpy"])


def test_what_was_built_on_the_first_day_can_be_installed_on_the_last(days, newest):
    """A package stays in a channel for months."""
    first = days[conda_forge.DATES[0]]
    for spec in (MKL, OPENBLAS):
        solved = conda_forge.solve([first.ours, newest.conda_forge], [spec, "python=3.12"])
        assert not solved.refusal


@pytest.mark.parametrize(("specs", "glibc", "reason"), solves.REFUSED)
def test_a_refusal_names_what_is_in_the_way(newest, specs, glibc, reason):
    both = [newest.ours, newest.conda_forge]
    solved = conda_forge.solve(both, [*specs, "python=3.11"], glibc=glibc)
    assert reason in solved.refusal


@pytest.mark.parametrize(("specs", "glibc", "reason"), solves.REFUSED)
def test_conda_forges_own_numpy_is_not_refused_there(newest, specs, glibc, reason):
    """So the refusals above are ours, and not the records'."""
    neutral = [f"numpy={solves.RELEASE}", "python=3.12", *specs[1:]]
    assert not conda_forge.solve([newest.control], neutral, glibc=glibc).refusal


@pytest.fixture(scope="module", params=["2025", "2026"])
def locked(newest, request):
    """Specs, and an environment solved of them: conda-forge's unpatched numpy on an MKL."""
    specs = ["python=3.11", "libblas=*=*_mkl", "scipy", "pandas", f"mkl={request.param}"]
    solved = conda_forge.solve([newest.conda_forge], [f"numpy={solves.RELEASE}", *specs])
    assert not solves.is_ours(solved["numpy"])
    return specs, solved


@pytest.mark.parametrize("numpy", [f"numpy={solves.RELEASE}", MKL])
def test_refreshing_a_lock_file_brings_ours_and_moves_nothing_else(newest, locked, numpy):
    """As `pixi update numpy` does: everything else is kept where it can be."""
    specs, before = locked
    kept = _others(before.records)
    both = [newest.ours, newest.conda_forge]
    after = conda_forge.solve(both, [numpy, *specs], locked_packages=kept)
    assert solves.is_ours(after["numpy"])
    assert _filenames(_others(after.records)) == _filenames(kept)


def test_without_its_major_version_in_the_specs_mkl_may_move(newest, locked):
    """Both builds fit `mkl*_1*`, so the fleet guide has people name the MKL that they have."""
    specs, before = locked
    both = [newest.ours, newest.conda_forge]
    after = conda_forge.solve(both, [MKL, *specs[:-1]], locked_packages=_others(before.records))
    assert str(after["mkl"].version).startswith("2026.")


def test_the_pin_replaces_a_locked_numpy(newest, locked):
    """As `pixi add` does, which keeps numpy as well where the new spec allows it."""
    specs, before = locked
    both = [newest.ours, newest.conda_forge]
    after = conda_forge.solve(both, [MKL, *specs], locked_packages=list(before.records))
    assert solves.is_ours(after["numpy"])


def test_an_environment_locked_to_libstdcxx_15_has_ours(newest):
    locked = conda_forge.solve([newest.conda_forge], ["libstdcxx=15", "libgcc=15"])
    runtime = [record for record in locked.records if record.name.normalized != "_openmp_mutex"]
    both = [newest.ours, newest.conda_forge]
    for numpy in (MKL, OPENBLAS):
        solved = conda_forge.solve(both, [numpy, "python=3.11"], pinned_packages=runtime)
        assert not solved.refusal
        assert str(solved["libstdcxx"].version).startswith("15.")


def _others(records):
    return [record for record in records if record.name.normalized != "numpy"]


def _filenames(records):
    return sorted(record.file_name for record in records)
