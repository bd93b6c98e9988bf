"""A compiler cache that machines share, on a real server."""

import contextlib
import re
import shutil
import time
import uuid
from urllib.parse import urlsplit

import pytest

from helpers import servers
from helpers.compiling import calls, compile_once, compile_source, prepare
from numpy_feedstock.building import compiler_cache

SAID = ["shared compiler cache: s3 (SCCACHE_BUCKET)"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def bucket(s3, monkeypatch):
    """An empty bucket, which the environment names as an operator's does."""
    return name_bucket(s3, monkeypatch)


def name_bucket(server, monkeypatch):
    bucket = f"compiled-{uuid.uuid4().hex}"
    server.client().create_bucket(Bucket=bucket)
    monkeypatch.setenv("SCCACHE_BUCKET", bucket)
    monkeypatch.setenv("SCCACHE_ENDPOINT", server.endpoint)
    monkeypatch.setenv("SCCACHE_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
    return bucket


def test_what_one_machine_compiled_another_has_from_the_shared_store(folder, bucket, s3):
    assert compile_once(folder) == ((0, 1), SAID)
    # another machine: nothing is in its own cache
    shutil.rmtree(folder / "cache")
    (folder / "builddir" / "answer.o").unlink()
    assert compile_once(folder) == ((1, 0), SAID)
    assert not any("-c" in call.split() for call in calls(folder))
    assert (folder / "builddir" / "answer.o").exists()
    # now it has it itself, and need not even preprocess
    assert compile_once(folder) == ((1, 0), SAID)
    assert calls(folder) == []
    assert s3.secret not in (folder / "logs" / "compiler-cache.log").read_text()


def test_who_may_only_read_the_store_has_hits_and_writes_nothing(folder, bucket, s3, monkeypatch):
    compile_once(folder)
    before = stored(s3, bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.reader_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.reader_secret)
    shutil.rmtree(folder / "cache")
    assert compile_once(folder)[0] == (1, 0)
    change_source(folder)
    # sccache writes nothing to its own cache either, so that there is no hit the second time
    assert [compile_once(folder)[0] for _ in range(2)] == [(0, 1), (0, 1)]
    assert stored(s3, bucket) == before


def test_a_store_that_is_stopped_in_mid_build_stops_no_build(folder, tmp_path, monkeypatch):
    said, work = [], tmp_path / "store"
    work.mkdir()
    with contextlib.ExitStack() as store:
        name_bucket(store.enter_context(servers.seaweedfs(work)), monkeypatch)
        with compiler_cache.serve(said.append) as counts:
            compile_source(folder)
            store.close()
            change_source(folder)
            compile_source(folder)
            # it writes in the background
            deadline = time.monotonic() + 300
            while said == SAID and time.monotonic() < deadline:
                assert counts() == (0, 2)
    assert re.fullmatch(
        r"the compiler cache could not write to L1 \(s3\); failures: [12]", said[len(SAID)]
    )
    # its own cache has what was compiled without the store
    monkeypatch.delenv("SCCACHE_BUCKET")
    assert compile_once(folder) == ((1, 0), [])


def test_a_store_that_falls_silent_in_mid_build_stops_no_build(folder, bucket, s3, monkeypatch):
    monkeypatch.setattr(compiler_cache, "_STORE_SECONDS", 2)
    said = []
    # sccache asks for an object of its own when it starts. What was compiled has such names
    compiled = rb"GET /compiled-\w+/\w/\w/\w/"
    with servers.relay(urlsplit(s3.endpoint).port, compiled) as relay:
        monkeypatch.setenv("SCCACHE_ENDPOINT", f"http://127.0.0.1:{relay.port}")
        with compiler_cache.serve(said.append):
            compile_source(folder)
        assert relay.held.is_set()
    assert (folder / "builddir" / "answer.o").exists()
    assert said == [
        *SAID,
        "building without the shared compiler cache, which stopped answering: s3 (SCCACHE_BUCKET)",
    ]
    # the next build of this process does not try it again
    change_source(folder)
    assert compile_once(folder) == ((0, 1), [])


def test_a_compiler_that_takes_long_is_no_silent_store(folder, bucket, monkeypatch):
    # a server that waits so long for a processor looks silent, too
    monkeypatch.setattr(compiler_cache, "_STORE_SECONDS", 5)
    slow = 'case " $* " in *" -c "*) sleep 7;; esac'
    (folder / "gcc").write_text(f'#!/bin/sh\n{slow}\nexec {shutil.which("gcc")} "$@"\n')
    assert compile_once(folder) == ((0, 1), SAID)


def change_source(folder):
    (folder / "source" / "answer.h").write_text("#define ANSWER 43\n")


def stored(s3, bucket):
    return [each["Key"] for each in s3.client().list_objects_v2(Bucket=bucket)["Contents"]]
