"""The reproduction of the hang on a control: affected, healed, affected again after undo."""

import hashlib
import json
import subprocess
import sys

import pytest

from helpers import installed
from helpers.healer import audit, heal
from numpy_feedstock import paths

pytestmark = pytest.mark.packages
REPRO = paths.ROOT / "recipe" / "repro" / "repro.py"


def judged(folder, *options):
    """The exit code of the reproduction: 1 for AFFECTED."""
    command = [sys.executable, REPRO, "--python", folder / "bin" / "python", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode


@pytest.mark.parametrize("way", [[], ["--startup-file"]])
def test_a_control_is_affected_before_healed_and_affected_again_after_undo(control_copy, way):
    env = control_copy("mkl")
    # the products say it in seconds; trials that hang take minutes
    assert judged(env, "--check", "calls") == 1
    assert heal("--apply", *way, env).results == ["healed"]
    assert judged(env) == 0
    assert audit(env)[0] == ["FIXED"]
    assert heal("--undo", *way, env).results == ["undone"]
    assert judged(env, "--check", "calls") == 1


def test_the_record_of_a_real_package_fits_its_files_after_healing(control_copy):
    env = control_copy("openblas")
    heal("--apply", env)
    (record,) = (env / "conda-meta").glob("numpy-*.json")
    entries = json.loads(record.read_text())["paths_data"]["paths"]
    (entry,) = [each for each in entries if each["_path"].endswith("numpy/__init__.py")]
    source = installed.source_of(env)
    assert entry["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
