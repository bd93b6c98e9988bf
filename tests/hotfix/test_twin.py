"""What a twin is: its text, its bytecode, its metadata, and the bytes of its file."""

import base64
import hashlib
import importlib.util
import json
import marshal
import re
import subprocess
import sys

import pytest

from audit_numpy import gate
from helpers import originals
from numpy_feedstock import variant
from numpy_feedstock.packages import archive, bytecode, hotfix, patch

PYTHONS = bytecode.find_pythons()
TAG = sys.implementation.cache_tag


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


@pytest.mark.parametrize("flags", [0, 1, 3], ids=["time stamp", "unchecked hash", "checked hash"])
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


def with_paths(members, change):
    """The members with a paths.json that was changed by a function of its entries."""
    content = json.loads(members["info/paths.json"].data)
    change(content["paths"])
    old = members["info/paths.json"]
    made = archive.Member(json.dumps(content).encode(), old.mode, old.mtime)
    return {**members, "info/paths.json": made}


def test_what_paths_json_says_besides_hashes_stays(small, tmp_path):
    """The prefixes in texts and binaries, no_link, links and empty folders."""
    site = "lib/python3.11/site-packages"
    marks = {"prefix_placeholder": "/opt/placehold", "file_mode": "text", "no_link": True}
    folder = {"_path": f"{site}/numpy/empty", "path_type": "directory"}
    link = f"{site}/numpy/link.pyi"

    def change(entries):
        for entry in entries:
            if entry["_path"].endswith("numpy/__init__.pyi"):
                entry.update(marks)
        target = hashlib.sha256(small[f"{site}/numpy/__init__.pyi"].data).hexdigest()
        entries += [folder, {"_path": link, "path_type": "softlink", "sha256": target}]

    linked = {**small, link: archive.Member(b"__init__.pyi", 0o777, 0, link=True)}
    twin = twin_of(with_paths(linked, change), tmp_path)
    before, after = (
        {entry["_path"]: entry for entry in json.loads(each["info/paths.json"].data)["paths"]}
        for each in (twin.original.members, twin.members)
    )
    differ = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert not [name for name in differ if not re.search("__init__.*(py|pyc)$|RECORD$", name)]
    assert twin.members[link] == linked[link]


def test_a_hash_of_the_installed_file_does_not_outlive_it(small, tmp_path):
    def change(entries):
        for entry in entries:
            entry["sha256_in_prefix"] = entry["sha256"]

    twin = twin_of(with_paths(small, change), tmp_path)
    kept = {e["_path"] for e in json_of(twin, "paths")["paths"] if "sha256_in_prefix" in e}
    files = {name for name in twin.members if not name.startswith("info/")}
    assert files - kept == {name for name in twin.changed if name in files}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_the_record_says_what_is_there(ends, small, tmp_path):
    """With a line for the bytecode, and with one that was forgotten; other lines stay."""
    site = "lib/python3.11/site-packages"
    name = f"{site}/numpy-2.3.5.dist-info/RECORD"
    lines = ["numpy/__init__.py,sha256=old,1", "numpy/__pycache__/gone.cpython-311.pyc,,"]
    lines += ["", "../../../bin/f2py,sha256=x,2", '"numpy/a,b.py",sha256=y,3']
    record = "".join(line + ends for line in lines).encode()
    twin = twin_of(originals.changed(small, {name: record}), tmp_path)
    found = twin.members[name].data.decode().split(ends)
    text = twin.members[f"{site}/numpy/__init__.py"].data
    digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).decode().rstrip("=")
    expected = [f"numpy/__init__.py,sha256={digest},{len(text)}", *lines[2:], ""]
    assert found == expected


def test_a_package_without_a_record_is_healed(small, tmp_path):
    kept = {name: member for name, member in small.items() if not name.endswith("/RECORD")}
    assert twin_of(originals.changed(kept, {}), tmp_path).compiled


@pytest.mark.parametrize("ending", [".opt-1", ".opt-2"])
def test_optimized_bytecode_is_compiled_with_the_same_optimization(ending, small, tmp_path):
    (plain,) = [name for name in small if name.endswith(f"__init__.{TAG}.pyc")]
    name = plain.replace(".pyc", f"{ending}.pyc")
    twin = twin_of(originals.changed(small, {name: small[plain].data}), tmp_path)
    source = twin.members[originals.init_name(twin.members)].data
    filename = marshal.loads(small[plain].data[16:]).co_filename
    level = int(ending[-1])
    expected = compile(source, filename, "exec", dont_inherit=True, optimize=level)
    assert marshal.loads(twin.members[name].data[16:]) == expected


def test_a_path_of_windows_in_bytecode_is_kept(small, tmp_path):
    (name,) = [name for name in small if name.endswith(f"__init__.{TAG}.pyc")]
    path = r"D:\bld\numpy_1\_h_env\Lib\site-packages\numpy\__init__.py"
    code = compile(small[originals.init_name(small)].data, path, "exec", dont_inherit=True)
    data = small[name].data[:16] + marshal.dumps(code)
    twin = twin_of(originals.changed(small, {name: data}), tmp_path)
    assert marshal.loads(twin.members[name].data[16:]).co_filename == path


@pytest.mark.parametrize("seconds", [0, 1, (1 << 31) + 5, (1 << 32) + 5])
def test_a_date_outside_of_the_usual_is_kept(seconds, small, tmp_path):
    old = {
        name: archive.Member(each.data, each.mode, seconds, each.link)
        for name, each in small.items()
    }
    twin = twin_of(old, tmp_path)
    hotfix.write(twin, tmp_path / twin.filename)
    assert {each.mtime for each in archive.read(tmp_path / twin.filename).values()} == {seconds}
