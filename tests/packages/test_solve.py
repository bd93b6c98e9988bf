"""What solvers make of the packages on a RHEL 8 host, beside an unpatched numpy."""

import json
from pathlib import Path

import pytest
import rattler
from rattler.exceptions import SolverError

from helpers.shipped import OUTPUT, PYTHON, RELEASE
from numpy_feedstock.channels import channel, prefix
from numpy_feedstock.packages.specs import exactly

pytestmark = pytest.mark.packages

# affected, too, and in the public channel alone
NEWER = "2.4.4"
# as in the pages
PIN = f"numpy={RELEASE}=mkl*_1*"


@pytest.fixture(scope="module")
def entries(packages):
    """{file name: its entry in the index of output/} of the packages under test.

    Not the whole of output/: what else somebody built there is no part of these tests.
    """
    index = json.loads((OUTPUT / "linux-64" / "repodata.json").read_text())
    return {path.name: index["packages.conda"][path.name] for path in packages.values()}


@pytest.fixture(scope="module")
def ours(entries, tmp_path_factory):
    """The URL of a channel that holds the packages under test. Its index alone."""
    folder = tmp_path_factory.mktemp("ours")
    write_index(folder, "linux-64", entries)
    write_index(folder, "noarch", {})
    return channel.url(folder)


@pytest.fixture(scope="module")
def public(channels, entries, tmp_path_factory):
    """The URL of a channel as conda-forge is. Its index alone.

    It is the bootstrap channel's index, everything for glibc 2.17 and later. numpy is in it
    unpatched: our packages' entries with build number 0, in two releases.
    """
    folder = tmp_path_factory.mktemp("public")
    source = Path(channels[1].removeprefix("file://"))
    for subdir in ("linux-64", "noarch"):
        index = json.loads((source / subdir / "repodata.json").read_text())["packages.conda"]
        if subdir == "linux-64":
            index.update(unpatched(entries))
        for entry in index.values():
            entry["depends"] = [
                "__glibc >=2.17" if spec.startswith("__glibc") else spec
                for spec in entry["depends"]
            ]
        write_index(folder, subdir, index)
    return channel.url(folder)


def unpatched(entries):
    """The entries of our packages as conda-forge would have them, in RELEASE and in NEWER."""
    found = {}
    for filename, entry in entries.items():
        build = entry["build"].removesuffix("100") + "0"
        theirs = {**entry, "build_number": 0, "build": build}
        filename = filename.replace("_100.", "_0.")
        found[filename] = theirs
        newer = filename.replace(RELEASE, NEWER)
        found[newer] = {**theirs, "version": NEWER, "sha256": "0" * 64}
    return found


def write_index(folder, subdir, packages):
    """Write the index of one subdir."""
    index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages}
    (folder / subdir).mkdir()
    (folder / subdir / "repodata.json").write_text(json.dumps(index))


def host(glibc):
    """The virtual packages of a host with a glibc."""
    here = [package.into_generic() for package in rattler.VirtualPackage.detect()]
    others = [package for package in here if package.name.normalized != "__glibc"]
    return [
        *others,
        rattler.GenericVirtualPackage(
            rattler.PackageName("__glibc"), rattler.Version(glibc), rattler.BuildString("0")
        ),
    ]


def numpy_of(channels, glibc, *specs, **options):
    """The numpy that is picked: (URL of its channel, build string)."""
    records = prefix.solve(channels, [*specs, f"python={PYTHON}"], host(glibc), **options)
    (numpy,) = (record for record in records if record.name.normalized == "numpy")
    return numpy.channel.rstrip("/"), str(numpy.build)


@pytest.mark.parametrize("glibc", ["2.28", "2.34"])
@pytest.mark.parametrize(
    ("specs", "blas"),
    [
        ([f"numpy={RELEASE}", "blas=*=mkl"], "mkl"),
        (["numpy", "blas=*=mkl"], "mkl"),
        ([PIN], "mkl"),
        (["numpy", "libblas=*=*_openblas"], "openblas"),
        ([f"numpy={RELEASE}=mkl*"], "mkl"),
        ([f"numpy={RELEASE}"], None),
    ],
)
def test_ours_is_picked_before_an_unpatched_one(public, ours, glibc, specs, blas):
    source, build = numpy_of([ours, public], glibc, *specs)
    assert source == ours.rstrip("/")
    assert build.endswith("_100") and (blas is None or build.startswith(blas))


def test_alone_the_public_channel_gives_the_unpatched_one(public):
    """That the tests above have something to choose from."""
    assert numpy_of([public], "2.28", f"numpy={RELEASE}", "blas=*=mkl") == (
        public.rstrip("/"),
        _unpatched(public, "mkl"),
    )


def test_the_pin_holds_where_the_order_of_the_channels_does_not(public, ours):
    """The rollout guide's table."""
    assert numpy_of([public, ours], "2.28", f"numpy={RELEASE}")[0] == public.rstrip("/")
    assert numpy_of([public, ours], "2.28", PIN)[0] == ours.rstrip("/")


def test_priority_does_not_hold_back_a_release_that_ours_lacks(public, ours):
    """The rollout guide says so, because one would think otherwise."""
    strict = {"channel_priority": rattler.ChannelPriority.Strict}
    assert numpy_of([ours, public], "2.28", f"numpy={NEWER}", **strict)[0] == public.rstrip("/")


def _unpatched(public, blas):
    with open(public.removeprefix("file://").rstrip("/") + "/linux-64/repodata.json") as stream:
        found = [
            each["build"]
            for name, each in json.load(stream)["packages.conda"].items()
            if name.startswith(f"numpy-{RELEASE}-{blas}")
        ]
    (build,) = found
    return build


def test_refreshing_a_lockfile_brings_ours(public, ours):
    """As pixi and conda-lock do: the rest is kept where it can be, and numpy is asked anew."""
    locked = prefix.solve(
        [public], [f"numpy={RELEASE}", "blas=*=mkl", f"python={PYTHON}"], host("2.28")
    )
    kept = [record for record in locked if record.name.normalized != "numpy"]
    source, build = numpy_of(
        [ours, public],
        "2.28",
        f"numpy={RELEASE}",
        "blas=*=mkl",
        locked_packages=kept,
    )
    assert (source, build.endswith("_100")) == (ours.rstrip("/"), True)


def test_an_older_glibc_is_refused_and_it_says_why(public, ours, packages):
    with pytest.raises(SolverError) as refused:
        numpy_of([ours, public], "2.17", exactly(packages["mkl"]))
    assert "__glibc >=2.28" in str(refused.value)
