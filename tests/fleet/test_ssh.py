"""The audit of hosts over ssh, by a real server on loopback."""

import json
import os
import shlex
import subprocess

import pytest

from helpers import debian, pages
from numpy_feedstock import paths

SCRIPT = paths.ROOT / "scripts" / "fleet" / "audit_over_ssh.sh"


@pytest.fixture
def audit(ssh_config, tmp_path):
    """Audits hosts: (the finished process, {name of a file: its lines})."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    # the first value of an option is taken
    program.write_text(
        f'#!/bin/sh\nexec /usr/bin/ssh -F {shlex.quote(str(ssh_config))} -o ConnectTimeout=3 "$@"\n'
    )
    program.chmod(0o755)

    def run(hosts, *folders, command=(SCRIPT, "hosts.txt", "audits"), **variables):
        (tmp_path / "hosts.txt").write_text(hosts)
        own = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", **variables}
        done = subprocess.run(
            [*command, *folders], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=own
        )
        found = {
            path.name: [json.loads(line) for line in path.read_text().splitlines() if line]
            for path in tmp_path.glob("audits/*")
        }
        return done, found

    return run


def test_shellcheck_finds_nothing():
    debian.install("shellcheck")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_each_host_has_a_file_with_what_was_found_there(audit, envs, tmp_path):
    done, found = audit(
        "# web\nanswers\n\nanswers-too   second\n", f"{tmp_path}/en*", "/no/such folder"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(found) == ["answers-too.jsonl", "answers.jsonl"]
    for lines in found.values():
        assert sorted(line["verdict"] for line in lines if "verdict" in line) == [
            "AFFECTED",
            "FIXED",
            "FIXED",
        ]
        assert {line["path"] for line in lines if "trouble" in line} == {
            "/no/such folder",
            f"{envs}/broken/conda-meta/state",
        }


def test_the_command_of_the_guide(audit):
    (command,) = (
        command for command in pages.commands(pages.FLEET) if "audit_over_ssh.sh" in command
    )
    program, *arguments = shlex.split(command)
    done, found = audit("answers\n", command=(paths.ROOT / program, *arguments))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(found) == ["answers.jsonl"]


def test_hosts_that_do_not_answer_are_named_with_the_reason(audit, envs):
    done, found = audit("answers\nsilent\nclosed\nstranger\n-oProxyCommand=false\n../up\n", envs)
    assert done.returncode == 1
    said = dict(
        line.split(" did not answer: ")
        for line in done.stderr.splitlines()
        if " did not answer: " in line
    )
    assert sorted(said) == ["closed", "silent", "stranger"]
    for host, reason in (
        ("silent", "timed out"),
        ("closed", "Connection refused"),
        ("stranger", "Host key verification failed"),
    ):
        (line,) = found[f"{host}.jsonl"]
        assert reason in line["failed"] and reason in done.stderr
    assert (
        "no name of a host: -oProxyCommand=false\n" in done.stderr
        and "no name of a host: ../up\n" in done.stderr
    )
    assert len(found["answers.jsonl"]) == 4 and len(found) == 4


def test_a_host_that_has_none_of_the_folders_did_answer(audit):
    done, found = audit("answers\n", "/no/such")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["trouble"] for line in found["answers.jsonl"]] == ["no such folder"]


def test_a_host_that_takes_too_long_is_given_up(audit, envs):
    # no Python has read its first line by then
    done, found = audit("answers\n", envs, AUDIT_SECONDS="0.01")
    assert (done.returncode, done.stderr) == (
        1,
        "answers did not answer: no end after 0.01 seconds\n",
    )
    assert found["answers.jsonl"] == [{"failed": "no end after 0.01 seconds"}]


@pytest.mark.parametrize(
    "arguments", [[], ["hosts.txt"], ["/no/such/hosts.txt", "audits", "/opt/conda"]]
)
def test_wrong_use_is_2_and_says_how_it_is_used(arguments):
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "audit_over_ssh.sh HOSTS RESULTS FOLDER..." in done.stderr and "set " not in done.stderr
