"""The entry point: it makes its environment once, and removes none that others run from.

Each test has a small checkout of its own: the real scripts/feedstock, no pins, and a package
that tells what it runs from.
"""

import os
import shutil
import subprocess
import sys

import pytest

from helpers import small
from numpy_feedstock import paths

ENTRY_POINT = paths.ROOT / "scripts" / "feedstock"
PYTHON = os.path.realpath(sys.executable)
# with an argument, it runs until its standard input ends
PROGRAM = """\
import sys
print(sys.prefix, flush=True)
if sys.argv[1:]:
    sys.stdin.read()
"""
OTHER = "3.99.1 (another Python)"


# Stands in for the module venv, which takes long: it copies an environment that venv made.
# Where a test has put a fifo, it waits until the test opens that, too.
FAST_VENV = """\
import os, shutil, sys
if os.path.exists({fifo!r}):
    open({fifo!r}).close()
shutil.copytree({made!r}, sys.argv[1], symlinks=True)
"""


def make_checkout(folder):
    scripts = folder / "scripts"
    (scripts / "numpy_feedstock").mkdir(parents=True)
    (scripts / "numpy_feedstock" / "__main__.py").write_text(PROGRAM)
    shutil.copy(ENTRY_POINT, scripts)
    (scripts / "requirements.txt").write_text("# none\n")
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A checkout whose environment the module venv made."""
    checkout = make_checkout(tmp_path_factory.mktemp("real") / "checkout")
    code, prefix, said = call(checkout)
    assert (code, prefix) == (0, str(checkout / "build" / "venv")), said
    assert "(once)" in said
    return checkout


@pytest.fixture
def checkout(real, tmp_path, monkeypatch):
    """A checkout without an environment. One is made fast."""
    (tmp_path / "fast").mkdir()
    made, fifo = real / "build" / "venv", tmp_path / "fast" / "fifo"
    text = FAST_VENV.format(made=str(made), fifo=str(fifo))
    (tmp_path / "fast" / "venv.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fast"))
    return make_checkout(tmp_path / "checkout")


@pytest.fixture
def made(real, checkout):
    """A checkout with its environment."""
    shutil.copytree(real / "build", checkout / "build", symlinks=True)
    (checkout / "build" / "venv" / "kept").touch()
    return checkout


def start(checkout, *args, **options):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [PYTHON, checkout / "scripts" / "feedstock", *args]
    return subprocess.Popen(command, text=True, **{**pipes, **options})


def call(checkout, **options):
    """(exit code, the environment that it ran from, what it said)"""
    process = start(checkout, **options)
    out, err = process.communicate()
    return process.returncode, out.strip(), err


def change_pins(checkout, text="# others\n"):
    (checkout / "scripts" / "requirements.txt").write_text(text)


def test_calls_at_once_make_one_environment(checkout, tmp_path):
    os.mkfifo(tmp_path / "fast" / "fifo")
    processes = [start(checkout) for _ in range(3)]
    # the one that makes the environment goes on when the others wait for it
    lines = [process.stderr.readline() for process in processes]
    (tmp_path / "fast" / "fifo").write_text("")
    answers = [process.communicate() for process in processes]
    assert {out.strip() for out, _ in answers} == {str(checkout / "build" / "venv")}
    said = sorted(line + rest for line, (_, rest) in zip(lines, answers, strict=True))
    waiting = "feedstock: waiting for another process that makes an environment\n"
    assert "(once)" in said[0] and said[1:] == [waiting, waiting]
    assert call(checkout)[2] == ""


def test_without_a_path_the_environment_is_used_and_not_removed(made):
    assert call(made, env={}) == (0, str(made / "build" / "venv"), "")
    assert (made / "build" / "venv" / "kept").exists()


def test_a_python_that_does_not_know_its_path_is_refused(checkout):
    """As `env -i` starts one: its sys.executable is empty."""
    words = "import sys, runpy; sys.executable = ''; runpy.run_path(sys.argv[1], None, '__main__')"
    done = subprocess.run(
        [PYTHON, "-c", words, checkout / "scripts" / "feedstock"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not know its own path" in done.stderr and "Traceback" not in done.stderr
    assert not (checkout / "build" / "venv").exists()


def test_another_python_has_its_own_environment(made):
    venv = made / "build" / "venv"
    (venv / "made-from").write_text(f"{OTHER} digest")
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    running = start(made)
    assert running.communicate()[0].strip() == f"{venv}-{minor}"
    assert (venv / "made-from").read_text() == f"{OTHER} digest"
    assert call(made) == (0, f"{venv}-{minor}", "")


def test_an_environment_whose_python_is_gone_is_made_anew(made):
    venv = made / "build" / "venv"
    (venv / "made-from").write_text(f"{OTHER} digest")
    for program in (venv / "bin").glob("python*"):
        program.unlink()
    code, prefix, said = call(made)
    assert (code, prefix) == (0, str(venv)), said
    assert not (venv / "kept").exists()


def test_other_pins_make_it_anew_when_nobody_runs_from_it(made):
    venv = made / "build" / "venv"
    running = start(made, "wait")
    assert running.stdout.readline().strip() == str(venv)
    change_pins(made)
    code, prefix, said = call(made)
    assert (code, prefix) == (2, "")
    assert "another feedstock runs from it" in said
    assert (venv / "kept").exists() and running.poll() is None
    running.communicate("")
    assert call(made)[:2] == (0, str(venv))
    assert not (venv / "kept").exists()


def test_pins_that_cannot_be_installed_leave_the_environment(made):
    change_pins(made, "numpy-feedstock-is-no-such-project==1 --hash=sha256:" + "0" * 64 + "\n")
    code, prefix, said = call(made, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert (code, prefix) == (2, "")
    assert "pip could not install" in said
    assert (made / "build" / "venv" / "kept").exists()
    change_pins(made, "# none\n")
    assert call(made) == (0, str(made / "build" / "venv"), "")


@pytest.mark.parametrize(
    "variable", ["PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PIP_USER"]
)
def test_pip_installs_into_the_environment_whatever_it_is_set_to(checkout, tmp_path, variable):
    change_pins(checkout, small.requirement(tmp_path))
    value = str(tmp_path / "elsewhere")
    if variable in ("PIP_DRY_RUN", "PIP_USER"):
        value = "1"
    code, prefix, said = call(checkout, env={**os.environ, variable: value})
    assert (code, prefix) == (0, str(checkout / "build" / "venv")), said
    assert list((checkout / "build" / "venv").glob("lib/python3.*/site-packages/tiny.py"))
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_closed_stays_closed(made):
    """The lock does not take the place of a stream: it would receive the output."""
    command = f"exec {PYTHON} scripts/feedstock >&- 2>&- <&-"
    subprocess.run(["bash", "-c", command], cwd=made)
    assert (made / "build" / "venv.lock").read_text() == ""


def test_a_checkout_that_cannot_be_written_runs_from_its_environment(made):
    """As another user's: the lock cannot be opened. Here a folder is in its place, for root."""
    lock = made / "build" / "venv.lock"
    lock.unlink()
    lock.mkdir()
    assert call(made) == (0, str(made / "build" / "venv"), "")
    change_pins(made)
    code, _, said = call(made)
    assert code == 2 and "cannot write" in said and "Traceback" not in said
