"""Real servers on the loopback interface, each a process that ends with the tests.

A context manager starts one, waits until it answers and stops it. A server that does
not start is an error with the end of its log, and so a failed test, not a skipped one.
"""

import base64
import contextlib
import dataclasses
import datetime
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import boto3
import botocore.exceptions
import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from helpers import debian
from helpers.loopback import free_ports
from numpy_feedstock import paths
from numpy_feedstock.building import environments
from numpy_feedstock.child import end_group

LOCK = paths.ROOT / "tests" / "channels" / "servers.txt"
LOOPBACK = "127.0.0.1"
SECONDS_TO_START = 300  # of a server, on a busy machine

# the logs of what is running, for the report of a failed test
LOGS = []


def tail(log, lines=15):
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def running(name, command, folder, ready, **options):
    """A server while it is used.

    name : str, names its log ``folder/name.log``
    command : list, must neither fork nor go to the background
    ready : callable, true once the server answers; OSError counts as not yet
    """
    log = folder / f"{name}.log"
    # so that it ends even when pytest is killed
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    with open(log, "ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            **options,
        )
    LOGS.append(log)
    try:
        _wait(process, ready, name, log)
        yield process
    finally:
        LOGS.remove(log)
        end_group(process.pid, reap=process.poll)
        process.wait()


def _wait(process, ready, name, log):
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        with contextlib.suppress(OSError):
            if ready():
                return
        if process.poll() is not None:
            raise RuntimeError(
                f"{name} ended with {process.returncode} instead of starting; its log:\n{tail(log)}"
            )
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{name} does not answer after {SECONDS_TO_START} seconds; its log:\n{tail(log)}"
            )
        time.sleep(0.1)


def _answers(url):
    """Whether a URL is answered, with any status."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        pass
    return True


@dataclasses.dataclass(frozen=True)
class Relay:
    """A port that leads to another one; what is sent through it and matches ``hold`` waits."""

    port: int
    held: threading.Event  # something waits
    release: threading.Event  # set to let it pass, and all that comes after it


@contextlib.contextmanager
def relay(to, hold):
    """A running Relay to a port. ``hold`` : pattern of bytes, to be found in one packet"""
    with socket.create_server((LOOPBACK, 0)) as listener:
        found = Relay(listener.getsockname()[1], threading.Event(), threading.Event())
        accepting = threading.Thread(target=_accept, args=(listener, to, re.compile(hold), found))
        accepting.start()
        try:
            yield found
        finally:
            found.release.set()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener, to, hold, found):
    with contextlib.suppress(OSError):
        while True:
            client = listener.accept()[0]
            server = socket.create_connection((LOOPBACK, to))
            for source, sink, pattern in ((client, server, hold), (server, client, None)):
                threading.Thread(
                    target=_pass_on, args=(source, sink, pattern, found), daemon=True
                ).start()


def _pass_on(source, sink, hold, found):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if hold and hold.search(data):
                found.held.set()
                found.release.wait()
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    if hold is None:
        # both ways have ended
        source.close()
        sink.close()


# ---- TLS with certificates of a private authority


@dataclasses.dataclass(frozen=True)
class Tls:
    """A port that leads to another one by TLS."""

    port: int
    authority: Path  # its certificate, PEM


@contextlib.contextmanager
def tls(to, work):
    """A running Tls to a port; its files are in ``work``."""
    authority, server = work / "authority.pem", work / "server.pem"
    _make_certificates(authority, server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    found = Relay(0, threading.Event(), threading.Event())
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    plain = listener.accept()[0]
                    threading.Thread(target=serve, args=(plain,), daemon=True).start()

        def serve(plain):
            # who does not trust the authority ends the connection
            with contextlib.suppress(OSError):
                client = context.wrap_socket(plain, server_side=True)
                onward = socket.create_connection((LOOPBACK, to))
                back = threading.Thread(
                    target=_pass_on, args=(onward, client, None, found), daemon=True
                )
                back.start()
                _pass_on(client, onward, re.compile(rb"(?!)"), found)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield Tls(port, authority)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _make_certificates(authority, server):
    """Write an authority's certificate, and a key with the certificate that it gave a server."""
    key, certificate = _certificate("private authority")
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    own_key, own = _certificate("server", certificate.subject, key)
    private = own_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    server.write_bytes(private + own.public_bytes(serialization.Encoding.PEM))


def _certificate(name, issuer=None, issuer_key=None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
    )
    if issuer:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
        builder = builder.add_extension(names, critical=False)
    return key, builder.sign(issuer_key or key, hashes.SHA256())


# ---- nginx: static channels, and a place to PUT to


@dataclasses.dataclass(frozen=True)
class Nginx:
    """Everybody reads /open/ and /put/. /private/ is read and /put/ is written with credentials.

    What is PUT replaces what was there, as on any plain server. /said/ answers with the
    Authorization that it was asked with, /refused/ too, as an error; /here/ and /elsewhere/
    lead to it, the latter by another name of the server.
    """

    url: str  # of the root, "http://127.0.0.1:PORT"
    folder: Path  # what it serves
    user: str
    password: str
    token: str  # may do what the user may
    reader: str  # a user with the same password, who may not PUT


_NGINX = """\
daemon off;
master_process off;  # one process, as who started it
pid {work}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log /dev/stdout;
  client_max_body_size 0;
  client_body_temp_path {work}/body;
  proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi;
  uwsgi_temp_path {work}/uwsgi;
  scgi_temp_path {work}/scgi;
  map_hash_bucket_size 256;
  map $http_authorization $who {{
    default nobody;
    "Basic {basic}" writer;
    "Bearer {token}" writer;
    "Basic {reader}" reader;
  }}
  map "$request_method $who" $may {{
    default yes;
    "PUT nobody" unknown;
    "PUT reader" no;
  }}
  server {{
    listen 127.0.0.1:{port};
    root {folder};
    location / {{ return 404; }}
    location /open/ {{ }}
    location /private/ {{
      if ($who = nobody) {{ return 401; }}
    }}
    location /put/ {{
      if ($may = unknown) {{ return 401; }}
      if ($may = no) {{ return 403; }}
      dav_methods PUT;
      create_full_put_path on;
    }}
    location /said/ {{ return 200 "$http_authorization"; }}
    location /refused/ {{ return 418 "<b>what</b> is $http_authorization"; }}
    location /here/ {{ return 302 /said/; }}
    location /elsewhere/ {{ return 302 http://localhost:{port}/said/; }}
  }}
}}
"""


def nginx_program():
    """The path of nginx: the machine's, or that of Debian's package, unpacked in build/.

    The package is not installed: it would start a server on all interfaces of the machine.
    """
    installed = shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    unpacked = paths.BUILD / "unpacked" / "nginx"
    if installed is None:
        # another process of the tests may need it at the same moment
        with debian.alone():
            if not unpacked.exists():
                _unpack_nginx(unpacked)
    return installed or unpacked / "usr" / "sbin" / "nginx"


def _unpack_nginx(folder):
    """Unpack Debian's package into a new folder, completely or not at all."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if subprocess.run(["apt-get", "download", "nginx"], cwd=partial).returncode:
        # the lists of packages may be missing or old
        subprocess.run(["apt-get", "update"], check=True)
        subprocess.run(["apt-get", "download", "nginx"], cwd=partial, check=True)
    (package,) = partial.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, partial], check=True)
    partial.rename(folder)


@contextlib.contextmanager
def nginx(work):
    """A running Nginx that serves new folders in ``work``."""
    (port,) = free_ports(1)
    folder = work / "served"
    for location in ("open", "private", "put"):
        (folder / location).mkdir(parents=True)
    server = Nginx(
        f"http://{LOOPBACK}:{port}", folder, "writer", uuid.uuid4().hex, uuid.uuid4().hex, "reader"
    )
    config = work / "nginx.conf"
    config.write_text(
        _NGINX.format(
            work=work,
            folder=folder,
            port=port,
            token=server.token,
            basic=_basic(server.user, server.password),
            reader=_basic(server.reader, server.password),
        )
    )
    with running(
        "nginx", [nginx_program(), "-p", work, "-c", config], work, lambda: _answers(server.url)
    ):
        yield server


def _basic(user, password):
    return base64.b64encode(f"{user}:{password}".encode()).decode()


# ---- SeaweedFS: a server of S3's protocol


@dataclasses.dataclass(frozen=True)
class S3:
    """A server. Everybody reads its bucket ``open``. Others are read with credentials."""

    endpoint: str
    key: str
    secret: str
    reader_key: str  # of somebody who may read, not write
    reader_secret: str

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )


_SEAWEED_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


@contextlib.contextmanager
def seaweedfs(work):
    """A running S3 server."""
    ports = free_ports(len(_SEAWEED_PORTS))
    server = S3(
        f"http://{LOOPBACK}:{ports[_SEAWEED_PORTS.index('s3.port')]}",
        *(uuid.uuid4().hex for _ in range(4)),
    )
    identities = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for name, key, secret, actions in (
            ("writer", server.key, server.secret, ["Admin", "Read", "Write", "List"]),
            ("reader", server.reader_key, server.reader_secret, ["Read", "List"]),
        )
    ]
    identities.append({"name": "anonymous", "actions": ["Read:open", "List:open"]})
    config = work / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    (work / "data").mkdir()
    command = [
        environments.made(LOCK) / "bin" / "weed",
        "server",
        f"-dir={work / 'data'}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        "-s3",
        f"-s3.config={config}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",  # it would call its makers
        "-master.volumeSizeLimitMB=256",
        "-volume.max=100",
        "-volume.preStopSeconds=0",
        *(f"-{name}={port}" for name, port in zip(_SEAWEED_PORTS, ports, strict=True)),
    ]
    try:
        # it looks for more configuration in the home folder
        with running(
            "seaweedfs",
            command,
            work,
            lambda: _takes_objects(server.client()),
            env={**os.environ, "HOME": str(work)},
        ):
            yield server
    finally:
        for port in ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def _takes_objects(client):
    """Whether the whole server is up. It answers some seconds before it can keep anything."""
    try:
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket="open")
        client.put_object(Bucket="open", Key="probe", Body=b"probe")
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError):
        return False
    return True


# ---- Quetz: a server of conda channels


@dataclasses.dataclass(frozen=True)
class Quetz:
    url: str  # "http://127.0.0.1:PORT"
    key: str  # API key of the owner of every channel
    reader_key: str  # of somebody who may not upload

    def make_channel(self, name):
        body = {"name": name, "private": False}
        httpx2.post(
            f"{self.url}/api/channels", headers={"X-API-Key": self.key}, json=body, trust_env=False
        ).raise_for_status()


_QUETZ = """\
[sqlalchemy]
database_url = "sqlite:///{database}"
[session]
secret = "{secret}"
https_only = false
"""


@contextlib.contextmanager
def quetz(work):
    """A running Quetz without channels."""
    (port,) = free_ports(1)
    server = Quetz(f"http://{LOOPBACK}:{port}", uuid.uuid4().hex, uuid.uuid4().hex)
    deployment = work / "deployment"
    database = deployment / "quetz.sqlite"
    deployment.mkdir()
    (deployment / "config.toml").write_text(
        _QUETZ.format(database=database, secret=secrets.token_hex(32))
    )
    program = [environments.made(LOCK) / "bin" / "python", "-m", "quetz.cli"]
    # its settings may come from variables, too
    clean = {key: value for key, value in os.environ.items() if not key.startswith("QUETZ_")}
    made = subprocess.run(
        [*program, "create", deployment], cwd=work, env=clean, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    # a server gets its users when they log in through another server: these go into its database
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for name, role, key in (
            ("publisher", "owner", server.key),
            ("reader", "member", server.reader_key),
        ):
            user = uuid.uuid4().bytes
            connection.execute(
                "INSERT INTO users (id, username, role) VALUES (?, ?, ?)", (user, name, role)
            )
            connection.execute(
                "INSERT INTO profiles (user_id, name, avatar_url) VALUES (?, ?, '')", (user, name)
            )
            connection.execute(
                "INSERT INTO api_keys (key, description, user_id, owner_id, deleted)"
                " VALUES (?, 'tests', ?, ?, 0)",
                (key, user, user),
            )
    command = [
        *program,
        "start",
        deployment,
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--no-supervisor",
    ]
    with running(
        "quetz", command, work, lambda: _answers(f"{server.url}/health/ready"), cwd=work, env=clean
    ):
        yield server
