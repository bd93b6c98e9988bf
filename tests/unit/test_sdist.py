"""The source archive: found by rattler-build where upstream cannot be reached."""

import hashlib
import tarfile

import pytest

from numpy_feedstock import child, paths
from numpy_feedstock.building import builder, sdist
from numpy_feedstock.errors import FeedstockError

# nothing listens there: a download would fail
URL = "http://127.0.0.1:9/releases/numpy-0.0.1.tar.gz"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A small source archive, as if it came from the package index before."""
    monkeypatch.setattr(paths, "SDISTS", tmp_path / "sdists")
    (tmp_path / "sdists").mkdir()
    (tmp_path / "numpy-0.0.1").mkdir()
    (tmp_path / "numpy-0.0.1" / "README").write_text("the source")
    (tmp_path / "numpy-0.0.1" / "numpy").mkdir()
    (patch,) = (paths.RECIPE.parent / "patches").glob("*.patch")
    hunk = patch.read_text().split("\n@@", 1)[1].splitlines(keepends=True)[1:]
    before = "".join(line[1:] for line in hunk if line[0] in " -")
    (tmp_path / "numpy-0.0.1" / "numpy" / "__init__.py").write_text(before)
    archive = tmp_path / "sdists" / "numpy-0.0.1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "numpy-0.0.1", "numpy-0.0.1")
    return archive


def test_rattler_build_takes_it_from_the_environment_variable(kept, tmp_path, monkeypatch):
    sha256 = hashlib.sha256(kept.read_bytes()).hexdigest()
    channel = tmp_path / "channel"
    archive = sdist.provide(URL, "0.0.1", sha256, print)
    monkeypatch.setenv(sdist.VARIABLE, archive.as_uri())
    recipe = {
        "package": {"name": "takes-source", "version": "1"},
        "source": [
            {"url": f'${{{{ env.get("{sdist.VARIABLE}", default="{URL}") }}}}', "sha256": sha256}
        ],
        "build": {"script": ["cp README $PREFIX/README"]},
    }
    child.run(builder.build_recipe, recipe, str(channel), {}, log=tmp_path / "log")
    assert len(list(channel.glob("*/takes-source-1-*.conda"))) == 1


def test_other_bytes_are_refused(kept):
    with pytest.raises(
        FeedstockError,
        match="wrong sha256 of .*numpy-0.0.1.tar.gz\n  expected: 00+ .*\n  found:    [0-9a-f]{64}",
    ):
        sdist.provide(URL, "0.0.1", 64 * "0", print)


def test_a_patch_that_is_merely_similar_is_refused(kept, tmp_path):
    init = tmp_path / "numpy-0.0.1" / "numpy" / "__init__.py"
    init.write_text(init.read_text().replace("errstate(all='raise')", "errstate(all='ignore')"))
    with tarfile.open(kept, "w:gz") as tar:
        tar.add(tmp_path / "numpy-0.0.1", "numpy-0.0.1")
    with pytest.raises(
        FeedstockError,
        match=r"does not apply to numpy-0.0.1.tar.gz: 0001-.*\.patch\n"
        r"  hunk:   numpy/__init__.py:874",
    ):
        sdist.check_patches(kept)
