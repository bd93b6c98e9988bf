"""Servers that tests start on this machine."""

import contextlib
import socket
import time


def free_ports(count):
    """Ports of 127.0.0.1 that nobody listens on just now, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def wait_for(port, process, seconds=60):
    """Return when a process takes calls on a port. RuntimeError when it ends or takes none."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError(
        f"{process.args[0]} takes no calls on port {port}; exit code {process.poll()}"
    )
