"""A bucket of S3, or of a server that speaks its protocol, as a target.

The address, the region and the credentials are boto3's own: variables as AWS_PROFILE,
AWS_ENDPOINT_URL and AWS_ACCESS_KEY_ID, and the files in ~/.aws.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import random
import time
import urllib.parse

import boto3
import botocore.exceptions
from rattler.index import S3Credentials, index_s3

from .. import child, paths
from ..errors import FeedstockError
from . import Taken, Target

CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE and the files in ~/.aws"
# the indexer itself tries some times before it gives way to another publisher
TRIES = 5


class S3(Target):
    """The channel in a folder of a bucket, which need not be there yet.

    A package's name is taken by a put that the server refuses where it is not free; the
    index is replaced only if it is still the one that was read. So publishers need no lock.
    """

    def __init__(self, url):
        super().__init__(url)
        parts = urllib.parse.urlsplit(url)
        self.bucket, self.folder = parts.netloc, parts.path.strip("/")
        self._seen = {}  # {(subdir, name): sha256}, what has to be in the index
        with self._explained("no use of S3"):
            session = boto3.Session()
            self._client = session.client("s3")
            self._credentials = session.get_credentials()
            self._credentials = self._credentials and self._credentials.get_frozen_credentials()

    def find(self, subdir, name):
        with self._explained(f"{self.url}/{subdir}/{name} could not be read"):
            found = self._get(subdir, name, ChecksumMode="ENABLED")
            if found is None:
                return None
            with contextlib.closing(found["Body"]) as body:
                # the server checked it when the file was put; other publishers' files may come without, or in parts
                stored = found.get("ChecksumSHA256", "-")
                sha256 = (
                    base64.b64decode(stored).hex()
                    if "-" not in stored
                    else hashlib.sha256(body.read()).hexdigest()
                )
        self._seen[subdir, name] = sha256
        return sha256

    def read(self, subdir, name):
        with self._explained(f"{self.url}/{subdir}/{name} could not be read"):
            found = self._get(subdir, name)
            return found and found["Body"].read()

    def put(self, path, subdir, name):
        data = path.read_bytes()
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        where = f"{self.url}/{subdir}/{name}"
        with self._explained(f"{where} could not be put", taken=where):
            self._client.put_object(
                Bucket=self.bucket,
                Key=self._key(subdir, name),
                Body=data,
                ChecksumSHA256=checksum,
                IfNoneMatch="*",
            )

    def index(self):
        for tries_left in reversed(range(TRIES)):
            try:
                child.run(_index, self.url, self._for_the_indexer(), log=paths.LOGS / "index.log")
                missing = self._missing()
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

    def _key(self, *names):
        return "/".join([self.folder, *names] if self.folder else names)

    def _get(self, subdir, name, **options):
        try:
            return self._client.get_object(
                Bucket=self.bucket, Key=self._key(subdir, name), **options
            )
        except self._client.exceptions.NoSuchKey:
            return None

    def _missing(self):
        """The packages that are there and are not in the index as what they are."""
        indexes = {
            subdir: json.loads(self.read(subdir, "repodata.json") or "{}")
            for subdir, _ in self._seen
        }
        return [
            name
            for (subdir, name), sha256 in self._seen.items()
            if indexes[subdir].get("packages.conda", {}).get(name, {}).get("sha256") != sha256
        ]

    def _for_the_indexer(self):
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
    def _explained(self, what, taken=None):
        """What boto3 raises, as a FeedstockError; Taken when the name is and ``taken`` says which."""
        try:
            yield
        except botocore.exceptions.ClientError as error:
            code, status = (
                error.response["Error"]["Code"],
                error.response["ResponseMetadata"]["HTTPStatusCode"],
            )
            if taken and status in (409, 412):
                raise Taken(
                    f"the name was taken meanwhile: {taken}",
                    remedy="run the same command again: it compares the bytes",
                ) from None
            if code == "NoSuchBucket":
                remedy = "make it, or correct the URL"
            elif code == "AccessDenied":
                remedy = f"may these credentials read and write there? They come from {CREDENTIALS}"
            elif status in (401, 403):
                remedy = f"the credentials are wrong; they come from {CREDENTIALS}"
            else:
                remedy = "run the same command again"
            raise FeedstockError(what, found=f"HTTP {status}, {code}", remedy=remedy) from None
        except (
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.PartialCredentialsError,
        ) as error:
            raise FeedstockError(
                what, found=error, remedy=f"credentials are taken from {CREDENTIALS}"
            ) from None
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            # ValueError: an endpoint that is no URL
            remedy = "are AWS_ENDPOINT_URL, AWS_PROFILE and the region right, and can the server be reached?"
            raise FeedstockError(what, found=error, remedy=remedy) from None


def _index(url, credentials, say):
    asyncio.run(index_s3(url, credentials))
