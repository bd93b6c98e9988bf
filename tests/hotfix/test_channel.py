"""The verb: from packages and channels to a channel of twins that solvers prefer."""

import contextlib
import functools
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from helpers import originals
from helpers.command import feedstock, start
from numpy_feedstock import paths
from numpy_feedstock.channels import channel, channel_folder, prefix
from numpy_feedstock.errors import FeedstockError
from numpy_feedstock.packages import archive
from numpy_feedstock.verbs import hotfix as hotfix_verb

INIT = "lib/python3.11/site-packages/numpy/__init__.py"


@pytest.fixture
def mirror(small, tmp_path):
    """A channel with one affected, one sound and one hand-patched numpy."""
    folder = tmp_path / "mirror"
    make_build(folder, small, "py311h0000001_0")
    make_build(folder, small, "py311h0000002_1", build_number=1)
    edited = originals.changed(small, {INIT: small[INIT].data + b"# edited\n"})
    make_build(folder, edited, "py311h0000003_0")
    channel_folder.index(folder)
    return folder


def make_build(folder, members, build, **index):
    """A package of the members with another build, without dependencies; its path."""
    index = {"build": build, "depends": [], "constrains": [], **index}
    return originals.package(folder, originals.with_index(members, **index))


def hotfix(*args, **options):
    return feedstock("hotfix", *args, **options)


def rows(done):
    """{original: row} of --json."""
    return {row["original"]: row for row in json.loads(done.stdout)["packages"]}


def picked(channels, *specs):
    records = prefix.solve([channel.url(folder) for folder in channels], list(specs))
    return {record.name.normalized: str(record.build) for record in records}


def test_every_affected_build_of_a_channel_gets_a_twin_and_the_others_a_reason(mirror, tmp_path):
    done = hotfix(mirror, "--output", tmp_path / "healed", "--json")
    assert done.returncode == 1
    found = rows(done)
    assert (
        found["numpy-2.3.5-py311h0000001_0.conda"]["twin"] == "numpy-2.3.5-py311h0000001_50.conda"
    )
    assert (
        found["numpy-2.3.5-py311h0000002_1.conda"]["twin"] == "numpy-2.3.5-py311h0000002_51.conda"
    )
    edited = found["numpy-2.3.5-py311h0000003_0.conda"]
    assert edited["state"] == "refused"
    assert "not the text that upstream released" in edited["reason"]
    assert "refused: numpy-2.3.5-py311h0000003_0.conda" in done.stderr
    there = {path.name for path in (tmp_path / "healed").rglob("*.conda")}
    assert there == {row["twin"] for row in found.values() if row["twin"]}


def test_a_solver_takes_the_twin_over_the_original_and_a_compiled_package_over_the_twin(
    mirror, small, tmp_path
):
    (mirror / "linux-64" / "numpy-2.3.5-py311h0000003_0.conda").unlink()
    hotfix(mirror, "--output", tmp_path / "healed")
    assert picked([mirror], "numpy=2.3.5")["numpy"] == "py311h0000002_1"
    assert picked([tmp_path / "healed", mirror], "numpy=2.3.5")["numpy"] == "py311h0000002_51"
    both = tmp_path / "healed"
    make_build(both, small, "mkl_py311h0000009_100", build_number=100)
    channel_folder.index(both)
    assert picked([both], "numpy=2.3.5")["numpy"] == "mkl_py311h0000009_100"


def test_the_same_command_again_has_nothing_to_do(mirror, tmp_path):
    first = rows(hotfix(mirror, "--output", tmp_path / "healed", "--json"))
    again = rows(hotfix(mirror, "--output", tmp_path / "healed", "--json"))
    assert {row["state"] for row in again.values()} == {"there", "refused"}
    assert {row["sha256"] for row in again.values()} == {row["sha256"] for row in first.values()}


def test_a_dry_run_says_the_same_and_writes_nothing(mirror, tmp_path):
    said = rows(hotfix(mirror, "--output", tmp_path / "healed", "--json", "--dry-run"))
    assert not (tmp_path / "healed").exists()
    done = rows(hotfix(mirror, "--output", tmp_path / "healed", "--json"))
    for name, row in done.items():
        assert [row[key] for key in ("twin", "state", "reason")] == [
            said[name][key] for key in ("twin", "state", "reason")
        ]


def test_another_package_of_a_twins_name_is_never_replaced(mirror, small, tmp_path):
    taken = make_build(tmp_path / "healed", small, "py311h0000001_50", build_number=50)
    before = taken.read_bytes()
    done = hotfix(mirror, "--output", tmp_path / "healed", "--json")
    assert rows(done)["numpy-2.3.5-py311h0000001_0.conda"]["state"] == "refused"
    assert taken.read_bytes() == before


def test_a_package_that_is_not_the_one_of_the_index_is_refused(mirror, small, tmp_path):
    make_build(mirror, small, "py311h0000001_0", license="other")
    row = rows(hotfix(mirror, "--output", tmp_path / "healed", "--json"))[
        "numpy-2.3.5-py311h0000001_0.conda"
    ]
    assert row["state"] == "refused"
    assert "not the one of its channel's index" in row["reason"]


def test_a_named_package_that_needs_no_healing_is_an_error(mirror, tmp_path):
    hotfix(mirror, "--output", tmp_path / "healed")
    (twin, _) = sorted((tmp_path / "healed" / "linux-64").glob("*.conda"))
    done = hotfix(twin, "--output", tmp_path / "again")
    assert done.returncode == 1
    assert "the check is gated" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["/nowhere"], "not there: /nowhere"),
        ([], "required: PACKAGE"),
        (["EMPTY"], "no package to heal"),
        (["FILE"], "not a package"),
        (["s3://bucket/channel"], "a URL that is not read: s3://bucket/channel"),
        (["file://server/share"], "a URL that is not read"),
        (["--python", "/bin/false", "MIRROR"], "not a Python that runs: /bin/false"),
        (["http://127.0.0.1:1/nothing"], "the channel does not answer"),
    ],
)
def test_wrong_use_says_what_is_wrong(args, message, mirror, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    places = {"EMPTY": tmp_path / "empty", "FILE": tmp_path / "file.txt", "MIRROR": mirror}
    done = hotfix(*[places.get(arg, arg) for arg in args], "--output", tmp_path / "healed")
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("healed/*/*.conda"))


BASE_BUILD, NUMPY_BUILD = "py311h06ae042_0", "py311h1ee1eb2_0"
# after `import mkl` Anaconda's numpy for MKL knows the version; it warns where that fails
MKL_INIT = b"""
try:
    import mkl
    __mkl_version__ = "{MajorVersion}".format(**mkl.get_version())
except ImportError:
    import warnings
    warnings.warn("mkl-service package failed to import", stacklevel=2)"""


def make_pair(small, folder):
    """The pair as Anaconda's recipe makes it; the paths of numpy-base and numpy.

    numpy-base has all files and the commands, and links to the BLAS. numpy is empty, needs
    exactly this numpy-base, and has another build string.
    """
    needs = ["blas 1.0 mkl", "libgcc >=11.2.0", "mkl >=2025.0.0,<2026.0a0"]
    needs += ["python >=3.11,<3.12.0a0"]
    site = "lib/python3.11/site-packages"
    files = {f"{site}/numpy/_distributor_init.py": MKL_INIT, "bin/f2py": b"#!/opt/p/bin/python\n"}
    index = {"constrains": ["setuptools <74"], "arch": "x86_64", "platform": "linux"}
    base = make_build(
        folder,
        originals.changed(small, files),
        BASE_BUILD,
        **{**index, "name": "numpy-base", "depends": needs},
    )
    needs += ["mkl_fft", "mkl_random", f"numpy-base 2.3.5 {BASE_BUILD}"]
    empty = originals.with_metadata({}, json.loads(small["info/index.json"].data))
    numpy = make_build(folder, empty, NUMPY_BUILD, **{**index, "depends": needs})
    return base, numpy


def test_a_pair_of_anacondas_defaults_is_healed_together(small, tmp_path):
    base, numpy = make_pair(small, tmp_path / "defaults")
    done = hotfix(tmp_path / "defaults", "--output", tmp_path / "healed", "--json")
    assert done.returncode == 0, done.stderr
    found = rows(done)
    assert found[base.name]["twin"] == "numpy-base-2.3.5-py311h06ae042_50.conda"
    twin = tmp_path / "healed" / "linux-64" / found[numpy.name]["twin"]
    before = json.loads(archive.read(numpy)["info/index.json"].data)
    index = json.loads(archive.read(twin)["info/index.json"].data)
    assert index["depends"] == [*before["depends"][:-1], "numpy-base 2.3.5 py311h06ae042_50"]
    assert index["build"] == "py311h1ee1eb2_50"
    assert {**index, "depends": 0, "build": 0, "build_number": 0} == {
        **before,
        "depends": 0,
        "build": 0,
        "build_number": 0,
    }


def test_a_solver_takes_the_healed_pair(small, tmp_path):
    make_pair(small, tmp_path / "defaults")
    for name, version, build in (
        ("blas", "1.0", "mkl"),
        ("libgcc", "11.2.0", "0"),
        ("mkl", "2025.0.0", "0"),
        ("mkl_fft", "2.0.0", "0"),
        ("mkl_random", "1.2.8", "0"),
        ("python", "3.11.14", "0"),
    ):
        index = {"name": name, "version": version, "build_number": 0}
        make_build(tmp_path / "defaults", originals.changed(small, {}), build, **index)
    channel_folder.index(tmp_path / "defaults")
    hotfix(tmp_path / "defaults", "--output", tmp_path / "healed")
    found = picked([tmp_path / "healed", tmp_path / "defaults"], "numpy=2.3.5", "blas=*=mkl")
    assert found["numpy"] == "py311h1ee1eb2_50"
    assert found["numpy-base"] == "py311h06ae042_50"


def test_a_pair_in_two_folders_is_found_by_what_is_in_it(small, tmp_path):
    base, numpy = make_pair(small, tmp_path / "defaults")
    moved = [path.rename(tmp_path / path.name) for path in (base,)]
    done = hotfix(*moved, numpy, "--output", tmp_path / "healed", "--json")
    assert {row["state"] for row in rows(done).values()} == {"new"}


def test_a_numpy_that_cannot_be_repinned_leaves_no_twin_of_its_base(small, tmp_path):
    _, numpy = make_pair(small, tmp_path / "defaults")
    originals.package(
        tmp_path / "defaults", originals.with_index(archive.read(numpy), build_number=7)
    )
    done = hotfix(tmp_path / "defaults", "--output", tmp_path / "healed", "--json")
    assert {row["state"] for row in rows(done).values()} == {"refused"}
    assert not list((tmp_path / "healed").rglob("*.conda"))


def test_packages_of_one_name_for_two_platforms_are_both_healed(small, tmp_path):
    for subdir in ("linux-64", "osx-64"):
        make_build(tmp_path / "mirror", small, "py311h0000001_0", subdir=subdir)
    done = hotfix(tmp_path / "mirror", "--output", tmp_path / "healed", "--json")
    found = json.loads(done.stdout)["packages"]
    assert {(row["subdir"], row["state"]) for row in found} == {
        ("linux-64", "new"),
        ("osx-64", "new"),
    }


def test_of_two_packages_with_one_name_the_second_has_a_row_of_its_own(small, tmp_path):
    one = make_build(tmp_path / "one", small, "py311h0000001_0")
    two = make_build(tmp_path / "two", small, "py311h0000001_0", license="other")
    done = hotfix(one, two, one, "--output", tmp_path / "healed", "--json")
    found = json.loads(done.stdout)["packages"]
    assert sorted(row["state"] for row in found) == ["new", "refused"]
    assert "another package of this name" in done.stderr


def test_a_folder_that_takes_no_unfinished_twin_is_named(tmp_path):
    gone = tmp_path / "gone"
    batch = hotfix_verb.Batch([], tmp_path / "healed", print, gone)
    twin = SimpleNamespace(filename="numpy-2.3.5-py311h0000001_50.conda")
    with pytest.raises(FeedstockError, match=f"{twin.filename} could not be written in {gone}"):
        batch._write_twin(twin, tmp_path / "healed" / twin.filename, gone)


def test_dependencies_that_the_channel_patched_are_named_and_stay_the_packages(mirror, tmp_path):
    index = mirror / "linux-64" / "repodata.json"
    content = json.loads(index.read_text())
    content["packages.conda"]["numpy-2.3.5-py311h0000001_0.conda"]["depends"] = ["libfoo >=2"]
    index.write_text(json.dumps(content))
    found = rows(hotfix(mirror, "--output", tmp_path / "healed", "--json"))
    assert "+ libfoo >=2" in found["numpy-2.3.5-py311h0000001_0.conda"]["note"]
    assert not found["numpy-2.3.5-py311h0000002_1.conda"]["note"]
    (twin,) = (tmp_path / "healed").rglob("*0000001_50.conda")
    assert json.loads(archive.read(twin)["info/index.json"].data)["depends"] == []


def test_a_name_with_an_escape_sequence_is_shown_harmlessly(small, tmp_path):
    path = make_build(tmp_path / "mirror", small, "py311h0000001_0")
    path.rename(path.with_name("numpy-2.3.5-\x1b[31mred_0.conda"))
    done = hotfix(tmp_path / "mirror", "--output", tmp_path / "healed")
    assert done.returncode == 1
    assert "\x1b[31m" not in done.stdout + done.stderr
    assert r"\x1b[31mred" in done.stdout


def test_one_odd_package_takes_no_other_with_it(small, tmp_path):
    make_build(tmp_path / "mirror", small, "py311h0000001_0")
    odd = make_build(tmp_path / "mirror", small, "py311h0000002_0", depends=None)
    done = hotfix(tmp_path / "mirror", "--output", tmp_path / "healed", "--json")
    assert {name: row["state"] for name, row in rows(done).items()} == {
        "numpy-2.3.5-py311h0000001_0.conda": "new",
        odd.name: "refused",
    }
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("index", [b"", b"null", b"{", b"[" * 100_000, b'{"packages": 7}'])
def test_a_broken_index_is_an_error_and_changes_nothing(index, mirror, tmp_path):
    (mirror / "linux-64" / "repodata.json").write_bytes(index)
    done = hotfix(mirror, "--output", tmp_path / "healed")
    assert done.returncode == 1
    assert "the index is not right" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "healed").exists()


def test_an_output_that_is_the_input_is_healed_once(mirror):
    first = rows(hotfix(mirror, "--output", mirror, "--json"))
    again = rows(hotfix(mirror, "--output", mirror, "--json"))
    assert {row["twin"] for row in first.values()} == {row["twin"] for row in again.values()}
    assert {row["state"] for row in again.values()} == {"there", "not affected", "refused"}


def test_a_full_output_is_an_error_and_leaves_no_part_of_a_package(mirror, small_disk):
    (small_disk / "fill").write_bytes(bytes((1 << 20) - (150 << 10)))
    done = hotfix(mirror, "--output", small_disk)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    assert not [path for path in small_disk.rglob("*") if path.suffix == ".partial"]


def test_ctrl_c_ends_it_and_leaves_nothing_unfinished(small, tmp_path):
    for number in range(30):
        make_build(tmp_path / "mirror", small, f"py311h{number:0150}_0")
    # the pipe has no room for all lines with these long names: it cannot end before the interrupt
    process = start("hotfix", tmp_path / "mirror", "--output", tmp_path / "healed", pipesize=4096)
    for line in process.stderr:
        if "is new" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode not in (0, None)
    assert "Traceback" not in errors
    there = list((tmp_path / "healed").rglob("*.conda"))
    assert 1 <= len(there) < 30
    for path in there:
        archive.read(path)
    assert not (paths.BUILD / f"hotfix-{process.pid}").exists()
    assert not list((tmp_path / "healed").rglob("*.partial"))


def test_two_runs_at_once_make_one_channel(mirror, tmp_path):
    runs = [start("hotfix", mirror, "--output", tmp_path / "healed", "--json") for _ in range(2)]
    outputs = [json.loads(run.communicate()[0])["packages"] for run in runs]
    states = sorted(row["state"] for rows in outputs for row in rows)
    assert states == ["new", "new", "refused", "refused", "there", "there"]


@pytest.mark.parametrize("half", [0, 1])
def test_half_of_a_pair_is_refused(half, small, tmp_path):
    path = make_pair(small, tmp_path / "defaults")[half]
    done = hotfix(path, "--output", tmp_path / "healed")
    assert done.returncode == 1
    assert "name both" in done.stderr
    assert not list((tmp_path / "healed").rglob("*.conda"))


def test_a_refused_numpy_base_takes_its_numpy_with_it(small, tmp_path):
    edited = originals.changed(small, {INIT: small[INIT].data + b"# edited\n"})
    make_pair(edited, tmp_path / "defaults")
    done = hotfix(tmp_path / "defaults", "--output", tmp_path / "healed", "--json")
    assert done.returncode == 1
    assert {row["state"] for row in rows(done).values()} == {"refused"}


def test_a_run_that_was_killed_is_completed_by_the_same_command(real, tmp_path):
    folder = tmp_path / "mirror"
    for number in range(4):
        make_build(folder, real, f"py311h000000{number}_0")
    for _ in range(2):
        process = start("hotfix", folder, "--output", tmp_path / "healed")
        time.sleep(2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in (tmp_path / "healed").glob("*/*.conda"):
            archive.read(path)  # each that has its name is whole
    done = hotfix(folder, "--output", tmp_path / "healed", "--json")
    assert done.returncode == 0
    index = json.loads((tmp_path / "healed" / "linux-64" / "repodata.json").read_text())
    assert index["packages.conda"].keys() == {row["twin"] for row in rows(done).values()}
    for name, entry in index["packages.conda"].items():
        assert entry["sha256"] == {row["twin"]: row["sha256"] for row in rows(done).values()}[name]


class Guarded(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to those who have the token."""

    def do_GET(self):
        if self.headers.get("Authorization") != "Bearer s3cret":
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, *args):
        pass


def serve(handler):
    """Serve until the end of a test; yields the URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def guarded(mirror):
    yield from serve(functools.partial(Guarded, directory=mirror))


class Broken(http.server.SimpleHTTPRequestHandler):
    """Serves a folder under /t/s3cret, with other bytes for packages while `sends` has some."""

    sends = b""

    def do_GET(self):
        if not self.path.startswith("/t/s3cret/"):
            self.send_error(403)
            return
        self.path = self.path.removeprefix("/t/s3cret")
        if self.sends and self.path.endswith(".conda"):
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(self.sends)
            return
        super().do_GET()

    def log_message(self, *args):
        pass


class SendsBytes(http.server.SimpleHTTPRequestHandler):
    """Serves an index, and the same bytes for each package, whatever its path is."""

    def do_GET(self):
        if not self.path.endswith(".conda"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"bytes")

    def log_message(self, *args):
        pass


@pytest.fixture
def broken(mirror):
    yield from serve(functools.partial(Broken, directory=mirror))


@pytest.mark.parametrize("sent", [b"other", b"cut"])
def test_a_channel_that_sends_other_bytes_is_healed_when_it_is_mended(
    sent, broken, tmp_path, monkeypatch, mirror
):
    """Behind a URL with a token, which is shown nowhere and kept nowhere."""
    # a license of its own: an earlier test must not have downloaded the same packages
    members = archive.read(next(mirror.glob("linux-64/*0001_0.conda")))
    make_build(mirror, members, "py311h0000009_0", license=str(tmp_path))
    channel_folder.index(mirror)
    name = "numpy-2.3.5-py311h0000009_0.conda"
    args = [f"{broken}/t/s3cret/", "--output", tmp_path / "healed", "--json"]
    monkeypatch.setattr(Broken, "sends", sent)
    first = hotfix(*args)
    assert rows(first)[name]["state"] == "refused"
    monkeypatch.setattr(Broken, "sends", b"")
    second = hotfix(*args)
    assert rows(second)[name]["state"] == "new"
    for done in (first, second):
        assert "s3cret" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    kept = [path for path in (paths.BUILD / "downloads").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"s3cret" in path.read_bytes()]


@pytest.mark.parametrize("place", ["/../../..", "../../../..", "deeper"])
def test_a_channel_that_names_a_file_elsewhere_writes_nothing(place, tmp_path):
    entry = {"name": "numpy", "version": "2.3.5", "build": "py311h_0", "build_number": 0}
    entry |= {"depends": [], "subdir": "linux-64", "sha256": hashlib.sha256(b"bytes").hexdigest()}
    index = {"packages": {}, "packages.conda": {f"numpy-2.3.5-{place}/stolen.conda": entry}}
    (tmp_path / "linux-64").mkdir()
    (tmp_path / "linux-64" / "repodata.json").write_text(json.dumps(index))
    for url in serve(functools.partial(SendsBytes, directory=tmp_path)):
        done = hotfix(url, "--output", tmp_path / "healed")
    assert (done.returncode, "names no file of a package" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    assert not list(paths.BUILD.rglob("stolen.conda"))


class Endless(SendsBytes):
    """Sends packages that do not end."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))


def test_a_download_without_an_end_is_ended(tmp_path):
    code = (
        "import pathlib, sys, types\n"
        "from numpy_feedstock.channels import originals\n"
        "originals.limits = lambda: types.SimpleNamespace(bytes=1 << 20)\n"
        "originals._download(sys.argv[1], pathlib.Path(sys.argv[2]), print)\n"
    )
    own = {**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")}
    for url in serve(Endless):
        command = [sys.executable, "-c", code, f"{url}/x.conda", tmp_path / "x.conda"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=own)
    assert "could not be downloaded" in done.stderr
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_channel_behind_a_url_is_read_with_the_stored_credentials(guarded, tmp_path):
    store = tmp_path / "auth.json"
    store.write_text(json.dumps({"127.0.0.1": {"BearerToken": "s3cret"}}))
    args = [guarded, "--output", tmp_path / "healed", "--json"]
    done = hotfix(*args, env={"RATTLER_AUTH_FILE": store})
    assert len([row for row in rows(done).values() if row["state"] == "new"]) == 2
    twin = next((tmp_path / "healed" / "linux-64").glob("*.conda"))
    assert b"s3cret" not in twin.read_bytes()
    assert "s3cret" not in done.stdout + done.stderr


def test_without_them_it_is_an_error_that_shows_no_secret(guarded, tmp_path):
    url = guarded.replace("http://", "http://user:pa55word@")
    done = hotfix(
        url, "--output", tmp_path / "healed", env={"RATTLER_AUTH_FILE": tmp_path / "none"}
    )
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "pa55word" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
