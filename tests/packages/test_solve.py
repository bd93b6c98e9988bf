"""What solvers make of the packages on a RHEL 8 host, beside an unpatched numpy of the same version."""

import json

import pytest
import rattler
from rattler.exceptions import SolverError

from helpers.shipped import OUTPUT, PYTHON, RELEASE
from numpy_feedstock import channel, prefix
from numpy_feedstock.specs import exactly

pytestmark = pytest.mark.packages

# affected, too, and in the public channel alone
NEWER = "2.4.4"
# as in the pages
PIN = f"numpy={RELEASE}=mkl*_1*"


@pytest.fixture(scope="module")
def public(channels, packages, tmp_path_factory):
    """The URL of a channel as conda-forge is: all for glibc 2.17 on, and numpy unpatched, with build number 0, in two releases.

    Its index alone: the bootstrap channel's, and our packages' entries, changed.
    """
    folder = tmp_path_factory.mktemp("public")
    source = channels[1].removeprefix("file://")
    ours = json.loads((OUTPUT / "linux-64" / "repodata.json").read_text())["packages.conda"]
    for subdir in ("linux-64", "noarch"):
        with open(f"{source}/{subdir}/repodata.json") as stream:
            index = json.load(stream)
        if subdir == "linux-64":
            for path in packages.values():
                entry = {
                    **ours[path.name],
                    "build_number": 0,
                    "build": ours[path.name]["build"].removesuffix("100") + "0",
                }
                index["packages.conda"][path.name.replace("_100.", "_0.")] = entry
                newer = path.name.replace("_100.", "_0.").replace(RELEASE, NEWER)
                index["packages.conda"][newer] = {**entry, "version": NEWER, "sha256": "0" * 64}
        for entry in index["packages.conda"].values():
            entry["depends"] = [
                "__glibc >=2.17" if spec.startswith("__glibc") else spec
                for spec in entry["depends"]
            ]
        (folder / subdir).mkdir()
        (folder / subdir / "repodata.json").write_text(json.dumps(index))
    return channel.url(folder)


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
def test_ours_is_picked_before_an_unpatched_one(public, packages, glibc, specs, blas):
    source, build = numpy_of([channel.url(OUTPUT), public], glibc, *specs)
    assert source == channel.url(OUTPUT).rstrip("/")
    assert build.endswith("_100") and (blas is None or build.startswith(blas))


def test_alone_the_public_channel_gives_the_unpatched_one(public):
    """That the tests above have something to choose from."""
    assert numpy_of([public], "2.28", f"numpy={RELEASE}", "blas=*=mkl") == (
        public.rstrip("/"),
        _unpatched(public, "mkl"),
    )


def test_the_pin_holds_where_the_order_of_the_channels_does_not(public, packages):
    """The rollout guide's table."""
    ours = channel.url(OUTPUT)
    assert numpy_of([public, ours], "2.28", f"numpy={RELEASE}")[0] == public.rstrip("/")
    assert numpy_of([public, ours], "2.28", PIN)[0] == ours.rstrip("/")


def test_priority_does_not_hold_back_a_release_that_ours_lacks(public, packages):
    """The rollout guide says so, because one would think otherwise."""
    strict = {"channel_priority": rattler.ChannelPriority.Strict}
    assert numpy_of([channel.url(OUTPUT), public], "2.28", f"numpy={NEWER}", **strict)[
        0
    ] == public.rstrip("/")


def _unpatched(public, blas):
    with open(public.removeprefix("file://").rstrip("/") + "/linux-64/repodata.json") as stream:
        found = [
            each["build"]
            for name, each in json.load(stream)["packages.conda"].items()
            if name.startswith(f"numpy-{RELEASE}-{blas}")
        ]
    (build,) = found
    return build


def test_refreshing_a_lockfile_brings_ours(public):
    """As pixi and conda-lock do: what is locked is kept where it can be, and numpy is asked anew."""
    locked = prefix.solve(
        [public], [f"numpy={RELEASE}", "blas=*=mkl", f"python={PYTHON}"], host("2.28")
    )
    kept = [record for record in locked if record.name.normalized != "numpy"]
    source, build = numpy_of(
        [channel.url(OUTPUT), public],
        "2.28",
        f"numpy={RELEASE}",
        "blas=*=mkl",
        locked_packages=kept,
    )
    assert (source, build.endswith("_100")) == (channel.url(OUTPUT).rstrip("/"), True)


def test_an_older_glibc_is_refused_and_it_says_why(public, packages):
    with pytest.raises(SolverError) as refused:
        numpy_of([channel.url(OUTPUT), public], "2.17", exactly(packages["mkl"]))
    assert "__glibc >=2.28" in str(refused.value)
