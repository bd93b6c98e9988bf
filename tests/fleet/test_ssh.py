"""The audit of hosts over ssh, by a real server on loopback."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from helpers import debian, pages
from numpy_feedstock import paths

FLEET = paths.ROOT / "scripts" / "fleet"
SCRIPT = FLEET / "audit_over_ssh.sh"
# The first value of an option is taken. A busy machine takes seconds to answer.
SSH = """\
#!/bin/sh
case "$*" in *" silent "*) seconds=3 ;; *) seconds=100 ;; esac
exec /usr/bin/ssh -F {config} -o ConnectTimeout=$seconds "$@"
"""
# Takes the call and notes who came. Hangs up when so many are there as may be, and notes who went.
BUSY_SSH = """\
#!/bin/sh
echo + >>{log}
for second in $(seq 60); do
    sleep 1
    [ "$(grep -c + {log})" -lt {at_a_time} ] || break
done
echo - >>{log}
exit 255
"""


@pytest.fixture
def audit(ssh_config, tmp_path):
    """Audits hosts: (the finished process, {name of a file: its lines})."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(config=shlex.quote(str(ssh_config))))
    program.chmod(0o755)

    def run(hosts, *folders, command=(SCRIPT, "hosts.txt", "audits"), **variables):
        (tmp_path / "hosts.txt").write_bytes(hosts.encode())
        own = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", **variables}
        done = subprocess.run(
            [*command, *folders], cwd=tmp_path, capture_output=True, text=True, timeout=600, env=own
        )
        found = {
            path.name: [json.loads(line) for line in path.read_text().splitlines() if line]
            for path in tmp_path.glob("audits/*.jsonl")
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
    assert (tmp_path / "audits" / "hosts.txt").read_text() == "answers\nanswers-too\n"
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


GUIDE = [command for command in pages.commands(pages.FLEET) if "audit_over_ssh.sh" in command]


def test_the_command_of_the_guide_that_counts(audit):
    command = GUIDE[0]
    program, *arguments = shlex.split(command)
    done, found = audit("answers\n", command=(paths.ROOT / program, *arguments))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(found) == ["answers.jsonl"]


def test_the_commands_of_the_guide_that_heal(audit, released):
    """In the guide's order, but on a prefix of the test instead of this machine's folders."""
    debian.install("sudo")
    seen = []
    for command in GUIDE[1:]:
        program, *arguments = shlex.split(command)
        folders = arguments.index("audits") + 1
        done, found = audit(
            "answers\n", released, command=(paths.ROOT / program, *arguments[:folders])
        )
        assert done.returncode == 0, done.stderr
        seen += results(found["answers.jsonl"])
    assert seen == ["would-heal", "healed", "undone"]


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
        "-oProxyCommand=false is no name of a host\n" in done.stderr
        and "../up is no name of a host\n" in done.stderr
    )
    assert len(found["answers.jsonl"]) == 5 and len(found) == 4


def test_what_a_host_sends_does_not_steer_the_terminal(audit, envs, tmp_path):
    # stands in for a server whose banner or shell says this
    (tmp_path / "bin" / "ssh").write_text(
        "#!/bin/sh\nprintf '\\033[2Jcleared\\302\\233\\r\\n' >&2; exit 1\n"
    )
    done, found = audit("hostile\n", envs)
    assert done.returncode == 1
    assert "cleared" in done.stderr
    assert done.stderr.replace("\n", "").isprintable()
    assert "cleared" in found["hostile.jsonl"][0]["failed"]


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_host_that_sends_without_an_end_is_given_up(tmp_path, stream):
    # stands in for a server that does so
    (tmp_path / "ssh").write_text(f"#!/bin/sh\nexec yes {'{' * 10000} >&{stream}\n")
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "hosts").write_text("hostile\n")
    own = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "AUDIT_SECONDS": "60"}
    command = [SCRIPT, tmp_path / "hosts", tmp_path / "audits", "/opt"]
    done = subprocess.run(command, capture_output=True, text=True, env=own)
    said = "hostile did not answer: it sent more than 256 MB\n"
    assert (done.returncode, done.stderr) == (1, said)
    kept = tmp_path / "audits" / "hostile.jsonl"
    assert kept.stat().st_size < 300_000_000
    kept.unlink()


def test_a_host_that_has_none_of_the_folders_did_answer(audit):
    done, found = audit("answers\n", "/no/such")
    assert (done.returncode, done.stderr) == (0, "")
    trouble, end = found["answers.jsonl"]
    assert (trouble["trouble"], end["roots"]) == ("no such folder", [])


def test_a_host_that_takes_too_long_is_given_up(audit, envs):
    # no Python has read its first line by then
    done, found = audit("answers\n", envs, AUDIT_SECONDS="0.01")
    assert (done.returncode, done.stderr) == (
        1,
        "answers did not answer: no end after 0.01 seconds\n",
    )
    assert found["answers.jsonl"] == [{"failed": "no end after 0.01 seconds"}]


@pytest.mark.parametrize(
    "hosts",
    [
        "answers-too\nanswers",
        "answers-too\r\nanswers\r\n",
        "answers-too\ranswers",
        "\ufeffanswers-too\nanswers\n",
        "  answers-too\n\tanswers\n\nanswers\n#silent\nanswers-too again\n",
    ],
    ids=["no newline at the end", "CRLF", "CR", "a byte order mark", "repeated"],
)
def test_each_host_of_any_hosts_file_is_asked_once(audit, envs, tmp_path, hosts):
    done, found = audit(hosts, envs / "fixed")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(found) == ["answers-too.jsonl", "answers.jsonl"]
    for lines in found.values():
        assert [line["type"] for line in lines] == ["numpy", "end"]
    assert summarise(tmp_path) == 0


def test_a_hosts_file_without_hosts_is_wrong_use(audit, envs):
    done, found = audit("# none\n\n", envs)
    assert (done.returncode, found) == (2, {})
    assert "no host is in hosts.txt" in done.stderr


def summarise(tmp_path, *arguments):
    """The exit code of the summary."""
    command = [FLEET / "summarise_audits.py", *arguments, tmp_path / "audits"]
    return subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL).returncode


def test_an_old_file_does_not_count_after_a_second_run(audit, envs, tmp_path):
    audit("answers\nanswers-too\n", envs / "fixed")
    assert summarise(tmp_path) == 0
    audit("answers\n", envs / "fixed")
    assert summarise(tmp_path) == 1
    (tmp_path / "all.txt").write_text("answers\nanswers-too\nstranger")
    assert summarise(tmp_path, "--hosts", tmp_path / "all.txt") == 1
    (tmp_path / "all.txt").write_text("answers\nanswers-too")
    assert summarise(tmp_path, "--hosts", tmp_path / "all.txt") == 0


def test_the_hosts_file_of_the_last_run_can_be_used_again(audit, envs, tmp_path):
    (tmp_path / "audits").mkdir()
    (tmp_path / "hosts.txt").symlink_to("audits/hosts.txt")
    audit("answers # ours\n", envs / "fixed")
    assert (tmp_path / "audits" / "hosts.txt").read_text() == "answers # ours\n"
    assert summarise(tmp_path) == 0


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_so_many_hosts_are_asked_at_a_time_as_is_said(audit, tmp_path, at_a_time):
    """Three hosts take the call and hang up after a while; the log has who came and who went."""
    ssh, log = tmp_path / "bin" / "ssh", tmp_path / "log"
    ssh.write_text(BUSY_SSH.format(log=log, at_a_time=at_a_time))
    audit(
        "a\nb\nc\n", "/opt", command=(SCRIPT, "--at-a-time", str(at_a_time), "hosts.txt", "audits")
    )
    running = most = 0
    for sign in log.read_text().split():
        running += {"+": 1, "-": -1}[sign]
        most = max(most, running)
    assert most == at_a_time


def healing(*options):
    return SCRIPT, *options, "hosts.txt", "audits"


def init_of(prefix):
    return prefix / "lib" / "python3.11" / "site-packages" / "numpy" / "__init__.py"


def results(lines):
    return [line["result"] for line in lines if "result" in line]


def verdicts(lines):
    return [line["verdict"] for line in lines if "verdict" in line]


def test_hosts_are_healed_and_healing_is_undone(audit, released, ssh_config, tmp_path):
    """Each host has the same prefix: the first one heals it, the second finds it healed."""
    before = init_of(released).read_bytes()
    hosts = "answers\nanswers-too\n"
    for option, first, second, verdict in (
        ("--heal", "would-heal", "would-heal", "AFFECTED"),
        ("--apply --dry-run", "would-heal", "would-heal", "AFFECTED"),
        ("--apply", "healed", "unchanged", "FIXED"),
        ("--undo --dry-run", "would-undo", "would-undo", "FIXED"),
        ("--undo", "undone", "unchanged", "AFFECTED"),
    ):
        done, found = audit(hosts, released, command=healing(*option.split()))
        assert done.returncode == 0, done.stderr
        assert results(found["answers.jsonl"]) == [first]
        assert results(found["answers-too.jsonl"]) == [second]
        assert verdicts(found["answers-too.jsonl"]) == [verdict]
        assert (init_of(released).read_bytes() == before) == (verdict == "AFFECTED")
        assert summarise(tmp_path) == (verdict == "AFFECTED")
    assert not list(ssh_config.with_name("tmp").iterdir())


def test_healing_works_as_another_user_by_sudo(audit, released):
    debian.install("sudo")
    done, found = audit("answers\n", released, command=healing("--apply", "--sudo"))
    assert (done.returncode, results(found["answers.jsonl"])) == (0, ["healed"]), done.stderr


@pytest.mark.parametrize("option", ["--apply", "--undo"])
def test_nothing_is_changed_where_the_canary_fails(audit, released, option):
    before = init_of(released).read_bytes()
    done, found = audit("closed\nanswers\nanswers-too\n", released, command=healing(option))
    assert done.returncode == 1
    assert list(found) == ["closed.jsonl"]
    assert "stopped: 2 hosts were not asked\n" in done.stderr
    assert init_of(released).read_bytes() == before


def test_healing_goes_on_in_parts_and_stops_after_a_part_with_a_failure(audit, released, tmp_path):
    hosts = "answers\nclosed\nanswers-too\nstranger\n"
    audit("stranger\n", released)
    command = healing("--apply", "--at-a-time", "2")
    done, found = audit(hosts, released, command=command)
    assert done.returncode == 1
    # the canary, then a part of two
    assert sorted(found) == ["answers-too.jsonl", "answers.jsonl", "closed.jsonl"]
    assert "apply: 1 of 4 hosts\n" in done.stderr and "apply: 3 of 4 hosts\n" in done.stderr
    assert "stopped: 1 hosts were not asked\n" in done.stderr
    # what an earlier run wrote of the host that was not asked is gone
    assert summarise(tmp_path) == 1


def test_a_host_on_which_healing_failed_is_named_and_stops_the_others(
    audit, released, small_disk, tmp_path
):
    prefix = small_disk / "full"
    shutil.copytree(released, prefix, symlinks=True)
    with contextlib.suppress(OSError), open(small_disk / "rest", "wb", 0) as stream:
        while True:
            stream.write(bytes(4096))
    done, found = audit("answers\nanswers-too\n", prefix, command=healing("--apply"))
    assert results(found["answers.jsonl"]) == ["failed"]
    assert (done.returncode, sorted(found)) == (1, ["answers.jsonl"])
    assert "answers failed: " in done.stderr
    assert summarise(tmp_path) == 1


def test_dry_runs_ask_all_hosts_whoever_fails(audit, released):
    done, found = audit("closed\nanswers\n", released, command=healing("--heal"))
    assert (done.returncode, results(found["answers.jsonl"])) == (1, ["would-heal"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["hosts.txt"],
        ["/no/such/hosts.txt", "audits", "/opt/conda"],
        ["/tmp", "audits", "/opt/conda"],
        ["--at-a-time", "0", "/dev/null", "audits", "/opt"],
        ["--at-a-time"],
        ["--apply", "--undo", "/dev/null", "audits", "/opt"],
        ["--dry-run", "/dev/null", "audits", "/opt"],
        ["--splendid", "/dev/null", "audits", "/opt"],
    ],
)
def test_wrong_use_is_2_and_says_how_it_is_used(arguments, tmp_path):
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "audit_over_ssh.sh [OPTION...] HOSTS RESULTS FOLDER..." in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_names_every_option():
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--at-a-time", "--heal", "--apply", "--undo", "--dry-run", "--sudo"):
        assert f"  {option} " in done.stdout
    assert "set " not in done.stdout
