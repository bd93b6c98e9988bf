"""A bucket of S3, or of a server that speaks its protocol, as a target.

The address, the region and the credentials are boto3's own: variables as AWS_PROFILE,
AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, and the files in ~/.aws.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import random
import re
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import boto3
import botocore.exceptions
from rattler.index import S3Credentials, index_s3

from ... import child, http_client, paths, redact
from ...channels import channel_folder, repodata
from ...errors import FeedstockError, UsageError
from ...progress import Say
from . import Taken, Target, TargetUrl, Wanted, check_bytes, credentials, no_such_kind

CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and the files in ~/.aws"
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# a private authority's certificates, for boto3 and for the indexer
CA_VARIABLE = "SSL_CERT_FILE"
# the indexer itself tries several times before another publisher wins
TRIES = 5
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


class S3(Target):
    """The channel in a folder of a bucket, which need not be there yet.

    The server refuses a put when the name is not free. The index is replaced only if it is
    still the one that was read. So publishers need no lock.
    """

    lists_files = True

    def __init__(self, url: str, bucket: str, folder: str) -> None:
        super().__init__(url)
        self.bucket, self.folder = bucket, folder
        check_variables()
        with self._explained("S3 cannot be used"):
            session = boto3.Session()
            bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get(CA_VARIABLE) or None
            self._client = session.client("s3", verify=bundle)
            found = session.get_credentials()
            self._credentials = found and found.get_frozen_credentials()

    @classmethod
    def from_url(cls, url: TargetUrl) -> Self:
        if not _BUCKET.fullmatch(url.host):
            raise no_such_kind(url.text)
        return cls(url.text, url.host, url.path)

    def close(self) -> None:
        self._client.close()

    def find(self, subdir: str, name: str) -> str | None:
        with self._explained(f"{self.url}/{subdir}/{name} could not be read"):
            found = self._head(subdir, name)
            if found is None:
                return None
            # The server checked it when the file was put. Files of other publishers may come
            # without one, or with one of parts.
            stored = found.get("ChecksumSHA256", "-")
            if "-" not in stored:
                return base64.b64decode(stored).hex()
            return hashlib.sha256(self._get(subdir, name) or b"").hexdigest()

    def identity(self, subdir: str, name: str) -> str | None:
        with self._explained(f"{self.url}/{subdir}/{name} could not be read"):
            found = self._head(subdir, name)
        if not found or not found["ETag"]:
            return None
        return f"{found['ETag']} {found['ContentLength']}"

    def read(self, subdir: str, name: str) -> bytes | None:
        with self._explained(f"{self.url}/{subdir}/{name} could not be read"):
            return self._get(subdir, name)

    def names(self, subdir: str) -> list[str]:
        prefix = self._key(subdir, "")
        with self._explained(f"{self.url}/{subdir} could not be listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            return [
                each["Key"].removeprefix(prefix)
                for page in pages
                for each in page.get("Contents", [])
            ]

    def put(self, path: Path, subdir: str, name: str, sha256: str) -> None:
        data = path.read_bytes()
        digest = hashlib.sha256(data)
        check_bytes(path, data, digest.hexdigest(), sha256)
        where = f"{self.url}/{subdir}/{name}"
        with self._explained(f"{where} could not be put", taken=where):
            self._client.put_object(
                Bucket=self.bucket,
                Key=self._key(subdir, name),
                Body=data,
                ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
                IfNoneMatch="*",
            )

    def index(self, wanted: Wanted, say: Say, force: bool = False) -> None:
        failure: object = ""
        for tries_left in reversed(range(TRIES)):
            try:
                log = paths.LOGS / "index.log"
                child.run(_index, self.url, self._for_the_indexer(), force, log=log)
                missing = self._missing(wanted)
                if not missing:
                    return
                failure = f"not in the index: {', '.join(missing)}"
            except FeedstockError as error:
                failure = error
            if tries_left:
                # publishers that failed at the same moment do not meet again at the next
                time.sleep(random.uniform(0, 4))
        raise FeedstockError(
            f"the packages are in {self.url}, but could not be indexed",
            found=failure,
            remedy="run the same command again: it indexes what is there",
        )

    def remove_old_indexes(self, subdirs: Iterable[str], say: Say) -> None:
        for subdir in subdirs:
            for name in channel_folder.OLD_INDEXES:
                with self._explained(f"{self.url}/{subdir}/{name} could not be removed"):
                    if self._head(subdir, name) is None:
                        continue
                    self._client.delete_object(Bucket=self.bucket, Key=self._key(subdir, name))
                say(
                    f"removed {self.url}/{subdir}/{name}: "
                    "it was older than the index, and conda reads it first"
                )

    def _key(self, *names: str) -> str:
        return "/".join([self.folder, *names] if self.folder else names)

    def _head(self, subdir: str, name: str) -> dict[str, Any] | None:
        try:
            return dict(
                self._client.head_object(
                    Bucket=self.bucket, Key=self._key(subdir, name), ChecksumMode="ENABLED"
                )
            )
        except self._client.exceptions.ClientError:
            # An answer to HEAD has no text: GET tells a missing file from a missing bucket, and
            # wrong credentials from missing rights.
            content = self._get(subdir, name)
        return None if content is None else {"ETag": "", "ContentLength": len(content)}

    def _get(self, subdir: str, name: str) -> bytes | None:
        try:
            found = self._client.get_object(Bucket=self.bucket, Key=self._key(subdir, name))
        except self._client.exceptions.NoSuchKey:
            return None
        with contextlib.closing(found["Body"]) as body:
            return bytes(body.read())

    def _missing(self, wanted: Wanted) -> list[str]:
        """Return the packages that the index does not list with their sha256."""
        indexes = {}
        for subdir in sorted({subdir for subdir, _ in wanted}):
            data = self.read(subdir, repodata.JSON) or b"{}"
            indexes[subdir] = repodata.parse(data, f"{self.url}/{subdir}/{repodata.JSON}")
        return [
            name
            for (subdir, name), sha256 in wanted.items()
            if indexes[subdir].get(name, {}).get("sha256") != sha256
        ]

    def _for_the_indexer(self) -> S3Credentials:
        endpoint = self._client.meta.endpoint_url
        asked = (self._client.meta.config.s3 or {}).get("addressing_style")
        virtual = asked == "virtual" or asked != "path" and ".amazonaws." in endpoint
        region = self._client.meta.region_name
        return S3Credentials(
            endpoint,
            "us-east-1" if region in (None, "aws-global") else region,
            self._credentials.access_key,
            self._credentials.secret_key,
            self._credentials.token,
            "virtual-host" if virtual else "path",
        )

    @contextlib.contextmanager
    def _explained(self, what: str, taken: str = "") -> Iterator[None]:
        """Raise what boto3 raises as a FeedstockError; Taken when the name ``taken`` is."""
        try:
            yield
        except botocore.exceptions.ClientError as error:
            raise _explain_answer(error, what, taken) from None
        except (
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.PartialCredentialsError,
        ) as error:
            raise FeedstockError(
                what, found=error, remedy=f"credentials are taken from {CREDENTIALS}"
            ) from None
        except (botocore.exceptions.BotoCoreError, ValueError, OSError) as error:
            # ValueError: an endpoint that is no URL; OSError: a file of certificates
            raise FeedstockError(
                what,
                found=redact.urls_in(" ".join(str(error).split())),
                remedy="are AWS_ENDPOINT_URL, AWS_PROFILE and the region right, can the server "
                f"be reached, and does {CA_VARIABLE} name its authority if it has its own?",
            ) from None


def _explain_answer(
    error: botocore.exceptions.ClientError, what: str, taken: str
) -> FeedstockError:
    code = error.response["Error"]["Code"]
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if taken and status in (409, 412):
        return Taken(
            f"the name was taken meanwhile: {taken}",
            remedy="run the same command again: it compares the bytes",
        )
    remedy = "run the same command again"
    if code == "NoSuchBucket":
        remedy = "make it, or correct the URL"
    elif code == "AccessDenied":
        remedy = f"may these credentials read and write there? They come from {CREDENTIALS}"
    elif status in (401, 403):
        remedy = f"the credentials are wrong; they come from {CREDENTIALS}"
    return FeedstockError(what, found=f"HTTP {status}, {code}", remedy=remedy)


def check_variables() -> None:
    """Raise UsageError for a variable of S3 that cannot be used. Its value is not shown."""
    http_client.check_proxies()
    for name in SECRET_VARIABLES:
        credentials.variable(name)
    for name in ENDPOINT_VARIABLES:
        value = os.environ.get(name)
        if value and not _is_endpoint(value):
            raise UsageError(
                f"{name} does not name a server",
                expected="http://HOST:PORT or https://HOST, without a user and a password",
                remedy=f"correct it; credentials are taken from {CREDENTIALS}",
            )


def _is_endpoint(value: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(value)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        return False
    is_clean = value.isprintable() and "@" not in value and " " not in value
    return is_clean and port_is_good and parts.scheme in ("http", "https") and bool(parts.hostname)


def _index(url: str, found: S3Credentials, force: bool, say: Say) -> None:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle:
        os.environ[CA_VARIABLE] = bundle
    asyncio.run(index_s3(url, found, force=force))
