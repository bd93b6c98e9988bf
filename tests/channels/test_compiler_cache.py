"""A compiler cache that machines share, on a real server."""

import shutil
import uuid

import pytest

from helpers.compiling import calls, compile_once, prepare


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def bucket(s3, monkeypatch):
    """An empty bucket, which the environment names as an operator's does."""
    bucket = f"compiled-{uuid.uuid4().hex}"
    s3.client().create_bucket(Bucket=bucket)
    monkeypatch.setenv("SCCACHE_BUCKET", bucket)
    monkeypatch.setenv("SCCACHE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("SCCACHE_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    return bucket


def test_what_one_machine_compiled_another_has_from_the_shared_store(folder, bucket, s3):
    said = ["shared compiler cache: s3 (SCCACHE_BUCKET)"]
    assert compile_once(folder) == ((0, 1), said)
    # another machine: nothing is in its own cache
    shutil.rmtree(folder / "cache")
    (folder / "builddir" / "answer.o").unlink()
    assert compile_once(folder) == ((1, 0), said)
    assert not any("-c" in call.split() for call in calls(folder))
    assert (folder / "builddir" / "answer.o").exists()
    # now it has it itself, and need not even preprocess
    assert compile_once(folder) == ((1, 0), said)
    assert calls(folder) == []
    assert s3.secret not in (folder / "logs" / "compiler-cache.log").read_text()


def test_who_may_only_read_the_store_has_hits_and_writes_nothing(folder, bucket, s3, monkeypatch):
    compile_once(folder)
    before = stored(s3, bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.reader_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.reader_secret)
    shutil.rmtree(folder / "cache")
    assert compile_once(folder)[0] == (1, 0)
    (folder / "source" / "answer.h").write_text("#define ANSWER 43\n")
    assert compile_once(folder)[0] == (0, 1)
    assert stored(s3, bucket) == before


def stored(s3, bucket):
    return [each["Key"] for each in s3.client().list_objects_v2(Bucket=bucket)["Contents"]]
