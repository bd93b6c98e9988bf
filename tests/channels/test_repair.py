"""publish: it ends with 0 only when the index lists what it published, and repairs what it can."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
import zstandard

from helpers import small
from numpy_feedstock import cli, files, paths
from numpy_feedstock.channels import channel_folder, repodata
from numpy_feedstock.errors import FeedstockError, UsageError
from numpy_feedstock.publishing import candidate, provenance
from numpy_feedstock.publishing.targets import directory

UNTESTED = "--allow-untested"


@pytest.fixture
def package(tmp_path):
    return small.make(tmp_path / "small" / "linux-64", 1)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "channel"


@pytest.fixture
def publish(target, capsys):
    """Publish packages into the target; (exit code, what was said on standard error)."""

    def run(*packages, options=(UNTESTED,)):
        code = cli.main(["publish", *options, "--to", str(target), *map(str, packages)])
        return code, capsys.readouterr().err

    return run


def listed(target, form=repodata.JSON):
    folder = target / "linux-64"

    def read(name):
        return (folder / name).read_bytes() if (folder / name).exists() else None

    found = repodata.forms(read, str(folder))[form]
    return {name: entry["sha256"] for name, entry in found.items()}


def every_form_lists(target, *packages):
    wanted = {path.name: files.sha256(path) for path in packages}
    return all(
        listed(target, form).items() >= wanted.items()
        for form in (repodata.JSON, repodata.ZST, repodata.SHARDS)
    )


# --- an index that is not what it was


@pytest.mark.parametrize("form", [repodata.JSON, repodata.ZST, repodata.SHARDS])
@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"garbage"])
def test_a_spoiled_index_is_repaired_though_nothing_is_new(form, content, package, target, publish):
    assert publish(package)[0] == 0
    (target / "linux-64" / form).write_bytes(content)
    code, said = publish(package)
    assert code == 0 and "so it is repaired" in said
    assert every_form_lists(target, package)
    assert "repaired" not in publish(package)[1]


@pytest.mark.parametrize("form", [repodata.JSON])
def test_a_lost_index_is_written_again(form, package, target, publish):
    publish(package)
    (target / "linux-64" / form).unlink()
    code, said = publish(package)
    assert code == 0 and f"there is no linux-64/{form}" in said
    assert every_form_lists(target, package)


def test_an_index_that_was_put_back_is_repaired(package, target, publish, tmp_path):
    second = small.make(tmp_path / "small" / "linux-64", 2)
    publish(package)
    kept = tmp_path / "kept"
    shutil.copytree(target / "linux-64", kept)
    publish(second)
    for name in (repodata.JSON, repodata.ZST, repodata.SHARDS):
        shutil.copy(kept / name, target / "linux-64" / name)
    code, said = publish(package, second)
    assert code == 0 and "so it is repaired" in said
    assert every_form_lists(target, package, second)


def test_a_stale_sha256_is_repaired_with_all_packages_read_again(package, target, publish):
    publish(package)
    path = target / "linux-64" / repodata.JSON
    content = json.loads(path.read_text())
    content["packages.conda"][package.name]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    (target / "linux-64" / repodata.ZST).write_bytes(
        zstandard.compress(json.dumps(content).encode())
    )
    code, said = publish(package)
    assert code == 0 and "all packages are read again" in said
    assert every_form_lists(target, package)


def test_it_does_not_end_well_when_the_index_stays_wrong(package, target, publish, monkeypatch):
    monkeypatch.setattr(directory.Directory, "index", lambda *args, **options: None)
    code, said = publish(package)
    assert code == 1 and "but its index is not right" in said
    assert not list(target.rglob("*" + provenance.ENDING))


@pytest.mark.parametrize("name", channel_folder.OLD_INDEXES)
def test_an_old_index_that_conda_reads_first_is_removed_with_a_line(name, package, target, publish):
    publish(package)
    old = target / "linux-64" / name
    for again in (True, False):
        old.write_text("{}")
        code, said = publish(package) if again else (0, "")
        if again:
            assert code == 0 and f"removed {old}" in said and not old.exists()
    assert cli.main(["mark-broken", str(target)]) == 0
    assert not old.exists()


@pytest.mark.parametrize("ending", [".conda", ".tar.bz2"])
@pytest.mark.parametrize("kind", ["empty", "text", "cut", "zeros", "folder of its own"])
def test_one_broken_file_of_others_is_named_and_stops_nobody(
    ending, kind, package, target, publish
):
    broken = target / "linux-64" / f"foreign-1-0{ending}"
    broken.parent.mkdir(parents=True)
    whole = package.read_bytes()
    if kind == "folder of its own":
        broken.mkdir()
    else:
        content = {"empty": b"", "text": b"no package", "cut": whole[:-90], "zeros": bytes(5000)}
        broken.write_bytes(content[kind])
    code, said = publish(package)
    assert code == 0, said
    assert f"not a whole package: {broken}" in said or kind == "folder of its own"
    assert every_form_lists(target, package)
    assert broken.exists()
    assert not list(target.glob(".index-*"))
    assert publish(package)[0] == 0


# --- what was examined is what is put


def test_bytes_that_changed_after_they_were_examined_are_not_put(package, target, tmp_path):
    found = directory.Directory(target)
    examined = files.sha256(package)
    other = small.make(tmp_path / "other", 1, depends=["evil"])
    with pytest.raises(FeedstockError, match="the file changed after it was examined"):
        found.put(other, "linux-64", package.name, examined)
    assert not (target / "linux-64" / package.name).exists()
    assert not list(target.rglob("*.partial"))


def test_the_statement_is_made_before_anything_is_put(package, target, publish, monkeypatch):
    def fail(*args):
        raise FeedstockError("no statement")

    monkeypatch.setattr(provenance, "sign", fail)
    code, said = publish(package)
    assert code == 1 and "no statement" in said
    assert not list(target.rglob("numpy-*"))


def test_a_package_is_unpacked_once_and_a_published_one_not_at_all(package, publish, monkeypatch):
    unpacked = []
    real = candidate.unpack
    monkeypatch.setattr(
        candidate, "unpack", lambda path, folder: unpacked.append(path) or real(path, folder)
    )
    assert publish(package)[0] == 0
    assert unpacked == [package]
    assert publish(package)[0] == 0
    assert unpacked == [package]


# --- a package of the bootstrap channel's toolchain


def test_a_package_of_the_bootstrap_toolchain_is_taken_only_when_told(package, publish, target):
    make_record(package, ["file:///srv/build/bootstrap-3.11/"])
    code, said = publish(package)
    assert code == 1 and "bootstrap channel's toolchain" in said and "--allow-bootstrap" in said
    assert not target.exists()
    assert publish(package, options=[UNTESTED, "--allow-bootstrap"])[0] == 0
    said = provenance.read_unsigned(target / "linux-64" / provenance.filename(package.name))
    assert "/srv/build" not in json.dumps(said)
    build = said["predicate"]["buildDefinition"]
    assert build["internalParameters"]["channels"] == ["bootstrap"]
    objections = provenance.facts(said).objections
    assert any("bootstrap channel's toolchain" in each for each in objections)


def test_a_package_of_conda_forge_needs_no_such_option(package, publish):
    make_record(package, ["https://conda.anaconda.org/conda-forge/"])
    assert publish(package)[0] == 0


def make_record(package, channels):
    from numpy_feedstock.packages import record

    fields = {
        "filename": package.name,
        "sha256": files.sha256(package),
        "size": package.stat().st_size,
        "channels": channels,
        "tests": {"imports": True},
        "numpy_tests": {"passed": 1, "failed": 0, "skipped": 0},
    }
    types = {"str": "", "int": 0, "float": 0.0}
    for field in record.dataclasses.fields(record.Record):
        if field.name not in fields and field.default is record.dataclasses.MISSING:
            kind = getattr(field.type, "__name__", str(field.type))
            if kind in types:
                fields[field.name] = types[kind]
    record.Record(**fields).write(package)


# --- several users of one folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("part", ["folder", "subdir", "lock"])
def test_a_second_user_without_the_right_to_write_is_told_so(
    part, package, target, publish, tmp_path
):
    publish(package)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    open_to_all = {"folder": [], "subdir": [target, target / ".lock"], "lock": [target]}[part]
    for path in (target, target / ".lock", target / "linux-64"):
        path.chmod(0o777 if path in open_to_all else path.stat().st_mode & 0o755)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from numpy_feedstock.channels import channel_folder\n"
        "from numpy_feedstock.errors import FeedstockError\n"
        # the interpreter may be in a folder of root's
        "os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        f"    with channel_folder.locked(Path({str(target)!r})):\n"
        f"        channel_folder.copy(Path({str(package)!r}), "
        f"Path({str(target / 'linux-64' / 'new.conda')!r}), os.link)\n"
        "except FeedstockError as error:\n"
        "    print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Permission denied" in done.stdout and "remedy" in done.stdout


# --- a file server


NFS = "36 25 0:32 / {at} rw,relatime shared:1 - {kind} server:/x rw,vers=4.2,{options}\n"


@pytest.mark.parametrize(
    ("kind", "options", "fault"),
    [
        ("nfs4", "local_lock=none", ""),
        ("nfs", "nolock,local_lock=all", "nolock"),
        ("nfs", "local_lock=posix", "local_lock=posix"),
        ("cifs", "nobrl", "nobrl"),
        ("cifs", "cache=strict", ""),
        ("fuse.sshfs", "user_id=0", "no locks between hosts"),
        ("ext4", "errors=remount-ro", ""),
    ],
)
def test_a_mount_whose_locks_do_not_reach_other_hosts_is_refused(kind, options, fault, tmp_path):
    mounts = tmp_path / "mountinfo"
    root = "25 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
    mounts.write_text(root + NFS.format(at=tmp_path, kind=kind, options=options))
    if not fault:
        channel_folder.refuse_useless_locks(tmp_path / "channel", mounts)
        return
    with pytest.raises(UsageError, match=f"locks do not reach other hosts(.|\n)*{fault}"):
        channel_folder.refuse_useless_locks(tmp_path / "channel", mounts)


def test_another_host_that_takes_the_lock_meanwhile_is_found(tmp_path):
    with channel_folder.locked(tmp_path) as lock:
        lock.check()
        # as a host does whose locks do not reach this one
        (tmp_path / ".lock").write_text("elsewhere process 7")
        with pytest.raises(FeedstockError, match="another writer took the lock(.|\n)*elsewhere"):
            lock.check()


def test_a_check_of_the_lock_does_not_let_another_writer_in(tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from numpy_feedstock.channels import channel_folder\n"
        "with channel_folder.locked(Path(sys.argv[1]), patience=0):\n"
        "    print('in')\n"
    )
    with channel_folder.locked(tmp_path) as lock:
        lock.check()
        env = {**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")}
        other = [sys.executable, "-c", script, str(tmp_path)]
        done = subprocess.run(other, env=env, capture_output=True, text=True)
        lock.check()
    assert done.returncode != 0
    assert "another writer holds the channel" in done.stderr


def test_nothing_is_put_once_another_host_has_the_lock(tmp_path, package):
    found = directory.Directory(tmp_path / "channel")
    with found.publisher_lock(print):
        (tmp_path / "channel" / ".lock").write_text("elsewhere process 7")
        with pytest.raises(FeedstockError, match="another writer took the lock"):
            found.put(package, "linux-64", package.name, files.sha256(package))
        with pytest.raises(FeedstockError, match="another writer took the lock"):
            found.index({}, print)
    assert not (tmp_path / "channel" / "linux-64").exists()


def test_an_unfinished_file_of_another_host_is_left_alone(tmp_path):
    subdir = tmp_path / "linux-64"
    subdir.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine = subdir / f".a.conda.{socket.gethostname()}-{ended.pid}.partial"
    live = subdir / f".b.conda.{socket.gethostname()}-{os.getppid()}.partial"
    other = subdir / ".c.conda.elsewhere-1.partial"
    old = subdir / ".d.conda.elsewhere-1.partial"
    for path in (mine, live, other, old):
        path.touch()
    os.utime(old, (time.time() - 100_000,) * 2)
    with channel_folder.locked(tmp_path):
        pass
    assert {path.name for path in subdir.iterdir()} == {live.name, other.name}
