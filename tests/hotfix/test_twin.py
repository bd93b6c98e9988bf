"""What a twin is: its text, its bytecode, its metadata, and the bytes of its file."""

import hashlib
import importlib.util
import json
import marshal
import subprocess
import sys

import pytest

from audit_numpy import gate
from helpers import originals
from numpy_feedstock import archive, bytecode, hotfix, patch, variant

PYTHONS = bytecode.find_pythons()


def twin_of(members, folder, pythons=PYTHONS):
    path = originals.package(folder, members)
    return hotfix.heal(hotfix.open_original(path, path.name), pythons)


@pytest.fixture
def twin(small, tmp_path):
    return twin_of(small, tmp_path)


def json_of(twin, name):
    return json.loads(twin.members[f"info/{name}.json"].data)


def test_a_twin_differs_from_its_original_in_the_named_members_alone(twin):
    site = "lib/python3.11/site-packages"
    assert twin.changed == [
        "info/about.json",
        "info/hotfix/numpy-init.patch",
        "info/index.json",
        "info/paths.json",
        f"{site}/numpy-2.3.5.dist-info/RECORD",
        f"{site}/numpy/__init__.py",
        f"{site}/numpy/__pycache__/__init__.{sys.implementation.cache_tag}.pyc",
    ]


@pytest.mark.parametrize("release", variant.known_releases())
def test_the_text_is_the_one_that_patch_makes_of_each_released_text(release, tmp_path):
    released = originals.members(release)
    name = originals.init_name(released)
    (tmp_path / "numpy").mkdir()
    file = tmp_path / "numpy" / "__init__.py"
    file.write_bytes(released[name].data)
    subprocess.run(
        ["patch", "-p1", "--fuzz=0", "-d", tmp_path, "-i", patch.file()],
        check=True,
        capture_output=True,
    )
    assert hotfix.patched_text(released[name].data) == file.read_bytes()


@pytest.mark.parametrize(
    ("subdir", "python"),
    [("linux-aarch64", "3.12"), ("osx-64", "3.12"), ("osx-arm64", "3.13"), ("win-64", "3.12")],
)
def test_a_package_of_every_platform_is_healed(subdir, python, tmp_path):
    twin = twin_of(originals.members("2.4.4", subdir, python), tmp_path)
    name = originals.init_name(twin.members)
    text, before = twin.members[name].data, twin.original.members[name].data
    assert gate(before.decode()) == "ungated"
    assert gate(text.decode()) == "gated"
    ends = b"\r\n" if subdir == "win-64" else b"\n"
    for each in (text, before):
        assert each.replace(ends, b"").count(b"\n") == each.replace(ends, b"").count(b"\r") == 0


def test_a_free_threaded_package_is_healed(tmp_path):
    twin = twin_of(originals.members("2.3.5", python="3.13", free_threaded=True), tmp_path)
    name = originals.init_name(twin.members)
    assert name.startswith("lib/python3.13t/")
    assert gate(twin.members[name].data.decode()) == "gated"


def test_the_metadata_are_the_originals_but_for_the_build(twin):
    before = twin.original.index
    assert twin.index == {
        **before,
        "build_number": before["build_number"] + 50,
        "build": before["build"].removesuffix("_0") + "_50",
    }
    assert json_of(twin, "index") == twin.index
    listed = {entry["_path"]: entry for entry in json_of(twin, "paths")["paths"]}
    files = {name for name in twin.members if not name.startswith("info/")}
    assert listed.keys() == files
    for name, entry in listed.items():
        data = twin.members[name].data
        found = (entry["sha256"], entry["size_in_bytes"])
        assert found == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_package_names_its_original_and_the_patch(twin):
    extra = json_of(twin, "about")["extra"]
    assert extra["flow_run_id"] == "azure_1"
    assert extra["hotfix"] == {
        "original": twin.original.filename,
        "original_sha256": twin.original.sha256,
        "patch_sha256": hashlib.sha256(patch.file().read_bytes()).hexdigest(),
    }
    assert twin.members["info/hotfix/numpy-init.patch"].data == patch.file().read_bytes()


@pytest.mark.parametrize("flags", [0, 1, 3], ids=["time stamp", "checked hash", "unchecked hash"])
def test_bytecode_is_of_the_patched_text_in_the_form_that_it_had(flags, small, tmp_path):
    name = originals.init_name(small)
    pyc, old = originals.bytecode(name, small[name].data, flags)
    twin = twin_of(originals.changed(small, {pyc: old.data}), tmp_path)
    new, source = twin.members[pyc].data, twin.members[name].data
    assert new[:8] == old.data[:8]
    if flags:
        assert new[8:16] == importlib.util.source_hash(source)
    else:
        assert new[8:12] == old.data[8:12]
        assert int.from_bytes(new[12:16], "little") == len(source)
    code, before = marshal.loads(new[16:]), marshal.loads(old.data[16:])
    assert code.co_filename == before.co_filename
    assert code == compile(source, before.co_filename, "exec", dont_inherit=True)


def test_bytecode_that_nobody_can_compile_is_left_out_everywhere(small, tmp_path):
    twin = twin_of(small, tmp_path, pythons=[])
    (pyc,) = twin.left_out
    assert pyc not in twin.members
    assert pyc not in twin.members["info/files"].data.decode().splitlines()
    assert pyc not in [entry["_path"] for entry in json_of(twin, "paths")["paths"]]


def test_the_bytes_depend_on_nothing_but_the_original(real, tmp_path):
    written = []
    for number in ("first", "second"):
        folder = tmp_path / number
        twin = twin_of(real, folder)
        hotfix.write(twin, folder / twin.filename)
        written.append((folder / twin.filename).read_bytes())
    assert written[0] == written[1]


def test_what_is_written_is_what_is_read(twin, tmp_path):
    path = tmp_path / twin.filename
    hotfix.write(twin, path)
    assert archive.read(path) == twin.members


def test_installed_python_uses_the_bytecode(real, tmp_path):
    """The date of the source has to survive the package, or Python compiles anew."""
    from rattler.package_streaming import extract

    twin = twin_of(real, tmp_path)
    hotfix.write(twin, tmp_path / twin.filename)
    extract(tmp_path / twin.filename, tmp_path / "unpacked")
    source = tmp_path / "unpacked" / originals.init_name(twin.members)
    shown = subprocess.run(
        [
            sys.executable,
            "-v",
            "-c",
            f"import runpy, sys; sys.path.insert(0, {str(source.parents[1])!r}); import numpy",
        ],
        capture_output=True,
        text=True,
    )
    assert f"matches {source}" in shown.stderr
    assert "code object from '" + str(source) not in shown.stderr


def test_a_bz2_package_gives_the_twin_of_a_conda_package(small, tmp_path):
    conda = originals.package(tmp_path, small)
    old = originals.package_bz2(tmp_path / "old", small)
    twins = [hotfix.heal(hotfix.open_original(path, path.name), PYTHONS) for path in (conda, old)]
    names = set(twins[0].members) - {"info/about.json"}
    assert [twins[0].members[name] for name in names] == [twins[1].members[name] for name in names]
    assert twins[1].filename.endswith("_50.conda")
