"""Publish into a folder: several publishers at once, kills at any moment, repeats and refusals."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rattler.package_streaming import extract

from helpers import command, repack, small
from helpers.command import feedstock
from helpers.numpy_init import PATCH
from helpers.shipped import PYTHON, RELEASE
from numpy_feedstock import child, files, paths
from numpy_feedstock.channels import channel, channel_folder, prefix
from numpy_feedstock.packages.record import read_record
from numpy_feedstock.publishing import provenance, signing
from numpy_feedstock.publishing.targets import Taken, open_target

UNTESTED = "--allow-untested"
# the packages of these tests are compiled with the bootstrap channel's toolchain
BOOTSTRAP = "--allow-bootstrap"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "channel"


@pytest.fixture
def package(tmp_path):
    return small.make(tmp_path / "small", 1)


def publish(target, *args):
    return feedstock("publish", "--to", target, *args)


def check(target, *args):
    return feedstock("check-channel", target, *args)


def index_of(target):
    """What a reader sees: {file name: sha256}."""
    text = (target / "linux-64" / "repodata.json").read_text()
    return {name: entry["sha256"] for name, entry in json.loads(text)["packages.conda"].items()}


def tree(folder):
    """When each file was written, but for the locks."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("lock")
    }


def statement(target, package):
    return provenance.read_unsigned(target / "linux-64" / provenance.filename(package.name))


def results_in(said):
    """What a statement says of the tests."""
    byproducts = said["predicate"]["runDetails"]["byproducts"]
    return next(each["annotations"] for each in byproducts if each["name"] == "tests")


# --- the shipped packages


@pytest.mark.packages
def test_the_packages_are_published_and_can_be_installed_from_there(
    packages, channels, target, tmp_path
):
    done = publish(target, BOOTSTRAP, *packages.values())
    assert done.returncode == 0, done.stderr
    assert index_of(target) == {path.name: files.sha256(path) for path in packages.values()}
    assert {"repodata.json", "repodata.json.zst", "repodata_shards.msgpack.zst"} <= {
        path.name for path in (target / "linux-64").iterdir()
    }
    installed = prefix.install(
        [channel.url(target), channels[1]],
        [f"numpy={RELEASE}=openblas*", f"python={PYTHON}"],
        tmp_path / "prefix",
    )
    command = [installed / "bin" / "python", "-c", "import numpy; print(numpy.__version__)"]
    assert (
        subprocess.check_output(command, env=prefix.activated(installed), text=True).strip()
        == RELEASE
    )


@pytest.mark.packages
def test_the_provenance_says_what_a_package_was_made_of_and_how_it_was_tested(
    packages, records, target
):
    assert publish(target, packages["mkl"]).returncode == 1
    assert publish(target, BOOTSTRAP, packages["mkl"]).returncode == 0
    said = statement(target, packages["mkl"])
    assert said["subject"] == [
        {"name": packages["mkl"].name, "digest": {"sha256": records["mkl"].sha256}}
    ]
    build = said["predicate"]["buildDefinition"]
    assert build["externalParameters"]["variant"]["blas_impl"] == "mkl 2025.3"
    # not the path of the channel, which tells about the building machine
    assert build["internalParameters"]["channels"] == ["bootstrap"]
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", build["internalParameters"]["commit"])
    made_of = {
        each.get("name", each.get("uri")): each["digest"]["sha256"]
        for each in build["resolvedDependencies"]
    }
    assert made_of[f"info/recipe/patches/{PATCH.name}"] == files.sha256(PATCH)
    (source,) = (name for name in made_of if name.startswith("https:"))
    assert source.endswith(f"numpy-{RELEASE}.tar.gz") and made_of[source].startswith("784db1dc")
    assert any(name.startswith("build: gcc_linux-64-") for name in made_of)
    tests = results_in(said)
    assert tests["numpy_tests"]["failed"] == 0 and tests["numpy_tests"]["passed"] > 30_000
    assert all(tests["tests"].values())
    (objection,) = tests["objections"]
    assert "the bootstrap channel's toolchain" in objection


@pytest.mark.packages
def test_a_package_whose_tests_were_red_or_that_verify_rejects_is_refused(
    packages, target, tmp_path
):
    copy = tmp_path / packages["openblas"].name
    shutil.copy(packages["openblas"], copy)
    record = read_record(packages["openblas"])
    record.tests["repro"] = False
    record.write(copy)
    refused = publish(target, BOOTSTRAP, copy)
    assert refused.returncode == 1
    assert (
        f"refused: {copy.name}: red tests: repro\n" in refused.stderr
        and "--allow-untested" in refused.stderr
    )
    record.tests["repro"] = True
    record.write(copy)
    assert publish(target, BOOTSTRAP, copy, "--dry-run").returncode == 0

    folder = tmp_path / "unpacked"
    extract(copy, folder)
    (init,) = folder.glob("lib/python3*/site-packages/numpy/__init__.py")
    repack.replace(init, init.read_text().replace("    blas_fpe_check()\n", ""))
    record.sha256 = files.sha256(repack.pack(folder, copy))
    record.write(copy)
    refused = publish(target, BOOTSTRAP, copy)
    assert refused.returncode == 1 and f"refused: {copy.name}: gate: " in refused.stderr
    assert not target.exists()


# --- create-only


def test_published_again_it_says_so_and_changes_nothing(package, target):
    first = publish(target, UNTESTED, package)
    assert first.returncode == 0, first.stderr
    before = tree(target)
    again = publish(target, UNTESTED, package)
    assert again.returncode == 0
    assert (
        f"{package.name} is there already, sha256 {files.sha256(package)}: nothing to do"
        in again.stderr
    )
    assert tree(target) == before


def test_other_bytes_of_the_same_name_are_refused_with_both_hashes(package, target, tmp_path):
    publish(target, UNTESTED, package)
    there = files.sha256(target / "linux-64" / package.name)
    other = small.make(tmp_path / "other", 1, depends=["python"])
    new = small.make(tmp_path / "other", 2)
    done = publish(target, UNTESTED, new, other)
    assert done.returncode == 1
    assert (
        there in done.stderr
        and files.sha256(other) in done.stderr
        and "raise build_number" in done.stderr
    )
    assert index_of(target) == {package.name: there}
    assert (
        files.sha256(target / "linux-64" / package.name) == there
        and not (target / "linux-64" / new.name).exists()
    )


def test_a_name_taken_by_another_program_meanwhile_is_left_alone(package, target, tmp_path):
    """The lock binds publishers only: what a copy by hand put there is not replaced either."""
    (target / "linux-64").mkdir(parents=True)
    (target / "linux-64" / package.name).write_text("by hand")
    with pytest.raises(Taken, match="the name is taken"):
        open_target(str(target)).put(package, "linux-64", package.name, files.sha256(package))
    assert (target / "linux-64" / package.name).read_text() == "by hand"
    assert [path.name for path in (target / "linux-64").iterdir()] == [package.name]


def test_a_dry_run_names_what_would_happen_and_makes_nothing(package, target):
    done = publish(target, UNTESTED, "--dry-run", "--json", package)
    (row,) = json.loads(done.stdout)["packages"]
    assert (row["package"], row["state"], row["provenance"]) == (package.name, "new", "new")
    assert not target.exists()


# --- several at once, and killed


def batches(made, of):
    return [made[start : start + of] for start in range(0, len(made), of)]


class Reader(threading.Thread):
    """Reads the index again and again.

    Each index has to be whole, keep all earlier names, and name only files that exist.
    """

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.ended, self.reads, self.faults, self.seen = (
            target,
            threading.Event(),
            0,
            [],
            set(),
        )

    def run(self):
        while not self.ended.wait(0.02):
            if (self.target / "linux-64" / "repodata.json").exists():
                self.read()

    def read(self):
        self.reads += 1
        try:
            names = set(index_of(self.target))
        except ValueError as error:
            self.faults.append(f"no JSON: {error}")
            return
        self.faults += [f"lost: {name}" for name in self.seen - names]
        self.faults += [
            f"not there: {name}"
            for name in names - self.seen
            if not (self.target / "linux-64" / name).exists()
        ]
        self.seen = names

    def stop(self):
        self.ended.set()
        self.join()
        return self.faults


def test_eight_publishers_at_once_lose_nothing(target, tmp_path):
    made = [small.make(tmp_path / "many", number) for number in range(96)]
    reader = Reader(target)
    reader.start()

    def one_after_the_other(commands):
        codes.append([publish(target, UNTESTED, *batch).returncode for batch in commands])

    codes = []
    publishers = [
        threading.Thread(target=one_after_the_other, args=(batches(share, 4),))
        for share in batches(made, 12)
    ]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    assert codes == [[0] * 3] * 8
    assert reader.stop() == [] and reader.reads > 20
    assert index_of(target) == {path.name: files.sha256(path) for path in made}
    assert len(list((target / "linux-64").glob("*" + provenance.ENDING))) == 96


def test_killed_at_any_moment_the_same_command_completes_it(tmp_path):
    """Five channels get four kills each, at random moments of every step.

    Half of the kills end the publisher alone. The others also end its children, as a host
    does that goes down.
    """
    made = [small.make(tmp_path / "few", number) for number in range(5)]
    started = time.monotonic()
    assert publish(tmp_path / "whole", UNTESTED, *made).returncode == 0
    usual = time.monotonic() - started

    def kill_and_complete(number):
        target, chosen = tmp_path / f"channel-{number}", random.Random(number)
        kills, whole = 0, usual
        while kills < 4:
            # the first part is Python's start
            moment = whole * chosen.uniform(0.2, 0.9)
            if killed_after(moment, kills % 2 == 0, target, made):
                kills += 1
            else:
                # it had ended: the machine has less to do now
                whole *= 0.9
        done = publish(target, UNTESTED, *made)
        assert done.returncode == 0, done.stderr
        assert index_of(target) == {path.name: files.sha256(path) for path in made}
        assert check(target).returncode == 0
        assert not list(target.rglob("*.partial"))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(kill_and_complete, range(5)))


def killed_after(seconds, with_its_indexer, target, made):
    """Publish, and kill the publisher after some seconds. Returns whether it was still running.

    What is in the channel then has to be whole.
    """
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = command.start("publish", "--to", target, UNTESTED, *made, **quiet)
    time.sleep(seconds)
    killed = process.poll() is None
    if with_its_indexer:
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)])
    process.kill()
    process.wait()
    expected = {path.name: files.sha256(path) for path in made}
    if (target / "linux-64" / "repodata.json").exists():
        assert index_of(target).items() <= expected.items()
    for path in target.glob("linux-64/numpy*.conda"):
        assert files.sha256(path) == expected[path.name]
    return killed


def test_a_writer_that_does_not_end_is_named(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time\n"
            "from pathlib import Path\n"
            "from numpy_feedstock.channels import channel_folder\n"
            f"with channel_folder.locked(Path({str(tmp_path)!r})):\n"
            "    print(flush=True)\n"
            "    time.sleep(60)",
        ],
        env={**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")},
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    said = []
    with pytest.raises(
        channel_folder.FeedstockError,
        match=f"another writer holds the channel: .*\n  found:  .* process {holder.pid}\n",
    ):
        with channel_folder.locked(tmp_path, said.append, patience=0.3):
            pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert len(said) == 1 and str(holder.pid) in said[0]
    with channel_folder.locked(tmp_path, patience=5):
        pass


# --- signed


def test_check_finds_what_was_changed_after_it_was_signed(package, target, tmp_path):
    second, third = (small.make(tmp_path / "small", number) for number in (2, 3))
    assert publish(target, UNTESTED, package, second, third).returncode == 0
    green = check(target)
    assert green.returncode == 0 and green.stdout.count(RELEASE) == 3

    # a file of other bytes, with an index that says so; a provenance that is gone
    shutil.copy(
        small.make(tmp_path / "other", 1, depends=["python"]), target / "linux-64" / package.name
    )
    child.run(channel_folder._index, str(target), True, log=tmp_path / "log")
    (target / "linux-64" / provenance.filename(second.name)).unlink()
    red = check(target, "--json")
    assert red.returncode == 1
    faults = {row["package"]: row["fault"] for row in json.loads(red.stdout)["packages"]}
    assert faults[package.name].startswith(f"of another file: {package.name} sha256")
    assert (faults[second.name], faults[third.name]) == ("no provenance", "")


def test_check_accepts_the_keys_that_it_is_given(package, target, tmp_path, monkeypatch):
    publish(target, UNTESTED, package)
    trusted = tmp_path / "key.pem.pub"
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "another.pem"))
    signing.make(tmp_path / "another.pem")
    other = check(target)
    assert other.returncode == 1 and "not signed by a key that is trusted" in other.stdout
    assert check(target, "--trust", trusted).returncode == 0


def test_a_statement_that_was_changed_is_not_trusted(package, target):
    publish(target, UNTESTED, package)
    file = target / "linux-64" / provenance.filename(package.name)
    envelope = json.loads(file.read_text())
    said = statement(target, package)
    said["predicate"]["runDetails"]["byproducts"][0]["annotations"]["objections"] = []
    envelope["payload"] = provenance.Envelope(json.dumps(said).encode(), "", {}).to_dict()[
        "payload"
    ]
    file.write_text(json.dumps(envelope))
    assert "not signed by a key that is trusted" in check(target).stdout


def test_what_was_published_untested_says_so_for_ever(package, target):
    done = publish(target, UNTESTED, package)
    assert done.returncode == 0
    tests = results_in(statement(target, package))
    assert "no record of its tests" in tests["objections"]
    assert any(objection.startswith("gate: ") for objection in tests["objections"])


# --- bad input


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_text("no zip"), "not a whole conda package"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a whole conda package"),
        (lambda path: path.unlink(), "no such file"),
    ],
    ids=["no package", "truncated", "missing"],
)
def test_one_file_that_is_no_package_keeps_all_from_being_published(
    spoil, said, package, target, tmp_path
):
    good = small.make(tmp_path / "small", 2)
    spoil(package)
    done = publish(target, UNTESTED, good, package)
    assert done.returncode == 2
    assert (
        said in done.stderr
        and str(package) in done.stderr
        and "nothing was published" in done.stderr
    )
    assert not target.exists()


def test_packages_of_another_name_subdir_or_file_name(target, tmp_path):
    scipy = small.make(tmp_path / "small", 1, name="scipy")
    windows = small.make(tmp_path / "small", 2, subdir="linux-ppc64le")
    (tmp_path / "linux-aarch64").mkdir()
    misplaced = shutil.move(small.make(tmp_path / "small", 3), tmp_path / "linux-aarch64")
    renamed = small.make(tmp_path / "small", 4).rename(tmp_path / "numpy-2.3.5-0.conda")
    done = publish(target, UNTESTED, scipy, windows, misplaced, renamed)
    assert done.returncode == 2
    for said in (
        f"not a package of numpy for Linux: {scipy}",
        f"wrong subdir: {windows}",
        f"wrong subdir: {misplaced}",
        f"the file is not named as the package: {renamed}",
    ):
        assert said in done.stderr
    assert not target.exists()


def test_a_full_disk_leaves_the_channel_as_it_was(package, small_disk, tmp_path):
    folder = small_disk / "channel"
    assert publish(folder, UNTESTED, package).returncode == 0
    before = index_of(folder)
    big = small.make(tmp_path / "big", 2, fill=os.urandom(1 << 20).hex())
    done = publish(folder, UNTESTED, big)
    assert done.returncode == 1
    assert (
        f"{big.name} could not be written: No space left on device" in done.stderr
        and "free some space" in done.stderr
    )
    assert index_of(folder) == before and not list(folder.rglob("*.partial"))
    assert check(folder).returncode == 0


def test_a_target_that_cannot_be_written_and_a_key_that_is_none(package, target, signing_key):
    assert "cannot be written: /dev/null/x" in publish("/dev/null/x", UNTESTED, package).stderr
    signing_key.write_text("no key")
    done = publish(target, UNTESTED, package)
    assert (
        done.returncode == 2
        and f"not a usable signing key: {signing_key}" in done.stderr
        and not target.exists()
    )
