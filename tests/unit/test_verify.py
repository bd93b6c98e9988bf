"""Verify without a real package: its policy, ELF files of this machine, and other files."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from helpers import repack, verified
from numpy_feedstock import cli, paths, policy, variant
from numpy_feedstock.packages import checks, elf, patch

METADATA = checks.policy()["metadata"]


@pytest.fixture
def package(tmp_path):
    """Make a package that holds nothing but its metadata."""

    def make(name, subdir="linux-64", **index):
        info = tmp_path / "folder" / "info"
        info.mkdir(parents=True)
        (info / "index.json").write_text(
            json.dumps(
                {
                    "name": name,
                    "version": "1",
                    "build": "0",
                    "subdir": subdir,
                    "depends": [],
                    **index,
                }
            )
        )
        (info / "paths.json").write_text(json.dumps({"paths": []}))
        return repack.pack(tmp_path / "folder", tmp_path / f"{name}-1-0.conda")

    return make


def test_every_difference_from_conda_forge_says_why():
    """As comments: one stands above each key, or above the first of some that share it."""
    text = policy.FILE.read_text()
    (section,) = re.findall(r"^  differences:\n(.*?)^  # the flavours", text, re.M | re.S)
    before = "depends:"
    for line in section.splitlines():
        is_key = re.match(r" +[a-z_]+: .", line)
        if is_key and not line.strip().startswith("libstdcxx:"):
            assert before.startswith("#"), f"no reason above {line.strip()}"
        before = line.strip()
    assert METADATA["differences"].keys() == {"build_number", "build", "depends", "optional"}


def test_the_patch_itself_says_which_releases_need_it():
    assert patch.applies_to() == set(variant.known_releases())


def test_the_files_that_must_travel_are_those_of_the_recipe():
    there = {
        str(path.relative_to(paths.ROOT))
        for name in ("patches", "repro")
        for path in (paths.RECIPE.parent / name).glob("*.*")
    }
    assert there <= {name.removeprefix("info/") for name in checks.policy()["recipe"]["patched"]}


def test_what_the_recipe_renders_to_is_allowed():
    for rendered in variant.render("linux-64", {}):
        requirements = rendered.recipe.to_dict()["requirements"]
        assert requirements["run_exports"] == METADATA["conda-forge"]["run_exports"]
        assert requirements["run_constraints"] == METADATA["conda-forge"]["constrains"]
        assert (
            set(METADATA["flavours"]) == {"mkl", "openblas"}
            and rendered.variant["blas_impl"].split()[0] in METADATA["flavours"]
        )


def test_an_elf_file_names_its_libraries_and_its_newest_symbols():
    found = elf.read(os.path.realpath("/bin/sh"))
    listed = subprocess.run(["ldd", "-v", "/bin/sh"], capture_output=True, text=True).stdout
    assert "libc.so.6" in found.needed
    assert f"(GLIBC_{found.newest('GLIBC')})" in listed
    assert found.newest("GLIBCXX") is None


def test_a_script_is_no_elf_file_and_a_cut_one_is_broken(tmp_path):
    assert elf.read(__file__) is None
    cut = tmp_path / "cut"
    with open(os.path.realpath(sys.executable), "rb") as program:
        cut.write_bytes(program.read(5000))
    with pytest.raises(ValueError, match="broken ELF file: .+"):
        elf.read(cut)


def test_versions_are_ordered_by_number_and_what_is_no_number_is_newer_than_all():
    versions = ["2.9", "2.17", "2.28", "3.4", "3.4.29", "PRIVATE"]
    assert sorted(versions, key=elf.order) == versions


@pytest.mark.parametrize(("name", "subdir"), [("scipy", "linux-64"), ("numpy", "osx-arm64")])
def test_a_package_of_another_name_or_system_is_wrong_use(name, subdir, package, capsys):
    assert cli.main(["verify", str(package(name, subdir))]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"expected: numpy for linux-*\n  found:    {name} for {subdir}\n" in said.err


@pytest.mark.parametrize("data", [b"", b"numpy", b"PK\x05\x06" + 18 * b"\0"])
def test_what_is_no_conda_package_is_wrong_use(data, tmp_path, capsys):
    (tmp_path / "numpy-2.3.5.conda").write_bytes(data)
    assert cli.main(["verify", str(tmp_path / "numpy-2.3.5.conda")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "feedstock: not a whole conda package: " in said.err and "remedy: " in said.err


def test_a_truncated_package_is_wrong_use(package, capsys):
    path = package("numpy")
    path.write_bytes(path.read_bytes()[:-400])
    assert cli.main(["verify", str(path)]) == 2
    assert f"not a whole conda package: {path}" in capsys.readouterr().err


def test_an_empty_output_folder_is_wrong_use(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "OUTPUT", tmp_path)
    assert cli.main(["verify"]) == 2
    assert f"no packages in {tmp_path}\n  remedy: feedstock build" in capsys.readouterr().err


def test_a_package_of_numpy_that_holds_nothing_has_findings_and_no_traceback(package, capsys):
    assert cli.main(["verify", "--json", str(package("numpy"))]) == 1
    found = {
        (finding["check"], finding["found"])
        for finding in json.loads(capsys.readouterr().out)["findings"]
    }
    assert {("gate", "missing"), ("recipe", "no such file"), ("metadata", "numpy 1")} == found


@pytest.mark.parametrize("depends", [None, 1, [None]])
def test_metadata_of_another_shape_is_wrong_use(depends, package, capsys):
    assert cli.main(["verify", str(package("numpy", depends=depends))]) == 2
    assert "not a whole conda package" in capsys.readouterr().err


def test_a_file_that_is_a_dangling_link_does_not_travel(package, tmp_path):
    path = package("numpy", version="2.3.5")
    (tmp_path / "folder/info/recipe").mkdir()
    (tmp_path / "folder/info/recipe/recipe.yaml").symlink_to("../../no/such/file")
    found = {
        (finding.check, finding.file, finding.found)
        for finding in verified.findings(repack.pack(tmp_path / "folder", path))
    }
    assert ("recipe", "info/recipe/recipe.yaml", "an empty file") in found


@pytest.mark.parametrize(
    "home", ["/tmp", "/opt", "/usr", "/usr/local", "/var/tmp", "/", "/srv", "/home", "/data"]
)
def test_a_home_folder_that_every_machine_has_is_no_trace_of_one(home, monkeypatch):
    monkeypatch.setenv("HOME", home)
    package = types.SimpleNamespace(text=lambda name: "")
    assert checks.building_folders(package) == {str(paths.ROOT)}


def test_a_persons_home_folder_is_a_trace(monkeypatch):
    package = types.SimpleNamespace(text=lambda name: "")
    for home in ("/root", "/home/alice", "/var/lib/jenkins"):
        monkeypatch.setenv("HOME", home)
        assert home in checks.building_folders(package)


def test_a_user_without_a_home_folder_is_no_error(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert checks.building_folders(types.SimpleNamespace(text=lambda name: ""))
