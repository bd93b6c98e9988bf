"""Runs heal_numpy.py and audit_numpy.py as an operator does: copied to a host, by any Python."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from numpy_feedstock import paths

SCRIPT = paths.ROOT / "scripts" / "heal_numpy.py"
AUDIT = paths.ROOT / "scripts" / "audit_numpy.py"


@dataclass(frozen=True)
class Run:
    """What came of a run: exit code, rows, troubles, the closing counts and the errors."""

    code: int
    rows: list
    troubles: list
    summary: dict
    stderr: str

    @property
    def results(self):
        return [row["result"] for row in self.rows]

    @property
    def reasons(self):
        return " ".join(row["reason"] for row in self.rows)


def heal(*args, python=sys.executable, command=(), script=SCRIPT):
    """Run the healer with --json. Returns a Run.

    command : what is put before it, such as setpriv and its options
    """
    # as on a host, nothing finds the audit but by its place beside the healer
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*command, python, script, "--json", *args],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    return Run(
        done.returncode,
        [each for each in objects if "result" in each],
        [each for each in objects if "trouble" in each],
        next((each["summary"] for each in objects if "summary" in each), {}),
        done.stderr,
    )


def audit(folder):
    """The verdicts of the audit, and all that it said."""
    done = subprocess.run([sys.executable, AUDIT, "--json", folder], capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row["verdict"] for row in rows if "verdict" in row], done.stdout
