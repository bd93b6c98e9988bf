"""The extension of the report, csp's own wheels, on the MKL package and on its control."""

import subprocess
from pathlib import Path

import pytest
import yaml

from numpy_feedstock import paths
from numpy_feedstock.building import environments, wheel
from numpy_feedstock.channels.prefix import activated

pytestmark = pytest.mark.packages

HERE = Path(__file__).parent
WHEELS = yaml.safe_load((HERE / "csp.yaml").read_text())
TRIALS = 5
# As in the report: csp's extension by its path. `import csp` imports pandas, and so numpy, first.
SCRIPT = """
import importlib.util, sys
assert "numpy" not in sys.modules
spec = importlib.util.spec_from_file_location("_cspimpl", sys.argv[1] + "/csp/lib/_cspimpl.so")
spec.loader.exec_module(importlib.util.module_from_spec(spec))
assert "numpy" in sys.modules
print("OK")
"""
EIGHT_THREADS = {"MKL_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE", "MKL_CBWR": "COMPATIBLE"}


@pytest.fixture(scope="module")
def requirements():
    """A folder with what csp needs besides numpy."""
    return environments.site_packages(HERE / "csp.txt")


@pytest.fixture(params=WHEELS)
def csp(request, requirements):
    """What PYTHONPATH has to be: the folder of csp, and that of its requirements."""
    if wheel.TAG not in WHEELS[request.param]:
        pytest.skip(f"csp {request.param} has no wheel for {wheel.TAG}")
    return [wheel.unpacked("csp", request.param, WHEELS[request.param][wheel.TAG]), requirements]


@pytest.fixture(scope="module")
def late_main(tmp_path_factory):
    """The library that decides the race."""
    library = tmp_path_factory.mktemp("late") / "late_main.so"
    source = paths.ROOT / "tests" / "repro" / "late_main.cpp"
    subprocess.run(
        ["g++", "-shared", "-fPIC", "-O2", "-Wl,--as-needed", "-o", library, source, "-ldl"],
        check=True,
    )
    return library


def load(prefix, csp, script=SCRIPT, seconds=120, **variables):
    """What the report's script prints; "hangs" when it does not end in some seconds.

    It takes one or two, but the machine may be busy with other tests.
    """
    command = [prefix / "bin" / "python", "-c", script, csp[0]]
    environment = {
        **activated(prefix),
        **EIGHT_THREADS,
        **variables,
        "PYTHONPATH": ":".join(map(str, csp)),
    }
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_it_is_loaded_with_the_package_every_time(prefixes, csp, late_main):
    assert [load(prefixes["mkl"], csp) for _ in range(TRIALS)] == ["OK"] * TRIALS
    assert [load(prefixes["mkl"], csp, LD_PRELOAD=str(late_main)) for _ in range(TRIALS)] == [
        "OK"
    ] * TRIALS


def test_with_the_control_it_hangs(controls, csp, late_main):
    assert load(controls["mkl"], csp, seconds=20, LD_PRELOAD=str(late_main)) == "hangs"


def test_numpy_imported_first_is_a_way_round(controls, csp, late_main):
    """The workaround of the README."""
    script = SCRIPT.replace('assert "numpy" not in sys.modules', "import numpy")
    assert load(controls["mkl"], csp, script, LD_PRELOAD=str(late_main)) == "OK"
