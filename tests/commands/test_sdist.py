"""The source archive: found by rattler-build where upstream cannot be reached."""

import contextlib
import dataclasses
import hashlib
import http.server
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from numpy_feedstock import child, paths
from numpy_feedstock.building import builder, sdist
from numpy_feedstock.errors import FeedstockError
from numpy_feedstock.packages import patch

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
    (tmp_path / "numpy-0.0.1" / "numpy" / "__init__.py").write_bytes(patch.hunk().before)
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


# --- the download


@dataclasses.dataclass
class Index:
    """A server of upstream's releases and of a package index.

    upstream, page, file : how each is answered: "whole", "half", "nothing" or "not found"
    content : of the archive
    """

    upstream: str
    page: str
    file: str
    content: bytes


class Answers(http.server.BaseHTTPRequestHandler):
    index: Index

    def do_GET(self):
        if self.path.startswith("/releases/"):
            self.answer(self.index.upstream, self.index.content, "application/gzip")
        elif self.path.startswith("/simple/"):
            page = b"<a href='/t/s3cret/files/numpy-0.0.1.tar.gz'>numpy-0.0.1.tar.gz</a>"
            self.answer(self.index.page, page, "text/html")
        else:
            self.answer(self.index.file, self.index.content, "application/gzip")

    def answer(self, how, content, kind):
        if how == "nothing":
            self.close_connection = True
            return
        self.send_response(404 if how == "not found" else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if how == "half":
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(index, monkeypatch):
    """Run a server, and make it upstream's and pip's only index. Its URLs hold secrets."""
    handler = type("Handler", (Answers,), {"index": index})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:s3cret@{host}/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        yield f"http://{host}/releases/numpy-0.0.1.tar.gz"
        server.shutdown()


def taken_away(kept):
    """The content of an archive that has to be downloaded again, and its sha256."""
    content = kept.read_bytes()
    kept.unlink()
    return content, hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("upstream", ["whole", "half", "nothing", "not found"])
def test_what_upstream_does_not_send_whole_comes_from_the_index(kept, monkeypatch, upstream):
    content, sha256 = taken_away(kept)
    lines = []
    with serving(Index(upstream, "whole", "whole", content), monkeypatch) as url:
        assert sdist.provide(url, "0.0.1", sha256, lines.append) == kept
    assert kept.read_bytes() == content
    assert ("pip's index" in lines[-1]) == (upstream != "whole")


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("whole", "half"),
        ("whole", "nothing"),
        ("whole", "not found"),
        ("half", "whole"),
        ("nothing", "whole"),
        ("not found", "whole"),
    ],
)
def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(kept, monkeypatch, page, file):
    content, sha256 = taken_away(kept)
    with serving(Index("half", page, file, content), monkeypatch) as url:
        with pytest.raises(FeedstockError, match=r"numpy 0\.0\.1 .*index") as raised:
            sdist.provide(url, "0.0.1", sha256, print)
    assert "pip config list" in str(raised.value) and "s3cret" not in str(raised.value)
    assert not list(paths.SDISTS.iterdir())


def test_several_that_download_it_at_once_keep_it_whole(kept, monkeypatch):
    kept.unlink()
    content, together = bytes(20 << 20), threading.Barrier(6)
    sha256 = hashlib.sha256(content).hexdigest()

    def download(*args):
        together.wait(300)
        return content

    monkeypatch.setattr(sdist, "_download", download)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(sdist.archive, URL, "0.0.1", sha256, print) for _ in range(6)]
    assert [call.result() for call in calls] == [kept] * 6
    assert list(paths.SDISTS.iterdir()) == [kept]


@pytest.mark.parametrize("url", ["http://HOST/t/s3cret/nothere", "http://me:s3cret@HOST/nothere"])
def test_an_index_that_refuses_is_named_and_its_secret_is_not(kept, monkeypatch, url, tmp_path):
    """In a process of its own, because pytest takes every logger's warnings off the screen."""
    content, sha256 = taken_away(kept)
    with serving(Index("not found", "whole", "not found", content), monkeypatch) as upstream:
        host = upstream.split("/")[2]
        monkeypatch.setenv("PIP_INDEX_URL", url.replace("HOST", host))
        code = (
            "import pathlib, sys\n"
            "from numpy_feedstock import paths\n"
            "from numpy_feedstock.building import sdist\n"
            f"paths.SDISTS = pathlib.Path({str(tmp_path / 'sdists')!r})\n"
            f"try: sdist.archive({upstream!r}, '0.0.1', {sha256!r}, print)\n"
            "except Exception as error: print(error, file=sys.stderr)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "s3cret" not in done.stdout + done.stderr
    assert "has no source archive in the index that pip is configured for\n  found:" in done.stderr
    assert "Failed to collect links from http://" in done.stderr and "404" in done.stderr


def test_a_configuration_of_pip_that_cannot_be_read_is_named(kept, monkeypatch, tmp_path):
    content, sha256 = taken_away(kept)
    broken = tmp_path / "pip.conf"
    broken.write_text("index-url without a section")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(broken))
    with pytest.raises(FeedstockError, match="pip's configuration cannot be read") as raised:
        sdist.provide(URL, "0.0.1", sha256, print)
    assert str(broken) in str(raised.value)


def test_a_patch_of_a_file_that_the_release_lacks_is_refused(kept, tmp_path):
    (tmp_path / "numpy-0.0.1" / "numpy" / "__init__.py").unlink()
    with tarfile.open(kept, "w:gz") as tar:
        tar.add(tmp_path / "numpy-0.0.1", "numpy-0.0.1")
    with pytest.raises(FeedstockError, match=r"numpy/__init__\.py: No such file"):
        sdist.check_patches(kept)
