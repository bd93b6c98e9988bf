"""Servers that tests start on this machine."""

import contextlib
import itertools
import random
import socket
import time
from pathlib import Path

# the first and the last of the ports that the kernel gives to connections
CHOSEN_BY_THE_KERNEL = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST, LAST = 10_000, 65_535


def free_ports(count):
    """Ports of 127.0.0.1 for servers that have to be told one. All are different.

    A server takes its port some time later. Nobody else gets it until then: neither a connection
    nor a server that another process of the tests starts.
    """
    lowest, highest = map(int, CHOSEN_BY_THE_KERNEL.read_text().split())
    candidates = [*range(FIRST, lowest), *range(highest + 1, LAST + 1)]
    # a machine may be set up so that the kernel gives away all of them
    candidates = candidates or [*range(FIRST, LAST + 1)]
    random.shuffle(candidates)
    return list(itertools.islice(filter(_keep, candidates), count))


def _keep(port):
    """Return whether a port is free and was not given away before. It is given away now."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        # a name without a file: one process of the machine has it, and it ends with the process
        mark.bind(f"\0port {port} of the tests")
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        mark.close()
        return False
    # the descriptor stays open until this process ends
    mark.detach()
    return True


@contextlib.contextmanager
def closed_port():
    """A port of 127.0.0.1 that refuses calls: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def wait_for(port, process, seconds=300):
    """Return when a process takes calls on a port. RuntimeError when it ends or takes none."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(
        f"{process.args[0]} takes no calls on port {port}; exit code {process.poll()}"
    )
