"""Ports for the servers of the tests: no two servers are told the same one."""

import contextlib
import socket
import subprocess
import sys

import pytest

from helpers import loopback
from numpy_feedstock import paths

# forty ports, of which a process takes some and keeps them until its input ends
TAKES = """\
import sys
from helpers import loopback
loopback.FIRST, loopback.LAST = map(int, sys.argv[1:3])
print(*loopback.free_ports(int(sys.argv[3])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def few(tmp_path, monkeypatch):
    """The first and the last of forty ports, as if no other ones were left."""
    lowest, _ = map(int, loopback.CHOSEN_BY_THE_KERNEL.read_text().split())
    if lowest < loopback.FIRST + 40:
        pytest.skip("the kernel gives away every port of this machine")
    monkeypatch.setattr(loopback, "FIRST", lowest - 40)
    monkeypatch.setattr(loopback, "LAST", lowest)
    return loopback.FIRST, loopback.LAST


@contextlib.contextmanager
def another_process(first, last, count):
    """The ports that another process has, while it runs."""
    command = [sys.executable, "-c", TAKES, str(first), str(last), str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    folder = paths.ROOT / "tests"
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as process:
        yield [int(port) for port in process.stdout.readline().split()]
        process.communicate("")


def test_no_port_is_given_to_two_processes_or_twice(few):
    with another_process(*few, 15) as others:
        mine = [*loopback.free_ports(10), *loopback.free_ports(30)]
        assert len(others) == 15 and len(mine) <= 25
        assert len({*mine, *others}) == len(mine) + len(others)


def test_a_port_that_a_server_has_is_not_given_away(few):
    with socket.create_server(("127.0.0.1", few[0])):
        assert few[0] not in loopback.free_ports(40)


def test_a_closed_port_refuses_calls():
    with loopback.closed_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
