"""The build verb before and after the builds: its plan, its order, and what it says at the end."""

import contextlib
import errno
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import pytest

from helpers import clone, small
from helpers.command import feedstock
from helpers.users import UNPRIVILEGED
from numpy_feedstock import cli, git, paths, variant
from numpy_feedstock.building import bootstrap, one_package, workspace
from numpy_feedstock.building.bootstrap import machine
from numpy_feedstock.channels import channel
from numpy_feedstock.errors import FeedstockError, UsageError
from numpy_feedstock.packages.record import read_record
from numpy_feedstock.progress import Progress
from numpy_feedstock.verbs import build


@pytest.fixture
def two():
    """Two variants."""
    return variant.select(["2.3.5"], ["3.11"], ["mkl-2025", "openblas"], "linux-64")


def plan_of(*args):
    """The rows of a plan, and what the command printed as a table."""
    command = ("build", "--channel", "bootstrap", "--dry-run", *args)
    rows = json.loads(feedstock(*command, "--json", check=True).stdout)
    return rows, feedstock(*command, check=True).stdout


def test_the_plan_has_the_whole_matrix_in_the_order_of_the_work():
    rows, table = plan_of("--numpy", "all", "--python", "all")
    wanted = variant.select(["all"], ["all"], variant.DEFAULT_FLAVOURS, "linux-64")
    assert [row["package"] for row in rows] == [v.filename for v in wanted]
    assert re.search(rf"^3 of {len(wanted)} +{re.escape(str(wanted[2]))} ", table, re.MULTILINE)
    assert "packages: " in table


@pytest.mark.parametrize("verb", [["build", "--channel", "bootstrap", "--dry-run"], ["matrix"]])
def test_on_a_platform_without_mkl_the_default_is_openblas(monkeypatch, capsys, verb):
    monkeypatch.setattr(channel, "this_platform", lambda: "linux-aarch64")
    assert cli.main([*verb, "--json"]) == 0
    shown = capsys.readouterr().out
    assert "openblas" in shown and "mkl" not in shown


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The folder of a bootstrap channel for 3.11 that this machine would not make again."""
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    folder = bootstrap.folder_of("3.11")
    folder.mkdir(parents=True)
    identity = bootstrap._identity(machine.inspect(), machine.find_interpreter("3.11"))
    (folder / bootstrap.MARKER).write_text(json.dumps({**identity, "debian_gcc": ["gcc-14.deb"]}))
    return folder


def put_from(made, wanted, folder, **fields):
    """Put a package of the bootstrap channel with its record into folder/output."""
    known = {"inputs": one_package.inputs_of(wanted, [made]), "channels": [channel.url(made)]}
    small.put(wanted, folder, **{**known, **fields})


def states(wanted, folder, label="fast", names=("bootstrap",)):
    """The states of a plan, and its table."""
    plan = build.make_plan(wanted, one_package.Settings([*names], folder / "output", label))
    with contextlib.redirect_stdout(io.StringIO()) as table:
        build.print_plan(plan, as_json=False)
    with contextlib.redirect_stdout(io.StringIO()) as text:
        build.print_plan(plan, as_json=True)
    assert [row["state"] for row in json.loads(text.getvalue())] == [row.state for row in plan]
    return [row.state for row in plan], table.getvalue()


@pytest.mark.parametrize(
    ("fields", "label", "state"),
    [
        ({}, "fast", "finished"),
        ({}, "full", "to build again"),
        ({"label": "full"}, "full", "finished"),
        ({"label": "full"}, "fast", "finished"),
        ({"inputs": "other"}, "fast", "to build again"),
        ({"tests": {"imports": False}}, "fast", "to build again"),
        ({"channels": ["https://conda.example/forge"]}, "fast", "to build again"),
        ({"sha256": "0" * 64}, "fast", "to build"),
    ],
)
def test_the_plan_says_what_would_be_done(two, tmp_path, made, fields, label, state):
    put_from(made, two[0], tmp_path, **fields)
    found, table = states(two, tmp_path, label)
    assert found == [state, "to build"]
    assert f"  {state}\n" in table and "unknown" not in table


@pytest.mark.parametrize("gone", ["channel", "machine"])
def test_the_plan_does_not_guess_what_a_channel_will_be_that_is_not_made(two, tmp_path, made, gone):
    put_from(made, two[0], tmp_path)
    if gone == "channel":
        shutil.rmtree(made)
    else:  # made on a machine with another compiler
        (made / bootstrap.MARKER).write_text(json.dumps({"machine_gcc": "4.8.5"}))
    found, table = states(two, tmp_path)
    assert found == ["unknown", "to build"]
    assert "packages: 1 unknown, 1 to build" in table
    assert "unknown: the bootstrap channel is made first" in table
    # what the tests or the channel's name decide is known all the same
    assert states(two, tmp_path, label="full")[0] == ["to build again", "to build"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"', "[" * 100_000, "\xff"])
def test_a_bootstrap_channel_with_a_broken_marker_is_not_made_yet(two, tmp_path, made, text):
    put_from(made, two[0], tmp_path)
    (made / bootstrap.MARKER).write_text(text, encoding="latin-1")
    assert not bootstrap.is_made("3.11")
    assert states(two, tmp_path)[0] == ["unknown", "to build"]


def test_a_package_of_the_bootstrap_channel_is_made_again_from_another_one(two, tmp_path, made):
    put_from(made, two[0], tmp_path)
    assert states(two, tmp_path, names=[str(tmp_path)])[0] == ["to build again", "to build"]


def test_the_plan_names_an_interpreter_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(build.bootstrap, "check", missing)
    settings = one_package.Settings(["bootstrap"], tmp_path, "fast")
    wanted = variant.select(["2.3.5"], ["3.14"], ["openblas"], "linux-64")
    (row,) = build.make_plan(wanted, settings)
    assert (row.state, row.problem) == ("to build", "no python3.14 on PATH")
    # another channel brings its own
    (row,) = build.make_plan(wanted, one_package.Settings(["/srv/channel"], tmp_path, "fast"))
    assert row.problem == ""


def missing(python):
    raise UsageError(f"no python{python} on PATH", remedy="install it")


@pytest.mark.parametrize(
    ("error", "first", "second"),
    [
        (FeedstockError("not applied", remedy="make it anew"), "not applied", "make it anew"),
        (subprocess.CalledProcessError(-9, ["sccache"]), "died with <Signals.SIGKILL", "logs:"),
        (FileNotFoundError(2, "No such file", "dpkg"), "refused: dpkg: No such file", "logs:"),
    ],
)
def test_a_package_that_fails_does_not_stop_the_others(
    two, monkeypatch, tmp_path, capsys, error, first, second
):
    def build_one(wanted, settings, progress):
        if wanted is two[0]:
            raise error
        progress.step("building")
        return one_package.Outcome(wanted, one_package.BUILT, record)

    record = read_record(small.put(two[1], tmp_path))
    monkeypatch.setattr(one_package, "build_one", build_one)
    settings = one_package.Settings(["bootstrap"], tmp_path, "fast")
    outcomes = list(build.build_all(two, settings, Progress()))
    assert [each.state for each in outcomes] == ["failed", "built"]
    errors = capsys.readouterr().err
    assert "1 of 2: numpy 2.3.5 python 3.11 mkl-2025: FAILED: " in errors
    assert first in errors and second in errors
    assert "2 of 2: numpy 2.3.5 python 3.11 openblas: building" in errors


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A repository with one commit, which git takes for this one. Its file may be edited."""
    tree = tmp_path / "repository"
    tree.mkdir()
    file = tree / "recipe.yaml"
    file.write_text("before")
    clone.git(tree, "init", "-q")
    clone.git(tree, "add", ".")
    clone.git(tree, "commit", "-q", "-m", "The recipe")
    monkeypatch.setattr(git, "paths", types.SimpleNamespace(ROOT=tree))
    return file


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """Neither compiles nor tests. Returns the channels that it was asked to build and test from."""
    asked = []

    def compile_one(wanted, channels, progress):
        asked.append(channels)
        made = small.make(tmp_path, len(asked))
        return one_package.Compiled(made.rename(made.with_name(wanted.filename)), {}, 5.0, 0, 0)

    def run_tests(path, channels, label, results, progress):
        asked.append(channels)
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text("<testsuite><testcase classname='a' name='b'/></testsuite>")
        return {"imports": True}

    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(one_package, "compile_one", compile_one)
    monkeypatch.setattr(one_package, "run_tests", run_tests)
    return asked


def test_the_recorded_commit_is_that_of_before_the_work(
    two, edited, no_work, monkeypatch, tmp_path
):
    commit = git.commit()
    compile_one = one_package.compile_one

    def edit_and_compile(*arguments):
        edited.write_text("edited by a person while the package was built")
        return compile_one(*arguments)

    monkeypatch.setattr(one_package, "compile_one", edit_and_compile)
    settings = one_package.Settings([str(tmp_path)], tmp_path / "output", "fast")
    outcome = one_package.build_one(two[0], settings, Progress())
    assert git.commit() == f"{commit}-dirty"
    assert outcome.record.commit == commit
    written = read_record(tmp_path / "output" / "linux-64" / two[0].filename)
    assert written == outcome.record


@pytest.fixture
def recipe(monkeypatch):
    """A copy of the recipe, in the place of the real one."""
    with tempfile.TemporaryDirectory(dir=paths.BUILD, prefix="recipe-") as folder:
        copied = shutil.copytree(paths.RECIPE.parent, Path(folder, "recipe"))
        monkeypatch.setattr(paths, "RECIPE", copied / paths.RECIPE.name)
        yield copied


@pytest.mark.parametrize("name", ["recipe.yaml", "patches/0002-another.patch", "repro/notes"])
def test_a_package_whose_recipe_was_edited_meanwhile_is_not_kept(
    two, recipe, no_work, monkeypatch, tmp_path, name
):
    """It would hold the new files, and its record would tell of the old ones."""
    compile_one = one_package.compile_one

    def edit_and_compile(*arguments):
        with open(recipe / name, "a") as stream:
            stream.write("edited by a person while the package was built")
        return compile_one(*arguments)

    monkeypatch.setattr(one_package, "compile_one", edit_and_compile)
    settings = one_package.Settings([str(tmp_path)], tmp_path / "output", "fast")
    with pytest.raises(FeedstockError, match="changed while it was built(?s:.*)same command"):
        one_package.build_one(two[0], settings, Progress())
    assert not list(tmp_path.glob("output/**/*.conda"))
    assert len(no_work) == 1  # its tests did not run


def test_a_package_of_the_bootstrap_channel_is_kept(two, made, no_work, tmp_path):
    settings = one_package.Settings(["bootstrap"], tmp_path / "output", "fast")
    assert one_package.build_one(two[0], settings, Progress()).state == one_package.BUILT


@pytest.mark.parametrize(
    ("url", "another", "public"),
    [
        ("http://me:s3cr3t@h/t/u", "http://me:other@h/t/u", "http://h/"),
        ("http://me:s3cr3t%2Fx@h/c", "http://h/c", "http://h/c/"),
        ("HTTP://s3cr3t@H:80/c", "http://other@h/c", "http://h/c/"),
        ("http://h/t/tk-s3cr3t/c", "http://h/c", "http://h/c/"),
        ("http://h/c?token=s3cr3t", "http://h/c?token=other", "http://h/c/"),
        ("s3://key:s3cr3t@Bucket/c", "s3://Bucket/c", "s3://Bucket/c/"),
    ],
)
def test_a_password_is_used_and_neither_kept_nor_compared(
    two, no_work, tmp_path, capsys, url, another, public
):
    output = tmp_path / "output"
    outcome = one_package.build_one(two[0], one_package.Settings([url], output, "fast"), Progress())
    assert no_work == 2 * [[channel.url(url)]]
    build.print_result([outcome], output, 1.0, as_json=True)
    plan = build.make_plan(two, one_package.Settings([another], output, "fast"))
    assert [row.state for row in plan] == ["finished", "to build"]
    again = one_package.build_one(
        two[0], one_package.Settings([another], output, "fast"), Progress()
    )
    assert (again.state, again.record.channels) == (one_package.UP_TO_DATE, [public])
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["channels"] == [public]
    assert "keeps no password and no token" in captured.err
    files = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    assert not any(b"s3cr3t" in content for content in files)
    assert "s3cr3t" not in captured.out + captured.err


def test_another_channel_makes_a_package_again(two, no_work, tmp_path):
    settings = one_package.Settings(["http://me:s3cr3t@h/c"], tmp_path / "output", "fast")
    one_package.build_one(two[0], settings, Progress())
    other = one_package.Settings(["http://me:s3cr3t@h/d"], tmp_path / "output", "fast")
    assert build.make_plan(two, other)[0].state == "to build again"
    assert one_package.build_one(two[0], other, Progress()).state == one_package.BUILT


def test_an_older_record_with_a_password_is_read_and_not_shown(two, tmp_path, capsys):
    url = "http://me:s3cr3t@h/c/"
    inputs = one_package.inputs_of(two[0], [url])
    record = read_record(small.put(two[0], tmp_path, channels=[url], inputs=inputs))
    found, table = states(two, tmp_path, names=[url])
    assert found == ["finished", "to build"]
    build.print_plan(
        build.make_plan(two, one_package.Settings([url], tmp_path, "fast")), as_json=True
    )
    build.print_result(
        [one_package.Outcome(two[0], "up to date", record)], tmp_path, 1.0, as_json=True
    )
    assert "s3cr3t" not in table + capsys.readouterr().out
    assert "from: http://***@h/c/" in table


def results(two, tmp_path, *errors):
    """An outcome for each variant: built where the error is None."""
    found = []
    for wanted, error in zip(two, errors, strict=True):
        if error:
            found.append(one_package.Outcome(wanted, one_package.FAILED, error=error))
        else:
            record = read_record(small.put(wanted, tmp_path))
            found.append(one_package.Outcome(wanted, one_package.BUILT, record))
    return found


def test_the_end_names_each_failure_and_what_is_finished(two, tmp_path, capsys):
    found = results(two, tmp_path, FeedstockError("red\n  in a test"), None)
    build.print_result(found, tmp_path, 7.0, as_json=False)
    out = capsys.readouterr().out
    first, second = out.splitlines()[2:4]
    assert first.split() == [two[0].filename, "failed"]
    assert second.split()[:2] == [two[1].filename, "built"]
    assert "2/2 fast" in second and "48,000 passed" in second
    assert "packages: 1 failed, 1 built, in 7.0 min" in out
    assert f"{found[1].record.sha256}  {two[1].filename}" in out
    failure = build.failure_of(found)
    assert failure.exit_code == 1
    assert f"packages failed: 1 of 2; each is explained above\n  {two[0]}: red\n" in str(failure)
    assert "run the same command again" in str(failure)


def test_the_json_has_the_same_keys_for_each_state(two, tmp_path, capsys):
    found = results(two, tmp_path, FeedstockError("red"), None)
    build.print_result(found, tmp_path, 7.0, as_json=True)
    failed, built = json.loads(capsys.readouterr().out)
    assert failed.keys() == built.keys()
    assert (failed["state"], failed["built"], failed["error"]) == ("failed", False, "red")
    assert (failed["filename"], failed["sha256"]) == (two[0].filename, None)
    assert (built["state"], built["built"], built["error"]) == ("built", True, None)
    assert built["variant"] == str(two[1]) and built["sha256"] == found[1].record.sha256


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((UsageError("no python"), UsageError("no python")), 2),
        ((UsageError("no python"), FeedstockError("red")), 1),
        ((UsageError("no python"), None), 1),
    ],
)
def test_only_a_machine_that_can_build_nothing_is_wrong_use(two, tmp_path, errors, code):
    assert build.failure_of(results(two, tmp_path, *errors)).exit_code == code


def test_without_a_failure_there_is_no_error(two, tmp_path):
    assert build.failure_of(results(two, tmp_path, None, None)) is None


# --- stopped before its end

# The command, whose packages take no time: the first one fails, the second is finished, and
# the third stops the command.
STOPPED = """\
import os, signal, sys
from pathlib import Path

from numpy_feedstock import __main__, paths
from numpy_feedstock.building import one_package
from numpy_feedstock.errors import FeedstockError
from numpy_feedstock.packages.record import read_record
from numpy_feedstock.verbs import build

folder, stop, *sys.argv[1:] = sys.argv[1:]
paths.BUILD = Path(folder, "build")


def build_one(wanted, settings, progress):
    record = read_record(settings.output / wanted.platform / wanted.filename)
    if record:
        return one_package.Outcome(wanted, one_package.BUILT, record)
    if wanted.blas == "mkl" and wanted.version == "2.3.5":
        raise FeedstockError("red in a test")
    if stop.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, stop))
    raise OSError(int(stop), os.strerror(int(stop)), "/disk/file")


one_package.build_one = build_one
sys.exit(__main__.run())
"""
STOPS = {
    "SIGINT": "feedstock: interrupted. The output channel holds only finished packages.",
    "SIGTERM": "feedstock: interrupted. The output channel holds only finished packages.",
    str(errno.ENOSPC): "feedstock: the disk is full: /disk/file\n",
    str(errno.EDQUOT): "feedstock: the disk is full: /disk/file\n",
    str(errno.EROFS): "feedstock: the system refused: /disk/file: Read-only file system\n",
}


def run_stopped(folder, two, stop, *options):
    """Run the command that stops at the third of four packages. Returns the CompletedProcess."""
    small.put(two[1], folder)
    chosen = ["--numpy=2.3.5", "--numpy=2.4.4", "--python=3.11", "--channel=bootstrap"]
    command = [sys.executable, "-c", STOPPED, folder, stop, "build", *chosen]
    command += ["--output", folder / "output", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("stop", STOPS)
def test_what_is_finished_is_shown_when_the_work_is_stopped(two, tmp_path, stop):
    done = run_stopped(tmp_path, two, stop)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[2] == [two[0].filename, "failed"]
    assert rows[3][:2] == [two[1].filename, "built"]
    assert [row[1:] for row in rows[4:6]] == [["not", "finished"]] * 2
    assert "packages: 1 failed, 1 built, 2 not finished" in done.stdout
    failures, end = done.stderr.split("packages failed: 1 of 4; each is explained above\n")
    assert "FAILED: red in a test" in failures
    assert f"  {two[0]}: red in a test\n" in end and STOPS[stop] in end


@pytest.mark.parametrize("stop", STOPS)
def test_the_json_is_whole_when_the_work_is_stopped(two, tmp_path, stop):
    done = run_stopped(tmp_path, two, stop, "--json")
    rows = json.loads(done.stdout)
    assert [row["state"] for row in rows] == ["failed", "built", "not finished", "not finished"]
    assert [row["error"] for row in rows] == ["red in a test", None, None, None]
    assert [row["built"] for row in rows] == [False, True, False, False]
    assert len({tuple(row) for row in rows}) == 1
    assert STOPS[stop] in done.stderr


# a path that a script, a search path, a linker or rattler-build's prefix cannot hold
STRANGE = ["a blank", "it's", "ä", "a\nline", "a:b", "a,b", "$HOME", "(1)", "a*", "a&b", "x" * 200]


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", STRANGE)
def test_a_path_in_which_nothing_can_be_built_is_refused_at_once(
    monkeypatch, tmp_path, capsys, name, link
):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(paths, "BUILD", folder)
    if link:  # the builder follows it
        (tmp_path / "build").symlink_to(folder)
        monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    for more in (["--dry-run"], []):
        output = ["--output", str(tmp_path / "output")]
        assert cli.main(["build", "--channel", "bootstrap", *output, *more]) == 2
        said = capsys.readouterr()
        assert said.out == "" and "nothing can be built below this path" in said.err
        assert "move the repository" in said.err
    assert not (tmp_path / "output").exists() and not list(folder.iterdir())


def test_a_build_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    words = (
        "import sys; from pathlib import Path; from numpy_feedstock import cli, paths; "
        "paths.BUILD = Path(sys.argv[1], 'build'); sys.exit(cli.main(sys.argv[2:]))"
    )
    tmp_path.chmod(0o555)
    command = [sys.executable, "-c", words, tmp_path, "build", "--channel", "bootstrap"]
    options = ["--python", "3.11", "--output", tmp_path.parent / "output"]
    for more in (["--dry-run"], []):
        done = subprocess.run(
            [*UNPRIVILEGED, *command, *options, *more], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert f"the build folder cannot be written: {tmp_path}/build" in done.stderr


@pytest.mark.parametrize("name", ["job@2", "feature%2Fx", "a+b=c~1#2", "x" * 100])
def test_other_paths_are_not_refused(monkeypatch, tmp_path, name):
    monkeypatch.setattr(paths, "BUILD", tmp_path / name)
    workspace.check_path()


@pytest.mark.parametrize("needs", ["_BUILD_NEEDS", "_PACKAGE_NEEDS"])
def test_a_disk_that_becomes_full_stops_the_work(
    two, monkeypatch, tmp_path, small_disk, capsys, needs
):
    def build_one(wanted, settings, progress):
        (small_disk / "fill").write_bytes(bytes(700 << 10))
        raise FeedstockError("a compiler said that no space is left")

    folders = {"_BUILD_NEEDS": tmp_path / "build", "_PACKAGE_NEEDS": tmp_path / "output"}
    folders[needs] = small_disk
    monkeypatch.setattr(paths, "BUILD", folders["_BUILD_NEEDS"])
    output = folders["_PACKAGE_NEEDS"]
    monkeypatch.setattr(workspace, needs, 512 << 10)
    monkeypatch.setattr(one_package, "build_one", build_one)
    options = ["--channel", "bootstrap", "--python", "3.11", "--output", str(output), "--json"]
    assert cli.main(["build", *options]) == 1
    out, err = capsys.readouterr()
    assert [row["state"] for row in json.loads(out)] == ["failed", "not finished"]
    end = err.split("packages failed: 1 of 2")[1]
    assert f"too little disk space in {small_disk}\n" in end and "free some space" in end


def test_a_build_beside_another_one_is_refused_and_shows_no_table(monkeypatch, tmp_path, capsys):
    """Both would write into one build folder."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    with workspace.build_lock():
        assert cli.main(["build", "--channel", "bootstrap", "--output", str(tmp_path / "o")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and f"another build is running in {tmp_path}\n  remedy:" in err


# --- what is refused before any work, and in the dry run, too


WAYS = pytest.mark.parametrize("how", [[], ["--dry-run"]], ids=["build", "dry run"])


def refused(folder, *args, **variables):
    """Call the verb, which has to refuse. Returns its words; nothing may be left in the folder."""
    before = sorted(folder.rglob("*"))
    done = feedstock("build", *args, env=variables, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(folder.rglob("*")) == before
    return done.stderr


@WAYS
def test_a_date_that_is_none_is_refused(tmp_path, how):
    said = refused(tmp_path, "--output", "new", *how, SOURCE_DATE_EPOCH="abc")
    assert "SOURCE_DATE_EPOCH is not a date" in said


@WAYS
@pytest.mark.parametrize(
    "output", ["/", "file", "file/x", "dangling", "/proc/x", "/sys/x/y", "n" * 300]
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, how, output):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert output.rpartition("/")[2] in refused(tmp_path, "--output", output, *how)


@WAYS
def test_a_channel_that_does_not_answer_is_refused_before_a_folder_is_made(tmp_path, how):
    words = ["--channel", "http://127.0.0.1:9/nothing", "--output", "new/folder"]
    assert "http://127.0.0.1:9/nothing" in refused(tmp_path, *words, *how)


def test_a_dry_run_makes_no_folder(tmp_path):
    feedstock(
        "build", "--channel", "bootstrap", "--dry-run", "--output", "a/b", cwd=tmp_path, check=True
    )
    assert list(tmp_path.iterdir()) == []
