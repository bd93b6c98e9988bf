"""The patch on the source archives of every affected release, which come from the package index."""

import shutil
import subprocess
import tarfile
import textwrap

import pytest

from helpers.numpy_init import PATCH, patched_function
from numpy_feedstock import variant
from numpy_feedstock.building import sdist


@pytest.mark.parametrize("release", variant.known_releases())
def test_it_applies_to_every_affected_release_without_fuzz(release, tmp_path):
    archive = sdist.archive(
        "http://127.0.0.1:9/", release, variant.known_releases()[release], print
    )
    sdist.check_patches(archive)
    with tarfile.open(archive) as tar:
        before = tar.extractfile(f"numpy-{release}/numpy/__init__.py").read().decode()
    tree = tmp_path / f"numpy-{release}"
    (tree / "numpy").mkdir(parents=True)
    (tree / "numpy/__init__.py").write_text(before)
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    subprocess.run(["git", "apply", "--check", PATCH], cwd=tree, check=True)
    if shutil.which("patch"):
        subprocess.run(["patch", "-p1", "--fuzz=0", "-i", PATCH], cwd=tree, check=True)
    else:
        subprocess.run(["git", "apply", PATCH], cwd=tree, check=True)
    after = (tree / "numpy/__init__.py").read_text()
    assert textwrap.indent(patched_function(), "    ").strip() in after
    assert before.count("blas_fpe_check()") == after.count("blas_fpe_check()") == 2
    compile(after, "numpy/__init__.py", "exec")
