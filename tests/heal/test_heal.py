"""Healing real environments in place, and undoing it."""

import hashlib
import importlib.util
import json
import os
import py_compile
import re
import subprocess
import sys

import pytest

import audit_numpy
import heal_numpy
from helpers import installed, pythons
from helpers.healer import audit, heal
from helpers.installed import bytecode_of, import_numpy, source_of
from helpers.numpy_init import PATCH
from numpy_feedstock import paths
from numpy_feedstock.measuring import released

KINDS = ("pip", "uv", "rattler")
RELEASES = ("2.3.5", "2.4.0", "2.4.1", "2.4.2", "2.4.3", "2.4.4")


def test_the_hunk_is_that_of_the_patch():
    text = PATCH.read_text()
    hunk = text[re.search(r"^@@ .*\n", text, re.M).end() :]
    assert heal_numpy.HUNK == hunk.partition("\n-- \n")[0].rstrip("\n") + "\n"


@pytest.mark.parametrize("release", RELEASES)
def test_the_table_has_the_released_text_and_the_patched_one(release, tmp_path):
    source = released.unpack_release(release) / "numpy" / "__init__.py"
    work = tmp_path / "numpy"
    work.mkdir()
    (work / "__init__.py").write_bytes(source.read_bytes())
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    subprocess.run(["git", "apply", PATCH], cwd=tmp_path, check=True, env=_no_repository(tmp_path))
    after = hashlib.sha256((work / "__init__.py").read_bytes()).hexdigest()
    assert audit_numpy.PATCHED_TEXTS[before] == after


def _no_repository(folder):
    return {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_changes_nothing_and_says_so(copy, originals, kind):
    env = copy(kind)
    run = heal(env)
    assert (run.code, run.results, run.summary) == (1, ["would-heal"], {"would-heal": 1})
    assert str(source_of(env)) in run.rows[0]["changed"]
    assert installed.differences(originals(kind), env) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_healing_gives_the_patched_text_and_undo_every_byte_back(copy, originals, kind):
    env = copy(kind)
    stat_before = source_of(env).stat()
    run = heal("--apply", env)
    assert (run.code, run.results) == (0, ["healed"])
    digest = hashlib.sha256(source_of(env).read_bytes()).hexdigest()
    assert digest in audit_numpy.PATCHED_TEXTS.values()
    assert source_of(env).stat().st_mtime_ns == stat_before.st_mtime_ns
    assert audit(env)[0] == ["FIXED"]
    again = heal("--apply", env)
    assert (again.code, again.results) == (0, ["unchanged"])
    changed = installed.differences(originals(kind), env)
    run = heal("--undo", env)
    assert (run.code, run.results) == (0, ["undone"])
    assert source_of(env).stat().st_mtime_ns == stat_before.st_mtime_ns
    assert changed and installed.differences(originals(kind), env) == ""
    assert heal("--undo", env).results == ["unchanged"]


@pytest.mark.parametrize("release", RELEASES[1:])
def test_every_release_is_healed_and_undone(copy, originals, release):
    env = copy("rattler", release)
    assert heal("--apply", env).results == ["healed"]
    assert import_numpy(env) == release
    assert heal("--undo", env).results == ["undone"]
    assert installed.differences(originals("rattler", release), env) == ""


OTHER_PYTHONS = pythons.found(("3.6", "3.8", "3.13", "3.14"))


@pytest.mark.parametrize("version", OTHER_PYTHONS)
def test_other_pythons_run_it(copy, originals, version):
    env = copy("pip")
    python = OTHER_PYTHONS[version]
    assert heal("--apply", env, python=python).results == ["healed"]
    assert import_numpy(env) == "2.3.5"
    assert heal("--undo", env, python=python).results == ["undone"]
    assert installed.differences(originals("pip"), env) == ""


def test_a_python_3_6_is_among_them():
    assert "3.6" in OTHER_PYTHONS


def test_no_other_environment_and_no_cache_changes(copy, originals, workplace):
    for kind in KINDS:
        env = copy(kind, name=kind)
        before = {path: path.stat().st_ino for path in (source_of(env), source_of(originals(kind)))}
        assert len(set(before.values())) == 1, "the copy shares its files"
        source = source_of(originals(kind)).read_bytes()
        assert heal("--apply", env).results == ["healed"]
        assert source_of(originals(kind)).read_bytes() == source
        assert source_of(env).stat().st_nlink == 1
    for cached in (workplace / "caches").rglob("numpy/__init__.py"):
        digest = hashlib.sha256(cached.read_bytes()).hexdigest()
        assert digest in audit_numpy.PATCHED_TEXTS, cached


def test_the_healed_numpy_runs_from_its_bytecode(copy):
    """Python neither compiles the source nor takes the old code."""
    for kind in ("pip", "rattler"):
        env = copy(kind, name=kind)
        heal("--apply", env)
        said = import_numpy(env, "", "-v")
        assert said == ""
        site = installed.site_packages(env)
        shown = subprocess.run(
            [
                sys.executable,
                "-I",
                "-v",
                "-c",
                f"import sys; sys.path[:0] = [{str(site)!r}]; import numpy",
            ],
            capture_output=True,
            text=True,
        ).stderr
        assert f"# code object from '{bytecode_of(env)}'" in shown
        assert f"{bytecode_of(env)} matches" in shown


def test_unchecked_bytecode_is_replaced(copy, originals):
    """Python does not compare it with the source: with the old code, numpy would still hang."""
    env = copy("uv")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source_of(env)), str(bytecode_of(env)), invalidation_mode=mode)
    old = bytecode_of(env).read_bytes()
    assert heal("--apply", env).results == ["healed"]
    code = "import dis; print('uname' in str(numpy.__spec__.loader.get_code('numpy').co_consts))"
    new = bytecode_of(env).read_bytes()
    assert new[:8] == old[:8] and new[8:16] != old[8:16]
    assert b"uname" in new[: -len(old)], code
    assert heal("--undo", env).results == ["undone"]
    assert bytecode_of(env).read_bytes() == old


def test_unchecked_bytecode_of_a_python_that_is_not_there_is_disabled(copy):
    env = copy("uv")
    foreign = bytecode_of(env).with_name("__init__.cpython-399.pyc")
    foreign.parent.mkdir(exist_ok=True)
    old = b"\x99\x99\r\n" + bytes([1, 0, 0, 0]) + b"12345678" + b"code"
    foreign.write_bytes(old)
    run = heal("--apply", env)
    assert foreign.read_bytes()[4] == heal_numpy.CHECKED_HASH
    assert "disabled" in run.rows[0]["notes"][0]
    assert heal("--undo", env).results == ["undone"]
    assert foreign.read_bytes() == old


def test_bytecode_of_a_python_that_is_not_there_stays(copy):
    env = copy("uv")
    foreign = bytecode_of(env).with_name("__init__.cpython-399.pyc")
    foreign.parent.mkdir(exist_ok=True)
    old = b"\x99\x99\r\n" + bytes(12) + b"code"
    foreign.write_bytes(old)
    run = heal("--apply", env)
    assert foreign.read_bytes() == old
    assert "not used" in run.rows[0]["notes"][0]


@pytest.mark.parametrize("text", [b"", b"a", b"1234567", b"12345678", b"123456789" * 1000])
def test_the_hash_of_a_source_is_that_of_python(text):
    magic = importlib.util.MAGIC_NUMBER
    assert heal_numpy.source_hash(magic, text) == importlib.util.source_hash(text)


def test_the_records_have_the_new_checksums(copy):
    env = copy("rattler")
    heal("--apply", env)
    (record,) = (env / "conda-meta").glob("numpy-*.json")
    site = installed.site_packages(env)
    (pip_record,) = site.glob("numpy-*.dist-info/RECORD")
    entries = {
        each["_path"]: each for each in json.loads(record.read_text())["paths_data"]["paths"]
    }
    for path in (source_of(env), bytecode_of(env), pip_record):
        entry = entries[str(path.relative_to(env))]
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entry["size_in_bytes"] == path.stat().st_size
    row = heal_numpy._row(b"numpy/__init__.py", source_of(env).read_bytes())
    assert row in pip_record.read_bytes().splitlines()


def test_a_record_with_sha256_in_prefix_gets_the_new_one(copy):
    env = copy("rattler")
    (record,) = (env / "conda-meta").glob("numpy-*.json")
    content = json.loads(record.read_text())
    for entry in content["paths_data"]["paths"]:
        entry["sha256_in_prefix"] = entry["sha256"]
    record.unlink()
    record.write_text(json.dumps(content))
    before = record.read_bytes()
    heal("--apply", env)
    digest = hashlib.sha256(source_of(env).read_bytes()).hexdigest()
    entries = json.loads(record.read_text())["paths_data"]["paths"]
    (entry,) = [each for each in entries if each["_path"].endswith("numpy/__init__.py")]
    assert (entry["sha256"], entry["sha256_in_prefix"]) == (digest, digest)
    heal("--undo", env)
    assert record.read_bytes() == before


HISTORIES = {
    "conda's": "==> 2026-01-01 00:00:00 <==\n# cmd: conda create\n+defaults::numpy-2.3.5\n",
    "pixi's, without a last newline": "// not relevant for pixi but for `conda run -p`",
    "empty": "",
}


@pytest.mark.parametrize("history", HISTORIES)
def test_the_history_says_what_was_done(copy, history):
    env = copy("rattler")
    path = env / "conda-meta" / "history"
    path.unlink(missing_ok=True)
    path.write_text(HISTORIES[history])
    heal("--apply", env)
    added = path.read_text().removeprefix(HISTORIES[history]).strip()
    assert re.match(r"(#|//) heal_numpy .* healed numpy-2.3.5-\S+ in place", added)
    assert (added[0] == "#") == (history == "conda's")
    heal("--undo", env)
    assert path.read_text() == HISTORIES[history]


def test_what_conda_wrote_into_the_history_afterwards_stays(copy):
    env = copy("rattler")
    path = env / "conda-meta" / "history"
    path.unlink(missing_ok=True)
    path.write_text(HISTORIES["conda's"])
    heal("--apply", env)
    later = "==> 2026-02-02 00:00:00 <==\n+defaults::csp-0.14\n"
    path.write_text(path.read_text() + later)
    heal("--undo", env)
    assert path.read_text() == HISTORIES["conda's"] + later


@pytest.mark.parametrize("kind", ("pip", "uv"))
def test_pip_and_uv_find_nothing_wrong_and_remove_every_file(copy, kind):
    env = copy(kind)
    heal("--apply", env)
    python = env / "bin" / "python"
    if kind == "pip":
        installed.pip(env, "check")
        installed.pip(env, "uninstall", "-y", "numpy")
    else:
        installed.uv("pip", "check", "--python", python)
        installed.uv("pip", "uninstall", "--python", python, "numpy")
    left = [path.name for path in installed.site_packages(env).iterdir()]
    assert not [name for name in left if "numpy" in name]


def test_reinstalling_brings_the_hang_back_and_it_is_healed_again(copy, workplace):
    env = copy("pip")
    heal("--apply", env)
    wheel = installed.wheel_file("2.3.5", workplace / "wheels")
    installed.pip(env, "install", "--no-index", "--force-reinstall", wheel)
    assert heal(env).results == ["would-heal"]
    assert heal("--apply", env).results == ["healed"]


def test_a_patched_package_is_left_alone(copy):
    """Its text is the healed one, but nobody healed it: undo would bring the hang."""
    env = copy("pip")
    heal("--apply", env)
    (note,) = installed.site_packages(env).glob("numpy-*.dist-info/heal_numpy.txt")
    note.unlink()
    for option in ("--apply", "--undo"):
        assert heal(option, env).results == ["unchanged"]
    assert hashlib.sha256(source_of(env).read_bytes()).hexdigest() in (
        audit_numpy.PATCHED_TEXTS.values()
    )


def test_a_sound_text_that_python_does_not_run_is_no_reason_to_be_content(copy):
    """As after `patch` was run by hand: the old bytecode has an unchecked hash."""
    env = copy("uv")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    bytecode_of(env).parent.mkdir(exist_ok=True)
    py_compile.compile(str(source_of(env)), str(bytecode_of(env)), invalidation_mode=mode)
    old = bytecode_of(env).read_bytes()
    heal("--apply", env)
    (note,) = installed.site_packages(env).glob("numpy-*.dist-info/heal_numpy.txt")
    note.unlink()
    assert heal("--apply", env).results == ["unchanged"]
    bytecode_of(env).write_bytes(old)
    run = heal("--apply", env)
    assert (run.code, run.results) == (1, ["refused"])
    assert "still multiplies matrices" in run.reasons
    bytecode_of(env).unlink()
    extension = source_of(env).with_name("__init__.cpython-311-x86_64-linux-gnu.so")
    extension.touch()
    assert heal("--apply", env).results == ["refused"]
    extension.unlink()
    assert heal("--apply", env).results == ["unchanged"]


def test_without_the_audit_beside_it_says_what_is_missing(tmp_path):
    script = tmp_path / "heal_numpy.py"
    script.write_bytes((paths.ROOT / "scripts" / "heal_numpy.py").read_bytes())
    run = heal(tmp_path, script=script)
    assert run.code == 2
    assert "audit_numpy.py" in run.stderr and "Copy both files" in run.stderr


def test_copied_to_a_host_it_leaves_no_bytecode_beside(copy, tmp_path):
    for name in ("heal_numpy.py", "audit_numpy.py"):
        (tmp_path / name).write_bytes((paths.ROOT / "scripts" / name).read_bytes())
    assert heal(copy("pip"), script=tmp_path / "heal_numpy.py").results == ["would-heal"]
    assert sorted(os.listdir(tmp_path)) == ["audit_numpy.py", "heal_numpy.py"]


@pytest.mark.parametrize(
    "arguments", [[], ["--apply", "--undo", "."], ["/no/such/folder"], ["--python", "/no", "."]]
)
def test_wrong_use_is_exit_2(arguments):
    run = heal(*arguments)
    assert run.code == 2 and run.stderr


BAD_BYTECODE = {
    "empty": b"",
    "short": b"\xa7\r\r\n",
    "noise": bytes(range(256)),
    "an impossible length before the trailer": b"\xa7\r\r\n"
    + bytes(12)
    + b"\xff" * 8
    + heal_numpy.TRAILER,
    "a trailer alone": b"\xa7\r\r\n" + heal_numpy.TRAILER,
}


@pytest.mark.parametrize("kind", BAD_BYTECODE)
def test_broken_bytecode_comes_back_as_it_was(copy, kind):
    env = copy("pip")
    bytecode_of(env).unlink()
    bytecode_of(env).write_bytes(BAD_BYTECODE[kind])
    assert heal("--apply", env).results == ["healed"]
    assert import_numpy(env) == "2.3.5"
    assert heal("--undo", env).results == ["undone"]
    assert bytecode_of(env).read_bytes() == BAD_BYTECODE[kind]


@pytest.mark.parametrize("record", ["", "numpy/__init__.py,sha256=bad,1", "numpy/__init__.py"])
def test_a_broken_record_of_pip_comes_back_as_it_was(copy, record):
    env = copy("pip")
    (path,) = installed.site_packages(env).glob("numpy-*.dist-info/RECORD")
    path.unlink()
    path.write_text(record)
    assert heal("--apply", env).results == ["healed"]
    assert heal("--undo", env).results == ["undone"]
    assert path.read_text() == record
