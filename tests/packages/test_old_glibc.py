"""The packages on an older glibc, and those that only say that they run there."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from rattler.package_streaming import extract

from helpers.command import feedstock
from helpers.shipped import FLAVOURS, PYTHON
from numpy_feedstock.channels import prefix
from numpy_feedstock.errors import UsageError
from numpy_feedstock.measuring import rootfs
from numpy_feedstock.packages.record import RECORD, beside
from numpy_feedstock.progress import Progress

pytestmark = pytest.mark.packages
CHECKS = ["glibc", "import", "matmul", "linalg", "repro", "control"]


def old_glibc(*args):
    """The verb on some packages; (exit code, {check: finding} of each package)."""
    result = feedstock("old-glibc", "--json", *args)
    print(result.stderr)
    found = {}
    for finding in json.loads(result.stdout):
        found.setdefault(finding["package"], {})[finding["check"]] = finding
    return result.returncode, list(found.values())


@pytest.fixture(scope="session")
def debian_11():
    """The root of an older glibc. It needs no packages, which another process may build now."""
    try:
        rootfs.check_can_make()
    except UsageError as error:
        pytest.skip(f"no root of an older glibc: {error}")
    with Progress() as progress:
        return rootfs.ensure(PYTHON, progress)


@pytest.mark.oldglibc
@pytest.mark.parametrize("blas", FLAVOURS)
def test_the_package_runs_on_glibc_2_31_and_its_control_is_affected(debian_11, packages, blas):
    code, (findings,) = old_glibc(packages[blas])
    assert {
        check: finding["found"] for check, finding in findings.items() if not finding["green"]
    } == {}
    assert (code, list(findings)) == (0, CHECKS)
    assert findings["import"]["found"] == "2.3.5 on glibc 2.31"


@pytest.fixture
def altered(packages, tmp_path):
    """Makes a package again after a change to its unpacked files, to be run in this machine's /."""
    try:
        rootfs.interpreter(Path("/"), PYTHON)
    except UsageError as error:
        pytest.skip(f"this machine's own root does not do: {error}")

    def alter(change):
        unpacked, target = tmp_path / "unpacked", tmp_path / f"{packages['openblas'].stem}.tar.bz2"
        extract(packages["openblas"], unpacked)
        change(unpacked)
        with tarfile.open(target, "w:bz2", compresslevel=1) as archive:
            for path in sorted(path for path in unpacked.rglob("*") if not path.is_dir()):
                archive.add(path, path.relative_to(unpacked))
        return target

    return alter


def demand_newer_glibc(unpacked):
    index = unpacked / "info" / "index.json"
    fields = json.loads(index.read_text())
    depends = [spec for spec in fields["depends"] if not spec.startswith("__glibc")]
    fields["depends"] = [*depends, "__glibc >=2.99"]
    index.write_text(json.dumps(fields))


def test_a_package_that_needs_a_newer_glibc_is_red_and_not_run(altered):
    code, (findings,) = old_glibc("--root", "/", altered(demand_newer_glibc))
    here = rootfs.glibc(Path("/"))
    assert code == 1 and list(findings) == ["glibc"]
    assert findings["glibc"]["expected"] == f"__glibc at most {here}"
    assert findings["glibc"]["found"] == f"needs __glibc >=2.99, the rootfs has {here}"


def test_a_package_that_only_says_it_runs_there_is_found_out(altered, tmp_path):
    def build(source, target, *options):
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-o",
            target,
            "-x",
            "c",
            "-",
            "-x",
            "none",
            *options,
        ]
        subprocess.run(command, input=source, text=True, check=True)

    def relink(unpacked):
        """The extension asks libc for a symbol version that no libc has yet."""
        (extension,) = unpacked.glob(
            "lib/python3.*/site-packages/numpy/_core/_multiarray_umath.*.so"
        )
        extension.unlink()
        libc, versions = tmp_path / "libc.so.6", tmp_path / "versions"
        versions.write_text("GLIBC_2.99 { newer; };")
        build(
            "void newer(void) {}", libc, "-Wl,-soname,libc.so.6", f"-Wl,--version-script={versions}"
        )
        build("void newer(void); void PyInit__multiarray_umath(void) { newer(); }", extension, libc)

    code, (findings,) = old_glibc("--root", "/", altered(relink))
    assert code == 1 and list(findings) == ["glibc", "import"]
    assert findings["glibc"]["green"] and "`GLIBC_2.99' not found" in findings["import"]["found"]


def test_a_package_without_the_patch_is_red_and_no_control_for_anything(altered):
    code, (findings,) = old_glibc("--root", "/", altered(prefix.undo_patch))
    assert code == 1 and list(findings) == CHECKS[:-1]
    assert [check for check, finding in findings.items() if not finding["green"]] == ["repro"]
    assert findings["repro"]["found"] == "LATENT: calls failed"


def test_an_error_on_the_way_is_a_finding_and_stops_no_other_package(altered, packages, tmp_path):
    """The first package was built from a channel that is gone."""
    first = tmp_path / "channel" / "linux-64" / packages["openblas"].name
    first.parent.mkdir(parents=True)
    shutil.copy(packages["openblas"], first)
    fields = json.loads(beside(packages["openblas"], RECORD).read_text())
    fields["channels"] = ["http://127.0.0.1:9/gone"]
    beside(first, RECORD).write_text(json.dumps(fields))
    code, found = old_glibc("--root", "/", first, altered(demand_newer_glibc))
    assert (code, list(map(list, found))) == (1, [["glibc", "installation"], ["glibc"]])
    assert not found[0]["installation"]["green"]
    assert "does not answer: http://127.0.0.1:9/gone" in found[0]["installation"]["found"]
