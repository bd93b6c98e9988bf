"""The `feedstock` command, run as a person runs it: a new process each time."""

import os
import subprocess
import sys

from numpy_feedstock import paths


def feedstock(*args, env=None, root=paths.ROOT, **options):
    """Run the command to its end. Returns the CompletedProcess, with text output.

    args : str or Path, the verb and its arguments
    env : dict, variables on top of those of the tests; one whose value is None is left out
    root : Path of the checkout whose command it is
    options : of subprocess.run, such as cwd, input and timeout (seconds)
    """
    options = {"capture_output": True, "text": True, **options}
    return subprocess.run(_command(root, args), env=environment(env), **options)


def start(*args, env=None, root=paths.ROOT, **options):
    """Start the command. Returns the Popen, whose pipes for output and errors carry text.

    args, env, root : as for feedstock()
    options : of subprocess.Popen
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(_command(root, args), env=environment(env), **{**pipes, **options})


def environment(changes):
    """The variables of the tests with changes, {name: value or None}. Returns a dict."""
    merged = {**os.environ, **(changes or {})}
    return {name: str(value) for name, value in merged.items() if value is not None}


def _command(root, args):
    return [sys.executable, root / "scripts" / "feedstock", *args]
