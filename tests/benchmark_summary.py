"""How long the summary of 10,000 hosts takes, and its page in Chromium.

    PYTHONPATH=scripts:tests build/venv/bin/python tests/benchmark_summary.py

Each host has an affected numpy of its own path and owner, or ``--prefixes`` of them.
"""

import argparse
import functools
import http.server
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from helpers.browser import chromium

SCRIPT = Path(__file__).parents[1] / "scripts" / "fleet" / "summarise_audits.py"
COMMON = {"schema": 1, "date": "2026-11-25T18:00:00Z", "host": "h"}
NUMPY = {
    **COMMON,
    "type": "numpy",
    "verdict": "AFFECTED",
    "installer": "conda",
    "version": "2.3.5",
    "build": "py311h1_0",
    "channel": "conda-forge",
    "blas": "mkl",
    "activation": {},
    "importers": ["csp"],
    "reason": "because",
    "healed": False,
    "remedy_note": "",
}
END = {**COMMON, "type": "end", "exit": 1, "left_out": 0, "unreadable": 0, "folders": 9}
OPEN_ALL = "document.querySelectorAll('details').forEach(each => { each.open = true })"


def put_fleet(folder, hosts, prefixes):
    """Put the file of each host into a folder."""
    for number in range(hosts):
        owner = f"user{number:05d}"
        lines = []
        for which in range(prefixes):
            prefix = f"/home/{owner}/miniconda3/envs/project-{which}"
            remedy = f"python3 heal_numpy.py --apply {prefix}"
            lines.append({**NUMPY, "prefix": prefix, "owner": owner, "remedies": [remedy]})
        lines.append({**END, "numpys": prefixes, "roots": ["/home"]})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"node{number:05d}.cluster.example.com.jsonl").write_text(text)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def time_in_browser(folder):
    """(seconds until page.html is loaded and drawn, seconds until all its lists are open)."""
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with (
            tempfile.TemporaryDirectory() as profile,
            chromium(profile, server.server_port) as send,
        ):
            drawn = "requestAnimationFrame(() => setTimeout(arguments[0], 0))"
            send("POST", "/url", url="about:blank")
            start = time.perf_counter()
            send("POST", "/url", url="http://fleet.example/page.html")
            send("POST", "/execute/async", script=drawn, args=[])
            loaded = time.perf_counter()
            send("POST", "/execute/async", script=f"{OPEN_ALL}; {drawn}", args=[])
            return loaded - start, time.perf_counter() - loaded


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--prefixes", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        audits = Path(folder, "audits")
        audits.mkdir()
        put_fleet(audits, args.hosts, args.prefixes)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, SCRIPT, "--html", audits], capture_output=True)
        seconds = time.perf_counter() - start
        Path(folder, "page.html").write_bytes(done.stdout)
        loaded, opened = time_in_browser(folder)
    print(f"{args.hosts} hosts, {args.prefixes} prefixes each: summary {seconds:.1f} s")
    print(f"page {len(done.stdout) / 1e6:.2f} MB: {loaded:.2f} s, all lists opened {opened:.2f} s")


if __name__ == "__main__":
    main()
