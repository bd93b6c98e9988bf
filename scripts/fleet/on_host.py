#!/usr/bin/env python3
"""Heal the numpys of this host, then audit them; both print lines of JSON.

prepare_run.py puts the texts of heal_numpy.py and audit_numpy.py into this file. The ssh script
and the playbook send it to a host. It unpacks both into a folder of its own and removes the
folder at the end.

It needs only the standard library of Python 3.6.
"""

import argparse
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any, List, Optional

# An older Python stops at this line, and shows it.
NEEDED: str = "Python 3.6 or later: run this file with python3"

FILES = {}  # filled by prepare_run.py


def run(folder: str, name: str, arguments: List[str]) -> int:
    """Run one of the files. Returns its exit code."""
    return subprocess.call([sys.executable, "-I", os.path.join(folder, name)] + arguments)


def heal_and_audit(folder: str, options: List[str], roots: List[str]) -> int:
    """Returns the audit's exit code. Raises OSError."""
    for name, text in FILES.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
            stream.write(text)
    # where no folder is, the audit says so
    if any(glob.glob(root) for root in roots):
        code = run(folder, "heal_numpy.py", ["--json"] + options + roots)
        if code not in (0, 1):
            print(json.dumps({"failed": "heal_numpy.py ended with exit code %d" % code}))
            sys.stdout.flush()
    return run(folder, "audit_numpy.py", ["--json"] + roots)


def stop(number: int, frame: Any) -> None:
    """End in order, so that the folder is removed."""
    raise SystemExit(128 + number)


def main(argv: Optional[List[str]] = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="heal; without it nothing is changed")
    what.add_argument("--undo", action="store_true", help="take the healing back")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("roots", nargs="+", metavar="FOLDER")
    args = parser.parse_args(argv)
    if not FILES:
        parser.error("prepare_run.py has not filled this file: run prepare_run.py --on-host FILE")
    options = []
    for option in ("apply", "undo", "dry_run"):
        if getattr(args, option):
            options.append("--" + option.replace("_", "-"))
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    folder = tempfile.mkdtemp(prefix="heal-numpy-")
    try:
        return heal_and_audit(folder, options, args.roots)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
