"""A package built again from what travels in it: the same bytes, or it is said what differs."""

import json

import pytest
from rattler.package_streaming import extract

from helpers import repack
from helpers.command import feedstock
from helpers.shipped import PYTHON, RELEASE
from numpy_feedstock import paths
from numpy_feedstock.building import rebuild
from numpy_feedstock.packages import archive
from numpy_feedstock.packages.archive import Member

pytestmark = [pytest.mark.packages, pytest.mark.usefixtures("build_folder")]

RENDERED = "info/recipe/rendered_recipe.yaml"
PATCH = "info/recipe/patches/0001-gate-the-import-time-BLAS-check-by-platform.patch"


def verify(*args):
    """The verify verb with --rebuild, as a person runs it."""
    return feedstock("verify", "--rebuild", *args)


def verify_broken(*args):
    """The same for a package with findings, which is not rebuilt otherwise."""
    return verify("--despite-findings", *args)


@pytest.fixture(scope="module")
def unpacked(packages, tmp_path_factory):
    """The OpenBLAS package's files. Shared: work on a copy."""
    folder = tmp_path_factory.mktemp("rebuild") / "unpacked"
    extract(packages["openblas"], folder)
    return folder


@pytest.fixture
def broken(unpacked, packages, tmp_path):
    """The package, broken by a function of its folder, with its record beside it; its path."""

    def pack(break_it):
        folder = repack.copy(unpacked, tmp_path / "broken")
        break_it(folder)
        return repack.pack(folder, tmp_path / packages["openblas"].name)

    return pack


@pytest.mark.rebuild
def test_it_is_built_again_elsewhere_to_the_same_bytes(packages):
    done = verify(packages["openblas"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rebuilt, the same sha256: " in done.stderr
    assert "0 findings" in done.stdout and "rebuild)" in done.stdout
    # it was: under another path, now
    (rebuilt,) = paths.REBUILD.glob("linux-64/*.conda")
    assert rebuilt.read_bytes() == packages["openblas"].read_bytes()


@pytest.mark.rebuild
def test_what_was_changed_afterwards_is_named(broken, unpacked):
    """A byte of a file, and the patch: it is found in what it patches."""
    (version,) = unpacked.glob("lib/python3*/site-packages/numpy/version.py")
    name, data = str(version.relative_to(unpacked)), bytearray(version.read_bytes())
    data[100] ^= 1

    def change(folder):
        text = (folder / PATCH).read_text()
        assert text.count("for the product below:") == 1
        repack.replace(
            folder / PATCH, text.replace("for the product below:", "for the product there:")
        )
        repack.replace(folder / name, bytes(data))

    done = verify_broken("--json", "--channel", "bootstrap", broken(change))
    assert done.returncode == 1, done.stderr
    found = {
        finding["file"]: finding
        for finding in json.loads(done.stdout)["findings"]
        if finding["check"] == "rebuild"
    }
    size = f"{len(data)} bytes"
    assert (found[name]["found"], found[name]["allowed"]) == (
        f"{size}, other ones from byte 100 on",
        f"{size}, as rebuilt",
    )
    # each once: the file, its bytecode, and the two lists of sums
    assert sorted(file.removeprefix(name.removesuffix("numpy/version.py")) for file in found) == [
        "info/paths.json",
        f"numpy-{RELEASE}.dist-info/RECORD",
        "numpy/__init__.py",
        f"numpy/__pycache__/__init__.cpython-{PYTHON.replace('.', '')}.pyc",
        "numpy/version.py",
    ]


def test_a_missing_file_another_file_and_a_mode_are_named(packages):
    members = archive.read(packages["openblas"])
    broken = {name: each for name, each in members.items() if name != "bin/numpy-config"}
    broken["bin/f2py3"] = members["bin/f2py"]
    broken["bin/f2py"] = Member(members["bin/f2py"].data, 0o644, members["bin/f2py"].mtime)
    assert set(rebuild.compare(broken, members)) == {
        ("bin/numpy-config", "missing", "there, as rebuilt"),
        ("bin/f2py3", "there", "missing, as rebuilt"),
        ("bin/f2py", "file", "program, as rebuilt"),
    }


def test_with_findings_it_is_not_rebuilt(broken):
    done = verify(broken(lambda folder: repack.replace(folder / "bin/f2py", b"other")))
    assert done.returncode == 1
    assert "not rebuilt: its build script is not run while there are findings" in done.stderr
    assert "about to run" not in done.stderr


def test_other_compilers_than_the_recorded_are_named_before_anything_is_built(broken):
    def older(folder):
        text = (folder / RENDERED).read_text()
        repack.replace(
            folder / RENDERED,
            text.replace(
                "name: gxx_linux-64\n      version: ", "name: gxx_linux-64\n      version: 9."
            ),
        )

    done = verify_broken("--channel", "bootstrap", broken(older))
    assert done.returncode == 1
    assert "now resolves to other build dependencies" in done.stdout
    assert "recorded: gxx_linux-64 9." in done.stdout
    assert "found:    gxx_linux-64 " in done.stdout


def test_without_its_recipe_it_cannot_be_rebuilt(broken):
    done = verify_broken(broken(lambda folder: (folder / "info/recipe/recipe.yaml").unlink()))
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "cannot be rebuilt: there is no recipe in it\n  expected: info/recipe/recipe.yaml"
        in done.stderr
    )


def test_of_another_platform_it_cannot_be_rebuilt(broken):
    def change(folder):
        repack.edit_json(
            folder / "info/index.json", lambda index: index.update(subdir="linux-aarch64")
        )

    done = verify_broken(broken(change))
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected: linux-64\n  found:    linux-aarch64" in done.stderr
