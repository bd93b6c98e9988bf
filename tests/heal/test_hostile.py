"""What a user may put into a prefix does not end a run, nor cost another prefix its healing."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from helpers import installed
from helpers.healer import SCRIPT, audit, heal
from helpers.installed import source_of

NAME = b"__init__.\xff.pyc"


@pytest.fixture
def two(copy):
    """Two environments in one folder: the first one gets what is hostile."""
    first, second = copy("pip", name="a"), copy("pip", name="b")
    return first, second


def others_are_healed(first, second, result):
    run = heal("--apply", first.parent)
    found = {row["prefix"]: row for row in run.rows}
    assert found[str(second)]["result"] == "healed", run
    assert found[str(first)]["result"] == result, run
    return found[str(first)]


def test_bytecode_with_a_name_that_is_no_text(two):
    first, second = two
    folder = os.fsencode(source_of(first).parent) + b"/__pycache__/"
    (cached,) = [each for each in os.listdir(folder) if each.startswith(b"__init__.")][:1]
    shutil.copy(folder + cached, folder + NAME)
    others_are_healed(first, second, "healed")
    assert heal("--undo", first).results == ["undone"]


@pytest.mark.parametrize("what", ["source", "bytecode", "record", "history"])
def test_a_file_that_is_too_large_to_be_one_of_numpys(two, what, copy):
    first, second = two
    files = {
        "source": source_of(first),
        "bytecode": source_of(first).parent / "__pycache__" / "__init__.cpython-39.pyc",
        "record": next(installed.site_packages(first).glob("numpy-*.dist-info")) / "RECORD",
    }
    if what == "history":
        first = copy("rattler", name="c")
        files["history"] = first / "conda-meta" / "history"
    data = b""
    if files[what].exists():
        data = files[what].read_bytes()
        files[what].unlink()
    with open(files[what], "wb") as stream:
        stream.write(data)
        stream.truncate(1 << 40)
    row = others_are_healed(first, second, "refused")
    assert "larger than" in row["reason"]


def test_records_that_are_no_text(two):
    first, second = two
    (info,) = installed.site_packages(first).glob("numpy-*.dist-info")
    (info / "RECORD").unlink()  # the copy shares its inode
    (info / "RECORD").write_bytes(b"\xff\xfe,\n" * 9 + b"numpy/__init__.py,sha256=x,1\n")
    others_are_healed(first, second, "healed")


def test_two_records_of_pip_and_the_older_one_is_a_leftover(copy, originals):
    env = copy("pip")
    site = installed.site_packages(env)
    old = site / "numpy-2.3.4.dist-info"
    old.mkdir()
    (old / "RECORD").write_text("numpy/version.py,,\n")
    (old / "INSTALLER").write_text("pip\n")
    run = heal("--apply", env)
    assert run.results == ["healed"]
    assert (site / "numpy-2.3.5.dist-info" / "heal_numpy.txt").exists()
    assert not (old / "heal_numpy.txt").exists()
    verdicts, said = audit(env)
    assert verdicts == ["FIXED"] and '"healed": true' in said
    assert heal("--undo", env).results == ["undone"]
    shutil.rmtree(old)
    assert installed.differences(originals("pip"), env) == ""


def test_the_start_up_file_is_refused_where_python_does_not_read_it(copy):
    env = copy("pip")
    target = env.parent / "target"
    installed.site_packages(env).rename(target)
    run = heal("--apply", "--startup-file", target)
    assert (run.code, run.results) == (1, ["refused"])
    assert "PYTHONPATH" in run.reasons
    assert not list(target.glob("_numpy_31284*"))
    assert heal("--apply", target).results == ["healed"]


def test_the_audit_says_fixed_of_what_the_start_up_file_protects(copy):
    env = copy("pip")
    assert "FIXED" not in audit(env)[0]
    assert heal("--apply", "--startup-file", env).results == ["healed"]
    verdicts, said = audit(env)
    assert verdicts == ["FIXED"] and "start-up file" in said
    assert heal("--undo", "--startup-file", env).results == ["undone"]
    assert "FIXED" not in audit(env)[0]


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
def test_a_result_that_cannot_be_printed_is_one_sentence(copy, redirection):
    env = copy("pip")
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, SCRIPT]
    for option in ("--json", "--verbose"):
        done = subprocess.run(
            [*command, option, "--apply", env], stderr=subprocess.PIPE, text=True, timeout=300
        )
        assert done.returncode == 1
        assert "not all is done; run the same command again" in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_an_interrupted_run_says_that_it_can_be_given_again(copy):
    # the pipe has no room for the long names of all: it cannot end before the interrupt
    envs = [copy("pip", name=f"e{number}{'x' * 240}") for number in range(5)]
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--json", "--apply", envs[0].parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pipesize=4096,
    )
    assert json.loads(process.stdout.readline())["result"] == "healed"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert b"run the same command again" in said and b"Traceback" not in said
    assert heal("--apply", envs[0].parent).code == 0


@pytest.mark.parametrize("kind", ["pip", "rattler"])
def test_undo_refuses_a_text_that_was_edited_after_healing(copy, kind):
    env = copy(kind)
    assert heal("--apply", env).results == ["healed"]
    text = source_of(env).read_text()
    source_of(env).unlink()
    source_of(env).write_text(text + "# mine\n")
    run = heal("--undo", env)
    assert (run.code, run.results) == (1, ["refused"])
    assert "edited after it was healed" in run.reasons
    assert source_of(env).read_text() == text + "# mine\n"


def test_a_start_up_file_whose_numpy_is_gone_is_undone(copy):
    env = copy("pip")
    assert heal("--apply", "--startup-file", env).results == ["healed"]
    installed.pip(env, "uninstall", "-y", "numpy")
    assert heal("--undo", env).results == []
    assert heal("--undo", "--dry-run", "--startup-file", env).results == ["would-undo"]
    assert heal("--undo", "--startup-file", env).results == ["undone"]
    assert not list(env.rglob("_numpy_31284*"))
    assert heal("--undo", "--startup-file", env).results == []
