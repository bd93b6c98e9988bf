"""The printed commands of conda and pixi, solved by py-rattler, which is pixi's engine.

The channels have the shape of the real ones: conda-forge's numpy needs an interface whose build
names the BLAS; Anaconda's numpy is two packages and knows no libblas; ours is built on
conda-forge's. conda itself, which pip does not have, was run by hand only.
"""

import shlex

import pytest
from rattler.exceptions import SolverError

import audit_numpy
from helpers import small
from numpy_feedstock.channels import channel, channel_folder, prefix

MKL = "libblas * *mkl"


@pytest.fixture(scope="module")
def channels(tmp_path_factory):
    """{name: URL of a channel in a folder}."""
    work = tmp_path_factory.mktemp("channels")
    return {
        "ours": make(work, "ours", numpy("mkl_py311h1_100", 100, [MKL])),
        "forge": make(
            work,
            "forge",
            numpy("py311h1_0", 0, ["libblas"]),
            package("numpy", "2.4.5", "py313h1_0", 0, ["libblas"]),
            package("libblas", "3.11.0", "1_mkl", 1, ["mkl"]),
            package("libblas", "3.11.0", "1_openblas", 1, []),
            package("mkl", "2025.3", "0", 0, []),
        ),
        "main": make(
            work,
            "main",
            numpy("py311h1_1", 1, ["numpy-base 2.3.5"]),
            package("numpy-base", "2.3.5", "py311h1_1", 1, ["mkl"]),
            package("mkl_fft", "2.1", "py311h1_0", 0, ["mkl", "numpy-base"]),
            package("mkl", "2025.3", "0", 0, []),
        ),
    }


def package(name, version, build, number, depends):
    return {
        "name": name,
        "version": version,
        "build": build,
        "build_number": number,
        "depends": depends,
    }


def numpy(build, number, depends):
    return package("numpy", "2.3.5", build, number, depends)


def make(work, name, *packages):
    """The URL of a channel with some packages."""
    folder = work / name
    (folder / "linux-64").mkdir(parents=True)
    for number, index in enumerate(packages):
        path = small.make(work / "unpacked" / name, number, **index)
        path.rename(folder / "linux-64" / path.name)
    channel_folder.index(folder)
    return channel.url(folder)


def solved(command, channels, urls):
    """{name: build} of what a printed `conda install` or `pixi add` brings.

    urls : of the channels, where the command does not name them itself
    """
    words = shlex.split(command)
    named = [words[at + 1] for at, word in enumerate(words) if word == "-c"]
    asked = [channels.get(name, name) for name in named] or urls
    records = prefix.solve(asked, [words[-1]])
    return {str(each.name.normalized): str(each.build) for each in records}


def command(channels, installer, version="2.3.5", python="python3.11", url="forge"):
    """What the audit prints last for an affected numpy of conda."""
    row = {
        "numpy": f"/p/lib/{python}/site-packages/numpy",
        "prefix": "/p",
        "version": version,
        "blas": "mkl",
        "channel": channels[url],
        "installer": installer,
    }
    return audit_numpy.remedies(row, channels["ours"])[0][-1]


def test_conda_forges_numpy_becomes_ours(channels):
    found = solved(command(channels, "conda"), channels, [])
    assert (found["numpy"], found["libblas"]) == ("mkl_py311h1_100", "1_mkl")


def test_anacondas_becomes_ours_with_conda_forge_and_loses_its_second_half(channels):
    line = command(channels, "anaconda", url="main")
    assert "-c conda-forge " in line
    found = solved(line, {**channels, "conda-forge": channels["forge"]}, [])
    assert found["numpy"] == "mkl_py311h1_100"
    assert "numpy-base" not in found and "mkl_fft" not in found


def test_without_conda_forge_there_is_no_solution(channels):
    """That the audit may not name Anaconda's channel alone."""
    with pytest.raises(SolverError):
        prefix.solve([channels["ours"], channels["main"]], ["numpy=2.3.5=mkl*_1*"])


def test_a_free_threaded_one_becomes_a_newer_one(channels):
    line = command(channels, "conda", python="python3.13t")
    assert solved(line, channels, [])["numpy"] == "py313h1_0"


def test_a_workspace_of_pixi_gets_ours(channels):
    line = command(channels, "pixi")
    assert f"--prepend {channels['ours']} " in line
    found = solved(line, channels, [channels["ours"], channels["forge"]])
    assert found["numpy"] == "mkl_py311h1_100"


def test_an_environment_of_pixi_global_gets_a_newer_one_without_a_channel_of_ours(channels):
    found = solved(command(channels, "pixi global"), channels, [channels["forge"]])
    assert found["numpy"] == "py313h1_0"
