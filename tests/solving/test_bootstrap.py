"""The bootstrap channel's packages export, require and are named as conda-forge's are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers import conda_forge
from helpers.shipped import PYTHON
from numpy_feedstock import child
from numpy_feedstock.building import bootstrap, builder
from numpy_feedstock.building.bootstrap import debian, machine
from numpy_feedstock.channels import channel, prefix
from numpy_feedstock.errors import FeedstockError
from solving.reduce_records import complete_run_exports

pytestmark = pytest.mark.packages

DIFFERENCES = yaml.safe_load((Path(__file__).parent / "bootstrap_differences.yaml").read_text())


@pytest.fixture(scope="module")
def made(channels):
    """The records of the bootstrap channel."""
    folder = Path(channels[1].removeprefix("file://"))
    indices = [
        json.loads((folder / sub / "repodata.json").read_text()) for sub in ("linux-64", "noarch")
    ]
    found = [record for index in indices for record in index["packages.conda"].values()]
    assert len(found) > 30
    return found


def theirs(record):
    """conda-forge's records of the same name."""
    return [
        row
        for row in conda_forge.rows()
        if row["name"] == record["name"] and row["subdir"] in ("linux-64", "noarch")
    ]


def form_of(build):
    """A build string without its hash and its numbers: "N_H_mkl"."""
    return re.sub(r"\d+", "N", re.sub(r"h[0-9a-f]{7}(?![0-9a-z])", "H", build))


def differing_names(made):
    return {record["name"] for record in made if not theirs(record)}


def differing_builds(made):
    """Names of the packages that have a build string of another form, where both are compiled."""
    found = set()
    for record in made:
        compiled = [
            row for row in theirs(record) if row["subdir"] == "linux-64" or "noarch" not in row
        ]
        forms = {form_of(row["build"]) for row in compiled}
        if forms and form_of(record["build"]) not in forms:
            found.add(record["name"])
    return found


def differing_requirements(made):
    """{name: what it requires and no record of conda-forge does}."""
    found = {}
    for record in made:
        rows = theirs(record)
        known = {name for row in rows for name in conda_forge.names_of(row["depends"])}
        more = conda_forge.names_of(record["depends"]) - known
        if rows and more:
            found.setdefault(record["name"], set()).update(more)
    return found


def differing_exports(made):
    """{name: (run_exports, conda-forge's)}; of a release that no record is of, with its version."""
    found = {}
    for record in made:
        ours = {**record, "timestamp": record.get("timestamp", 0) // 1000, "subdir": "linux-64"}
        exports = ours.pop("run_exports", {})
        complete_run_exports([*theirs(record), ours])
        expected = ours.get("run_exports", {})
        if _sorted(exports) != _sorted(expected):
            found[record["name"]] = (exports, expected)
    return found


def _sorted(exports):
    return {kind: sorted(specs) for kind, specs in exports.items() if specs}


def test_every_name_is_conda_forges(made):
    assert differing_names(made) == set(DIFFERENCES["name"])


def test_every_build_string_has_the_form_of_conda_forges(made):
    assert differing_builds(made) == set(DIFFERENCES["build"])


def test_nothing_is_required_that_conda_forges_does_not_require(made):
    expected = {name: set(more) for name, more in DIFFERENCES["requires"].items()}
    assert differing_requirements(made) == expected


def test_the_run_exports_are_conda_forges(made):
    found = differing_exports(made)
    assert set(found) == set(DIFFERENCES["exports"]), found


@pytest.mark.parametrize("name", ["libblas", "libcblas", "liblapack"])
def test_the_blas_is_bound_to_its_library_as_conda_forges_is(made, name):
    """The bounds decide which numpy packages an environment can have."""
    for record in made:
        if record["name"] == name:
            twins = [
                row
                for row in theirs(record)
                if row["version"] == record["version"]
                and row["build_number"] == record["build_number"]
                and row["build"].split("_")[-1] == record["build"].split("_")[-1]
            ]
            assert twins, record["build"]
            bounds = _bounds(record["depends"])
            assert bounds in [_bounds(twin["depends"]) for twin in twins]


@pytest.mark.parametrize("flavour", ["mkl", "openblas"])
def test_each_flavour_of_blas_can_be_installed(channels, flavour):
    """Its parts name each other exactly, so one wrong pin leaves none of them."""
    solved = conda_forge.solve([channels[1]], [f"blas=*={flavour}"], glibc="2.36")
    assert not solved.refusal


def _bounds(depends):
    """The bounds on the flavour's library and on libblas, without hashes."""
    found = [spec for spec in depends if spec.split()[0] in ("mkl", "libopenblas", "libblas")]
    return {re.sub(r"_h[0-9a-f]{7}_", "*_", spec.replace("==", "")) for spec in found}


# --- a recipe's own tests


def recipe_with_test(script):
    return {
        "package": {"name": "tested", "version": "1.0"},
        "build": {"number": 0, "script": ["mkdir -p $PREFIX/share", "touch $PREFIX/share/tested"]},
        "tests": [{"script": ["true"]}, {"script": [script]}],
        "about": {"license": "MIT"},
    }


def test_a_package_that_fails_its_test_is_not_in_a_channel(tmp_path):
    """`build` of the channel stops there: the folder that it fills is never moved into place."""
    log, build = tmp_path / "log", builder.build_recipe
    passing, failing = tmp_path / "passing", tmp_path / "failing"
    shown = []
    child.run(build, recipe_with_test("echo seen; ls $PREFIX/share/tested"), passing, {}, log=log)
    assert "seen" in log.read_text()
    with pytest.raises(FeedstockError) as raised:
        child.run(
            build, recipe_with_test("ls $PREFIX/none"), failing, {}, log=log, say=shown.append
        )
    assert "bootstrap package tested-1.0-" in str(raised.value)
    assert "built, but failed its test" in str(raised.value)
    assert "No such file or directory" in str(raised.value)
    assert shown == ["made tested 1.0"]


# --- the channel of another Python


@pytest.fixture(scope="module")
def debians(channels):
    """(minor version, channel's folder) of a Python that this machine lacks and Debian has."""
    for python in debian.python_suites():
        if python != PYTHON and machine.find_interpreter(python).python_suite:
            return python, bootstrap.ensure(python, print)
    pytest.skip("this machine has every Python that Debian's packages would be taken for")


def test_another_python_takes_no_second_copy_of_what_both_share(channels, debians):
    first = Path(channels[1].removeprefix("file://"))
    mine = {path.name: path.stat().st_ino for path in first.glob("*/*.conda")}
    theirs = {path.name: path.stat().st_ino for path in debians[1].glob("*/*.conda")}
    shared = {name for name in mine.keys() & theirs.keys() if mine[name] == theirs[name]}
    own = mine.keys() - shared
    assert {name.split("-")[0] for name in own} == {
        "python",
        "python_abi",
        "cython",
        "hypothesis",
        "setuptools",
    }
    assert len(shared) > 40


def test_another_python_leaves_what_packages_of_the_first_were_built_from(channels, debians):
    first = Path(channels[1].removeprefix("file://"))
    before = first.stat().st_ino, bootstrap.made_from([first])
    # made anew, with what both share
    shutil.rmtree(debians[1])
    bootstrap.ensure(debians[0], print)
    assert bootstrap.ensure(PYTHON, print) == first
    assert (first.stat().st_ino, bootstrap.made_from([first])) == before


_MODULES = "bz2, ctypes, curses, lzma, readline, sqlite3, ssl, uuid, zlib, zoneinfo"


def test_debians_python_runs_wherever_it_is_installed(debians, tmp_path):
    """On this machine's older glibc, too, with every module, and the programs that it starts."""
    python, folder = debians
    made = prefix.install([channel.url(folder)], [f"python={python}", "meson"], tmp_path / "prefix")
    code = (
        f"import subprocess, sys, sysconfig, {_MODULES}\n"
        "again = [sys.executable, '-c', 'import sys; print(sys.prefix, *sys.version_info[:2])']\n"
        "print(subprocess.check_output(again, text=True), end='')\n"
        "print(sysconfig.get_path('purelib'), sysconfig.get_config_var('INCLUDEPY'))\n"
    )
    run = [made / "bin" / "python", "-Ic", code]
    shown = subprocess.check_output(run, text=True, cwd=tmp_path).splitlines()
    assert shown == [
        f"{made} {python.replace('.', ' ')}",
        f"{made}/lib/python{python}/site-packages {made}/include/python{python}",
    ]
    # its headers are whole in that folder
    compile_header = ["gcc", "-fsyntax-only", "-x", "c", f"-I{made}/include/python{python}", "-"]
    subprocess.run(compile_header, input="#include <Python.h>\n", text=True, check=True)
    # the program of a package of pure Python; the machine's own programs keep their libraries
    subprocess.run([made / "bin" / "meson", "--version"], check=True)
    started = "import subprocess; subprocess.run(['/bin/ls', '/'], check=True)"
    subprocess.run([made / "bin" / "python", "-c", started], check=True, capture_output=True)
