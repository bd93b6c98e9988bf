"""The playbook, by the real Ansible: on this machine and over ssh; some hosts do not answer."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers import debian, pages
from helpers.pythons import python36
from numpy_feedstock import paths
from numpy_feedstock.building import environments

PLAYBOOK = paths.ROOT / "scripts" / "fleet" / "audit.yml"
SUMMARY = PLAYBOOK.with_name("summarise_audits.py")
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
            # a busy machine takes seconds to answer
            "ANSIBLE_TIMEOUT": "100",
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
            timeout=600,
        )

    return run


@pytest.fixture
def audit(run, tmp_path, ssh_config):
    """Runs the playbook: (the finished process, {name of a file: its lines})."""

    def audit(hosts, command=("ansible-playbook", "-i", "INVENTORY", PLAYBOOK), **variables):
        inventory = tmp_path / "INVENTORY"
        local = f"localhost ansible_connection=local audit_python={python36() or sys.executable}"
        lines = {"localhost": local, "silent": "silent ansible_ssh_timeout=3"}
        inventory.write_text("".join(f"{lines.get(host, host)}\n" for host in hosts))
        more = {"ansible_ssh_common_args": f"-F {ssh_config}", **variables}
        done = run(*command, "-e", json.dumps(more))
        return done, {
            path.name: [json.loads(line) for line in path.read_text().splitlines() if line]
            for path in (tmp_path / "audits").glob("*.jsonl")
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
    command, *_ = (command for command in pages.commands(pages.FLEET) if "audit.yml" in command)
    command = command.replace("scripts/", f"{paths.ROOT}/scripts/")
    done, found = audit(["localhost"], command.split(), audit_folders=["/no/such"])
    assert done.returncode == 0, done.stdout
    trouble, end = found["localhost.jsonl"]
    assert (trouble["trouble"], end["roots"]) == ("no such folder", [])


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


def test_the_hosts_of_the_last_run_are_kept_and_old_files_go(audit, envs, tmp_path):
    audit(["localhost", "answers"], audit_folders=[str(envs)])
    done, found = audit(["localhost"], audit_folders=[str(envs / "fixed")])
    assert (done.returncode, len(found["localhost.jsonl"])) == (0, 2), done.stdout
    assert (tmp_path / "audits" / "hosts.txt").read_text() == "localhost\n"
    command = [sys.executable, SUMMARY, "--json", tmp_path / "audits"]
    summary = json.loads(subprocess.run(command, stdout=subprocess.PIPE).stdout)
    assert summary["not_in_hosts_file"] == ["answers"] and not summary["done"]


def results(lines):
    return [line["result"] for line in lines if "result" in line]


def test_hosts_are_healed_and_healing_is_undone(audit, released):
    """Each host has the same prefix: the first one heals it, the second finds it healed."""
    source = released / "lib" / "python3.11" / "site-packages" / "numpy" / "__init__.py"
    before = source.read_bytes()
    for heal, first, second, verdict in (
        ("dry-run", "would-heal", "would-heal", "AFFECTED"),
        ("apply", "healed", "unchanged", "FIXED"),
        ("undo", "undone", "unchanged", "AFFECTED"),
    ):
        done, found = audit(["localhost", "answers"], heal=heal, audit_folders=[str(released)])
        assert done.returncode == 0, done.stdout
        assert results(found["localhost.jsonl"]) == [first]
        lines = found["answers.jsonl"]
        assert results(lines) == [second]
        assert [line["verdict"] for line in lines if "verdict" in line] == [verdict]
        assert (source.read_bytes() == before) == (verdict == "AFFECTED")


def test_the_commands_of_the_guide_that_heal(audit, released):
    """In the guide's order, but on a prefix of the test instead of this machine's folders."""
    debian.install("sudo")
    seen = []
    for command in pages.commands(pages.FLEET):
        if "-e heal=" in command:
            line = command.replace("scripts/", f"{paths.ROOT}/scripts/")
            done, found = audit(["localhost"], line.split(), audit_folders=[str(released)])
            assert done.returncode == 0, done.stdout
            seen += results(found["localhost.jsonl"])
    assert seen == ["would-heal", "healed", "undone"]


def test_nothing_is_changed_where_the_canary_fails(audit, released):
    done, found = audit(
        ["closed", "localhost", "answers"], heal="apply", audit_folders=[str(released)]
    )
    assert (done.returncode, list(found)) == (2, ["closed.jsonl"]), done.stdout
    assert "Connection refused" in found["closed.jsonl"][0]["failed"]


def test_healing_goes_on_in_parts_and_stops_after_a_part_with_a_failure(audit, released, tmp_path):
    """What an earlier run wrote of a host that is not reached goes, too."""
    hosts = ["localhost", "closed", "answers", "answers-too"]
    audit(["answers-too"], audit_folders=[str(released)])
    done, found = audit(hosts, heal="apply", heal_part=2, audit_folders=[str(released)])
    assert done.returncode == 2
    assert sorted(found) == ["answers.jsonl", "closed.jsonl", "localhost.jsonl"], done.stdout
    assert results(found["localhost.jsonl"]) == ["healed"]
    assert results(found["answers.jsonl"]) == ["unchanged"]
    assert (tmp_path / "audits" / "hosts.txt").read_text().split() == hosts


def test_a_failed_healing_stops_the_others(audit, released, small_disk):
    prefix = small_disk / "full"
    shutil.copytree(released, prefix, symlinks=True)
    with contextlib.suppress(OSError), open(small_disk / "rest", "wb", 0) as stream:
        while True:
            stream.write(bytes(4096))
    done, found = audit(["localhost", "answers"], heal="apply", audit_folders=[str(prefix)])
    assert (done.returncode, list(found)) == (2, ["localhost.jsonl"]), done.stdout
    assert results(found["localhost.jsonl"]) == ["failed"]
    assert "healing failed" in done.stdout


def test_the_default_folders_are_those_of_the_guide():
    (play,) = yaml.safe_load(PLAYBOOK.read_text())
    (command,) = (
        command
        for command in pages.commands(pages.FLEET)
        if "audit_over_ssh.sh hosts.txt" in command
    )
    _, _, *folders = shlex.split(command)[1:]
    assert play["vars"]["audit_folders"] == folders
    for folder in ("miniconda3", "miniforge3", "mambaforge", "anaconda3", ".conda"):
        assert f"/home/*/{folder}" in folders and f"/root/{folder}" in folders
    assert {"/opt", "/usr/local"} <= set(folders)
