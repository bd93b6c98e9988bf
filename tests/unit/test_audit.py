"""The audit on trees with the layouts of conda, pixi and venv, under this Python and under 3.6."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import audit_numpy
from helpers import trees
from helpers.numpy_init import GATED, MODULE, PATCHED, UNGATED
from helpers.trees import CONDA_BUILD, INTERFACE, MKL, WHEEL
from helpers.users import UNPRIVILEGED
from numpy_feedstock import paths
from numpy_feedstock.packages import elf


@pytest.mark.parametrize(
    ("source", "needs", "libblas", "verdict", "blas"),
    [
        (UNGATED, MKL, None, "AFFECTED", "mkl"),
        (UNGATED, INTERFACE, "37_h5875eb1_mkl", "AFFECTED", "mkl"),
        (UNGATED, INTERFACE, "37_h4a7cf45_openblas", "LATENT", "openblas"),
        (UNGATED, WHEEL, None, "LATENT", "openblas"),
        (UNGATED, "libm.so.6", None, "LATENT", "none"),
        (PATCHED, MKL, None, "FIXED", "mkl"),
        (GATED, MKL, None, "FIXED", "mkl"),
        (MODULE, MKL, None, "UNKNOWN", "mkl"),
        (UNGATED, INTERFACE, None, "UNKNOWN", None),
        (UNGATED, "libflexiblas.so.3", None, "UNKNOWN", None),
        (UNGATED, "libflexiblas64_.so.3", None, "UNKNOWN", None),
        (UNGATED, "libblas64.so.3", None, "UNKNOWN", None),
        (UNGATED, "libcblas64_.so.3", "37_h5875eb1_mkl", "AFFECTED", "mkl"),
        ("def blas_fpe_check(:", MKL, None, "UNKNOWN", "mkl"),
        ("\0", MKL, None, "UNKNOWN", "mkl"),
    ],
)
def test_the_verdict_is_by_the_syntax_tree_and_the_blas(
    rows, conda, tmp_path, source, needs, libblas, verdict, blas
):
    conda(tmp_path, libblas, source=source, needs=needs)
    (row,), troubles = rows(tmp_path)
    assert (row["verdict"], row["blas"], troubles) == (verdict, blas, [])
    assert row["blas_by"] and row["reason"].endswith("; BLAS: " + row["blas_by"])


def test_the_blas_behind_an_interface_that_nobody_recorded_is_where_its_link_ends(
    rows, conda, tmp_path
):
    lib = conda(tmp_path, needs=INTERFACE) / "lib"
    (lib / MKL).touch()
    (lib / INTERFACE).symlink_to(MKL)
    (row,), _ = rows(tmp_path)
    assert (row["verdict"], row["blas_by"]) == ("AFFECTED", MKL)


def test_the_record_of_libblas_stands_in_for_an_extension_that_cannot_be_read(
    rows, conda, tmp_path
):
    (extension,) = conda(tmp_path, "0_mkl").glob("lib/python3.11/*/numpy/_core/*.so")
    extension.write_bytes(extension.read_bytes()[:100])
    (row,), (trouble,) = rows(tmp_path)
    assert (row["verdict"], row["blas_by"], trouble["path"]) == (
        "AFFECTED",
        "libblas-3.11.0-0_mkl",
        str(extension),
    )


def test_what_a_library_needs_is_read_as_pyelftools_does():
    compared = [
        *Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so"),
        Path("/bin/sh").resolve(),
    ]
    assert len(compared) > 10
    for library in compared:
        assert audit_numpy.elf_needed(library) == elf.read(library).needed


def test_all_layouts_are_found(rows, conda, numpy, tmp_path):
    venv = tmp_path / "home" / "ann" / "app" / ".venv"
    numpy(venv / "lib" / "python3.11" / "site-packages")
    (venv / "pyvenv.cfg").touch()
    (venv / "lib64").symlink_to("lib")
    numpy(tmp_path / "srv" / "tool" / "vendored")
    numpy(tmp_path / "usr" / "lib64" / "python3.12" / "site-packages")
    prefixes = [
        tmp_path / name
        for name in (
            "conda",
            "conda/envs/a",
            "home/ann/.conda/envs/b",
            "home/bob/project/.pixi/envs/default",
        )
    ]
    for prefix in prefixes:
        conda(prefix)
    # the caches of conda and others hold no environments
    trees.put_cached_package(tmp_path / "home" / "ann" / ".conda" / "pkgs", numpy)
    # and these are no numpy: its licences, a namesake
    (tmp_path / "srv" / "licenses" / "numpy" / "_core").mkdir(parents=True)
    (tmp_path / "srv" / "compat" / "numpy").mkdir(parents=True)
    (tmp_path / "srv" / "compat" / "numpy" / "__init__.py").touch()
    found, troubles = rows(tmp_path)
    expected = [*prefixes, venv, tmp_path / "srv" / "tool" / "vendored", tmp_path / "usr"]
    assert (sorted(row["prefix"] for row in found), troubles) == (sorted(map(str, expected)), [])


def test_a_pattern_is_expanded(rows, conda, tmp_path):
    prefix = conda(tmp_path / "home" / "ann" / ".conda" / "envs" / "a")
    (row,), _ = rows(f"{tmp_path}/home/*/.conda")
    assert row["prefix"] == str(prefix)


def test_what_overlaps_is_seen_once(rows, conda, tmp_path):
    prefix = conda(tmp_path / "a" / "b")
    (row,), _ = rows(prefix, tmp_path / "a", tmp_path)
    assert row["prefix"] == str(prefix)


@pytest.mark.parametrize("kind", ["conda", "venv"])
def test_a_link_to_a_prefix_is_followed(rows, conda, tmp_path, kind):
    prefix = conda(tmp_path / "elsewhere")
    if kind == "venv":
        shutil.rmtree(prefix / "conda-meta")
        (prefix / "pyvenv.cfg").touch()
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "current").symlink_to("../elsewhere")
    (row,), _ = rows(tmp_path / "envs")
    assert row["prefix"] == str(tmp_path / "envs" / "current")


def test_version_build_and_channel_without_its_token_are_given(rows, conda, tmp_path):
    conda(tmp_path, channel="https://ann:secret@conda.example.com/t/xy-secret/forge/linux-64")
    (row,), _ = rows(tmp_path)
    assert (row["version"], row["build"], row["channel"]) == (
        "2.3.5",
        CONDA_BUILD,
        "https://conda.example.com/forge",
    )


@pytest.mark.parametrize(
    ("version", "needs", "verdict"),
    [("2.3.5", WHEEL, "LATENT"), ("2.4.4", WHEEL, "LATENT"), ("2.4.4", MKL, "AFFECTED")],
)
def test_a_wheel_over_condas_numpy_is_not_taken_for_condas(
    rows, conda, numpy, tmp_path, version, needs, verdict
):
    site = conda(tmp_path, "0_mkl") / "lib" / "python3.11" / "site-packages"
    (site / "numpy-2.3.5.dist-info").rmdir()
    numpy(site, needs=needs, version=version)
    (row,), _ = rows(tmp_path)
    assert (row["verdict"], row["version"], row["build"]) == (verdict, version, "")


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        (
            "etc/conda/activate.d/a.sh",
            "export MKL_THREADING_LAYER=SEQUENTIAL\n",
            {"MKL_THREADING_LAYER": "SEQUENTIAL"},
        ),
        ("etc/conda/activate.d/a.csh", 'setenv MKL_NUM_THREADS "1"\n', {"MKL_NUM_THREADS": "1"}),
        ("etc/conda/activate.d/a.fish", "set -gx MKL_NUM_THREADS 1\n", {"MKL_NUM_THREADS": "1"}),
        (
            "etc/conda/activate.d/a.sh",
            "# export MKL_NUM_THREADS=1\nunset MKL_THREADING_LAYER\n",
            {},
        ),
        (
            "conda-meta/state",
            '{"env_vars": {"MKL_THREADING_LAYER": "GNU", "A": "b"}}',
            {"MKL_THREADING_LAYER": "GNU"},
        ),
        ("conda-meta/state", '{"env_vars": {"MKL_NUM_THREADS": "***unset***"}}', {}),
        ("etc/conda/env_vars.d/a.json", '{"MKL_NUM_THREADS": "1"}', {"MKL_NUM_THREADS": "1"}),
        (
            "etc/conda/activate.d/a.sh",
            "export A=1 MKL_NUM_THREADS=1 MKL_THREADING_LAYER='TBB'\n",
            {"MKL_NUM_THREADS": "1", "MKL_THREADING_LAYER": "TBB"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            'export A=1; export MKL_NUM_THREADS="2"; B=3\n',
            {"MKL_NUM_THREADS": "2"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            'if [ -z "$X" ]; then export MKL_NUM_THREADS=1; fi\n',
            {"MKL_NUM_THREADS": "1"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            "if true; then\n    export MKL_NUM_THREADS=1\nfi\n",
            {"MKL_NUM_THREADS": "1"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            "export MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}\n",
            {"MKL_NUM_THREADS": "1"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            'export MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"\n',
            {"MKL_NUM_THREADS": "1"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            ': "${MKL_NUM_THREADS:=1}"\nexport MKL_NUM_THREADS\n',
            {"MKL_NUM_THREADS": "1"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            "test -n x && export MKL_NUM_THREADS=1 # only one\n",
            {"MKL_NUM_THREADS": "1"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            "declare -x MKL_NUM_THREADS=1\n",
            {"MKL_NUM_THREADS": "1"},
        ),
        (
            "etc/conda/activate.d/a.sh",
            "export MKL_NUM_THREADS=1\nunset A MKL_NUM_THREADS\n",
            {},
        ),
        ("etc/conda/activate.d/a.sh", "export OLD_MKL_NUM_THREADS=1 X_MKL_NUM_THREADS=2\n", {}),
        ("etc/conda/activate.d/a.sh", 'if [ "$MKL_NUM_THREADS" = 1 ]; then :; fi\n', {}),
        ("etc/conda/activate.d/a.sh", 'echo "MKL_NUM_THREADS is $MKL_NUM_THREADS"\n', {}),
        ("etc/conda/activate.d/a.xsh", "$MKL_NUM_THREADS = '1'\n", {"MKL_NUM_THREADS": "1"}),
        ("etc/conda/activate.d/a.ps1", '$Env:MKL_NUM_THREADS = "1"\n', {"MKL_NUM_THREADS": "1"}),
        ("etc/conda/activate.d/a.fish", "set -e MKL_NUM_THREADS\n", {}),
        ("etc/conda/activate.d/a.fish", "set -g -x MKL_NUM_THREADS 1\n", {"MKL_NUM_THREADS": "1"}),
    ],
)
def test_the_threads_that_activation_sets_are_given(rows, conda, tmp_path, file, text, found):
    target = conda(tmp_path) / file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    (row,), troubles = rows(tmp_path)
    assert (row["activation"], troubles) == (found, [])


@pytest.mark.parametrize(
    "mark",
    ["conda-meta/csp-0.14.0-py311h1_0.json", "lib/python3.11/site-packages/csp-0.14.0.dist-info"],
)
def test_packages_known_to_import_numpy_from_a_static_constructor_are_named(
    audit, rows, conda, tmp_path, mark
):
    (conda(tmp_path) / mark).mkdir()
    (row,), _ = rows(tmp_path)
    assert row["importers"] == ["csp"]
    assert audit_numpy.IMPORTERS["csp"] in audit(tmp_path)[1]


def test_the_table_says_what_is_wrong_what_to_do_and_at_what_cost(audit, conda, numpy, tmp_path):
    conda(tmp_path / "a b")
    conda(tmp_path / "work" / ".pixi" / "envs" / "default", version="2.4.4")
    venv = tmp_path / "venv"
    trees.make_venv(venv, numpy, installer="pip", pip=True)
    conda(tmp_path / "z", source=PATCHED)
    code, printed, said = audit("--channel", "https://conda.example.com/fixed", tmp_path)
    assert (code, said) == (1, "")
    header, *lines = printed.splitlines()
    assert header.split() == [
        "VERDICT",
        "NUMPY",
        "CHANNEL",
        "BLAS",
        "ACTIVATION",
        "SETS",
        "IMPORTERS",
        "PREFIX",
    ]
    assert [line.split()[0] for line in lines[:4]] == ["AFFECTED"] * 3 + ["FIXED"]
    for text in (
        "3 AFFECTED, 0 LATENT, 1 FIXED, 0 UNKNOWN",
        f"conda install -p '{tmp_path}/a b' -c https://conda.example.com/fixed "
        "-c https://conda.example.com/forge 'numpy=2.3.5=mkl*_1*'",
        f"cd {tmp_path}/work && pixi workspace channel add --prepend "
        "https://conda.example.com/fixed && pixi add 'numpy=2.4.4=mkl*_1*'",
        f"{venv}/bin/python3 -m pip install 'numpy>=2.4.5'",
        "import numpy before",
        "MKL_THREADING_LAYER=TBB",
        "MKL_THREADING_LAYER=SEQUENTIAL",
        "MKL_NUM_THREADS=1",
        "costs all of MKL's threads",
    ):
        assert text in printed


def test_nothing_affected_is_0_and_nothing_to_do(audit, conda, tmp_path):
    conda(tmp_path, source=PATCHED)
    code, printed, _ = audit(tmp_path)
    assert (code, "install" in printed) == (0, False)


@pytest.mark.parametrize(
    "arguments", [[], ["/no/such/folder"], ["/no/such/*"], ["--no-such-option", "/"]]
)
def test_wrong_use_is_2(audit, arguments):
    code, printed, said = audit(*arguments)
    assert (code, printed) == (2, "")
    assert "usage:" in said


def test_a_fleet_tool_is_told_by_a_line_that_a_host_has_none_of_the_folders(audit):
    code, printed, _ = audit("--json", "/no/such/folder", "/no/such/*")
    assert code == 2
    *troubles, end = [json.loads(line) for line in printed.splitlines()]
    assert [trouble["path"] for trouble in troubles] == ["/no/such/folder", "/no/such/*"]
    assert (end["type"], end["roots"], end["exit"]) == ("end", [], 2)


def test_help_has_the_verdicts_the_exit_codes_and_examples(audit):
    code, printed, _ = audit("--help")
    assert code == 0
    assert all(
        word in printed
        for word in ("AFFECTED", "LATENT", "exit code:", "audit_numpy.py /opt/conda")
    )


def test_verbose_gives_each_reason_and_where_there_was_no_look(audit, conda, tmp_path):
    conda(tmp_path / "a", source=PATCHED)
    (tmp_path / ".snapshots").mkdir()
    _, printed, said = audit("-v", tmp_path)
    assert "the import multiplies matrices on macOS alone; BLAS: libmkl_rt.so.2" in printed
    assert f"{tmp_path}/.snapshots: snapshots" in said


# --- a real file server


@pytest.mark.parametrize(
    "hidden",
    ["a", "a/conda-meta", "a/lib/python3.11/site-packages/numpy", "a/etc/conda/activate.d"],
)
def test_an_unreadable_folder_is_reported_and_not_fatal(rows, conda, tmp_path, hidden):
    (conda(tmp_path / "a") / "etc" / "conda" / "activate.d").mkdir(parents=True)
    conda(tmp_path / "b")
    (tmp_path / hidden).chmod(0)
    try:
        found, troubles = rows(tmp_path, wrapper=UNPRIVILEGED)
    finally:
        (tmp_path / hidden).chmod(0o700)
    assert {trouble["trouble"] for trouble in troubles} == {"Permission denied"}
    assert str(tmp_path / "b") in [row["prefix"] for row in found if row["verdict"] == "AFFECTED"]


@pytest.mark.parametrize("target", ["loop", "..", "../../b/envs"])
def test_a_loop_of_links_ends(audit, conda, tmp_path, target):
    envs = conda(tmp_path / "b") / "envs"
    envs.mkdir()
    (envs / "loop").symlink_to(target)
    code, printed, said = audit("-v", tmp_path)
    assert (code, printed.count("AFFECTED ")) == (1, 1)
    assert f"{envs}/loop: " in said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (f"numpy-2.3.5-{CONDA_BUILD}.json", ""),
        (
            f"numpy-2.3.5-{CONDA_BUILD}.json",
            '{"channel": "https://conda.example.com/forge", "files": ["a',
        ),
        ("state", "{"),
        ("state", "[]"),
        ("state", '{"env_vars": 1}'),
    ],
)
def test_broken_json_is_reported_and_not_fatal(rows, conda, tmp_path, name, text):
    broken = conda(tmp_path) / "conda-meta" / name
    broken.write_text(text)
    (row,), (trouble,) = rows(tmp_path)
    assert (row["verdict"], row["version"], row["build"]) == ("AFFECTED", "2.3.5", CONDA_BUILD)
    assert trouble["path"] == str(broken)


def test_only_the_records_of_interest_are_opened_among_ten_thousand(rows, conda, tmp_path):
    meta = conda(tmp_path, "0_mkl", needs=INTERFACE) / "conda-meta"
    for number in range(10_000):
        # empty, so that opening it would be seen
        (meta / f"package-{number}-1.0-h1234567_0.json").touch()
    (row,), troubles = rows(tmp_path)
    assert (row["verdict"], troubles) == ("AFFECTED", [])


def test_a_pipe_in_the_place_of_a_file_is_reported_and_does_not_wait(rows, conda, tmp_path):
    init = conda(tmp_path) / "lib" / "python3.11" / "site-packages" / "numpy" / "__init__.py"
    init.unlink()
    os.mkfifo(init)
    (row,), (trouble,) = rows(tmp_path)
    assert (row["verdict"], trouble["path"], trouble["trouble"]) == (
        "UNKNOWN",
        str(init),
        "not a regular file",
    )


def test_a_record_without_its_numpy_is_unknown(rows, conda, tmp_path):
    shutil.rmtree(conda(tmp_path) / "lib")
    (row,), _ = rows(tmp_path)
    assert (row["verdict"], row["version"]) == ("UNKNOWN", "2.3.5")


def test_a_prefix_that_vanishes_meanwhile_is_reported(conda, tmp_path):
    said = []
    survey = audit_numpy.Survey(lambda kind, path, text: said.append((Path(path).name, text)))
    places = audit_numpy.find_places([str(tmp_path)], survey)
    conda(tmp_path / "a")
    conda(tmp_path / "b")
    first = next(places)
    shutil.rmtree(first.path)
    shutil.rmtree(tmp_path / "b")
    assert list(audit_numpy.audit([first], survey)) == []
    assert list(places) == []
    assert ("a", "gone meanwhile") in said
    assert ("b", "No such file or directory") in said


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_that_are_no_text_or_steer_a_terminal_are_shown_harmless(
    audit, conda, tmp_path, locale
):
    name = os.fsdecode(b"\xff\x1b[2J\n\xc3\xa9")
    conda(tmp_path / name)
    code, printed, said = audit("-v", tmp_path, LC_ALL=locale)
    assert code == 1
    assert "\x1b" not in printed + said and "\\x1b[2J\\n" in printed
    first, *_ = audit("--json", tmp_path, LC_ALL=locale)[1].splitlines()
    assert json.loads(first)["verdict"] == "AFFECTED"


def test_each_text_of_numpy_is_parsed_once(conda, tmp_path):
    audit_numpy._gate_of_source.cache_clear()
    for name, source in (("a", UNGATED), ("b", UNGATED), ("c", PATCHED), ("d", UNGATED)):
        conda(tmp_path / name, source=source)
    survey = audit_numpy.Survey()
    rows = list(audit_numpy.audit(audit_numpy.find_places([str(tmp_path)], survey), survey))
    assert (len(rows), audit_numpy._gate_of_source.cache_info().misses) == (4, 2)


def test_the_benchmark_audits_the_prefixes_it_made():
    command = [
        sys.executable,
        "-W",
        "error",
        paths.ROOT / "tests" / "benchmark_audit.py",
        "--prefixes",
        "3",
        "--python",
        sys.executable,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 prefixes of 250 packages, warm cache, Python 3.")
    assert "audit --quick" in done.stdout and "find and grep" in done.stdout


def test_nothing_is_imported_run_or_written(audit, conda, tmp_path):
    trap = f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n"
    prefix = conda(tmp_path / "a", source=trap + UNGATED)
    (prefix / "lib" / "python3.11" / "site-packages" / "sitecustomize.py").write_text(trap)
    before = {str(path): path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert audit(tmp_path)[0] == 1
    assert {str(path): path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before
