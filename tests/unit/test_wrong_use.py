"""Wrong use: each bad call of each verb is an error in words, and leaves nothing behind."""

import ast
import os
import subprocess
import sys
import types

import pytest

from helpers import pythons, small
from helpers.command import feedstock
from numpy_feedstock import cli, paths, variant
from numpy_feedstock.channels import channel, channel_folder
from numpy_feedstock.publishing import signing
from numpy_feedstock.verbs import old_glibc

BAD_TARGETS = [
    "",
    " ",
    "file:",
    "file://",
    "file:relative",
    "file://server/share",
    "file://localhost",
    "file:///",
    "/",
    "//",
    "~/channel",
    "C:\\channel",
    "host:/folder",
    "https://[::1",
    "https://[::1]:x/y",
    "quetz:///x",
    "quetz://",
    "quetz://host",
    "quetz:channel",
    "quetz://host:0/channel",
    "quetz://host:65536/channel",
    "quetz://host:port/channel",
    "quetz://host:/channel",
    "quetz://host:-1/channel",
    "quetz://ho st/channel",
    "quetz://host/../channel",
    "quetz+https://host/channel",
    "quetz+ftp://host/channel",
    "s3://",
    "s3:///folder",
    "s3://bucket:80/folder",
    "s3://a/folder",
    "s3+http://bucket/folder",
    "artifactory://",
    "artifactory:///repository",
    "artifactory://host",
    "artifactory+file://host/x",
    "https://prefix.dev",
    "https://prefix.dev/a/b",
    "https://anaconda.org",
    "https://anaconda.org/a/b/c",
    "https://example.com/channel",
    "http://prefix.dev/channel",
    "ftp://host/channel",
    "://",
    "\n",
    "a\0b",
]
# verb and what is wrong with the rest of its call
BAD_CALLS = [
    ["variants", "--numpy", "1.0"],
    ["variants", "--numpy", ""],
    ["variants", "--python", "2.7"],
    ["variants", "--platform", "win-64"],
    ["variants", "extra"],
    ["build", "--numpy", "nothing"],
    ["build", "--blas", "atlas"],
    ["build", "--jobs", "0"],
    ["build", "--jobs", "many"],
    ["test", "--jobs", "0", "--", "--version"],
    ["test", "--jobs", "many"],
    ["build", "--tests", "none"],
    ["build", "--output", "/dev/null/channel"],
    ["build", "--channel", ""],
    ["build", "--channel", "https://[::1"],
    ["build", "--channel", "http://127.0.0.1:9/nothing"],
    ["matrix", "--numpy", "9.9"],
    ["matrix", "--blas", "atlas"],
    ["matrix", "extra"],
    ["verify", "missing.conda"],
    ["verify", "/dev/null"],
    ["verify", "/"],
    ["verify", ""],
    ["hotfix"],
    ["hotfix", "missing.conda"],
    ["hotfix", "/dev/null"],
    ["hotfix", "http://127.0.0.1:9/nothing"],
    ["make-key", "/dev/null/key.pem"],
    ["make-key", "/"],
    ["make-key", "-----BEGIN PRIVATE KEY-----"],
    ["make-key", "a", "b"],
    ["publish", "missing.conda"],
    ["publish", "/dev/null"],
    ["publish", "/"],
    ["publish", "--to"],
    ["publish", "--check"],
    ["publish", "--index-later", "--to", "channel"],
    ["publish", "--channel-url", "nowhere"],
    ["publish", "--channel-url", "file:///srv/x"],
    ["check-channel", "missing"],
    ["check-channel", "/dev/null"],
    ["check-channel", "--trust", "missing.pub"],
    ["check-channel", "--trust", "/dev/null"],
    ["check-channel", "--package"],
    ["mark-broken"],
    ["mark-broken", "missing"],
    ["mark-broken", "/dev/null"],
    ["mark-broken", "missing", "--list-unmarked", "--dry-run"],
    ["mark-broken", "missing", "--suggest"],
    ["old-glibc", "/dev/null"],
    ["old-glibc", "--root", "/nowhere"],
    ["scan-wheels", "9.9"],
    ["scan-wheels", "--trials", "0"],
    ["hang-matrix", "--layer", "NONE"],
    ["hang-matrix", "--trials", "0"],
    ["compare-tests", "--numpy", "9.9"],
    ["benchmark", "--numpy", "9.9"],
    ["lint", "--nothing"],
    ["test", "--nothing"],
    ["bulid"],
    [],
]
CALLS = [
    *BAD_CALLS,
    *(["publish", "--allow-untested", "PACKAGE", "--to", target] for target in BAD_TARGETS),
    *(["check-channel", target] for target in BAD_TARGETS),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package that a right call would publish."""
    return small.make(tmp_path_factory.mktemp("made") / "linux-64", 1)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder to work in, and a key."""
    signing.make(tmp_path / "key.pem")
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "key.pem"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_all_verbs_are_called():
    assert {call[0] for call in CALLS if call} >= set(cli.VERBS)


@pytest.mark.filterwarnings("default")  # as outside of the tests
@pytest.mark.parametrize("call", CALLS, ids=lambda call: ascii(" ".join(call)))
def test_a_bad_call_is_an_error_in_words_and_leaves_nothing(call, package, workplace, capfd):
    try:
        code = cli.main([str(package) if each == "PACKAGE" else each for each in call])
    except SystemExit as left:
        code = left.code
    out, err = capfd.readouterr()
    assert code in (1, 2)
    assert err and out == ""
    assert "Traceback" not in err
    assert not list((workplace / "work").iterdir())
    assert sorted(path.name for path in workplace.iterdir()) == ["key.pem", "key.pem.pub", "work"]


# --- a machine that lacks something


def test_closed_streams_change_nothing_but_what_is_shown(workplace):
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        done = feedstock("variants", "--numpy", "2.3.5", preexec_fn=lambda what=closed: close(what))
        assert done.returncode == 0, (closed, done.stderr)
        done = feedstock("variants", "--numpy", "1", preexec_fn=lambda what=closed: close(what))
        assert done.returncode == 2, (closed, done.stderr)


def close(what):
    """Close the streams that a shell's redirections name."""
    for number, mark in enumerate(("<&-", ">&-", "2>&-")):
        if mark in what.split():
            os.close(number)


def test_an_output_that_is_full_is_an_error(workplace):
    with open("/dev/full", "w") as full:
        for call in (["variants", "--json"], ["make-key", "new.pem", "--dry-run", "--json"]):
            done = feedstock(*call, stdout=full, stderr=-1, capture_output=False)
            assert done.returncode == 1
            assert done.stderr == (
                "feedstock: the system refused: No space left on device\n"
                "  remedy: free some space and run the same command again\n"
            )


def test_a_reader_that_goes_away_is_no_traceback(workplace):
    read, write = os.pipe()
    os.close(read)
    for call in (["variants", "--json"], ["make-key", "new.pem", "--dry-run", "--json"]):
        done = feedstock(*call, stdout=write, stderr=-1, capture_output=False)
        assert (done.returncode, done.stderr) == (1, "")
    os.close(write)


STAND_ALONE = [
    *paths.ROOT.glob("scripts/*_numpy.py"),
    *paths.ROOT.glob("scripts/fleet/*.py"),
]


@pytest.mark.parametrize("path", STAND_ALONE, ids=lambda path: path.name)
def test_an_old_python_stops_at_a_line_that_says_what_is_needed(path):
    text = path.read_text()
    new = [node.lineno for node in ast.walk(ast.parse(text)) if _is_unknown_to_python_2(node)]
    line = text.splitlines()[min(new) - 1]
    assert "Python 3.6 or later" in line
    for python in pythons.found(["2.7"]).values():
        done = subprocess.run([python, path], capture_output=True, text=True)
        assert (done.returncode, line in done.stderr) == (1, True)


def _is_unknown_to_python_2(node):
    if isinstance(node, ast.FunctionDef):
        return bool(node.returns or node.args.kwonlyargs)
    return isinstance(node, ast.AnnAssign | ast.JoinedStr) or getattr(node, "annotation", None)


# runs the command on a machine where Python finds no folder for temporary files
WITHOUT_FOLDER = """
import sys, tempfile
tempfile._candidate_tempdir_list = lambda: ["/no/such/folder"]
from numpy_feedstock import __main__
sys.exit(__main__.run())
"""
NEED_A_FOLDER = [
    ["verify", "PACKAGE"],
    ["publish", "--dry-run", "--allow-untested", "PACKAGE"],
    ["publish", "--allow-untested", "PACKAGE"],
    ["scan-wheels", "2.3.5"],
    ["benchmark", "--output", "OUTPUT"],
]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """A channel folder with tested packages of the running Python."""
    folder = tmp_path_factory.mktemp("tested")
    for wanted in variant.select(["2.3.5"], [variant.THIS_PYTHON], None, channel.this_platform()):
        small.put(wanted, folder)
    return folder / "output"


@pytest.mark.parametrize("call", NEED_A_FOLDER, ids=" ".join)
def test_a_machine_without_a_folder_for_temporary_files_is_an_error_in_words(
    call, package, output, workplace
):
    given = {"PACKAGE": package, "OUTPUT": output}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FOLDER, *(given.get(each, each) for each in call)],
        env={**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (1, 2) and done.stdout == ""
    assert (
        "feedstock: the system refused: "
        "No usable temporary directory found in ['/no/such/folder']\n"
        "  remedy: set TMPDIR to a folder that can be written\n"
    ) in done.stderr


def test_what_needs_no_folder_for_temporary_files_works_without_one(workplace):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FOLDER, "variants"],
        env={**os.environ, "PYTHONPATH": str(paths.ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- a dry run refuses what the run itself would refuse


@pytest.fixture
def no_places(tmp_path):
    """Paths where nothing can be written, also by root."""
    (tmp_path / "file").touch()
    return ["/proc/x", "/sys/x/y", "/dev/null/x", str(tmp_path / "file/x"), "/" + "n" * 300]


DRY_RUNS = [
    # a channel that does not answer: without the refusal nothing is built either
    ["build", "--channel", "http://127.0.0.1:9/nothing", "--output", "PLACE"],
    ["hotfix", "PACKAGE", "--output", "PLACE"],
    ["publish", "--allow-untested", "PACKAGE", "--to", "PLACE"],
    ["make-key", "PLACE/key.pem"],
]


@pytest.mark.parametrize("call", DRY_RUNS, ids=lambda call: call[0])
def test_a_dry_run_refuses_a_place_that_the_run_refuses(
    call, package, no_places, workplace, capsys
):
    for place in no_places:
        words = [each.replace("PLACE", place).replace("PACKAGE", str(package)) for each in call]
        said = []
        for more in (["--dry-run"], []):
            code = cli.main([*words, *more])
            shown = capsys.readouterr()
            said.append((code, shown.out, shown.err))
        assert said[0] == said[1], place
        code, out, err = said[0]
        assert code in (1, 2) and out == "" and "Traceback" not in err


LOCKS = "36 25 0:32 / {at} rw,relatime - fuse.sshfs server:/x rw\n"


@pytest.mark.parametrize("call", DRY_RUNS[:3], ids=lambda call: call[0])
def test_a_dry_run_refuses_a_mount_without_locks(call, package, workplace, monkeypatch, capsys):
    mounts = workplace / "mountinfo"
    mounts.write_text(LOCKS.format(at=workplace / "mounted"))
    refuse = channel_folder.refuse_useless_locks
    monkeypatch.setattr(
        channel_folder, "refuse_useless_locks", lambda folder: refuse(folder, mounts)
    )
    place = str(workplace / "mounted/channel")
    words = [each.replace("PLACE", place).replace("PACKAGE", str(package)) for each in call]
    for more in (["--dry-run"], []):
        assert cli.main([*words, *more]) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and "locks do not reach other hosts" in shown.err


def test_a_dry_run_refuses_a_user_who_cannot_make_a_root(monkeypatch, capsys, tmp_path):
    wanted = types.SimpleNamespace(build_string="mkl_py311h0000000_100", filename="numpy.conda")
    monkeypatch.setattr(old_glibc, "open_package", lambda path: wanted)
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for more in (["--dry-run"], []):
        assert cli.main(["old-glibc", "numpy.conda", *more]) == 2
        assert "making a rootfs needs the user root" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
