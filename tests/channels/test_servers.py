"""The servers that the tests of publishing run on."""

import subprocess
import sys
import time

import httpx2
import pytest

from helpers import servers


def get(url, **options):
    return httpx2.get(url, trust_env=False, **options)


def put(url, **options):
    return httpx2.put(url, content=b"bytes", trust_env=False, **options)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_nginx_asks_who_reads_and_who_writes(nginx):
    (nginx.folder / "open" / "file").write_bytes(b"bytes")
    (nginx.folder / "private" / "file").write_bytes(b"bytes")
    assert get(f"{nginx.url}/open/file").content == b"bytes"
    assert get(f"{nginx.url}/private/file").status_code == 401
    assert get(f"{nginx.url}/private/file", auth=(nginx.user, nginx.password)).content == b"bytes"
    assert put(f"{nginx.url}/open/file").status_code == 405
    assert put(f"{nginx.url}/put/a/b").status_code == 401
    assert put(f"{nginx.url}/put/a/b", auth=(nginx.reader, nginx.password)).status_code == 403
    assert put(f"{nginx.url}/put/a/b", auth=(nginx.user, nginx.password)).status_code == 201
    assert put(f"{nginx.url}/put/a/b", headers=bearer(nginx.token)).status_code == 204
    assert get(f"{nginx.url}/put/a/b").content == b"bytes"


def test_a_server_that_does_not_start_fails_with_its_log(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(
        RuntimeError, match="broken ended with 1 instead of starting; its log:\nno such thing"
    ):
        with servers.running("broken", command, tmp_path, lambda: False):
            pass
    assert tmp_path / "broken.log" not in servers.LOGS


def test_nothing_of_a_server_is_left(tmp_path):
    # that of another run of the tests has another number
    sleep = f"sleep 1000.{time.monotonic_ns()}"
    script = f"import subprocess; subprocess.run({sleep.split()})"
    with servers.running(
        "nested", [sys.executable, "-c", script], tmp_path, lambda: _running(sleep)
    ):
        pass
    assert not _running(sleep)


def _running(command):
    return subprocess.run(["pgrep", "-fx", command], capture_output=True).returncode == 0


def test_s3_refuses_a_second_put_and_who_may_not(s3):
    client = s3.client()
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="file", Body=b"first", IfNoneMatch="*")
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="bucket", Key="file", Body=b"second", IfNoneMatch="*")
    assert client.get_object(Bucket="bucket", Key="file")["Body"].read() == b"first"


def test_quetz_has_channels(quetz):
    quetz.make_channel("empty")
    assert get(f"{quetz.url}/get/empty/noarch/repodata.json").json()["packages.conda"] == {}
