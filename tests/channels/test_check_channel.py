"""check-channel finds what a hostile channel does to its index, files and provenance."""

import bz2
import io
import json
import os
import shutil
import tarfile

import msgpack
import pytest
import zstandard

from helpers import small
from numpy_feedstock import files
from numpy_feedstock.channels import channel_folder, repodata
from numpy_feedstock.publishing import channel_check, provenance, signing
from numpy_feedstock.publishing.channel_check import Row
from numpy_feedstock.publishing.known_hashes import KnownHashes
from numpy_feedstock.publishing.provenance import Subject
from numpy_feedstock.publishing.targets import open_target


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A channel with two published packages, and the key that signed them."""
    folder = tmp_path_factory.mktemp("made")
    signing.make(folder / "key.pem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(signing.VARIABLE, str(folder / "key.pem"))
        publish(folder / "channel", [small.make(folder / "small", number) for number in (1, 2)])
    return folder


def publish(target, packages):
    from numpy_feedstock import cli

    args = ["publish", "--allow-untested", "--to", str(target), *map(str, packages)]
    assert cli.main(args) == 0


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """The channel's linux-64, to be changed."""
    monkeypatch.setenv(signing.VARIABLE, str(made / "key.pem"))
    shutil.copytree(made / "channel", tmp_path / "channel")
    return tmp_path / "channel" / "linux-64"


def rows(folder, use_known=False):
    target = open_target(str(folder.parent))
    hashes = KnownHashes(target, use_known, folder.parent.parent / "known.json")
    found = channel_check.check(target, [signing.own_public_key()], hashes)
    hashes.save()
    return found, hashes.reused


def faults(folder):
    return {row.package: row.fault for row in rows(folder)[0] if row.fault}


def reindex(folder):
    channel_folder.index(folder.parent, force=True)


def ours(folder, number=1):
    (path,) = folder.glob(f"numpy-2.3.5-mkl_py311h000000{number}_100.conda")
    return path


def edit(folder, change):
    """Change the entries of all forms of the index alike, as a server can."""
    text = (folder / repodata.JSON).read_text()
    content = json.loads(text)
    change(content)
    (folder / repodata.JSON).write_text(json.dumps(content))
    packed = zstandard.compress(json.dumps(content).encode())
    (folder / repodata.ZST).write_bytes(packed)
    shard = {key: content.get(key, {}) for key in repodata.SECTIONS}
    packed = zstandard.compress(msgpack.packb(shard))
    digest = files.hashlib.sha256(packed).digest()
    (folder / "shards" / f"{digest.hex()}.msgpack.zst").write_bytes(packed)
    listed = {"info": {"subdir": "linux-64"}, "shards": {"numpy": digest}}
    (folder / repodata.SHARDS).write_bytes(zstandard.compress(msgpack.packb(listed)))


def add(folder, subdir="linux-64", **index):
    """Put a package of somebody else into the channel and index it."""
    path = small.make(folder.parent.parent / "foreign", 9, subdir=subdir, **index)
    target = folder.parent / subdir
    target.mkdir(exist_ok=True)
    shutil.move(path, target / path.name)
    reindex(folder)
    return path.name


def test_what_was_published_has_no_fault(folder):
    found, _ = rows(folder)
    assert [row.fault for row in found] == ["", ""]
    assert all("no record of its tests" in row.objections for row in found)


# --- another numpy beside ours, which a solver would take


@pytest.mark.parametrize(
    ("subdir", "index"),
    [
        ("linux-64", {"build": "mkl_py311h0000001_200", "build_number": 200}),
        ("linux-64", {"build": "custom_999", "build_number": 999}),
        ("linux-64", {"version": "99"}),
        ("linux-64", {"build": "mkl_py311h0000003_100"}),
        ("noarch", {"build": "pyh_0", "noarch": "python"}),
        ("noarch", {"build": "pyh_0", "noarch": "generic", "build_number": 500}),
        ("linux-aarch64", {}),
        ("osx-arm64", {}),
        ("win-64", {}),
        ("linux-ppc64le", {}),
    ],
)
def test_every_numpy_of_every_subdir_is_a_row(subdir, index, folder):
    name = add(folder, subdir, **index)
    assert faults(folder) == {name: "no provenance"}


def test_a_tar_bz2_is_a_row(folder):
    name = "numpy-2.3.5-mkl_py311h0000001_100.tar.bz2"
    index = {"name": "numpy", "version": "2.3.5", "build": "mkl_py311h0000001_100"}
    index |= {"build_number": 100, "subdir": "linux-64", "depends": []}
    with tarfile.open(folder / name, "w:bz2") as tar:
        for path, content in (
            ("info/index.json", index),
            ("info/paths.json", {"paths": [], "paths_version": 1}),
            ("info/files", ""),
        ):
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    reindex(folder)
    assert name in json.loads((folder / repodata.JSON).read_text())["packages"]
    assert name in faults(folder)


def test_another_file_name_of_a_numpy_is_a_row(folder):
    def rename(content):
        listed = content["packages.conda"]
        listed["scipy-1-0.conda"] = listed[ours(folder).name]

    shutil.copy(ours(folder), folder / "scipy-1-0.conda")
    edit(folder, rename)
    assert faults(folder) == {"scipy-1-0.conda": "no provenance"}


@pytest.mark.parametrize("name", ["../../key.pem", "/etc/passwd", "numpy-\x1b[2J.conda", "numpy-"])
def test_a_file_name_that_leads_elsewhere_is_not_followed(name, folder):
    def rename(content):
        content["packages.conda"][name] = content["packages.conda"][ours(folder).name]

    edit(folder, rename)
    assert faults(folder) == {name: "not the file name of a package"}


# --- the index says something else than the packages


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("depends", ["evil"]),
        ("depends", ["package_has_been_revoked"]),
        ("constrains", ["mkl <0a0"]),
        ("track_features", "feature"),
        ("build_number", 1),
        ("build", "mkl_py311h0000001_7"),
        ("version", "2.3.4"),
        ("name", "numpy-other"),
        ("subdir", "noarch"),
        ("noarch", "python"),
        ("depends", [["nested"]]),
        ("depends", {"a": 1}),
        ("depends", "evil"),
    ],
)
def test_an_altered_entry_is_a_fault(key, value, folder):
    name = ours(folder).name
    edit(folder, lambda content: content["packages.conda"][name].update({key: value}))
    assert key in faults(folder)[name]


def test_a_file_that_fell_out_of_the_index_is_a_fault(folder):
    name = ours(folder).name
    edit(folder, lambda content: content["packages.conda"].pop(name))
    assert faults(folder)[name] == "there, but not in the index"
    ours(folder).unlink()
    signed = provenance.filename(name)
    assert faults(folder) == {signed: "provenance of a package that is not in the index"}


def test_a_file_that_is_gone_or_other_than_the_index_says_is_a_fault(folder):
    first, second = ours(folder, 1), ours(folder, 2)
    first.unlink()
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(data)
    found = faults(folder)
    assert found[first.name] == "in the index, but not there"
    assert found[second.name].startswith(f"sha256 {files.sha256(second)}, by the index ")


@pytest.mark.parametrize("form", [repodata.JSON, repodata.ZST, repodata.SHARDS])
@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"{", b'{"packages.conda": null}', b'{"packages": {"a": 1}}']
)
def test_a_form_of_the_index_that_is_not_whole_is_a_row(form, content, folder):
    (folder / form).write_bytes(content)
    assert "the index is not right" in faults(folder)[form]
    packed = zstandard.compress(content)
    (folder / form).write_bytes(packed)
    assert "the index is not right" in faults(folder)[form]


def write_shards(folder, listed, shard=b""):
    """Write the list of shards, and one shard, as msgpack or as what has an object of JSON."""
    packed = zstandard.compress(shard if isinstance(shard, bytes) else msgpack.packb(shard))
    digest = files.hashlib.sha256(packed).digest()
    (folder / "shards" / f"{digest.hex()}.msgpack.zst").write_bytes(packed)
    listed = listed or {"shards": {"numpy": digest}}
    (folder / repodata.SHARDS).write_bytes(zstandard.compress(msgpack.packb(listed)))


@pytest.mark.parametrize(
    "listed",
    [
        *({"shards": each} for each in ("x", ["numpy"], 5)),
        *({"shards": {"numpy": each}} for each in (10**6, "abc", ["a"], b"", b"/../x", b"x" * 999)),
    ],
    ids=str,
)
def test_a_list_of_shards_that_lists_none_is_a_row(listed, folder):
    write_shards(folder, listed)
    assert repodata.SHARDS in faults(folder)


@pytest.mark.parametrize(
    "shard",
    [
        b"\x81\xa1a" + b"\x91" * 1000 + b"\x90",
        b"\x81\xa8packages" + b"\x81\xa1a" * 400 + b"\x90",
        {"packages": {5: {"name": "numpy"}}},
        {"packages": {b"numpy-1-1.conda": {"name": b"numpy"}}},
        {"packages": {"numpy-1-1.conda": {5: 1, "a": 2, b"x": 3}}},
        b"\x81\x91\x01\x01",
    ],
    ids=["deep", "many objects", "number", "bytes", "keys of all kinds", "a list as a key"],
)
def test_a_shard_of_odd_values_is_a_row(shard, folder):
    write_shards(folder, None, shard)
    assert repodata.SHARDS in faults(folder)


@pytest.mark.parametrize("info", [["base_url"], "base_url", 5])
def test_an_info_that_is_no_object_is_a_row(info, folder):
    edit(folder, lambda content: content.update(info=info))
    assert faults(folder)[repodata.JSON] == "says info that is no object, which is not checked"


@pytest.mark.parametrize("form", [repodata.ZST, repodata.SHARDS])
def test_a_form_that_differs_from_the_json_is_a_row(form, folder):
    kept = (folder / repodata.JSON).read_bytes(), (folder / repodata.ZST).read_bytes()
    shards = (folder / repodata.SHARDS).read_bytes()
    name = ours(folder).name
    edit(folder, lambda content: content["packages.conda"][name].update(depends=["evil"]))
    (folder / repodata.JSON).write_bytes(kept[0])
    if form == repodata.ZST:
        (folder / repodata.SHARDS).write_bytes(shards)
    else:
        (folder / repodata.ZST).write_bytes(kept[1])
    assert "differs from repodata.json" in faults(folder)[form]


def test_a_numpy_that_only_one_form_lists_is_a_row(folder):
    before = (folder / repodata.JSON).read_bytes()
    name = add(folder, build="custom_999")
    (folder / repodata.JSON).write_bytes(before)
    found = faults(folder)
    assert found[name] == "no provenance" and repodata.ZST in found and repodata.SHARDS in found


@pytest.mark.parametrize("name", channel_folder.OLD_INDEXES)
def test_an_old_index_that_says_something_else_is_a_row(name, folder):
    listed = json.loads((folder / repodata.JSON).read_text())
    listed["packages.conda"] = {"numpy-2.3.5-0.conda": {"name": "numpy", "depends": []}}
    data = json.dumps(listed).encode()
    pack = {"bz2": bz2.compress, "gz": channel_gzip, "zst": zstandard.compress}
    ending = name.rpartition(".")[2]
    (folder / name).write_bytes(pack.get(ending, bytes)(data))
    assert name in faults(folder)


def channel_gzip(data):
    import gzip

    return gzip.compress(data)


def test_what_sends_clients_elsewhere_is_a_row(folder):
    edit(folder, lambda content: content["info"].update(base_url="https://evil.example.com"))
    assert "info.base_url" in faults(folder)[repodata.JSON]


# --- provenance


def rewrite(folder, change, ending=provenance.ENDING):
    """Sign a changed statement with our own key."""
    path = folder / provenance.filename(ours(folder).name)
    statement = provenance.read_unsigned(path)
    change(statement)
    target = folder / provenance.filename(ours(folder).name, ending)
    target.write_bytes(provenance.sign(statement, signing.signer()))
    return faults(folder)[ours(folder).name]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda said: said.update(predicateType="https://example.com/v1"), "its predicateType is"),
        (
            lambda said: said.update(predicateType=provenance.PUBLISH_PREDICATE_TYPE),
            "predicateType",
        ),
        (lambda said: said.update(_type="https://in-toto.io/Statement/v0.1"), "its _type is"),
        (lambda said: said.pop("_type"), "its _type is"),
        (lambda said: said["subject"].append(said["subject"][0]), "of another file"),
        (lambda said: said.update(subject=[]), "of another file"),
        (lambda said: said.update(subject=None), "of another file"),
        (lambda said: said["subject"][0].update(name="numpy-1-0.conda"), "of another file"),
        (lambda said: said["predicate"].pop("runDetails"), "without what a check needs"),
        (lambda said: said.update(predicate=[]), "without what a check needs"),
        (lambda said: said.update(predicate=None), "without what a check needs"),
    ],
)
def test_a_signed_statement_of_another_kind_is_a_fault(change, fault, folder):
    assert fault in rewrite(folder, change)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_statement_are_a_fault(content, folder):
    (folder / provenance.filename(ours(folder).name)).write_bytes(content)
    assert "not a signed statement" in faults(folder)[ours(folder).name]


def test_a_statement_of_another_package_is_a_fault(folder):
    first, second = (folder / provenance.filename(ours(folder, n).name) for n in (1, 2))
    shutil.copy(second, first)
    assert faults(folder)[ours(folder).name].startswith("of another file: numpy-2.3.5")


def test_a_publish_attestation_of_another_package_is_a_fault(folder):
    path = folder / provenance.filename(ours(folder).name, provenance.PUBLISH_ENDING)
    for subject, fault in (
        (Subject(ours(folder, 2).name, files.sha256(ours(folder, 2))), "of another file"),
        (Subject(ours(folder).name, files.sha256(ours(folder))), None),
    ):
        statement = provenance.publish_statement(subject, "https://conda.example.com/fixed")
        path.write_bytes(provenance.sign(statement, signing.signer()))
        found = faults(folder).get(ours(folder).name)
        assert found is None if fault is None else fault in found


# --- an unchanged channel is not read again, a changed one is


def age(folder):
    """Make the files old enough to be told apart from what changes now."""
    channel_folder.time.sleep(2.1)


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(folder):
    age(folder)
    assert rows(folder, use_known=True)[1] == 0
    assert rows(folder, use_known=True)[1] == 2
    path = ours(folder)
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    age(folder)
    found, reused = rows(folder, use_known=True)
    assert reused == 1
    assert [row.package for row in found if row.fault] == [path.name]


def test_the_objections_are_in_the_table_in_short_and_in_the_json_in_full(folder, capsys):
    from numpy_feedstock import cli

    capsys.readouterr()
    assert cli.main(["check-channel", str(folder.parent)]) == 0
    assert "no record of its tests; and " in capsys.readouterr().out
    assert cli.main(["check-channel", str(folder.parent), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["packages"][0]
    assert len(first["objections"]) > 5


def test_only_the_named_packages_are_rows(folder):
    found, _ = rows(folder)
    name = ours(folder).name
    assert [row.package for row in channel_check.only(found, [name])] == [name]
    assert channel_check.only(found, ["none.conda"]) == [
        Row("none.conda", "", "", "not in the index")
    ]
