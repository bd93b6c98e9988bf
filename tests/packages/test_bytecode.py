"""Python uses the bytecode of an installed package as it is, whatever tool installed it."""

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import rattler

from helpers import installed
from helpers.shipped import PYTHON, RELEASE
from numpy_feedstock.channels import prefix
from numpy_feedstock.packages import bytecode

pytestmark = pytest.mark.packages

LINKS = {
    # the default: a reflink where the file system has them, else a hard link
    "link": "",
    "copy": "allow-hard-links = false\nallow-ref-links = false",
}
TAG = f"cpython-{PYTHON.replace('.', '')}"
# the one module that each installation changes
CHANGED = "__config__.py"


@pytest.fixture(scope="module", params=[*LINKS, "copy without dates"])
def environment(request, channels, tmp_path_factory):
    """An environment with the OpenBLAS package, by the way that its files came there."""
    specs = [f"numpy={RELEASE}=openblas*", f"python={PYTHON}"]
    records = prefix.solve(channels, specs)
    folder = tmp_path_factory.mktemp("bytecode")
    link = LINKS.get(request.param, "")
    config = rattler.Config.from_toml(link)
    install = rattler.install(
        records, folder / "installed", folder / "cache", config=config, show_progress=False
    )
    asyncio.run(install)
    if request.param in LINKS:
        is_linked = installed.source_of(folder / "installed").stat().st_nlink > 1
        assert is_linked == (request.param == "link")
        return folder / "installed"
    # as mamba copies, and `cp -r`
    return Path(
        shutil.copytree(
            folder / "installed", folder / "copied", symlinks=True, copy_function=shutil.copy
        )
    )


def test_all_of_it_is_of_the_source_beside_it_by_a_checked_hash(environment):
    numpy = installed.source_of(environment).parent
    seen, others = 0, []
    for source in sorted(numpy.rglob("*.py")):
        file = source.parent / "__pycache__" / f"{source.stem}.{TAG}.pyc"
        if not file.exists():
            others.append(source.name)
            continue
        header = bytecode.header_of(file.read_bytes())
        assert header.kind == bytecode.CHECKED_HASH and header.is_of(source.read_bytes()), file
        seen += 1
    assert seen > 400 and others == [CHANGED]


def test_no_module_of_an_import_is_compiled(environment):
    """Neither numpy's nor Python's own."""
    command = [environment / "bin/python", "-B", "-v", "-c", "import numpy"]
    done = subprocess.run(
        command, env=prefix.activated(environment), capture_output=True, text=True
    )
    assert done.returncode == 0
    assert len(re.findall(r"# code object from '.*/numpy/.*\.pyc'", done.stderr)) > 70
    compiled = re.findall(r"# code object from '?(.*\.py)'?$", done.stderr, re.M)
    assert [os.path.basename(path) for path in compiled] == [CHANGED]


def test_an_edit_of_the_text_is_seen_even_if_date_and_size_stay(environment):
    """The patched text is what this package is for."""
    source = installed.source_of(environment).parent / "version.py"
    text, times = source.read_bytes(), source.stat()
    edited = text.replace(RELEASE.encode(), b"9.9.9")
    assert len(edited) == len(text) and edited != text
    source.unlink()
    source.write_bytes(edited)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        assert installed.import_numpy(environment) == "9.9.9"
    finally:
        source.unlink()
        source.write_bytes(text)
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
