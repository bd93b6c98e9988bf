#!/usr/bin/env python3
"""Prepare a folder of results for a run over hosts.

It puts the names of the hosts, each once, into RESULTS/hosts.txt, and prints them. It removes
the files that these hosts have there from an earlier run: a host that this run does not reach
has no file then, and the summary names it. The ssh script and the playbook call it.

It needs only the standard library of Python 3.6.
"""

import argparse
import contextlib
import os
import sys
from typing import List, Optional

import summarise_audits

# An older Python stops at this line, and shows it.
NEEDED: str = "Python 3.6 or later: run this file with python3"

HERE = os.path.dirname(os.path.abspath(__file__))
EPILOG = """\
exit code: 0 done, 2 wrong use

examples:
  prepare_run.py hosts.txt audits
  prepare_run.py hosts.txt audits --on-host audits/on_host.py   also write what heals a host
"""
EMPTY = "FILES = {}  # filled by prepare_run.py"
CARRIED = ("audit_numpy.py", "heal_numpy.py")


def on_host() -> str:
    """The text of one file that heals and audits a host. Raises OSError and ValueError."""
    with open(os.path.join(HERE, "on_host.py"), encoding="utf-8") as stream:
        program = stream.read()
    files = {}
    for name in CARRIED:
        with open(os.path.join(HERE, os.pardir, name), encoding="utf-8") as stream:
            files[name] = stream.read()
    if program.count(EMPTY) != 1:
        raise ValueError("on_host.py does not have the line: " + EMPTY)
    return program.replace(EMPTY, "FILES = " + ascii(files))


def write(path: str, text: str) -> None:
    """Write a file whole. Raises OSError."""
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
    os.rename(path + ".new", path)


def prepare(names: List[str], results: str) -> None:
    """Write hosts.txt and remove these hosts' old files. Raises OSError."""
    os.makedirs(results, exist_ok=True)
    listed = os.path.join(results, summarise_audits.LAST_RUN)
    with contextlib.suppress(FileNotFoundError):
        # it may be the caller's own file, with comments
        if summarise_audits.read_hosts(listed) == names:
            listed = None
    if listed:
        write(listed, "".join(name + "\n" for name in names))
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            if "/" not in name:
                os.unlink(os.path.join(results, name + summarise_audits.SUFFIX))


def main(argv: Optional[List[str]] = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "hosts", metavar="HOSTS", help="a file with a host in each line; - is stdin"
    )
    parser.add_argument("results", metavar="RESULTS", help="the folder for the files of the hosts")
    parser.add_argument(
        "--on-host", metavar="FILE", help="write the program that heals and audits a host"
    )
    args = parser.parse_args(argv)
    try:
        names = summarise_audits.read_hosts("/dev/stdin" if args.hosts == "-" else args.hosts)
        if not names:
            parser.error("no host is in %s" % summarise_audits.shown(args.hosts))
        prepare(names, args.results)
        if args.on_host:
            write(args.on_host, on_host())
    except (OSError, ValueError) as error:
        parser.error(summarise_audits.shown(error))
    sys.stdout.write("".join(name + "\n" for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
