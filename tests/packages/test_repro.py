"""The repro on the shipped packages and on the controls: a check that passes on a control is a defect."""

import json
import shutil
import subprocess

import pytest

from numpy_feedstock import paths
from numpy_feedstock.prefix import activated

pytestmark = pytest.mark.packages


def repro(prefix, *args, **variables):
    """repro.py in an environment; (exit code, its JSON)."""
    command = [
        prefix / "bin" / "python",
        paths.ROOT / "tests" / "repro" / "repro.py",
        "--json",
        "--timeout",
        "10",
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
    assert blas in report["library"].replace("libmkl_rt", "mkl")
    assert sum(f["facts"].get("trials", 0) for f in report["findings"]) == 20


def test_with_mkl_every_check_fails_on_the_control(controls):
    code, report = repro(controls["mkl"])
    assert (code, failed(report)) == (1, {"hang", "calls", "threads"})
    # every import hangs where the race is decided; it stops after three
    (decided,) = [
        f["facts"] for f in report["findings"] if f["check"] == "hang" and "late" in f["setting"]
    ]
    assert decided == {"trials": 3, "hangs": 3, "crashes": []}
    assert report["stacks"] and report["lock"]


def test_with_openblas_the_call_is_the_difference(controls):
    # its threads are started when it is loaded, and nothing hangs
    code, report = repro(controls["openblas"])
    assert (code, failed(report)) == (1, {"calls"})


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
