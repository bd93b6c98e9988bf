"""Prefixes that could not be installed: nothing writes into them any more."""

import functools
import http.server
import threading
import time

import pytest

from helpers import repack, small
from numpy_feedstock import paths
from numpy_feedstock.channels import prefix
from numpy_feedstock.errors import FeedstockError


class LostPackage(http.server.SimpleHTTPRequestHandler):
    """A channel that answers "not found" when files of another package are being linked."""

    def __init__(self, *args, prefix, **options):
        self.prefix = prefix
        super().__init__(*args, **options)

    def do_GET(self):
        deadline = time.monotonic() + 300
        while "gone-" in self.path and not (self.prefix / "share").exists():
            assert time.monotonic() < deadline, "nothing was linked"
            time.sleep(0.001)
        super().do_GET()

    def log_message(self, *args):
        pass


def write_channel(folder):
    """Write a channel with a package of 1,000 files, and with one that is only in its index."""
    made = small.make(folder, 1, name="large", version="1", build="0")
    unpacked = made.with_suffix("")
    for number in range(1_000):
        repack.replace(unpacked / f"share/{number % 50}/{number}", str(number))
    repack.settle(unpacked)
    subdir = folder / "channel/linux-64"
    subdir.mkdir(parents=True)
    repack.pack(unpacked, subdir / made.name)
    entry = {"version": "1", "build": "0", "build_number": 0, "depends": []}
    entries = {f"{name}-1-0.conda": {**entry, "name": name} for name in ("large", "gone")}
    small.add_to_index(subdir, entries)


@pytest.fixture
def url(tmp_path, monkeypatch):
    """The URL of the channel, for an installation into the folder "prefix"."""
    monkeypatch.setattr(paths, "PACKAGE_CACHE", tmp_path / "cache")
    write_channel(tmp_path)
    handler = functools.partial(
        LostPackage, directory=str(tmp_path / "channel"), prefix=tmp_path / "prefix"
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_failed_installation_writes_nothing_later(url, tmp_path):
    # fills the package cache, so that there is something to link at once
    prefix.install([url], ["large"], tmp_path / "whole")
    made = tmp_path / "prefix"
    with pytest.raises(FeedstockError, match=r"failed to fetch gone-1-0\.conda"):
        prefix.install([url], ["large", "gone"], made)
    seen = sorted(made.rglob("*"))
    time.sleep(0.5)
    assert sorted(made.rglob("*")) == seen
