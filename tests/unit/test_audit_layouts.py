"""Layouts and outputs that once hid an affected numpy, or were called by a wrong word."""

import hashlib
import json
import signal
import subprocess
import sys

import pytest

import audit_numpy
import heal_numpy
from helpers import trees
from helpers.numpy_init import PATCHED, UNGATED
from helpers.trees import INTERFACE, MKL, SITE_PACKAGES, WHEEL
from helpers.users import UNPRIVILEGED, root_only

AUDIT = audit_numpy.__file__


def found(numpys):
    return [(row["verdict"], row["prefix"]) for row in numpys]


# --- folders that only look like something that holds no environment


def test_a_folder_called_numpy_in_a_prefix_is_searched_when_it_is_no_numpy(rows, conda, tmp_path):
    (tmp_path / "pyvenv.cfg").touch()
    app = conda(tmp_path / "numpy" / "envs" / "app")
    assert found(rows(tmp_path)[0]) == [("AFFECTED", str(app))]


def test_environments_in_a_bare_repository_are_found(rows, conda, tmp_path):
    for name in ("objects", "refs"):
        (tmp_path / "project.git" / name).mkdir(parents=True)
    (tmp_path / "project.git" / "HEAD").write_text("ref: refs/heads/main\n")
    app = conda(tmp_path / "project.git" / "main" / ".venv")
    assert found(rows(tmp_path)[0]) == [("AFFECTED", str(app))]


@pytest.mark.parametrize("index", ["{}", "[]", "", '{"name": "numpy", "version": "2.3.5"}'])
def test_a_folder_with_an_index_of_something_else_is_no_cached_package(
    rows, conda, tmp_path, index
):
    (tmp_path / "site" / "info").mkdir(parents=True)
    (tmp_path / "site" / "info" / "index.json").write_text(index)
    app = conda(tmp_path / "site" / "envs" / "app")
    assert found(rows(tmp_path)[0]) == [("AFFECTED", str(app))]


@pytest.mark.parametrize("above", ["site-packages", "dist-packages/envs", "opt/site-packages/a"])
def test_an_environment_below_a_folder_that_is_called_site_packages_is_found(
    rows, conda, tmp_path, above
):
    app = conda(tmp_path / above / "app")
    assert found(rows(tmp_path)[0]) == [("AFFECTED", str(app))]


@pytest.mark.parametrize("library", ["lib", "lib64"])
@pytest.mark.parametrize("name", ["numpy", "python"])
def test_packages_that_were_unpacked_over_each_other_are_an_environment(
    rows, numpy, tmp_path, name, library
):
    numpy(tmp_path / "app" / library / "python3.11" / "site-packages")
    for folder in ("info", "bin"):
        (tmp_path / "app" / folder).mkdir()
    (tmp_path / "app" / "bin" / "python3.11").touch()
    index = {"name": name, "version": "2.3.5", "build": "0"}
    (tmp_path / "app" / "info" / "index.json").write_text(json.dumps(index))
    assert found(rows(tmp_path)[0]) == [("AFFECTED", str(tmp_path / "app"))]


@pytest.mark.parametrize(
    "name",
    [
        "tool-1.2",
        "tool-1.2.3-linux-x86_64",
        "tool-2.0rc1",
        "tool.app",
        "tool.bin",
        "tool.run",
        "tool.x86_64",
    ],
)
def test_a_frozen_program_is_found_whatever_its_name_ends_with(rows, tmp_path, name):
    table = b"numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so"
    cookie = audit_numpy.FROZEN_COOKIE
    whole = len(table) + audit_numpy.FROZEN_COOKIE_SIZE
    tail = (
        cookie
        + b"".join(number.to_bytes(4, "big") for number in (whole, 0, len(table)))
        + bytes(audit_numpy.FROZEN_COOKIE_SIZE - len(cookie) - 12)
    )
    program = tmp_path / name
    program.write_bytes(b"\x7fELF" + bytes(2 << 20) + table + tail)
    program.chmod(0o755)
    assert found(rows(tmp_path)[0]) == [("UNKNOWN", str(program))]


@root_only
def test_another_mount_of_the_kernels_processes_is_not_walked(report, conda, tmp_path):
    app = conda(tmp_path / "app", source=PATCHED)
    processes = tmp_path / "chroot" / "proc"
    processes.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "proc", "proc", processes]).returncode:
        pytest.skip("this container may not mount")
    try:
        numpys, troubles, end = report(tmp_path)
    finally:
        subprocess.run(["umount", processes], check=True)
    assert (found(numpys), troubles) == ([("FIXED", str(app))], [])
    assert end["folders"] < 20


# --- what may not be read


@root_only
@pytest.mark.parametrize("options", [[], ["--quick"]], ids=["full", "quick"])
@pytest.mark.parametrize("link", ["envs", "envs/app"])
def test_a_link_into_a_folder_that_may_not_be_read_is_said(report, conda, tmp_path, options, link):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
    base = conda(tmp_path / "conda", source=PATCHED)
    conda(tmp_path / "secret" / "app")
    (base / link).parent.mkdir(exist_ok=True)
    (base / link).symlink_to(tmp_path / "secret" / ("app" if "/" in link else ""))
    (tmp_path / "secret").chmod(0o700)
    (tmp_path / "secret").chmod(0)
    numpys, troubles, end = report(*options, base, wrapper=UNPRIVILEGED)
    assert found(numpys) == [("FIXED", str(base))]
    assert (end["exit"], len(troubles)) == (2, 1), troubles


@root_only
def test_a_pth_file_that_names_a_folder_that_may_not_be_read_is_said(report, conda, tmp_path):
    base = conda(tmp_path / "conda", source=PATCHED)
    (tmp_path / "secret" / "more" / "numpy").mkdir(parents=True)
    (base / SITE_PACKAGES / "more.pth").write_text(f"{tmp_path}/secret/more\n")
    (tmp_path / "secret").chmod(0)
    _, troubles, end = report(base, wrapper=UNPRIVILEGED)
    assert (end["exit"], len(troubles)) == (2, 1), troubles


# --- another numpy than the one in the folder


@pytest.mark.parametrize(
    "line",
    ["import sys; sys.path.insert(0, '{}')", "\ufeff{}", 'import site; site.addsitedir("{}")'],
)
def test_a_pth_file_leads_to_another_numpy(rows, conda, numpy, tmp_path, line):
    base = conda(tmp_path / "conda", source=PATCHED)
    numpy(tmp_path / "elsewhere" / "more")
    text = line.format(tmp_path / "elsewhere" / "more")
    (base / SITE_PACKAGES / "more.pth").write_text(text + "\n")
    numpys, _ = rows(base)
    assert ("AFFECTED", str(tmp_path / "elsewhere" / "more")) in found(numpys)


@pytest.mark.parametrize("name", ["numpy-2.4.0-py3.11.egg", "__editable__.numpy-2.4.0.pth"])
def test_a_second_numpy_in_the_same_folder_has_its_own_row(rows, conda, tmp_path, name):
    base = conda(tmp_path, source=PATCHED)
    (base / SITE_PACKAGES / name).touch()
    numpys, _ = rows(base)
    assert sorted(row["verdict"] for row in numpys) == ["FIXED", "UNKNOWN"]


def test_of_several_extensions_the_one_with_mkl_counts(rows, extension, numpy, tmp_path):
    numpy(tmp_path / "target", needs=WHEEL)
    core = tmp_path / "target" / "numpy" / "_core"
    other = core / "_multiarray_umath.cpython-312-x86_64-linux-gnu.so"
    other.write_bytes(extension(MKL).read_bytes())
    (row,), _ = rows(tmp_path)
    assert (row["verdict"], row["blas"]) == ("AFFECTED", "mkl")


def test_the_library_that_is_there_counts_and_not_the_record_of_another(rows, conda, tmp_path):
    lib = conda(tmp_path, "0_openblas", needs=INTERFACE) / "lib"
    (lib / MKL).touch()
    (lib / INTERFACE).symlink_to(MKL)
    (row,), _ = rows(tmp_path)
    assert (row["verdict"], row["blas_by"]) == ("AFFECTED", MKL)


# --- healed, and by which way


@pytest.fixture
def released(monkeypatch):
    """The text of numpy 2.3.5 as far as the audit is concerned: hashes decide."""
    from numpy_feedstock.measuring import released as releases

    return (releases.unpack_release("2.3.5") / "numpy" / "__init__.py").read_text()


def protect(prefix, module=heal_numpy.STARTUP_MODULE, pth=heal_numpy.STARTUP_PTH):
    site = prefix / SITE_PACKAGES
    (site / "_numpy_31284.py").write_text(module)
    (site / "_numpy_31284.pth").write_text(pth)


def test_the_audit_knows_the_start_up_file_of_the_healer():
    texts = (heal_numpy.STARTUP_MODULE, heal_numpy.STARTUP_PTH)
    assert [hashlib.sha256(text.encode()).hexdigest() for text in texts] == list(
        audit_numpy.STARTUP_FILES.values()
    )


@pytest.mark.parametrize("options", [[], ["--quick"]], ids=["full", "quick"])
def test_the_start_up_file_makes_a_released_numpy_fixed(report, conda, tmp_path, released, options):
    prefix = conda(tmp_path / "app", source=released)
    protect(prefix)
    (row,), _, end = report(*options, tmp_path)
    assert (row["verdict"], row["healed"], row["gate"]) == ("FIXED", True, "ungated")
    assert "start-up file" in row["reason"] and "python -S" in row["reason"]
    assert (row["remedies"], end["exit"]) == ([], 0)


@pytest.mark.parametrize(
    "change",
    [
        dict(module=heal_numpy.STARTUP_MODULE + "#"),
        dict(module=""),
        dict(pth="# import _numpy_31284\n"),
        dict(pth=""),
    ],
)
def test_a_start_up_file_that_is_not_the_healers_protects_nothing(
    rows, conda, tmp_path, released, change
):
    protect(conda(tmp_path, source=released), **change)
    (row,), _ = rows(tmp_path)
    assert (row["verdict"], row["healed"]) == ("AFFECTED", False)


def test_a_start_up_file_does_not_protect_an_edited_numpy(rows, conda, tmp_path):
    protect(conda(tmp_path, source=UNGATED))
    (row,), _ = rows(tmp_path)
    assert row["verdict"] == "AFFECTED"


def test_a_start_up_file_in_a_folder_that_python_does_not_start_from_protects_nothing(
    rows, numpy, tmp_path, released
):
    for folder in ("target", "layer/python/lib/python3.11/site-packages"):
        numpy(tmp_path / folder, source=released)
        for name, text in (("py", heal_numpy.STARTUP_MODULE), ("pth", heal_numpy.STARTUP_PTH)):
            (tmp_path / folder / f"_numpy_31284.{name}").write_text(text)
    numpys, _ = rows(tmp_path)
    assert [row["verdict"] for row in numpys] == ["AFFECTED", "AFFECTED"]


@pytest.mark.parametrize(
    ("name", "healed"),
    [
        ("numpy-2.3.5-py311h1234567_0", True),
        ("numpy-2.3.5-py311h1234567_1", False),
        ("numpy-2.4.0-py311h1234567_0", False),
        ("numpy-2.3.5-py311h1234567_01", False),
    ],
)
def test_a_note_about_another_numpy_does_not_make_this_one_healed(
    rows, conda, tmp_path, name, healed
):
    prefix = conda(tmp_path, source=PATCHED)
    line = b"# " + heal_numpy.note_line(name, str(prefix)) + b"\n"
    (prefix / "conda-meta" / "history").write_bytes(b"==> 2026-11-25 <==\n" + line)
    (row,), _ = rows(tmp_path)
    assert row["healed"] is healed


def test_a_note_in_the_dist_info_of_another_release_does_not_count(rows, conda, numpy, tmp_path):
    prefix = conda(tmp_path, source=PATCHED)
    old = prefix / SITE_PACKAGES / "numpy-2.3.4.dist-info"
    old.mkdir()
    (old / "heal_numpy.txt").touch()
    (row,), _ = rows(tmp_path)
    assert row["healed"] is False


# --- where the result goes


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_a_result_that_cannot_be_printed_is_not_called_affected(audit, conda, tmp_path, options):
    conda(tmp_path / "app")
    for redirection in (">/dev/full", ">&-"):
        code, _, said = audit(
            *options, tmp_path, wrapper=["sh", "-c", f'exec "$@" {redirection}', "sh"]
        )
        assert code == 2 and "what was printed is not complete" in said, redirection


def test_an_interrupted_audit_ends_with_130_and_one_sentence(conda, tmp_path):
    for number in range(60):
        trees.make_prefix(
            tmp_path / "envs" / str(number), trees.link(MKL, tmp_path), f"{UNGATED}#{number}"
        )
    # the pipe has no room for all that it prints: it cannot end before the interrupt
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", AUDIT, "--json", tmp_path / "envs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pipesize=4096,
    )
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert (first["type"], process.returncode) == ("numpy", 130)
    assert said == b"audit_numpy: interrupted: what was printed is not complete\n"
