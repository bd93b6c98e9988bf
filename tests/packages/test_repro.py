"""The repro on the packages and on the controls: a check that passes on a control is a defect."""

import json
import shutil
import subprocess
import sys

import pytest

from numpy_feedstock import paths
from numpy_feedstock.channels.prefix import activated

pytestmark = pytest.mark.packages


def repro(prefix, *args, **variables):
    """repro.py in an environment; (exit code, its JSON)."""
    command = [
        prefix / "bin" / "python",
        paths.ROOT / "tests" / "repro" / "repro.py",
        "--json",
        "--timeout",
        "20",
        *args,
    ]
    result = subprocess.run(
        command, env={**activated(prefix), **variables}, capture_output=True, text=True
    )
    print(result.stderr)
    return result.returncode, json.loads(result.stdout)


def failed(report):
    """Names of the checks that found something."""
    return {finding["check"] for finding in report["findings"] if finding["status"] == "failed"}


@pytest.mark.parametrize("blas", ["mkl", "openblas"])
def test_the_shipped_package_passes_every_check(prefixes, blas):
    code, report = repro(prefixes[blas])
    assert (code, failed(report)) == (0, set())
    assert report["verdict"] == "FIXED"
    assert blas in report["library"].replace("libmkl_rt", "mkl")
    assert sum(f["facts"].get("trials", 0) for f in report["findings"]) == 20


def test_with_mkl_every_check_fails_on_the_control(controls):
    code, report = repro(controls["mkl"], "--timeout", "10")
    assert (code, failed(report)) == (1, {"hang", "calls", "threads"})
    assert report["verdict"] == "AFFECTED"
    # every import hangs where the race is decided; it stops after three
    (decided,) = [f["facts"] for f in report["findings"] if f["check"] == "hang" and f["main_late"]]
    assert decided == {"trials": 3, "hangs": 3, "crashes": []}
    assert report["stacks"] and report["lock"]


def test_with_openblas_the_call_is_the_difference(controls):
    # its threads are started when it is loaded, and nothing hangs
    code, report = repro(controls["openblas"])
    assert (code, failed(report), report["verdict"]) == (0, {"calls"}, "LATENT")
    # so does the test in the package's own recipe
    code, _ = repro(controls["openblas"], "--strict", "--check", "calls")
    assert code == 1


@pytest.mark.parametrize("kind", ["prefixes", "controls"])
@pytest.mark.parametrize("blas", ["mkl", "openblas"])
def test_the_audit_and_the_repro_say_the_same_word(kind, blas, request):
    prefix = request.getfixturevalue(kind)[blas]
    _, report = repro(prefix, "--check", "calls")
    audited = subprocess.run(
        [sys.executable, paths.ROOT / "scripts" / "audit_numpy.py", "--json", prefix],
        capture_output=True,
        text=True,
    )
    rows = [json.loads(line) for line in audited.stdout.splitlines()]
    assert [row["verdict"] for row in rows if "verdict" in row] == [report["verdict"]]


@pytest.fixture
def noexec(tmp_path):
    """A folder whose file system is mounted noexec."""
    folder = tmp_path / "noexec"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "noexec", "none", folder]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_fixed_numpy_is_not_affected_where_no_library_can_be_loaded(prefixes, noexec):
    code, report = repro(prefixes["mkl"], TMPDIR=str(noexec))
    assert (code, report["verdict"], failed(report)) == (2, "UNKNOWN", set())
    assert "set TMPDIR" in report["findings"][0]["remedy"]


def test_an_unpatched_numpy_is_affected_even_where_no_library_can_be_loaded(controls, noexec):
    code, report = repro(controls["mkl"], TMPDIR=str(noexec))
    assert (code, report["verdict"], failed(report)) == (1, "AFFECTED", {"threads"})


def test_a_workaround_that_imports_numpy_at_start_is_no_verdict(prefixes, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import numpy\n")
    code, report = repro(prefixes["mkl"], PYTHONPATH=str(tmp_path))
    assert (code, report["verdict"], failed(report)) == (2, "UNKNOWN", set())
    assert str(tmp_path / "sitecustomize.py") in report["findings"][0]["text"]


def test_the_trap_is_found(controls, tmp_path):
    """Variables set around the ungated check and restored leave MKL on one thread for good."""
    prefix = controls["mkl"]
    (package,) = prefix.glob("lib/python3.*/site-packages/numpy")
    trapped = tmp_path / "numpy"
    shutil.copytree(package, trapped, ignore=shutil.ignore_patterns("__pycache__"))
    call = "    blas_fpe_check()\n    del blas_fpe_check\n"
    text = (trapped / "__init__.py").read_text()
    assert text.count(call) == 1
    around = (
        "    before = os.environ.copy()\n"
        "    os.environ.update(MKL_NUM_THREADS='1', OMP_NUM_THREADS='1')\n"
        "    blas_fpe_check()\n"
        "    os.environ.clear()\n"
        "    os.environ.update(before)\n"
        "    del blas_fpe_check, before\n"
    )
    (trapped / "__init__.py").write_text(text.replace(call, around))
    code, report = repro(prefix, "--check", "threads", PYTHONPATH=str(tmp_path))
    (facts,) = [
        finding["facts"] for finding in report["findings"] if finding["setting"] == "8 threads"
    ]
    assert (code, failed(report)) == (1, {"threads"})
    assert (facts["checked"]["max_threads"], facts["unchecked"]["max_threads"]) == (1, 8)
