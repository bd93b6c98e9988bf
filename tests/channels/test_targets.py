"""Publish to real servers.

nginx takes PUT as Artifactory does. SeaweedFS speaks S3. Quetz is itself.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable

import httpx2
import pytest
import rattler
from rattler.exceptions import GatewayError

from helpers import servers, small
from helpers.command import feedstock
from helpers.loopback import closed_port
from helpers.shipped import PYTHON, RELEASE
from numpy_feedstock import files, paths
from numpy_feedstock.channels import channel_folder, prefix
from numpy_feedstock.errors import FeedstockError, UsageError
from numpy_feedstock.packages.specs import exactly
from numpy_feedstock.publishing import provenance
from numpy_feedstock.publishing.targets import Taken, open_target, opened

UNTESTED = "--allow-untested"
# where credentials are taken from
VARIABLES = ("AWS_", "ARTIFACTORY_", "QUETZ_", "PREFIX_", "ANACONDA_", "RATTLER_AUTH_FILE")


@dataclasses.dataclass(frozen=True)
class Place:
    """An empty channel on a server of one kind, and the variables that open it."""

    url: str  # as --to takes it
    channel: str  # URL that it is read from
    publisher: dict  # variables with the credentials of who may publish
    reader: dict  # of who may not
    stranger: dict  # of whom the server does not know
    kept: Callable = None  # its bytes under a subdir and a name, past all of its doors; None
    index: Callable = lambda: (
        None
    )  # what a server of this kind does by itself, and this one does not


@pytest.fixture(autouse=True)
def no_credentials(tmp_path, monkeypatch):
    """The user's are neither used nor shown."""
    for name in os.environ:
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # boto3 would ask the network who it is
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def _on_nginx(name, request):
    server = request.getfixturevalue("nginx")
    folder = server.folder / "put" / name
    return Place(
        f"{server.url}/put/{name}".replace("http", "artifactory+http"),
        f"{server.url}/put/{name}",
        {"ARTIFACTORY_TOKEN": server.token},
        {"ARTIFACTORY_USERNAME": server.reader, "ARTIFACTORY_PASSWORD": server.password},
        {"ARTIFACTORY_TOKEN": "of-a-stranger"},
        lambda *names: (
            folder.joinpath(*names).read_bytes() if folder.joinpath(*names).exists() else None
        ),
        lambda: channel_folder.index(folder),
    )


def _on_s3(name, request):
    server = request.getfixturevalue("s3")
    client = server.client()

    def kept(*names):
        with contextlib.suppress(client.exceptions.NoSuchKey):
            return client.get_object(Bucket="open", Key="/".join([name, *names]))["Body"].read()

    def who(key, secret):
        return {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
        }

    return Place(
        f"s3://open/{name}",
        f"{server.endpoint}/open/{name}",
        who(server.key, server.secret),
        who(server.reader_key, server.reader_secret),
        who(server.key, "of-a-stranger"),
        kept,
    )


def _on_quetz(name, request):
    server = request.getfixturevalue("quetz")
    server.make_channel(name)

    def kept(*names):
        response = httpx2.get("/".join([server.url, "get", name, *names]))
        return response.content if response.is_success else None

    return Place(
        f"{server.url}/{name}".replace("http", "quetz+http"),
        f"{server.url}/get/{name}",
        {"QUETZ_API_KEY": server.key},
        {"QUETZ_API_KEY": server.reader_key},
        {"QUETZ_API_KEY": "of-a-stranger"},
        kept,
    )


@pytest.fixture(params=[_on_nginx, _on_s3, _on_quetz], ids=["artifactory", "s3", "quetz"])
def place(request, tmp_path):
    return request.param(f"channel-{abs(hash(tmp_path)):x}", request)


@pytest.fixture
def bucket(request, tmp_path):
    return _on_s3(f"channel-{abs(hash(tmp_path)):x}", request)


@pytest.fixture
def package(tmp_path):
    return small.make(tmp_path / "small", 1)


def publish(url, variables, *args):
    """The verb, as a person runs it; what it was told in secret it tells nobody."""
    # this server indexes nothing by itself
    later = ["--index-later"] if str(url).startswith("artifactory") else []
    done = feedstock("publish", "--to", url, *later, *args, env=variables)
    assert not [secret for secret in secrets(variables) if secret in done.stdout + done.stderr]
    return done


def secrets(variables):
    return [
        value for name, value in variables.items() if name.endswith(("TOKEN", "PASSWORD", "KEY"))
    ]


# --- the shipped package


@pytest.mark.packages
def test_the_package_is_published_and_can_be_installed_from_there(
    place, packages, channels, tmp_path
):
    package = packages["openblas"]
    done = publish(place.url, place.publisher, "--allow-bootstrap", package)
    assert done.returncode == 0, done.stderr
    assert place.kept("linux-64", package.name) == package.read_bytes()
    place.index()
    records = prefix.solve([place.channel, channels[1]], [exactly(package), f"python={PYTHON}"])
    (numpy,) = (record for record in records if record.name.normalized == "numpy")
    assert numpy.url == f"{place.channel}/linux-64/{package.name}"
    folder = tmp_path / "prefix"
    others = [record for record in records if record is not numpy]
    # numpy through an empty cache: it has to come from the server
    for wanted, cache in ((others, paths.PACKAGE_CACHE), (records, tmp_path / "cache")):
        asyncio.run(rattler.install(wanted, folder, cache_dir=cache, show_progress=False))
    command = [folder / "bin" / "python", "-c", "import numpy; print(numpy.__version__)"]
    assert (
        subprocess.check_output(command, env=prefix.activated(folder), text=True).strip() == RELEASE
    )


# --- create-only


def test_published_again_it_says_so_and_changes_nothing(place, package):
    first = publish(place.url, place.publisher, UNTESTED, package)
    assert first.returncode == 0, first.stderr
    assert place.kept("linux-64", package.name) == package.read_bytes()
    index = place.kept("linux-64", "repodata.json")
    again = publish(place.url, place.publisher, UNTESTED, package)
    assert again.returncode == 0, again.stderr
    assert (
        f"{package.name} is there already, sha256 {files.sha256(package)}: nothing to do"
        in again.stderr
    )
    assert place.kept("linux-64", "repodata.json") == index


def test_other_bytes_of_the_same_name_are_refused_with_both_hashes(place, package, tmp_path):
    publish(place.url, place.publisher, UNTESTED, package)
    other = small.make(tmp_path / "other", 1, depends=["python"])
    done = publish(place.url, place.publisher, UNTESTED, other)
    assert done.returncode == 1
    assert (
        files.sha256(package) in done.stderr
        and files.sha256(other) in done.stderr
        and "raise build_number" in done.stderr
    )
    assert place.kept("linux-64", package.name) == package.read_bytes()


def test_a_name_taken_by_another_publisher_meanwhile_is_left_alone(
    place, package, tmp_path, monkeypatch
):
    for name, value in place.publisher.items():
        monkeypatch.setenv(name, value)
    other = small.make(tmp_path / "other", 1, depends=["python"])
    taken = f"the name was taken meanwhile: .*/linux-64/{package.name}\n  remedy: "
    with opened(place.url) as target:
        assert target.find("linux-64", package.name) is None
        target.put(package, "linux-64", package.name, files.sha256(package))
        with pytest.raises(Taken, match=taken):
            target.put(other, "linux-64", package.name, files.sha256(other))
    assert place.kept("linux-64", package.name) == package.read_bytes()


# --- who may


def test_each_way_to_be_refused_is_told_apart_and_says_where_credentials_go(place, package):
    where = {"a": "ARTIFACTORY_TOKEN", "s": "AWS_ACCESS_KEY_ID", "q": "QUETZ_API_KEY"}[place.url[0]]
    unknown, unnamed, barred = {
        "a": ("HTTP 401", "HTTP 401", "HTTP 403"),
        "s": (
            "HTTP 403, SignatureDoesNotMatch",
            "Unable to locate credentials",
            "HTTP 403, AccessDenied",
        ),
        "q": ("HTTP 401", "HTTP 401", "HTTP 403"),
    }[place.url[0]]
    nobody = {name: value for name, value in place.publisher.items() if name == "AWS_ENDPOINT_URL"}
    for variables, *said in (
        (place.stranger, unknown, "the credentials are wrong"),
        (nobody, unnamed, "credentials"),
        (place.reader, barred, "these credentials"),
    ):
        done = publish(place.url, variables, UNTESTED, package)
        assert done.returncode == 1
        assert all(each in done.stderr for each in [*said, where]), done.stderr
    assert place.kept("linux-64", package.name) is None


def test_a_server_that_does_not_answer(place, package):
    with closed_port() as port:
        nowhere = f"http://127.0.0.1:{port}"
        url = place.url
        if not url.startswith("s3:"):
            url = f"{url.split('+')[0]}+{nowhere}/conda"
        done = publish(url, {**place.publisher, "AWS_ENDPOINT_URL": nowhere}, UNTESTED, package)
    assert (
        done.returncode == 1
        and nowhere in done.stderr
        and "remedy:" in done.stderr
        and "reached" in done.stderr
    )


def test_a_channel_or_a_bucket_that_is_not_there(s3, quetz, package):
    key = {
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.key,
        "AWS_SECRET_ACCESS_KEY": s3.secret,
    }
    done = publish("s3://nobody/fixed", key, UNTESTED, package)
    assert done.returncode == 1 and "NoSuchBucket" in done.stderr and "make it" in done.stderr
    done = publish(f"quetz+{quetz.url}/nobody", {"QUETZ_API_KEY": quetz.key}, UNTESTED, package)
    assert done.returncode == 1 and "HTTP 404" in done.stderr and "make it" in done.stderr


@pytest.mark.parametrize("kind", ["CondaToken", "BearerToken", "BasicHTTP"])
def test_what_rattler_has_stored_is_used(kind, nginx, quetz, package, tmp_path):
    url, stored = {
        "CondaToken": (f"quetz+{quetz.url}/stored", quetz.key),
        "BearerToken": (f"artifactory+{nginx.url}/put/bearer", nginx.token),
        "BasicHTTP": (
            f"artifactory+{nginx.url}/put/basic",
            {"username": nginx.user, "password": nginx.password},
        ),
    }[kind]
    if kind == "CondaToken":
        quetz.make_channel("stored")
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"127.0.0.1": {kind: stored}}))
    done = publish(url, {"RATTLER_AUTH_FILE": str(file)}, UNTESTED, package)
    assert done.returncode == 0, done.stderr
    assert not [
        secret
        for secret in (quetz.key, nginx.token, nginx.password)
        if secret in done.stdout + done.stderr
    ]


def test_credentials_go_to_their_own_server_only(nginx, monkeypatch):
    monkeypatch.setenv("ARTIFACTORY_TOKEN", nginx.token)
    for place, sent in (("here", f"Bearer {nginx.token}".encode()), ("elsewhere", b"")):
        with opened(f"artifactory+{nginx.url}/{place}") as target:
            assert target.read("linux-64", "file") == sent


def test_credentials_that_a_server_repeats_are_not_shown(nginx, monkeypatch):
    monkeypatch.setenv("ARTIFACTORY_TOKEN", nginx.token)
    with (
        opened(f"artifactory+{nginx.url}/refused") as target,
        pytest.raises(FeedstockError, match=r"HTTP 418: what is Bearer \*\*\*\n") as refused,
    ):
        target.read("linux-64", "file")
    assert nginx.token not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "quetz://me:word@host/channel",
        "https://anaconda.org/t/word/owner",
        "artifactory://host/conda?token=word",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(UsageError, match="with credentials in it\n.*\n  remedy: ") as refused:
        open_target(url)
    assert "word" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/channel",
        "https://host/channel",
        "quetz://host",
        "quetz+ssh://host/channel",
    ],
)
def test_another_kind_of_url_is_told_the_kinds(url):
    with pytest.raises(UsageError, match="no such kind of target.*\n(.*\n)+.*artifactory://HOST/"):
        open_target(url)


# --- S3, which does not index itself


def test_many_publishers_at_once_lose_nothing(bucket, tmp_path):
    made = [small.make(tmp_path / "many", number) for number in range(96)]
    codes = []

    def one_after_the_other(share):
        codes.append(
            [
                publish(bucket.url, bucket.publisher, UNTESTED, *batch).returncode
                for batch in (share[:4], share[4:])
            ]
        )

    publishers = [
        threading.Thread(target=one_after_the_other, args=(made[start : start + 12],))
        for start in range(0, 96, 12)
    ]
    for publisher in publishers:
        publisher.start()
    seen, lost = set(), []
    while any(publisher.is_alive() for publisher in publishers):
        # a name may never go away again; the last index alone could be whole by luck
        names = index_of(bucket).keys()
        lost += seen - names
        seen |= names
        time.sleep(0.1)
    assert codes == [[0, 0]] * 8
    assert lost == []
    assert index_of(bucket) == {path.name: files.sha256(path) for path in made}
    assert not [
        path.name
        for path in made
        if bucket.kept("linux-64", provenance.filename(path.name)) is None
    ]


def test_a_publisher_that_was_paused_while_it_indexed_takes_nothing_away(bucket, s3, tmp_path):
    """Its index is older than the one that another publisher finished meanwhile."""
    first, paused, other = (small.make(tmp_path / "small", number) for number in range(3))
    assert publish(bucket.url, bucket.publisher, UNTESTED, first).returncode == 0
    with servers.relay(
        int(s3.endpoint.rsplit(":", 1)[1]), rb"PUT /open/\S+/linux-64/repodata\.json"
    ) as way:
        codes = []
        slow = {**bucket.publisher, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.port}"}
        publisher = threading.Thread(
            target=lambda: codes.append(publish(bucket.url, slow, UNTESTED, paused).returncode)
        )
        publisher.start()
        assert way.held.wait(300)
        codes.append(publish(bucket.url, bucket.publisher, UNTESTED, other).returncode)
        assert index_of(bucket).keys() >= {first.name, other.name}
        way.release.set()
        publisher.join()
    assert codes == [0, 0]
    assert index_of(bucket) == {path.name: files.sha256(path) for path in (first, paused, other)}


def index_of(place):
    index = json.loads(place.kept("linux-64", "repodata.json") or "{}")
    return {name: entry["sha256"] for name, entry in index.get("packages.conda", {}).items()}


def test_ended_before_the_index_was_written_the_same_command_completes_it(bucket, s3, package):
    """The shards are what the indexer writes last, the provenance what publishing does."""
    assert publish(bucket.url, bucket.publisher, UNTESTED, package).returncode == 0
    unfinished = ("repodata_shards.msgpack.zst", provenance.filename(package.name))
    for name in unfinished:
        s3.client().delete_object(
            Bucket="open", Key=f"{bucket.url.rsplit('/', 1)[1]}/linux-64/{name}"
        )
    done = publish(bucket.url, bucket.publisher, UNTESTED, package)
    assert done.returncode == 0, done.stderr
    assert all(bucket.kept("linux-64", name) for name in unfinished)
    assert feedstock("check-channel", bucket.url, env=bucket.publisher).returncode == 0


def test_what_another_program_put_is_compared_by_its_bytes(bucket, s3, package, monkeypatch):
    for name, value in bucket.publisher.items():
        monkeypatch.setenv(name, value)
    s3.client().upload_file(
        str(package), "open", f"{bucket.url.rsplit('/', 1)[1]}/linux-64/{package.name}"
    )
    with opened(bucket.url) as target:
        assert target.find("linux-64", package.name) == files.sha256(package)


def test_the_log_of_the_indexer_has_no_credentials(bucket, package):
    publish(bucket.url, bucket.publisher, UNTESTED, package)
    said = (paths.LOGS / "index.log").read_text()
    assert not [secret for secret in secrets(bucket.publisher) if secret in said]


def test_one_variable_names_the_certificates_of_a_private_authority(bucket, s3, package, tmp_path):
    """For boto3, which puts, and for the indexer, which is another program's code."""
    with servers.tls(int(s3.endpoint.rsplit(":", 1)[1]), tmp_path) as server:
        by_tls = {**bucket.publisher, "AWS_ENDPOINT_URL": f"https://127.0.0.1:{server.port}"}
        refused = publish(bucket.url, by_tls, UNTESTED, package)
        assert refused.returncode == 1
        assert "SSL_CERT_FILE" in refused.stderr and "certificate" in refused.stderr
        second = small.make(tmp_path / "small", 2)
        for variable, each in (("SSL_CERT_FILE", package), ("AWS_CA_BUNDLE", second)):
            done = publish(bucket.url, {**by_tls, variable: server.authority}, UNTESTED, each)
            assert done.returncode == 0, done.stderr
    assert index_of(bucket) == {path.name: files.sha256(path) for path in (package, second)}


# --- a folder behind a web server


def test_a_folder_that_nginx_serves_is_a_channel_also_a_private_one(
    nginx, package, tmp_path, monkeypatch
):
    login = {"username": nginx.user, "password": nginx.password}
    (tmp_path / "credentials.json").write_text(json.dumps({"127.0.0.1": {"BasicHTTP": login}}))
    for location in ("open", "private"):
        assert publish(nginx.folder / location / "fixed", {}, UNTESTED, package).returncode == 0
    (record,) = prefix.solve([f"{nginx.url}/open/fixed"], ["numpy"])
    assert record.url == f"{nginx.url}/open/fixed/linux-64/{package.name}"
    with pytest.raises(GatewayError, match="401"):
        prefix.solve([f"{nginx.url}/private/fixed"], ["numpy"])
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "credentials.json"))
    (record,) = prefix.solve([f"{nginx.url}/private/fixed"], ["numpy"])
    assert record.url == f"{nginx.url}/private/fixed/linux-64/{package.name}"
