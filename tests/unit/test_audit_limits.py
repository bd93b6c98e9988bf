"""A numpy is not FIXED because nothing was found, and no crafted file ends a run."""

import importlib.util
import marshal
import os
import py_compile
import struct
import subprocess
import sys

import pytest

import audit_numpy
from helpers.numpy_init import CALL, GATED, MODULE, PATCHED, UNGATED, called_by
from helpers.trees import INTERFACE, MKL, SITE_PACKAGES

TAG = sys.implementation.cache_tag
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


# --- a text that is not whole


@pytest.mark.parametrize("version", ["2.3.5", "2.4.0", "2.4.6", "2.5.1", "2.3.5+mkl", ""])
@pytest.mark.parametrize(
    "source",
    ["", "# nothing\n", MODULE, UNGATED.replace(CALL, ""), UNGATED[: UNGATED.index("x @ x")]],
    ids=["empty", "comment", "no check", "cut before the call", "cut inside the check"],
)
def test_a_release_with_the_check_whose_text_lacks_it_is_unknown(
    rows, conda, tmp_path, version, source
):
    prefix = conda(tmp_path, version=version or "2.3.5", source=source)
    if not version:
        (prefix / SITE_PACKAGES / "numpy" / "version.py").unlink()
        (prefix / SITE_PACKAGES / "numpy-2.3.5.dist-info").rmdir()
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "UNKNOWN", row["reason"]


@pytest.mark.parametrize("version", ["2.2.6", "2.3.4", "1.26.4", "2.6.0"])
def test_a_release_without_the_check_is_fixed(rows, conda, tmp_path, version):
    conda(tmp_path, version=version, source=MODULE)
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "FIXED"


def test_a_check_whose_call_was_taken_out_by_hand_is_fixed(rows, conda, tmp_path):
    conda(tmp_path, source=UNGATED.replace("    blas_fpe_check()\n    del", "    del"))
    (row,), _ = rows(tmp_path)
    assert (row["verdict"], row["gate"]) == ("FIXED", "absent")


def test_what_the_text_does_not_decide_is_unknown_with_its_line(rows, conda, tmp_path):
    source = called_by("if old_glibc(): blas_fpe_check()")
    conda(tmp_path, source=source)
    (row,), _ = rows(tmp_path)
    line = source.splitlines().index("    if old_glibc(): blas_fpe_check()") + 1
    assert row["verdict"] == "UNKNOWN"
    assert f"line {line} " in row["reason"] and "if old_glibc()" in row["reason"]


# --- bytecode


@pytest.fixture
def compiled(conda, numpy, tmp_path):
    """Makes a numpy with a source, and bytecode of another; returns the path of the source."""

    def make(source, run, mode="UNCHECKED_HASH", tag=TAG, optimisation=""):
        prefix = tmp_path / "app"
        (prefix / "conda-meta").mkdir(parents=True)
        numpy(prefix / SITE, source=run)
        init = prefix / SITE / "numpy" / "__init__.py"
        cached = init.parent / "__pycache__" / f"__init__.{tag}{optimisation}.pyc"
        py_compile.compile(
            str(init),
            str(cached),
            invalidation_mode=getattr(py_compile.PycInvalidationMode, mode),
            doraise=True,
            optimize=int(optimisation[-1:] or 0),
        )
        status = init.stat()
        init.write_text(source)
        if mode == "TIMESTAMP" and len(source) == len(run):
            os.utime(init, ns=(status.st_atime_ns, status.st_mtime_ns))
        return init

    return make


def of_length(source, length):
    return source + "#" * (length - len(source) - 1) + "\n"


@pytest.mark.parametrize("optimisation", ["", ".opt-1", ".opt-2"])
def test_unchecked_bytecode_that_multiplies_is_what_python_runs(
    rows, compiled, tmp_path, optimisation
):
    compiled(PATCHED, UNGATED, optimisation=optimisation)
    (row,), troubles = rows(tmp_path)
    assert (row["verdict"], troubles) == ("AFFECTED", [])
    assert "which Python runs" in row["reason"]


def test_bytecode_with_the_date_and_size_of_a_patched_source_is_what_python_runs(
    rows, compiled, tmp_path
):
    length = max(len(PATCHED), len(UNGATED)) + 2
    compiled(of_length(PATCHED, length), of_length(UNGATED, length), "TIMESTAMP")
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "AFFECTED"


@pytest.mark.parametrize("mode", ["TIMESTAMP", "UNCHECKED_HASH", "CHECKED_HASH"])
@pytest.mark.parametrize("source", [PATCHED, GATED], ids=["patched", "2.4.5"])
def test_the_bytecode_of_a_gated_source_changes_nothing(rows, compiled, tmp_path, mode, source):
    compiled(source, source, mode)
    (row,), troubles = rows(tmp_path)
    assert (row["verdict"], troubles) == ("FIXED", [])


def test_stale_bytecode_that_python_ignores_changes_nothing(rows, compiled, tmp_path):
    compiled(PATCHED, UNGATED, "TIMESTAMP")
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "FIXED"


def test_checked_bytecode_whose_hash_is_not_its_sources_changes_nothing(rows, compiled, tmp_path):
    compiled(PATCHED, UNGATED, "CHECKED_HASH")
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "FIXED"


def test_checked_bytecode_with_the_hash_of_its_source_is_what_python_runs(rows, compiled, tmp_path):
    init = compiled(PATCHED, UNGATED, "CHECKED_HASH")
    (cached,) = init.parent.glob("__pycache__/*.pyc")
    data = bytearray(cached.read_bytes())
    data[8:16] = importlib.util.source_hash(init.read_bytes())
    cached.write_bytes(data)
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "AFFECTED"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 300])
def test_the_hash_of_a_source_is_pythons(size):
    data, key = os.urandom(size), int.from_bytes(importlib.util.MAGIC_NUMBER, "little")
    assert audit_numpy.source_hash(key, data) == importlib.util.source_hash(data)


def test_bytecode_for_another_python_changes_nothing(rows, compiled, tmp_path):
    compiled(PATCHED, UNGATED, tag="cpython-399")
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "FIXED"


def test_bytecode_of_a_gate_at_the_call_is_compared_by_the_python_that_made_it(
    rows, compiled, tmp_path, request
):
    source = called_by("if sys.platform == 'darwin': blas_fpe_check()")
    compiled(source, source)
    (row,), _ = rows(tmp_path)
    if request.node.callspec.params["audit"] == "3.6":
        assert row["verdict"] == "UNKNOWN" and "run the audit by" in row["reason"]
    else:
        assert row["verdict"] == "FIXED"


def test_other_bytecode_beside_a_gate_at_the_call_is_not_fixed(rows, compiled, tmp_path):
    compiled(called_by("if sys.platform == 'darwin': blas_fpe_check()"), UNGATED)
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "UNKNOWN"


@pytest.mark.parametrize("data", [b"", b"\0" * 15, b"junk" * 10, b"\xa9" * 5000], ids=len)
def test_broken_bytecode_is_no_end_and_not_fixed_when_python_would_run_it(
    rows, compiled, tmp_path, data
):
    init = compiled(PATCHED, UNGATED)
    (cached,) = init.parent.glob("__pycache__/*.pyc")
    header = cached.read_bytes()[:16]
    cached.write_bytes(header + b"\xe3blas_fpe_check" + data)
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "UNKNOWN"


@pytest.mark.parametrize("name", ["__init__.so", "__init__.cpython-311-x86_64-linux-gnu.so"])
def test_a_compiled_init_that_python_runs_instead_is_unknown(rows, conda, tmp_path, name):
    prefix = conda(tmp_path, source=PATCHED)
    (prefix / SITE_PACKAGES / "numpy" / name).touch()
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "UNKNOWN" and name in row["reason"]


# --- crafted files


def evil_elf(segments=1, entries=1 << 20):
    """A 64-bit ELF file with a dynamic segment of junk."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, segments, 0, 0, 0)
    table = struct.pack("<IIQQQQQQ", 2, 4, 4096, 0, 0, entries * 16, entries * 16, 8) * segments
    return header + table + struct.pack("<QQ", 1, 1) * entries


@pytest.mark.parametrize(
    "source",
    [
        "1" + "+1" * 130_000,
        "a" + ".b" * 120_000,
        "x" + "()" * 120_000,
        "+" * 260_000 + "1",
        "-" * 100_000 + "1",
        "(" * 90_000 + ")" * 90_000,
        "x = 1\n" * 700_000,
        "a" * (1 << 24),
        "if a:\n" + "\n".join(" " * n + "if a:" for n in range(1, 99)) + "\n" + " " * 99 + "b",
        "f(" * 5_000 + ")" * 5_000,
        "x = [" + "1," * 100_000 + "]",
        "def f():\n f()\n f()\nf()\n" * 3_000,
        "\n".join(f"def f{n}():\n f{n + 1}()\n f{n + 1}()" for n in range(60)) + "\nf0()",
    ],
    ids=range(13),
)
def test_no_crafted_source_costs_another_numpy_its_row(rows, conda, tmp_path, source):
    conda(tmp_path / "a", source=source)
    conda(tmp_path / "b")
    first, second = sorted(rows(tmp_path)[0], key=lambda row: row["prefix"])
    assert (first["verdict"], second["verdict"]) == ("UNKNOWN", "AFFECTED")


@pytest.mark.parametrize(
    "data",
    [
        evil_elf(),
        evil_elf(segments=100, entries=60_000),
        evil_elf(segments=65_535, entries=1),
        evil_elf()[:70],
        b"\x7fELF\x02\x01" + b"\xff" * 5_000,
        b"",
        b"MZ",
    ],
    ids=range(7),
)
def test_no_crafted_extension_costs_another_numpy_its_row_or_has_a_verdict(
    rows, conda, tmp_path, data
):
    (file,) = conda(tmp_path / "a").glob(SITE_PACKAGES + "/numpy/_core/*.so")
    file.write_bytes(data)
    conda(tmp_path / "b")
    first, second = sorted(rows(tmp_path)[0], key=lambda row: row["prefix"])
    assert (first["verdict"], second["verdict"]) == ("UNKNOWN", "AFFECTED")


@pytest.mark.parametrize(
    "file",
    [
        SITE_PACKAGES + "/numpy/__init__.py",
        SITE_PACKAGES + "/numpy/version.py",
        SITE_PACKAGES + "/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so",
        "conda-meta/numpy-2.3.5-py311h1234567_0.json",
        "conda-meta/state",
        "etc/conda/activate.d/a.sh",
        "etc/conda/env_vars.d/a.json",
        "pyvenv.cfg",
        SITE_PACKAGES + "/numpy-2.3.5.dist-info/INSTALLER",
        SITE_PACKAGES + "/other.pth",
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "link to a terminal", "folder", "16 MB"])
def test_nothing_but_a_regular_file_is_opened(rows, conda, tmp_path, file, kind):
    path = conda(tmp_path / "a", "0_mkl", needs=INTERFACE) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    writer = None
    if kind == "pipe":
        os.mkfifo(path)
        # dies of SIGPIPE if somebody opens the pipe and closes it again
        writer = subprocess.Popen(["sh", "-c", 'exec 3> "$0"; exec yes >&3', path])
    elif kind == "folder":
        path.mkdir()
    elif kind == "16 MB":
        path.write_bytes(b"\n" * (16 << 20))
    else:
        path.symlink_to("/dev/tty")
    conda(tmp_path / "b")
    numpys, _ = rows(tmp_path)
    if writer:
        assert writer.poll() is None
        writer.kill()
        writer.wait()
    assert [row["verdict"] for row in numpys if row["prefix"].endswith("/b")] == ["AFFECTED"]
    assert [row["verdict"] for row in numpys if row["prefix"].endswith("/a")] != ["FIXED"]


def test_one_numpy_that_the_audit_fails_at_costs_no_other_its_row(conda, tmp_path, monkeypatch):
    for name in "abc":
        conda(tmp_path / name)
    numpy_row = audit_numpy.numpy_row

    def fail_at_b(site, *rest):
        if site.prefix.endswith("/b"):
            raise ZeroDivisionError("unforeseen")
        return numpy_row(site, *rest)

    monkeypatch.setattr(audit_numpy, "numpy_row", fail_at_b)
    survey = audit_numpy.Survey()
    rows = list(audit_numpy.audit(audit_numpy.find_places([str(tmp_path)], survey), survey))
    assert [row["verdict"] for row in rows] == ["AFFECTED", "UNKNOWN", "AFFECTED"]
    assert "unforeseen" in rows[1]["reason"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (SITE_PACKAGES + "/a.pth", "/a\0b\n/\udcff\n"),
        ("pyvenv.cfg", "home = /a\0b/bin\ninclude-system-site-packages = true\n"),
        ("conda-meta/pixi", '{"manifest_path": "/a\0b"}'),
        ("conda-meta/pixi", '{"manifest_path": 1}'),
        ("conda-meta/numpy-2.3.5-py311h1234567_0.json", '{"channel": "\0\udcff"}'),
        ("conda-meta/numpy-.json", "{}"),
        ("conda-meta/libblas--.json", "{}"),
        ("etc/conda/activate.d/a.sh", "export MKL_NUM_THREADS=\0\n" * 99),
        (SITE_PACKAGES + "/numpy/version.py", 'version = "\0\udcff"\n'),
        (SITE_PACKAGES + "/numpy-2.3.5.dist-info/INSTALLER", "\0"),
    ],
)
def test_no_crafted_file_beside_it_costs_a_numpy_its_row(rows, conda, tmp_path, file, text):
    path = conda(tmp_path / "a") / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    conda(tmp_path / "b")
    first, second = sorted(rows(tmp_path)[0], key=lambda row: row["prefix"])
    assert (first["verdict"], second["verdict"]) == ("AFFECTED", "AFFECTED")


def test_this_pythons_bytecode_is_read_as_python_reads_it():
    source = PATCHED + "\nx = (1.5, 2j, 10**30, b'x', 'é', {1, 2}, ..., None, -1)\n"
    code = compile(source, "x", "exec")
    read = audit_numpy.read_code(marshal.dumps(code))
    assert (read.name, read.names) == (code.co_name, code.co_names)
    assert texts(read.constants) == texts(code.co_consts)
    assert audit_numpy.words_in_code(read) == audit_numpy.words_in_source(source.encode())


def texts(constants):
    return [each for each in constants if isinstance(each, str)]


def test_a_numpy_for_mkl_is_affected_here_so_that_unknown_above_means_something(
    rows, conda, tmp_path
):
    conda(tmp_path, needs=MKL)
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "AFFECTED"
