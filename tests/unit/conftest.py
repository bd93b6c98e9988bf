"""Fixtures of the audit's tests: they run it by this Python and by 3.6, on trees that they make."""

import functools
import json
import os
import subprocess
import sys

import pytest

from helpers import trees
from helpers.numpy_init import UNGATED
from helpers.pythons import python36
from helpers.trees import MKL
from numpy_feedstock import paths

SCRIPT = paths.ROOT / "scripts" / "audit_numpy.py"


@pytest.fixture(params=["this Python", "3.6"])
def audit(request):
    """Runs the audit: (exit code, what it printed, what it said on stderr)."""
    python = sys.executable if request.param == "this Python" else python36()
    if python is None:
        pytest.skip("no Python 3.6 here, neither python3.6 nor one of pyenv's")

    def run(*arguments, wrapper=(), **variables):
        # -I: nothing but the file itself and the standard library
        command = [*wrapper, python, "-I", "-B", "-W", "error", SCRIPT, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env={**os.environ, **variables}
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def report(audit):
    """Runs the audit with --json: ([numpys], [troubles], end), each a dict."""

    def run(*arguments, **options):
        code, printed, said = audit("--json", *arguments, **options)
        *found, end = [json.loads(line) for line in printed.splitlines()]
        numpys = [row for row in found if row["type"] == "numpy"]
        verdicts = [row["verdict"] for row in numpys]
        complete = not (end["left_out"] or end["unreadable"] or "UNKNOWN" in verdicts)
        assert code == (1 if "AFFECTED" in verdicts else 0 if complete else 2), said
        assert (end["type"], end["exit"]) == ("end", code)
        return numpys, [row for row in found if row["type"] == "trouble"], end

    return run


@pytest.fixture
def rows(report):
    """Runs the audit with --json: ([numpys], [troubles])."""
    return lambda *arguments, **options: report(*arguments, **options)[:2]


@pytest.fixture(scope="session")
def extension(tmp_path_factory):
    """Links a library that needs one of a name; its path."""
    return functools.partial(trees.link, folder=tmp_path_factory.mktemp("elf"))


@pytest.fixture
def numpy(extension):
    """Puts a numpy into a folder of packages."""
    return lambda site, needs=MKL, source=UNGATED, **options: trees.put_numpy(
        site, extension(needs), source, **options
    )


@pytest.fixture
def conda(extension):
    """Makes a prefix of conda with a numpy in it."""

    def make(prefix, libblas=None, needs=MKL, source=UNGATED, **options):
        trees.make_prefix(prefix, extension(needs), source, libblas, **options)
        return prefix

    return make
