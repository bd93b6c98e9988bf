"""Hosts: this machine over ssh, by a server on loopback, and some that do not answer."""

import contextlib
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from helpers import debian, originals, trees
from helpers.loopback import closed_port, free_ports, wait_for
from helpers.numpy_init import PATCHED, UNGATED
from helpers.pythons import python36

SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
SetEnv PATH={folder}/bin:/usr/bin:/bin TMPDIR={folder}/tmp
"""
CLIENT = """\
Host *
HostName 127.0.0.1
IdentityFile {folder}/user
IdentitiesOnly yes
Host answers answers-too
Port {port}
UserKnownHostsFile {folder}/known
Host stranger
Port {port}
UserKnownHostsFile /dev/null
Host silent
Port {silent}
Host closed
Port {closed}
"""


@pytest.fixture(scope="session")
def ssh_config(tmp_path_factory):
    """The client's configuration. python3 of the hosts that answer is 3.6, if there is one."""
    debian.install("openssh-server", "openssh-client")
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True
        )
    for name in ("bin", "tmp"):
        (folder / name).mkdir()
    (folder / "bin" / "python3").symlink_to(python36() or sys.executable)
    with contextlib.ExitStack() as stack:
        # taken calls are never answered
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        closed = stack.enter_context(closed_port())
        (port,) = free_ports(1)
        (folder / "server").write_text(SERVER.format(folder=folder, port=port))
        (folder / "client").write_text(
            CLIENT.format(folder=folder, port=port, silent=silent.getsockname()[1], closed=closed)
        )
        (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        server = stack.enter_context(
            subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "server"])
        )
        stack.callback(server.terminate)
        wait_for(port, server)
        yield folder / "client"


@pytest.fixture
def envs(tmp_path):
    """A folder with a space in its name: an affected prefix, a fixed one, a broken record."""
    folder = tmp_path / "en vs"
    extension = trees.link(trees.MKL, tmp_path)
    for name, source in (("affected", UNGATED), ("fixed", PATCHED), ("broken", PATCHED)):
        trees.make_prefix(folder / name, extension, source)
    (folder / "broken" / "conda-meta" / "state").write_text("{")
    return folder


@pytest.fixture
def released(tmp_path):
    """A prefix with numpy 2.3.5 as it was released, for which MKL stands in; it can be healed."""
    prefix = tmp_path / "re leased"
    with zipfile.ZipFile(originals.wheel("2.3.5")) as wheel:
        source = wheel.read("numpy/__init__.py").decode()
        record = wheel.read("numpy-2.3.5.dist-info/RECORD").decode()
    trees.make_prefix(prefix, trees.link(trees.MKL, tmp_path), source)
    (prefix / trees.SITE_PACKAGES / "numpy-2.3.5.dist-info" / "RECORD").write_text(record)
    return prefix
