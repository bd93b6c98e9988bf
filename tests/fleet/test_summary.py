"""The summary of a fleet's audits, under this Python and 3.6: text, JSON, a page in a browser."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from helpers import pages
from helpers.browser import chromium
from helpers.pythons import python36
from numpy_feedstock import paths

AUDIT = paths.ROOT / "scripts" / "audit_numpy.py"
SCRIPT = paths.ROOT / "scripts" / "fleet" / "summarise_audits.py"
# as bad as names get: markup, controls of a terminal, no text, another reading direction
HOSTILE = (
    "\"'><script>document.title='run'</script><img src=http://elsewhere.example/seen>"
    "&amp;\x1b[2J\udcff\u202e"
)
HOSTILE_HOST = HOSTILE.replace("/", "").replace("\udcff", "")


@pytest.fixture(params=["this Python", "3.6"])
def summarise(request):
    """Runs the summary: (exit code, what it printed, what it said on stderr)."""
    python = sys.executable if request.param == "this Python" else python36()
    if python is None:
        pytest.skip("no Python 3.6 here, neither python3.6 nor one of pyenv's")
    return functools.partial(run, python)


def run(python, *arguments, **variables):
    command = [python, "-I", "-B", "-W", "error", SCRIPT, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **variables}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def fleet(tmp_path):
    """Puts down what hosts said: {host: entries or text}."""

    def put(**hosts):
        folder = tmp_path / "audits"
        folder.mkdir()
        for host, entries in hosts.items():
            text = (
                entries
                if isinstance(entries, str)
                else "".join(json.dumps(entry) + "\n" for entry in entries)
            )
            (folder / f"{host}.jsonl").write_text(text, errors="surrogateescape")
        return folder

    return put


COMMON = {"schema": 1, "date": "2026-11-25T18:00:00Z", "host": "localhost"}


def row(verdict, version="2.3.5", prefix="/opt/conda/envs/a", **more):
    return {
        **COMMON,
        "type": "numpy",
        "verdict": verdict,
        "prefix": prefix,
        "numpy": f"{prefix}/numpy",
        "owner": "root",
        "installer": "conda",
        "version": version,
        "build": "py311h1_0",
        "channel": "conda-forge",
        "gate": "ungated",
        "blas": "mkl",
        "blas_by": "libmkl_rt.so.2",
        "activation": {},
        "importers": ["csp"],
        "reason": "because",
        "healed": False,
        "remedies": [f"python3 heal_numpy.py --apply {prefix}"],
        "remedy_note": "",
        **more,
    }


def trouble(kind, text="broken", path="/d"):
    return {**COMMON, "type": "trouble", "kind": kind, "trouble": text, "path": path}


def end(code=0, numpys=1, **more):
    about = {"left_out": 0, "unreadable": 0, "folders": 9, "prefixes": 1, "caches": 0}
    about |= {"excluded": 0, "quick": False, "roots": ["/opt/conda"], "verdicts": {}}
    return {**COMMON, "type": "end", "exit": code, "numpys": numpys, **about, **more}


def heal(result, prefix="/opt/conda/envs/a", reason="", **more):
    about = {"numpy": f"{prefix}/numpy", "version": "2.3.5", "way": "in place", "remedy": ""}
    return {"host": "h", "prefix": prefix, "result": result, "reason": reason, **about, **more}


def heal_end(**counts):
    return {"host": "h", "summary": counts, "troubles": 0}


def a_fleet():
    """Eight hosts: one of each state, and one that has of everything."""
    return {
        "a": [
            row("AFFECTED"),
            row("AFFECTED", "2.10.0", "/b"),
            row("FIXED", "2.4.5", "/c"),
            trouble("broken"),
            end(1, 3),
        ],
        "b": [row("AFFECTED"), end(1)],
        "c": [row("LATENT", blas="openblas"), end()],
        "d": [row("FIXED"), row("UNKNOWN", "", blas=None), row("LATENT"), end(2, 3)],
        "e": [row("FIXED", prefix="/same"), row("FIXED", prefix="/same"), end(0, 2)],
        "f": [end(0, 0)],
        "g": [row("AFFECTED"), {"failed": "no end after 600 seconds"}],
        "h": [row("FIXED"), trouble("left out", "a link", "/e"), end(2, left_out=1)],
    }


def summary_of(summarise, folder, *arguments):
    """(exit code, the summary)."""
    code, printed, said = summarise("--json", *arguments, folder)
    assert said == ""
    summary = json.loads(printed)
    assert summary["done"] == (code == 0)
    return code, summary


def test_what_the_audit_says_is_counted(summarise, envs, tmp_path):
    (tmp_path / "audits").mkdir()
    with open(tmp_path / "audits" / "a.jsonl", "w") as stream:
        subprocess.run([sys.executable, AUDIT, "--json", envs], stdout=stream)
    code, summary = summary_of(summarise, tmp_path / "audits")
    assert (code, summary["prefixes"], summary["numpys"]) == (1, 3, 3)
    assert summary["hosts"]["AFFECTED"] == 1
    assert summary["versions"] == [
        {"version": "2.3.5", "AFFECTED": 1, "LATENT": 0, "FIXED": 2, "UNKNOWN": 0}
    ]
    (found,) = summary["affected"]
    assert (found["prefix"], found["hosts"]) == (str(envs / "affected"), ["a"])
    assert found["owner"] == (envs / "affected").owner()
    assert found["remedies"] and summary["date"] > "2026"
    assert summary["troubles"][0]["example"] == str(envs / "broken" / "conda-meta" / "state")


def test_a_real_audit_of_fixed_prefixes_is_done(summarise, envs, tmp_path):
    (tmp_path / "audits").mkdir()
    with open(tmp_path / "audits" / "a.jsonl", "w") as stream:
        subprocess.run([sys.executable, AUDIT, "--json", envs / "fixed"], stdout=stream)
    assert summary_of(summarise, tmp_path / "audits")[0] == 0


def test_hosts_are_counted_by_their_worst_and_numpys_by_version(summarise, fleet):
    code, summary = summary_of(summarise, fleet(**a_fleet()))
    assert code == 1
    assert summary["hosts"] == {
        "AFFECTED": 2,
        "LATENT": 1,
        "FIXED": 1,
        "UNKNOWN": 1,
        "not complete": 1,
        "no numpy": 1,
        "no answer": 1,
        "missing": 0,
    }
    # what a host said before it failed counts
    assert (summary["prefixes"], summary["numpys"]) == (9, 12)
    assert [(each["version"], each["AFFECTED"]) for each in summary["versions"]] == [
        ("", 0),
        ("2.3.5", 3),
        ("2.4.5", 0),
        ("2.10.0", 1),
    ]
    assert summary["no_answer"] == [{"host": "g", "why": "no end after 600 seconds"}]
    (broken,) = [each for each in summary["troubles"] if each["kind"] == "broken"]
    assert (broken["places"], broken["example"], broken["hosts"]) == (1, "/d", ["a"])
    assert [(each["reason"], each["hosts"]) for each in summary["unknown"]] == [("because", ["d"])]


def test_what_concerns_most_hosts_comes_first_with_what_mends_it(summarise, fleet):
    code, summary = summary_of(summarise, fleet(**a_fleet()))
    assert [(each["prefix"], each["hosts"]) for each in summary["affected"]] == [
        ("/opt/conda/envs/a", ["a", "b", "g"]),
        ("/b", ["a"]),
    ]
    assert summary["affected"][1]["remedies"] == ["python3 heal_numpy.py --apply /b"]


def test_activation_and_the_owner_of_the_prefix_are_kept(summarise, fleet):
    activation = {"MKL_THREADING_LAYER": "SEQUENTIAL"}
    mine = row("AFFECTED", activation=activation, owner="ann")
    folder = fleet(a=[mine, end(1)], b=[row("AFFECTED", owner="bob"), end(1)], c=[mine, end(1)])
    _, summary = summary_of(summarise, folder)
    assert summary["affected"][0]["activation"] == "MKL_THREADING_LAYER=SEQUENTIAL"
    tickets = [(each["owner"], each["places"], each["hosts"]) for each in summary["owners"]]
    assert tickets == [("ann", 2, ["a", "c"]), ("bob", 1, ["b"])]
    printed = summarise(folder)[1]
    assert "MKL_THREADING_LAYER=SEQUENTIAL" in printed and "whom the tickets go to" in printed


def test_the_text_has_it_as_tables(summarise, fleet):
    _, printed, _ = summarise(fleet(**a_fleet()))
    lines = [line.split() for line in printed.splitlines()]
    for expected in (
        "8 2 1 1 1 1 1 1 0",
        "2.3.5 3 2 4 0",
        "3 3 2.3.5 py311h1_0 conda-forge mkl csp - python3 heal_numpy.py --apply PREFIX"
        " /opt/conda/envs/a (root) a b g",
        "1 1 because /opt/conda/envs/a d",
        "1 1 no end after 600 seconds no end after 600 seconds g",
        "1 1 broken broken /d a",
        "1 1 some left out 1 left out h",
        "12 numpys in 9 prefixes, by version",
    ):
        assert expected.split() in lines
    assert "2026-11-25T18:00:00Z" in lines[0]
    assert printed.startswith("Not done: 5 of 8 hosts are open.")


def test_many_hosts_are_named_in_part(summarise, fleet):
    folder = fleet(**{f"h{number}": [row("AFFECTED"), end(1)] for number in range(5)})
    assert "h0 h1 h2 and 2 more" in summarise(folder)[1]
    assert len(summary_of(summarise, folder)[1]["affected"][0]["hosts"]) == 5


# --- ways to a wrong "done"

FIXED = [row("FIXED"), end()]
DONE = {
    "fixed": FIXED,
    "latent": [row("LATENT"), end()],
    "no numpy": [end(0, 0)],
    "a note beside it": [row("FIXED"), trouble("broken"), end()],
    "the greeting of a login script": "Welcome!\n"
    + json.dumps(row("FIXED"))
    + "\n"
    + json.dumps(end())
    + "\nGood bye\n",
}
NOT_DONE = {
    "affected": [row("AFFECTED"), end(1)],
    "unknown alone": [row("UNKNOWN"), end(2)],
    "no answer": [{"failed": "x"}],
    "an answer, then none": [*FIXED, {"failed": "x"}],
    "empty": "",
    "blank": "\n\n",
    "troubles alone": [trouble("broken", "no such folder", "/opt/conda")],
    "unreadable": [trouble("unreadable", "Permission denied"), end(2, 0, unreadable=1)],
    "unreadable, says the trouble alone": [trouble("unreadable"), end(0, 0)],
    "left out, says the end alone": [end(0, 0, left_out=1)],
    "left out": [trouble("left out", "a link"), end(2, 0, left_out=1)],
    "none of the folders": [trouble("broken", "no such folder"), end(0, 0, roots=[])],
    "no end": [row("FIXED")],
    "half a line": json.dumps(row("FIXED")) + "\n" + json.dumps(end())[:40],
    "half a line in the middle": json.dumps(row("AFFECTED"))[:90] + "\n" + json.dumps(end()),
    "half a line after a word": "Hello " + json.dumps(row("AFFECTED")) + "\n" + json.dumps(end()),
    "a line was lost": [row("FIXED"), end(0, 2)],
    "lines after the end": [end(0, 0), row("FIXED")],
    "no exit code of 0": [row("FIXED"), end(1)],
    "an older audit, without a schema": [
        {key: value for key, value in each.items() if key not in ("schema", "type", "date")}
        for each in FIXED
    ],
    "a newer schema": [{**each, "schema": 2} for each in FIXED],
    "a verdict that nobody knows": [row("SPLENDID"), end()],
    "no numbers in the end": [row("FIXED"), {**COMMON, "type": "end", "exit": 0}],
    "no date": [row("FIXED"), end(date="yesterday")],
    "numbers without an end": json.dumps(row("FIXED"))
    + "\n"
    + json.dumps(end()).replace('"numpys": 1', '"numpys": 1e999'),
    "a number below zero": [row("FIXED"), end(0, -1)],
    "half a number": [row("FIXED"), end(0, left_out=0.5)],
    "no number": [row("FIXED"), end(False)],
    "a text instead of folders": [row("FIXED"), end(roots="/")],
    "other verdicts than were counted": [row("FIXED"), end(verdicts={"FIXED": 0, "AFFECTED": 1})],
    "two audits, and the second lost a line": [
        *(row("FIXED"), end(verdicts={"AFFECTED": 0, "FIXED": 1})),
        end(0, 1, verdicts={"AFFECTED": 1, "FIXED": 0}),
    ],
    "healing did not end": [heal("healed"), *FIXED],
    "healing failed": [heal("failed"), heal_end(failed=1), *FIXED],
}


@pytest.mark.parametrize("host", DONE.values(), ids=DONE)
def test_a_host_that_was_looked_at_is_done(summarise, fleet, host):
    assert summary_of(summarise, fleet(a=FIXED, b=host))[0] == 0


@pytest.mark.parametrize("host", NOT_DONE.values(), ids=NOT_DONE)
def test_one_host_that_is_not_done_makes_the_fleet_not_done(summarise, fleet, host):
    folder = fleet(a=FIXED, b=host)
    code, summary = summary_of(summarise, folder)
    assert code == 1
    (about,) = [each for each in summary["each_host"] if each["host"] == "b"]
    open_for = about["state"] in ("AFFECTED", "UNKNOWN", "no answer") or about["not_done_because"]
    assert open_for
    assert summarise(folder)[1].startswith("Not done: 1 of 2 hosts are open.")


def test_a_file_that_cannot_be_read_is_no_answer(summarise, fleet):
    folder = fleet(a=FIXED)
    (folder / "b.jsonl").mkdir()
    code, summary = summary_of(summarise, folder)
    assert (code, summary["hosts"]["no answer"]) == (1, 1)
    assert "directory" in summary["no_answer"][0]["why"]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "an ending"])
def test_a_host_of_the_hosts_file_without_a_file_is_missing(
    summarise, fleet, tmp_path, ending, last
):
    folder = fleet(a=FIXED, b=FIXED)
    names = ["# the fleet", "", "a  the first", "b", "a", "last"]
    (tmp_path / "hosts.txt").write_bytes((ending.join(names) + ending * bool(last)).encode())
    code, summary = summary_of(summarise, folder, "--hosts", tmp_path / "hosts.txt")
    assert (code, summary["missing"], summary["expected"]) == (1, ["last"], 3)
    (folder / "last.jsonl").write_text((folder / "a.jsonl").read_text())
    assert summary_of(summarise, folder, "--hosts", tmp_path / "hosts.txt")[0] == 0


@pytest.mark.parametrize("where", ["tmp", "audits"])
def test_a_file_of_a_host_that_was_not_to_be_asked_does_not_count(
    summarise, fleet, tmp_path, where
):
    """Such as one of an earlier run, which asked more hosts."""
    folder = fleet(a=FIXED, gone=FIXED)
    if where == "tmp":
        (tmp_path / "hosts.txt").write_text("a")
        arguments = ["--hosts", tmp_path / "hosts.txt"]
    else:
        # the ssh script and the playbook put it there
        (folder / "hosts.txt").write_text("a\n")
        arguments = []
    code, summary = summary_of(summarise, folder, *arguments)
    assert (code, summary["not_in_hosts_file"]) == (1, ["gone"])
    assert summary["hosts"]["FIXED"] == 1
    assert "gone" in summarise(*arguments, folder)[1]
    (folder / "gone.jsonl").unlink()
    assert summary_of(summarise, folder, *arguments)[0] == 0


def test_a_hosts_file_of_the_caller_counts_instead_of_the_last_run(summarise, fleet, tmp_path):
    folder = fleet(a=FIXED, b=FIXED)
    (folder / "hosts.txt").write_text("b\n")
    (tmp_path / "all.txt").write_text("a\nb\n")
    assert summary_of(summarise, folder, "--hosts", tmp_path / "all.txt")[0] == 0


def test_an_audit_that_is_much_older_than_the_newest_is_not_done(summarise, fleet):
    old = end(date="2026-11-24T17:59:59Z")
    folder = fleet(a=FIXED, b=[row("FIXED"), old])
    code, summary = summary_of(summarise, folder)
    assert (code, summary["hosts"]["not complete"]) == (1, 1)
    assert (summary["date"], summary["oldest_date"]) == (COMMON["date"], old["date"])
    assert summary_of(summarise, folder, "--max-age", "25")[0] == 0


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "-1", "", "1_0", "\u0661", "9999999"])
def test_an_age_that_is_no_number_of_hours_is_refused(summarise, fleet, text):
    code, printed, said = summarise("--max-age=" + text, fleet(a=FIXED))
    assert (code, printed) == (2, "")
    assert "argument --max-age: hours from 0 to 999999 are needed" in said


def test_a_clock_that_is_ahead_makes_no_other_audit_old(summarise, fleet):
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    folder = fleet(
        a=[row("FIXED"), end(date=now)], b=[row("FIXED"), end(date="2099-01-01T00:00:00Z")]
    )
    assert summary_of(summarise, folder)[0] == 0


@pytest.mark.parametrize(
    "line",
    ["Welcome!", "[]", "1", "null", "\0", "\udcff", "[" * 100_000],
)
def test_a_line_that_is_none_of_the_audits_is_a_trouble(summarise, fleet, line):
    text = "\n\n".join([line, *map(json.dumps, FIXED)])
    code, summary = summary_of(summarise, fleet(a=text))
    assert (code, summary["numpys"]) == (0, 1)
    (found,) = summary["troubles"]
    assert found["trouble"] == "printed what is no line of the audit"
    assert len(found["example"]) <= 100


@pytest.mark.parametrize(
    "line",
    [
        '{"half',
        "{}",
        '{"verdict": "SPLENDID"}',
        json.dumps({**row("FIXED"), "verdict": ["AFFECTED"]}),
        '{"verdict": "FIXED"}',
        '{"trouble": "x"}',
        '{"summary": 1}',
        '{"type": ' * 100_000,
        json.dumps(row("FIXED", importers=1)),
        json.dumps(row("FIXED", activation="A=1")),
        json.dumps(row("FIXED", remedies=None)),
    ],
)
def test_a_line_that_may_have_been_the_audits_is_never_done(summarise, fleet, line):
    code, summary = summary_of(summarise, fleet(a="\n".join([line, *map(json.dumps, FIXED)])))
    assert (code, summary["hosts"]["not complete"]) == (1, 1)


def test_the_bridge_is_counted_as_long_as_it_stands(summarise, fleet):
    folder = fleet(a=[row("FIXED", healed=True), end()], b=FIXED)
    code, summary = summary_of(summarise, folder)
    assert (code, summary["healed_in_place"]) == (0, 1)
    assert " 1 numpys are healed in place." in summarise(folder)[1]


def test_healed_refused_and_left_are_counted(summarise, fleet):
    refused = heal("refused", "/b", "somebody edited it", remedy="look at it")
    folder = fleet(
        a=[heal("healed"), heal("unchanged", "/c"), heal_end(healed=1, unchanged=1), *FIXED],
        b=[heal("healed"), refused, heal_end(healed=1, refused=1), row("AFFECTED"), end(1)],
        c=[heal("undone"), heal_end(undone=1), row("AFFECTED"), end(1)],
        d=[row("AFFECTED"), end(1)],
    )
    code, summary = summary_of(summarise, folder)
    found = summary["healing"]
    assert code == 1
    assert found["results"] == {"healed": 2, "unchanged": 1, "refused": 1, "undone": 1}
    assert (found["hosts"], found["left"]) == (3, 2)
    assert summary["healed_in_place"] == 0
    (rest,) = found["not_healed"]
    assert (rest["reason"], rest["remedy"], rest["hosts"]) == (
        "somebody edited it",
        "look at it",
        ["b"],
    )
    lines = [line.split() for line in summarise(folder)[1].splitlines()]
    assert ["healed", "2"] in lines and ["left:", "still", "AFFECTED", "2"] in lines


@pytest.mark.parametrize("form", ["--html", "--json", None])
def test_names_steer_no_terminal_in_any_locale(summarise, fleet, form):
    folder = fleet(
        **{
            HOSTILE_HOST: [
                row("AFFECTED", HOSTILE, HOSTILE),
                trouble(HOSTILE, HOSTILE, HOSTILE),
                {"failed": HOSTILE},
            ]
        }
    )
    code, printed, said = summarise(*filter(None, [form]), folder, LC_ALL="C")
    assert (code, said) == (1, "")
    assert all(character == "\n" or " " <= character <= "~" for character in printed)
    assert "u202e" in printed


@pytest.mark.parametrize(
    "arguments", [[], ["/no/such/folder"], ["{empty}"], ["--html", "--json", "{empty}"]]
)
def test_wrong_use_is_2(summarise, tmp_path, arguments):
    code, printed, said = summarise(*(argument.format(empty=tmp_path) for argument in arguments))
    assert (code, printed) == (2, "")
    assert "usage:" in said


@pytest.mark.parametrize(
    "command", [command for command in pages.commands(pages.FLEET) if "summarise_audits" in command]
)
def test_the_commands_of_the_guide(fleet, tmp_path, command):
    fleet(**a_fleet())
    (tmp_path / "hosts.txt").write_text("\n".join(a_fleet()))
    (tmp_path / "scripts").symlink_to(paths.ROOT / "scripts")
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    page = tmp_path / "audits.html"
    assert "numpys in 9 prefixes" in (page.read_text() if page.exists() else done.stdout)


# --- the page

MEGABYTE = 1_000_000


def many(number, **more):
    """That many hosts, each with a path and an owner of its own."""
    owner = f"user{number:05d}"
    prefix = f"/home/{owner}/miniconda3/envs/project"
    about = {"prefix": prefix, "owner": owner, "remedies": [f"conda install -p {prefix} numpy"]}
    return {f"node{number:05d}.cluster.example.com": [row("AFFECTED", **about, **more), end(1)]}


def put_many(fleet, count, **more):
    hosts = {}
    for number in range(count):
        hosts |= many(number, **more)
    return fleet(**hosts)


def test_ten_thousand_hosts_of_own_paths_are_one_row_and_all_can_be_opened(fleet, opened, ask):
    printed = run(sys.executable, "--html", put_many(fleet, 10_000))[1]
    assert len(printed) <= MEGABYTE
    assert opened(printed) == []
    affected = "[...document.querySelectorAll('[aria-label=Affected] {}')]"
    assert ask(f"{affected.format('tr')}.length") == 2
    assert ask(f"{affected.format('details')}.every(list => !list.open)")
    lists = ask(f"{affected.format('pre')}.map(list => list.textContent.split('\\n'))")
    assert max(map(len, lists)) <= 500
    lines = [line for each in lists for line in each]
    assert len(lines) == 10_000
    assert lines[-1] == "node09999 /home/user09999/miniconda3/envs/project (user09999)"
    # what is closed is opened by a click on its title
    title = "document.querySelectorAll('[aria-label=Affected] summary')[7]"
    shown = f"{title}.nextSibling.checkVisibility()"
    assert not ask(shown)
    ask(f"{title}.click()")
    assert ask(shown)


@pytest.mark.parametrize("kind", ["long paths", "own reasons", "own builds", "no answer"])
def test_the_page_is_at_most_1_mb_and_says_what_it_leaves_out(fleet, kind):
    long, hosts = "x" * 400, {}
    for number in range(4000):
        name, text = f"h{number}.example.com", f"{number} {long}"
        hosts[name] = {
            "long paths": [row("AFFECTED", prefix=f"/home/{text}"), end(1)],
            "own reasons": [row("UNKNOWN", reason=text), trouble("left out", text), end(2)],
            "own builds": [row("AFFECTED", build=text, version=text), end(1)],
            "no answer": [{"failed": text}],
        }[kind]
    printed = run(sys.executable, "--html", fleet(**hosts))[1]
    assert len(printed) <= MEGABYTE
    assert "--json has" in printed


def test_hosts_whose_places_would_be_too_much_are_named_in_short(fleet):
    lost = [trouble("unreadable", "denied", "/" + "x" * 200), end(2, 0, unreadable=1)]
    printed = run(
        sys.executable, "--html", fleet(**{f"n{each:04d}.a": lost for each in range(5000)})
    )
    assert "n[0000-4999].a" in printed[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder, the port it is served on, and the paths that were asked for."""
    folder, asked = tmp_path_factory.mktemp("served"), []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    ) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, server.server_port, asked
        server.shutdown()


@pytest.fixture(scope="module")
def browser(served, tmp_path_factory):
    """A headless Chromium. What it asks of any host goes to the server of the test."""
    with chromium(tmp_path_factory.mktemp("chromium"), served[1]) as send:
        yield send


@pytest.fixture
def opened(browser, served):
    """Opens a page by plain http, and returns what else was asked for meanwhile."""

    def open_page(text):
        folder, _, asked = served
        # none that the browser may have kept
        name = f"{len(list(folder.iterdir()))}.html"
        (folder / name).write_text(text)
        asked.clear()
        browser("POST", "/url", url=f"http://fleet.example/{name}")
        # the icon is the browser's own wish, perhaps for the page before this one
        first, *others = [path for path in asked if path != "/favicon.ico"]
        assert first == f"/{name}"
        return others

    return open_page


@pytest.fixture
def page(fleet, opened):
    """Opens the page of a fleet with all states and the worst of names; see `opened`."""
    worst = {
        HOSTILE_HOST: [
            row("AFFECTED", HOSTILE, HOSTILE),
            trouble(HOSTILE, HOSTILE, HOSTILE),
            {"failed": HOSTILE},
        ]
    }
    return opened(run(sys.executable, "--html", fleet(**a_fleet(), **worst))[1])


@pytest.fixture
def ask(browser):
    """The value of an expression of JavaScript in the page."""
    return lambda expression: browser(
        "POST", "/execute/sync", script=f"return {expression}", args=[]
    )


def test_nothing_but_the_page_is_asked_for(page):
    assert page == []


def test_what_a_page_asks_for_would_be_seen(opened):
    """That the test above would notice."""
    assert ["/seen"] == opened(f"<html><body>{HOSTILE[:-2]}</body></html>")


def test_a_name_is_text_and_no_markup(page, ask):
    assert ask("document.title") == "numpy#31284 in the fleet"
    assert ask("document.querySelectorAll('script, img').length") == 0
    for name in (HOSTILE, HOSTILE_HOST):
        said = name.encode("ascii", "backslashreplace").decode().replace("\x1b", "\\x1b")
        cells = ask("[...document.querySelectorAll('td')].map(cell => cell.textContent)")
        assert any(said in cell for cell in cells)


def test_each_picture_says_what_it_is_and_stands_beside_its_table(page, browser, ask):
    pictures = browser("POST", "/elements", using="css selector", value="svg")
    for picture, title in zip(
        pictures,
        ["Hosts, by their worst numpy", "13 numpys in 10 prefixes, by version"],
        strict=True,
    ):
        (element,) = picture.values()
        label = browser("GET", f"/element/{element}/computedlabel")
        assert browser("GET", f"/element/{element}/computedrole") in ("img", "image")
        assert label.startswith(title) and label.endswith("the table beside them has the numbers.")
    assert ask("""[...document.querySelectorAll('svg')].map(
        svg => svg.nextElementSibling.getBoundingClientRect().left
            > svg.getBoundingClientRect().right)""") == [True, True]


def test_the_bars_are_as_long_as_the_numbers_in_the_table(page, ask):
    shown = ask("""[...document.querySelectorAll('svg')].map(
        svg => [...svg.querySelectorAll('rect title')].map(
        title => [title.textContent, title.parentNode.getBBox().width]))""")
    for bars in shown:
        units = [width / int(title.split(": ")[-1].split()[0]) for title, width in bars]
        assert len(bars) > 3 and max(units) - min(units) < 0.2
    assert "2.3.5: 3 AFFECTED" in [title for title, _ in shown[1]]


def test_no_word_of_a_picture_lies_outside_of_it_or_on_another(page, ask):
    boxes = ask("""[...document.querySelectorAll('svg')].map(svg => [
        svg.viewBox.baseVal.width, svg.viewBox.baseVal.height,
        [...svg.querySelectorAll('text')].map(text => [text.textContent, ...Object.values(
            (({x, y, width, height}) => ({x, y, width, height}))(text.getBBox()))])])""")
    for width, height, words in boxes:
        for place, (word, x, y, long, high) in enumerate(words):
            assert x >= 0 and y >= 0 and x + long <= width and y + high <= height, word
            for other, x2, y2, long2, high2 in words[:place]:
                assert (
                    x + long <= x2 or x2 + long2 <= x or y + high <= y2 + 1 or y2 + high2 <= y + 1
                ), (word, other)


@pytest.mark.parametrize(
    ("scheme", "color"), [("light", "rgb(0, 0, 0)"), ("dark", "rgb(255, 255, 255)")]
)
def test_it_is_readable_in_light_and_dark(page, browser, ask, scheme, color):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser(
        "POST",
        "/goog/cdp/execute",
        cmd="Emulation.setEmulatedMedia",
        params={"features": [feature]},
    )
    style = "getComputedStyle(document.querySelector('{}')).{}"
    for what, of in (("p", "color"), ("td", "color"), ("svg text", "fill"), ("svg rect", "stroke")):
        assert ask(style.format(what, of)) == color
    assert ask(style.format("svg .on", "fill")) == "rgb(0, 0, 0)"
    fills = ask(
        """[...new Set([...document.querySelectorAll('svg rect')].map(
            bar => getComputedStyle(bar).fill))]"""
    )
    assert len(fills) == 7
    # black on a colour: WCAG's AA is 4.5
    assert all((luminance(fill) + 0.05) / 0.05 > 4.5 for fill in fills)


def luminance(fill):
    """WCAG's, of "rgb(1, 2, 3)"."""
    parts = [int(part) / 255 for part in fill[4:-1].split(",")]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("width", [1300, 500])
def test_the_page_is_no_wider_than_the_window(page, browser, ask, width):
    browser("POST", "/window/rect", width=width, height=1000)
    assert ask("document.documentElement.scrollWidth <= window.innerWidth")
