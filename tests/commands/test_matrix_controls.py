"""The controls of small packages: what is said of each, and that one does not stop the others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import small
from helpers.numpy_init import PATCHED, UNGATED
from numpy_feedstock import cli, files, paths, variant
from numpy_feedstock.measuring import figures, measurements, repro

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
        small.put_whole(wanted, tmp_path, contents(SAYS.format(says)))
    found, verdicts, said = ask(tmp_path, capsys)
    assert (found, verdicts) == (code, [mkl, openblas]), said
    # the package's own repro, in the package's own way, with a shorter timeout
    assert f"the control is {mkl}: --strict --json --timeout 10" in said
    assert ("the control has to be " in said) == bool(code)


GOOD = contents(SAYS.format("AFFECTED"))


def with_test(line):
    """The good package with another line in the test that runs the repro."""
    text = TESTS_YAML.replace("python repro/repro.py --strict", line)
    return {**GOOD, "info/tests/tests.yaml": text}


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
        ({**GOOD, f"{TESTS}/repro/repro.py": "import sys; sys.exit(2)"}, {}, "did not say why"),
        (contents("print('{}')"), {}, "printed no result"),
        (contents("print('[]')"), {}, "printed no result"),
        (contents("print('[' * 100_000)"), {}, "printed no result"),
        (contents(r"import sys; sys.stdout.buffer.write(b'\xff')"), {}, "printed no result"),
        (with_test("{"), {}, "no package that can be read"),
        (with_test("f2py -h"), {}, "does not run the repro"),
        (with_test("python"), {}, "does not run the repro"),
        (with_test(r'"python a\0b"'), {}, "the repro cannot be started"),
    ],
)
def test_a_control_that_cannot_be_asked_does_not_stop_the_others(
    tmp_path, capsys, members, more, reason
):
    mkl, openblas = pair()
    small.put_whole(mkl, tmp_path, members, **more)
    small.put_whole(openblas, tmp_path, contents(SAYS.format("LATENT")))
    code, verdicts, said = ask(tmp_path, capsys)
    assert (code, verdicts) == (1, ["UNKNOWN", "LATENT"]), said
    assert f"{mkl.filename}: FAILED: " in said and reason in said


def test_a_dependency_that_is_gone_does_not_stop_the_others(tmp_path, capsys):
    mkl, openblas = pair()
    small.put_whole(mkl, tmp_path, GOOD, depends=["gone"])
    small.put_whole(openblas, tmp_path, contents(SAYS.format("LATENT")))
    gone = {"name": "gone", "version": "1", "build": "0", "build_number": 0, "depends": []}
    small.add_to_index(tmp_path / "output" / mkl.platform, {"gone-1-0.conda": gone})
    code, verdicts, said = ask(tmp_path, capsys)
    assert (code, verdicts) == (1, ["UNKNOWN", "LATENT"]), said
    assert "cannot be installed" in said and "failed to fetch gone-1-0.conda" in said


def test_a_channel_whose_index_is_broken_does_not_stop_the_others(tmp_path, capsys):
    mkl, openblas = pair()
    index = tmp_path / "broken/noarch/repodata.json"
    index.parent.mkdir(parents=True)
    index.write_text("{")
    small.put_whole(mkl, tmp_path, GOOD, channels=[(tmp_path / "broken").as_uri()])
    small.put_whole(openblas, tmp_path, contents(SAYS.format("LATENT")))
    code, verdicts, said = ask(tmp_path, capsys)
    assert (code, verdicts) == (1, ["UNKNOWN", "LATENT"]), said
    assert "cannot be installed" in said


def only_mkl(folder, capsys):
    """Exit code, verdict and errors of one package, and the others of the matrix left out."""
    code = cli.main([*command(folder), "--blas", "mkl-2025"])
    shown = capsys.readouterr()
    (row,) = json.loads(shown.out)["rows"]
    return code, row, shown.err


@pytest.mark.parametrize("lost", ["linux-64/repodata.json", "noarch/repodata.json"])
def test_a_channel_without_an_index_makes_the_control_unknown(tmp_path, capsys, lost):
    small.put_whole(pair()[0], tmp_path, GOOD)
    (tmp_path / "output" / lost).unlink()
    code, row, said = only_mkl(tmp_path, capsys)
    assert (code, row["control"]) == (1, "UNKNOWN")
    assert "cannot be installed" in said


@pytest.mark.parametrize("content", [b"", b"not a package", None])
def test_a_file_that_is_no_package_makes_the_control_unknown(tmp_path, capsys, content):
    mkl, openblas = pair()
    small.put_whole(mkl, tmp_path, GOOD)
    small.put_whole(openblas, tmp_path, contents(SAYS.format("LATENT")))
    path = tmp_path / "output" / mkl.platform / mkl.filename
    if content is None:
        content = path.read_bytes()[:700]
    path.write_bytes(content)
    small.write_record(path)
    code, verdicts, said = ask(tmp_path, capsys)
    assert (code, verdicts) == (1, ["UNKNOWN", "LATENT"])
    assert f"no package that can be read: {path}" in said


def test_the_bytes_that_are_asked_are_those_of_the_row(tmp_path, capsys):
    """The package was replaced, and the channel not indexed again."""
    mkl, _ = pair()
    small.put_whole(mkl, tmp_path, GOOD)
    index = tmp_path / "output" / mkl.platform / "repodata.json"
    before = index.read_text()
    code, old, _ = only_mkl(tmp_path, capsys)
    assert (code, old["control"]) == (0, "AFFECTED")
    small.put_whole(mkl, tmp_path, contents(SAYS.format("FIXED")))
    now = index.read_text()
    index.write_text(before)
    code, row, said = only_mkl(tmp_path, capsys)
    assert (code, row["control"]) == (1, "UNKNOWN")
    assert old["sha256"] in said and row["sha256"] in said
    assert f"is of another {mkl.filename}" in said
    index.write_text(now)
    code, row, said = only_mkl(tmp_path, capsys)
    assert (code, row["control"]) == (1, "FIXED"), said


def test_an_index_without_sums_is_not_trusted(tmp_path, capsys):
    small.put_whole(pair()[0], tmp_path, GOOD)
    index = tmp_path / "output" / "linux-64" / "repodata.json"
    content = json.loads(index.read_text())
    for entry in content["packages.conda"].values():
        del entry["sha256"]
    index.write_text(json.dumps(content))
    code, row, said = only_mkl(tmp_path, capsys)
    assert (code, row["control"]) == (1, "UNKNOWN") and "sha256 none" in said


@pytest.mark.parametrize(
    ("fields", "fault"),
    [({"tests": {"repro": False}}, "red: repro"), ({"sha256": "0" * 64}, "altered: ")],
)
def test_a_package_that_does_not_count_is_named_and_not_recorded(
    tmp_path, capsys, monkeypatch, fields, fault
):
    monkeypatch.setattr(measurements, "FOLDER", tmp_path / "evidence")
    monkeypatch.setattr(figures, "PAGES", ())
    figures.record("matrix", measurements.Matrix(()))
    small.put_whole(pair()[0], tmp_path, GOOD, **fields)
    code, row, _ = only_mkl(tmp_path, capsys)
    assert (code, row["control"], row["sha256"]) == (1, "", "")
    assert row["fault"].startswith(fault)
    assert cli.main([*command(tmp_path), "--blas", "mkl-2025", "--record"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and fault in shown.err
    assert "packages cannot be recorded: 1 of 1" in shown.err
    assert measurements.load("matrix") == measurements.Matrix(())


def test_no_control_that_was_asked_is_no_success(tmp_path, capsys):
    (tmp_path / "output").mkdir()
    code, row, said = only_mkl(tmp_path, capsys)
    assert (code, row["control"], row["fault"]) == (1, "", "")
    assert "no control was asked" in said


def test_a_broken_record_is_found_before_the_controls_are_asked(tmp_path, capsys, monkeypatch):
    small.put_whole(pair()[0], tmp_path, GOOD)
    monkeypatch.setattr(measurements, "FOLDER", tmp_path)
    measurements.file_of("matrix").write_text("{")
    assert cli.main([*command(tmp_path), "--record"]) == 2
    shown = capsys.readouterr()
    assert "an earlier record cannot be read: " in shown.err and "installing" not in shown.err


def test_a_verdict_is_shown_although_it_cannot_be_recorded(tmp_path, capsys, monkeypatch):
    small.put_whole(pair()[0], tmp_path, GOOD)
    monkeypatch.setattr(measurements, "FOLDER", tmp_path)
    monkeypatch.setattr(figures, "PAGES", (tmp_path / "page.md",))
    (tmp_path / "page.md").write_text("")
    figures.record("matrix", measurements.Matrix(()))

    def refuse(texts):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", refuse)
    assert cli.main([*command(tmp_path), "--blas", "mkl-2025", "--record"]) == 1
    shown = capsys.readouterr()
    (row,) = json.loads(shown.out)["rows"]
    assert row["control"] == "AFFECTED" and "No space left on device" in shown.err


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
    small.put_whole(mkl, tmp_path, GOOD)
    small.put_whole(openblas, tmp_path, {**contents(HANGS), f"{TESTS}/repro/processes.py": shared})
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
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "interrupted" in errors
    assert [row["control"] for row in json.loads(output)["rows"]] == ["AFFECTED", ""]
    assert hung_imports(tmp_path) == []
    assert not list(tmp_path.glob("control-*"))
