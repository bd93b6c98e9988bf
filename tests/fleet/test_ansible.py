"""The playbook, by the real Ansible: on this machine and over ssh; some hosts do not answer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import pages
from helpers.pythons import python36
from numpy_feedstock import environments, paths

PLAYBOOK = paths.ROOT / "scripts" / "fleet" / "audit.yml"
LOCK = Path(__file__).with_name("ansible.txt")


@pytest.fixture(scope="module")
def ansible():
    """The folder of Ansible's programs."""
    return environments.made(LOCK) / "bin"


@pytest.fixture
def run(ansible, tmp_path):
    """Runs one of its programs, with everything that it keeps in a folder of its own."""

    def run(program, *arguments):
        (tmp_path / "ansible.cfg").touch()
        own = {
            "PATH": f"{ansible}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "PWD": str(tmp_path),
            "HOME": str(tmp_path),
            "ANSIBLE_HOME": str(tmp_path / "ansible"),
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
            "ANSIBLE_TIMEOUT": "3",
            "ANSIBLE_NOCOLOR": "1",
            "NO_COLOR": "1",
            # no connection is kept that would outlive the test
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",
        }
        command = [ansible / program, *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def audit(run, tmp_path, ssh_config):
    """Runs the playbook: (the finished process, {name of a file: its lines})."""

    def audit(hosts, command=("ansible-playbook", "-i", "INVENTORY", PLAYBOOK), **variables):
        inventory = tmp_path / "INVENTORY"
        local = f"localhost ansible_connection=local audit_python={python36() or sys.executable}"
        inventory.write_text(
            "".join(f"{local if host == 'localhost' else host}\n" for host in hosts)
        )
        more = {"ansible_ssh_common_args": f"-F {ssh_config}", **variables}
        done = run(*command, "-e", json.dumps(more))
        return done, {
            path.name: [json.loads(line) for line in path.read_text().splitlines() if line]
            for path in (tmp_path / "audits").glob("*")
        }

    return audit


def test_ansible_lint_finds_nothing_against_it_in_production(run):
    done = run("ansible-lint", "--offline", "--strict", "--profile", "production", PLAYBOOK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 files processed" in done.stderr


def test_each_host_has_a_file_and_one_that_is_silent_is_named(audit, envs, tmp_path):
    hosts = ["localhost", "answers", "silent"]
    done, found = audit(hosts, audit_folders=[f"{tmp_path}/en*", "/no/such folder"])
    # of this machine and of one whose Python is too old for Ansible's modules
    for host in hosts[:2]:
        lines = found[f"{host}.jsonl"]
        assert sorted(line["verdict"] for line in lines if "verdict" in line) == [
            "AFFECTED",
            "FIXED",
            "FIXED",
        ], done.stdout
        assert {line["path"] for line in lines if "trouble" in line} == {
            "/no/such folder",
            f"{envs}/broken/conda-meta/state",
        }
    (line,) = found["silent.jsonl"]
    assert "timed out" in line["failed"]
    # Ansible's: a host failed
    assert done.returncode == 2
    recap = {
        line.split()[0]: "failed=1" in line
        for line in done.stdout.split("PLAY RECAP")[1].splitlines()[1:]
        if line
    }
    assert recap == {"localhost": False, "answers": False, "silent": True}


def test_all_answered_is_0_also_where_none_of_the_folders_is(audit):
    (command,) = (command for command in pages.commands(pages.FLEET) if "audit.yml" in command)
    command = command.replace("scripts/", f"{paths.ROOT}/scripts/")
    done, found = audit(["localhost"], command.split(), audit_folders=["/no/such"])
    assert done.returncode == 0, done.stdout
    assert [line["trouble"] for line in found["localhost.jsonl"]] == ["no such folder"]


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"audit_seconds": 0.01}, "no end after 0.01 seconds"),
        ({"audit_python": "/no/such/python"}, "/no/such/python"),
    ],
)
def test_a_host_on_which_it_cannot_run_is_failed_with_the_reason(audit, envs, variables, why):
    done, found = audit(["localhost"], audit_folders=[str(envs)], **variables)
    assert done.returncode == 2
    (line,) = found["localhost.jsonl"]
    assert why in line["failed"] and why in done.stdout
