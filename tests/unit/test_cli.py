"""The command line, as a person meets it: a fresh process each time."""

import json

import pytest

from helpers.command import feedstock
from numpy_feedstock import cli

TWO_PLATFORMS = ("--platform", "linux-64", "--platform", "linux-aarch64")


@pytest.mark.parametrize(
    "verb",
    [[], *([verb] for verb in cli.VERBS)],
    ids=str,
)
def test_help_has_examples(verb):
    result = feedstock(*verb, "--help")
    assert result.returncode == 0
    assert "usage: feedstock" in result.stdout
    assert not verb or "examples:\n  feedstock" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["build", "--numpy", "2.3.4"], "unknown numpy release: 2.3.4\n  known: 2.3.5, 2.4.0,"),
        (["build", "--python", "3.9"], "unknown python: 3.9\n  known: 3.11, 3.12, 3.13, 3.14"),
        (
            ["build", "--blas", "atlas"],
            "unknown blas: atlas\n  known: mkl, mkl-2025, mkl-2026, openblas",
        ),
        (["build", "--jobs", "0"], "--jobs: a whole number from 1 to 1024 is needed, found '0'"),
        (["test", "--jobs", "0"], "--jobs: a whole number from 1 to 1024 is needed, found '0'"),
        (
            ["build", "--output", "/dev/null/channel"],
            "the channel's folder cannot be written: /dev/null/channel",
        ),
        (
            ["build", "--channel", "http://127.0.0.1:9/nowhere"],
            "the channel does not answer: http://127.0.0.1:9/nowhere",
        ),
        (["old-glibc", "/dev/null"], "not a package: /dev/null\n  found: "),
        (
            ["old-glibc", "--root", "/nowhere"],
            "not the root directory of a Linux system: /nowhere\n  found:  no such directory",
        ),
        (["build", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["verify", "/no/such/numpy-2.3.5.conda"], "no such file: /no/such/numpy-2.3.5.conda"),
        (
            ["mark-broken", "/nowhere"],
            "not the folder of an indexed channel: /nowhere\n"
            "  expected: linux-64/repodata.json in it",
        ),
        (["scan-wheels", "2.3.99"], "unknown numpy release: 2.3.99\n  known: 2.2.6, 2.3.4, 2.3.5,"),
        (
            ["scan-wheels", "--timeout", "0"],
            "argument --timeout: seconds from 1 to 3600 are needed, found '0'",
        ),
        (["variants", "--platform", "win-64"], "invalid choice: 'win-64'"),
        (
            ["variants", "--platform", "linux-aarch64", "--blas", "mkl"],
            "unknown blas: mkl\n  known: openblas",
        ),
        (
            ["variants", *TWO_PLATFORMS, "--build-config"],
            "a build config is for one platform\n  found: linux-64, linux-aarch64",
        ),
        (["bulid"], "invalid choice: 'bulid'"),
    ],
)
def test_wrong_use_is_exit_2_and_says_what_was_expected(args, message):
    result = feedstock(*args)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_dry_run_changes_nothing(tmp_path):
    output = tmp_path / "output"
    result = feedstock(
        "build",
        "--channel",
        "bootstrap",
        "--numpy",
        "2.4.4",
        "--blas",
        "mkl-2025",
        "--output",
        output,
        "--dry-run",
        "--json",
    )
    (plan,) = json.loads(result.stdout)
    assert plan["package"].startswith("numpy-2.4.4-mkl_py3")
    assert not output.exists()
