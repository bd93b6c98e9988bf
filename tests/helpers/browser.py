"""A headless Chromium, driven by the WebDriver protocol."""

import contextlib
import json
import subprocess
import urllib.request

from helpers import debian
from helpers.loopback import free_ports, wait_for

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,1000",
)


@contextlib.contextmanager
def chromium(folder, server_port):
    """A running browser: a function that takes method, path and what is sent.

    folder : for what the browser keeps
    server_port : of this machine; every name of a host leads there
    """
    debian.install("chromium", "chromium-driver")
    (port,) = free_ports(1)
    arguments = [
        *QUIET,
        f"--user-data-dir={folder}",
        f"--host-resolver-rules=MAP * 127.0.0.1:{server_port}",
    ]
    options = {"binary": "/usr/bin/chromium", "args": arguments}
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(
            subprocess.Popen(["/usr/bin/chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        )
        stack.callback(driver.terminate)
        wait_for(port, driver)
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        session = _send(port, "POST", "", capabilities=wanted)["sessionId"]
        stack.callback(_send, port, "DELETE", f"/{session}")
        yield lambda method, path, **what: _send(port, method, f"/{session}{path}", **what)


def _send(port, method, path, **what):
    body = json.dumps(what).encode() if method == "POST" else None
    url = f"http://127.0.0.1:{port}/session{path}"
    with urllib.request.urlopen(
        urllib.request.Request(url, body, method=method), timeout=300
    ) as answer:
        return json.load(answer)["value"]
