"""What verify and publish make of twins."""

import json

import pytest

from helpers import originals
from helpers.command import feedstock
from numpy_feedstock.channels import channel_folder
from numpy_feedstock.packages import archive, bytecode, hotfix, patch
from numpy_feedstock.packages.archive import Member
from numpy_feedstock.publishing import provenance

PYTHONS = bytecode.find_pythons()
PLATFORMS = [
    ("linux-64", "3.11"),
    ("linux-aarch64", "3.12"),
    ("osx-64", "3.12"),
    ("osx-arm64", "3.13"),
    ("win-64", "3.12"),
]


def pair(members, folder):
    """(original, twin): their paths."""
    original = originals.package(folder / "mirror", members)
    twin = hotfix.heal(hotfix.open_original(original, original.name), PYTHONS)
    path = folder / "healed" / twin.index["subdir"] / twin.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    hotfix.write(twin, path)
    return original, path


def verify(*args):
    """(exit code, findings) of the verb."""
    done = feedstock("verify", "--json", *args)
    return done.returncode, json.loads(done.stdout)["findings"]


@pytest.mark.parametrize(("subdir", "python"), PLATFORMS)
def test_a_twin_of_every_platform_has_no_findings(subdir, python, tmp_path):
    original, twin = pair(originals.members("2.3.5", subdir, python), tmp_path)
    assert verify(twin, "--against", original) == (0, [])


def test_a_free_threaded_twin_has_no_findings(tmp_path):
    members = originals.members("2.3.5", python="3.13", free_threaded=True)
    original, twin = pair(members, tmp_path)
    assert verify(twin, "--against", original) == (0, [])


CHANGES = {
    "an edited text": ("numpy/__init__.py", lambda data: data + b"# edited\n", "twin"),
    "the unpatched text": ("numpy/__init__.py", patch.undone, "twin"),
    "another module": ("numpy/matlib.py", lambda data: data + b"x = 1\n", "modules"),
    "bytecode of the unpatched text": ("__init__.cpython-311.pyc", None, "bytecode"),
    "bytecode with the header of another text": (
        "__init__.cpython-311.pyc",
        lambda data: data[:8] + bytes(8) + data[16:],
        "bytecode",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_twin_that_was_changed_is_found(what, real, tmp_path):
    ending, change, check = CHANGES[what]
    _, twin = pair(real, tmp_path)
    members = archive.read(twin)
    (name,) = [n for n in members if n.endswith(ending) and "/numpy/" in n and "/ma/" not in n][:1]
    data = real[name].data if change is None else change(members[name].data)
    archive.write(twin, rewritten(members, name, data))
    code, findings = verify(twin)
    assert code == 1
    assert check in {finding["check"] for finding in findings}


def rewritten(members, name, data):
    """The members of a twin with other bytes in one file, and a paths.json that fits."""
    made = originals.changed(members, {name: data})
    return {**members, name: made[name], "info/paths.json": made["info/paths.json"]}


METADATA = {
    "a build number of a compiled package": ("info/index.json", {"build_number": 100}),
    "another build string": ("info/index.json", {"build": "py311hother_50"}),
    "another original": ("info/about.json", {"extra": {"hotfix": {"original": "scipy"}}}),
    "no original": ("info/about.json", {"extra": {}}),
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_that_are_not_a_twins_are_found(what, small, tmp_path):
    name, changes = METADATA[what]
    _, twin = pair(small, tmp_path)
    members = archive.read(twin)
    content = {**json.loads(members[name].data), **changes}
    members[name] = Member(json.dumps(content).encode(), 0o644, 0)
    archive.write(twin, members)
    code, findings = verify(twin)
    assert code == 1
    assert "twin" in {finding["check"] for finding in findings}


def test_against_another_original_each_difference_is_named(small, tmp_path):
    _, twin = pair(small, tmp_path / "one")
    license = "lib/python3.11/site-packages/numpy-2.3.5.dist-info/LICENSE.txt"
    other, _ = pair(originals.changed(small, {license: b"other"}), tmp_path / "two")
    code, findings = verify(twin, "--against", other)
    assert code == 1
    found = {each["file"]: each["allowed"] for each in findings if each["check"] == "against"}
    assert found[license] == "the original's"
    assert found["info/about.json"] == f"what hotfix makes of {other.name}"


@pytest.mark.parametrize("args", [["TWIN", "TWIN", "--against", "ORIGINAL"], ["ORIGINAL2"]])
def test_wrong_use_of_against(args, small, tmp_path):
    original, twin = pair(small, tmp_path)
    places = {"TWIN": twin, "ORIGINAL": original, "ORIGINAL2": original}
    args = [places.get(arg, arg) for arg in args]
    if args == [original]:
        args += ["--against", original]
    done = feedstock("verify", *args)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.fixture
def key(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDSTOCK_SIGNING_KEY", str(tmp_path / "key.pem"))
    assert feedstock("make-key", tmp_path / "key.pem").returncode == 0


@pytest.mark.usefixtures("key")
def test_twins_are_published_with_a_statement_on_original_and_patch(small, tmp_path):
    original, twin = pair(small, tmp_path)
    target = tmp_path / "channel"
    done = feedstock("publish", twin, "--to", target)
    assert done.returncode == 0, done.stderr
    assert feedstock("check-channel", target).returncode == 0
    statement = provenance.read_unsigned(target / "linux-64" / provenance.filename(twin.name))
    definition = statement["predicate"]["buildDefinition"]
    names = [each["name"] for each in definition["resolvedDependencies"]]
    assert names == [original.name, patch.TWIN_MEMBER]
    assert definition["buildType"] == provenance.HOTFIX_TYPE


@pytest.mark.usefixtures("key")
def test_a_twin_with_findings_is_not_published(small, tmp_path):
    _, twin = pair(small, tmp_path)
    members = archive.read(twin)
    name = originals.init_name(members)
    archive.write(twin, rewritten(members, name, members[name].data + b"# edited\n"))
    done = feedstock("publish", twin, "--to", tmp_path / "channel")
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert not list((tmp_path / "channel").rglob("*.conda"))


def test_originals_whose_twin_is_in_the_channel_are_listed_to_be_marked(small, real, tmp_path):
    folder = tmp_path / "mirror"
    healed = originals.package(folder, originals.with_index(small, build="py311h0000001_0"))
    originals.package(folder, originals.with_index(real, build="py311h0000002_0"))
    hotfix.write(
        hotfix.heal(hotfix.open_original(healed, healed.name), PYTHONS),
        folder / "linux-64" / "numpy-2.3.5-py311h0000001_50.conda",
    )
    channel_folder.index(folder)
    done = feedstock("mark-broken", folder, "--list-healed", "--json")
    assert done.returncode == 0, done.stderr
    assert [each["package"] for each in json.loads(done.stdout)] == [f"linux-64/{healed.name}"]
    listed = tmp_path / "healed.yaml"
    listed.write_text(feedstock("mark-broken", folder, "--list-healed").stdout)
    assert feedstock("mark-broken", folder, "--list", listed).returncode == 0
    index = json.loads((folder / "linux-64" / "repodata.json").read_text())["packages.conda"]
    revoked = {
        name for name, entry in index.items() if "package_has_been_revoked" in entry["depends"]
    }
    assert revoked == {healed.name}
