"""The controls of small packages: what is said of each, and that one does not stop the others."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import repack, small
from helpers.numpy_init import PATCHED, UNGATED
from numpy_feedstock import cli, files, paths, variant
from numpy_feedstock.measuring import repro

TESTS = "etc/conda/test-files/numpy/3"
INIT = "lib/python3.11/site-packages/numpy/__init__.py"
# as the recipe has them: the fourth one runs the repro
TESTS_YAML = f"""
- python: {{imports: [numpy]}}
- script: {{content: f2py -h}}
- script: {{content: "true"}}
- script: {{content: python repro/repro.py --strict, cwd: {TESTS}}}
  requirements: {{run: [numpy]}}
- script: {{content: "true"}}
"""
PYTHON = f"""#!/bin/sh
exec {sys.executable} "$@"
"""
# a repro that knows its verdict
SAYS = """
import json, sys
reason = " ".join(sys.argv[1:])
print(json.dumps({{"verdict": "{}", "reason": reason, "findings": [], "stacks": ""}}))
"""
# a repro that hangs as the real one does: in a process of a session of its own
HANGS = """
import os, signal, sys
import processes

def stop(number, frame):
    raise SystemExit(128 + number)

signal.signal(signal.SIGTERM, stop)
processes.run(["sleep", "3600"], 3600, {**os.environ, "HUNG_IMPORT": "yes"})
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A package cache for this test: the common one has real packages of these names."""
    monkeypatch.setattr(paths, "PACKAGE_CACHE", tmp_path / "cache")


def contents(says):
    """The files of a package whose control is asked."""
    return {
        "info/tests/tests.yaml": TESTS_YAML,
        "bin/python": PYTHON,
        INIT: PATCHED,
        f"{TESTS}/repro/repro.py": says,
    }


def put(wanted, folder, members, depends=(), **fields):
    """Put a package with these files and its record into the channel folder/output."""
    made = small.make(folder, 1, depends=list(depends))
    unpacked = made.with_suffix("")
    for name, text in members.items():
        repack.replace(unpacked / name, text)
    (unpacked / "bin").mkdir(exist_ok=True)
    for program in (unpacked / "bin").iterdir():
        program.chmod(0o755)
    name, version, build = wanted.filename.removesuffix(".conda").split("-")
    index = unpacked / "info/index.json"
    repack.edit_json(index, lambda content: content.update(version=version, build=build))
    repack.settle(unpacked)
    subdir = folder / "output" / wanted.platform
    subdir.mkdir(parents=True, exist_ok=True)
    path = repack.pack(unpacked, subdir / wanted.filename)
    entry = {**json.loads(index.read_text()), "sha256": files.sha256(path)}
    shutil.rmtree(unpacked)
    small.write_record(path, **fields)
    add_to_index(subdir, {path.name: {**entry, "size": path.stat().st_size}})


def add_to_index(subdir, entries):
    """Write what the solver reads, without the indexer, which takes seconds."""
    index = subdir / "repodata.json"
    known = json.loads(index.read_text())["packages.conda"] if index.exists() else {}
    for folder, found in ((subdir, {**known, **entries}), (subdir.parent / "noarch", {})):
        folder.mkdir(exist_ok=True)
        content = {"info": {"subdir": folder.name}, "packages": {}, "packages.conda": found}
        (folder / "repodata.json").write_text(json.dumps(content))


def pair():
    """The packages of one release: linked to MKL, and to OpenBLAS."""
    return variant.select(["2.3.5"], ["3.11"], variant.DEFAULT_FLAVOURS, "linux-64")


def command(folder):
    args = ["matrix", "--numpy", "2.3.5", "--python", "3.11", "--controls", "--json"]
    return [*args, "--output", str(folder / "output")]


def ask(folder, capsys):
    """The exit code, the verdicts on both controls, and what was said meanwhile."""
    code = cli.main(command(folder))
    shown = capsys.readouterr()
    return code, [row["control"] for row in json.loads(shown.out)["rows"]], shown.err


@pytest.mark.parametrize(
    ("mkl", "openblas", "code"),
    [
        ("AFFECTED", "LATENT", 0),
        ("LATENT", "LATENT", 1),
        ("AFFECTED", "AFFECTED", 1),
        ("FIXED", "LATENT", 1),
        ("AFFECTED", "FIXED", 1),
    ],
)
def test_each_blas_has_its_own_verdict(tmp_path, capsys, mkl, openblas, code):
    for wanted, says in zip(pair(), (mkl, openblas), strict=True):
        put(wanted, tmp_path, contents(SAYS.format(says)))
    found, verdicts, said = ask(tmp_path, capsys)
    assert (found, verdicts) == (code, [mkl, openblas]), said
    # the package's own repro, in the package's own way, with a shorter timeout
    assert f"the control is {mkl}: --strict --json --timeout 10" in said
    assert ("the control has to be " in said) == bool(code)


GOOD = contents(SAYS.format("AFFECTED"))


def without(*names):
    return {name: text for name, text in GOOD.items() if name not in names}


@pytest.mark.parametrize(
    ("members", "more", "reason"),
    [
        (without("info/tests/tests.yaml"), {}, "have no names"),
        (GOOD, {"depends": ["not-in-any-channel"]}, "cannot be installed"),
        (GOOD, {"channels": ["file:///nowhere/channel"]}, "does not answer"),
        ({**GOOD, INIT: UNGATED}, {}, "the patch could not be undone"),
        ({**GOOD, INIT: PATCHED.replace("darwin", "win32")}, {}, "the patch could not be undone"),
        (without(INIT), {}, "one numpy is needed"),
        ({**GOOD, "etc/conda/activate.d/x.sh": "echo why >&2; false\n"}, {}, "cannot be activated"),
        ({**GOOD, "etc/conda/env_vars.d/x.json": "{"}, {}, "cannot be activated"),
        (without("bin/python"), {}, "No such file or directory"),
        (without(f"{TESTS}/repro/repro.py"), {}, "can't open file"),
        ({**GOOD, f"{TESTS}/repro/repro.py": "raise ValueError"}, {}, "printed no result"),
        ({**GOOD, f"{TESTS}/repro/repro.py": "import sys; sys.exit(2)"}, {}, "FAILED"),
    ],
)
def test_a_control_that_cannot_be_asked_does_not_stop_the_others(
    tmp_path, capsys, members, more, reason
):
    mkl, openblas = pair()
    put(mkl, tmp_path, members, **more)
    put(openblas, tmp_path, contents(SAYS.format("LATENT")))
    code, verdicts, said = ask(tmp_path, capsys)
    assert (code, verdicts) == (1, ["UNKNOWN", "LATENT"]), said
    assert f"{mkl.filename}: FAILED: " in said and reason in said


def test_a_dependency_that_is_gone_does_not_stop_the_others(tmp_path, capsys):
    mkl, openblas = pair()
    put(mkl, tmp_path, GOOD, depends=["gone"])
    put(openblas, tmp_path, contents(SAYS.format("LATENT")))
    gone = {"name": "gone", "version": "1", "build": "0", "build_number": 0, "depends": []}
    add_to_index(tmp_path / "output" / mkl.platform, {"gone-1-0.conda": gone})
    code, verdicts, said = ask(tmp_path, capsys)
    assert (code, verdicts) == (1, ["UNKNOWN", "LATENT"]), said
    assert "cannot be installed" in said and "failed to fetch gone-1-0.conda" in said


def test_a_channel_whose_index_is_broken_does_not_stop_the_others(tmp_path, capsys):
    mkl, openblas = pair()
    index = tmp_path / "broken/noarch/repodata.json"
    index.parent.mkdir(parents=True)
    index.write_text("{")
    put(mkl, tmp_path, GOOD, channels=[(tmp_path / "broken").as_uri()])
    put(openblas, tmp_path, contents(SAYS.format("LATENT")))
    code, verdicts, said = ask(tmp_path, capsys)
    assert (code, verdicts) == (1, ["UNKNOWN", "LATENT"]), said
    assert "cannot be installed" in said


def hung_imports(folder):
    """The processes that the repro of a package under the folder has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            content = entry.read_bytes()
        except OSError:  # ended meanwhile
            continue
        if b"HUNG_IMPORT=yes" in content and os.fsencode(folder) in content:
            found.append(int(entry.parent.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_leaves_no_hung_import_and_shows_what_it_knows(tmp_path, number):
    mkl, openblas = pair()
    shared = (repro.FOLDER / "processes.py").read_text()
    put(mkl, tmp_path, GOOD)
    put(openblas, tmp_path, {**contents(HANGS), f"{TESTS}/repro/processes.py": shared})
    code = (
        "import sys; from numpy_feedstock import cli, paths;"
        "paths.PACKAGE_CACHE = paths.Path(sys.argv[1]); sys.exit(cli.main(sys.argv[2:]))"
    )
    variables = {"PYTHONPATH": str(paths.ROOT / "scripts"), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "cache", *command(tmp_path)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not hung_imports(tmp_path):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted" in errors
    assert [row["control"] for row in json.loads(output)["rows"]] == ["AFFECTED", ""]
    assert hung_imports(tmp_path) == []
    assert not list(tmp_path.glob("control-*"))
