"""The output channel: a package is in it whole, or not at all."""

import os
from pathlib import Path

import pytest

from numpy_feedstock import child
from numpy_feedstock.building import builder
from numpy_feedstock.channels import channel, channel_folder
from numpy_feedstock.errors import FeedstockError, UsageError


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A small real package with 3 MB that do not compress."""
    folder = tmp_path_factory.mktemp("made")
    recipe = {
        "package": {"name": "ballast", "version": "1"},
        "build": {"script": ["mkdir -p $PREFIX", "head -c 3000000 /dev/urandom > $PREFIX/ballast"]},
    }
    child.run(builder.build_recipe, recipe, str(folder), {}, log=folder / "log")
    (made,) = folder.glob("linux-64/*.conda")
    return made


def test_a_package_is_added_and_indexed(package, tmp_path):
    added = channel_folder.add(package, tmp_path, "linux-64")
    assert added.read_bytes() == package.read_bytes()
    assert package.name in (tmp_path / "linux-64" / "repodata.json").read_text()


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077], ids=oct)
@pytest.mark.parametrize(
    ("of_folder", "of_file"), [(0o755, 0o644), (0o2775, 0o664), (0o700, 0o600)], ids=oct
)
def test_permissions_follow_the_folder_whatever_the_umask_is(
    package, tmp_path, of_folder, of_file, umask
):
    tmp_path.chmod(of_folder)
    before = os.umask(umask)
    try:
        channel_folder.add(package, tmp_path, "linux-64")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {package.name, "repodata.json", ".lock"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(of_file)}
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {oct(path.stat().st_mode & 0o2777) for path in folders} == {oct(of_folder)}


def test_on_a_full_disk_nothing_is_half_written(package, small_disk):
    with pytest.raises(
        FeedstockError,
        match="ballast.*could not be written: No space left on device\n  remedy: free some space",
    ):
        channel_folder.add(package, small_disk, "linux-64")
    assert not [
        path for path in small_disk.rglob("*") if path.is_file() and not path.name.endswith("lock")
    ]


def test_a_folder_that_cannot_be_written():
    with pytest.raises(
        UsageError, match="cannot be written: /dev/null/x\n  found:  Not a directory\n  remedy"
    ):
        channel_folder.check_writable(Path("/dev/null/x"))


def test_a_folder_is_a_channel_and_so_is_a_name(tmp_path):
    assert channel.url(tmp_path) == tmp_path.as_uri() + "/"
    assert channel.url("conda-forge").endswith("/conda-forge/")
    assert not channel.reachable(tmp_path)
    assert not channel.reachable("http://127.0.0.1:9/nowhere")
