"""The build verb on real builds: done twice, gone wrong, interrupted."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers import shipped
from helpers.command import feedstock, start
from helpers.shipped import OUTPUT, PYTHON
from numpy_feedstock import paths
from numpy_feedstock.packages.record import read_record

pytestmark = [pytest.mark.packages, pytest.mark.usefixtures("build_folder")]


def test_built_again_with_nothing_changed_nothing_is_built(packages):
    before = {path: path.stat().st_mtime_ns for path in packages.values()}
    result = feedstock("build", "--json", check=True)
    assert [row["built"] for row in json.loads(result.stdout)] == [False, False]
    assert "nothing changed" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_package_whose_bytes_changed_is_not_trusted(packages, tmp_path):
    copy = tmp_path / packages["mkl"].name
    shutil.copy(packages["mkl"], copy)
    record = packages["mkl"].with_name(packages["mkl"].name.removesuffix(".conda") + ".tests.json")
    shutil.copy(record, tmp_path)
    assert read_record(copy) is not None
    with copy.open("ab") as stream:
        stream.write(b"x")
    assert read_record(copy) is None


@pytest.fixture
def checkout(channels, tmp_path):
    """A copy of the tree that shares build/ with this one and may be broken.

    What runs in it uses the bootstrap channel in build/ as it is.
    """
    bootstrap = Path(channels[1].removeprefix("file://"))
    before = bootstrap.stat().st_ino
    tree = tmp_path / "tree"
    shipped.copy_tree(tree)
    yield tree
    assert bootstrap.stat().st_ino == before, "the bootstrap channel was made again"


def run(tree, *args, **options):
    build = ("build", "--channel", "bootstrap", "--blas", "openblas")
    return start(*build, *args, root=tree, cwd=tree, **options)


def test_a_patch_that_does_not_apply_is_named_with_its_hunk(checkout):
    (patch,) = (checkout / "recipe/patches").glob("*.patch")
    patch.write_text(
        patch.read_text().replace(
            "-        with errstate(all='raise'):", "-        with errstate(all='ignore'):"
        )
    )
    process = run(checkout)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert patch.name in errors and "hunk" in errors.lower()
    assert not list((checkout / "output").rglob("*.conda"))


def test_a_wrong_sha256_is_named_with_what_was_found(checkout):
    config = checkout / "conda_build_config.yaml"
    config.write_text(config.read_text().replace("784db1dc", "00000000"))
    process = run(checkout)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert (
        "numpy-2.3.5.tar.gz" in errors
        and "expected: 00000000" in errors
        and "found:    784db1dc" in errors
    )


def test_a_package_that_fails_does_not_stop_the_next_one(checkout):
    config = checkout / "conda_build_config.yaml"
    text = config.read_text().replace("784db1dc", "00000000").replace("2d390634", "00000000")
    config.write_text(text)
    process = run(checkout, "--numpy", "2.4.4", "--numpy", "2.3.5", "--json")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    rows = json.loads(output)
    assert [(row["state"], row["sha256"]) for row in rows] == [("failed", None)] * 2
    # the older release comes first, however they were named
    for number, release in enumerate(("2.3.5", "2.4.4"), 1):
        name = f"numpy {release} python {PYTHON} openblas"
        assert f"{number} of 2: {name}: FAILED: wrong sha256" in errors
        assert f"  {name}: wrong sha256" in errors.split("packages failed: 2 of 2")[1]
        assert f"numpy-{release}.tar.gz" in rows[number - 1]["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle_it_leaves_nothing_behind(checkout, number):
    script = checkout / "recipe/build.sh"
    script.write_text(script.read_text() + "# changed, so that it is built again\n")
    process = run(checkout, "--json")
    while "building; log" not in (line := process.stderr.readline()):
        assert line, "it ended before it built anything"
    while not building():  # its environments are made first
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "interrupted" in errors
    assert [(row["state"], row["sha256"]) for row in json.loads(output)] == [("not finished", None)]
    assert not list((checkout / "output").rglob("*.conda"))
    assert not building()


def building():
    """The processes that run in the build folder, one on a line."""
    command = ["pgrep", "-a", "-f", str(paths.WORK / "bld")]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_the_output_channel_holds_whole_files_only(packages):
    assert not list(OUTPUT.rglob("*.partial"))
    index = json.loads((OUTPUT / "linux-64" / "repodata.json").read_text())
    assert {path.name for path in packages.values()} <= set(index["packages.conda"])
