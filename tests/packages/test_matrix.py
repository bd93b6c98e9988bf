"""The control of each release: the repro in a package's own tests has to fail on it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from helpers.command import feedstock
from helpers.installed import SITE_PACKAGES
from helpers.numpy_init import PATCH
from helpers.shipped import PYTHON, RELEASE
from numpy_feedstock import variant
from numpy_feedstock.channels import prefix
from numpy_feedstock.measuring import released, repro

pytestmark = pytest.mark.packages
EXPECTED = repro.VERDICTS_ON_CONTROLS


def asked(release, python, flavour):
    """The row of a package, after the repro ran on its control."""
    args = ("--numpy", release, "--python", python, "--blas", flavour)
    done = feedstock("matrix", "--controls", *args, "--json")
    (row,) = json.loads(done.stdout)["rows"]
    print(done.stderr)
    return done.returncode, row


def test_the_repro_is_red_on_the_control_of_a_package(packages):
    code, row = asked(RELEASE, PYTHON, "openblas")
    assert (code, row["package"]) == (0, packages["openblas"].name)
    assert row["control"] == EXPECTED["openblas"]


def strict_calls(site):
    """The exit code of the repro as the packages' test runs it, on the numpy of a folder."""
    command = [sys.executable, repro.PROGRAM, "--strict", "--check", "calls"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert str(site) in done.stdout, done.stderr
    return done.returncode


@pytest.mark.parametrize("release", variant.known_releases())
def test_the_repro_is_green_on_a_patched_release_and_red_where_the_patch_is_undone(
    release, tmp_path
):
    """On the files of the released wheel, because the packages of all releases take hours."""
    wheel = released.unpack_release(release)
    if wheel is None:
        pytest.skip(f"numpy {release} has no wheel for this Python")
    site = tmp_path / SITE_PACKAGES
    shutil.copytree(wheel, site)
    # git takes the patch's paths from here, and not from a repository around the folder
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    subprocess.run(["git", "apply", PATCH], cwd=site, check=True, env=alone)
    assert strict_calls(site) == 0
    prefix.undo_patch(tmp_path)
    init = "numpy/__init__.py"
    assert (site / init).read_bytes() == (wheel / init).read_bytes()
    assert strict_calls(site) == 1


@pytest.mark.matrix
@pytest.mark.parametrize(
    "wanted",
    variant.select(["all"], ["all"], variant.DEFAULT_FLAVOURS, "linux-64"),
    ids=lambda wanted: str(wanted).replace(" ", "-"),
)
def test_the_repro_is_red_on_the_control_of_each_built_package(wanted):
    code, row = asked(wanted.version, wanted.python, wanted.flavour)
    assert row["fault"] == ""
    if not row["sha256"]:
        pytest.skip(f"not built: {wanted.filename}")
    assert (code, row["control"]) == (0, EXPECTED[wanted.blas])
