"""The summary of a fleet's audits, under this Python and under 3.6: as text, as JSON and as a page in a real browser."""

import contextlib
import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.request

import pytest

from helpers import debian, pages
from helpers.loopback import free_ports, wait_for
from helpers.pythons import python36
from numpy_feedstock import paths

AUDIT = paths.ROOT / "scripts" / "audit_numpy.py"
SCRIPT = paths.ROOT / "scripts" / "fleet" / "summarise_audits.py"
# as bad as names get: markup, what steers a terminal, what is no text, what turns the reading direction
HOSTILE = "\"'><script>document.title='run'</script><img src=http://elsewhere.example/seen>&amp;\x1b[2J\udcff\u202e"
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
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
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


def row(verdict, version="2.3.5", prefix="/opt/conda/envs/a", **more):
    return {
        "verdict": verdict,
        "host": "localhost",
        "prefix": prefix,
        "numpy": f"{prefix}/numpy",
        "version": version,
        "build": "py311h1_0",
        "channel": "conda-forge",
        "gate": "ungated",
        "blas": "mkl",
        "blas_by": "libmkl_rt.so.2",
        "activation": {},
        "importers": ["csp"],
        "reason": "because",
        "fix": "",
        **more,
    }


def a_fleet():
    """Seven hosts: one of each state, and one that has of everything."""
    return {
        "a": [
            row("AFFECTED"),
            row("AFFECTED", "2.10.0", "/b"),
            row("FIXED", "2.4.5", "/c"),
            {"trouble": "broken", "path": "/d"},
        ],
        "b": [row("AFFECTED")],
        "c": [row("LATENT", blas="openblas")],
        "d": [row("FIXED"), row("UNKNOWN", "", blas=None), row("LATENT")],
        "e": [row("FIXED", prefix="/same"), row("FIXED", prefix="/same")],
        "f": [],
        "g": [row("AFFECTED"), {"failed": "no end after 600 seconds"}],
    }


def test_what_the_audit_says_is_counted(summarise, envs, tmp_path):
    (tmp_path / "audits").mkdir()
    with open(tmp_path / "audits" / "a.jsonl", "w") as stream:
        subprocess.run([sys.executable, AUDIT, "--json", envs], stdout=stream)
    code, printed, _ = summarise("--json", tmp_path / "audits")
    summary = json.loads(printed)
    assert (code, summary["prefixes"], summary["numpys"], summary["hosts"]["AFFECTED"]) == (
        1,
        3,
        3,
        1,
    )
    assert summary["versions"] == [
        {"version": "2.3.5", "AFFECTED": 1, "LATENT": 0, "FIXED": 2, "UNKNOWN": 0}
    ]
    assert (summary["affected"][0]["prefix"], summary["affected"][0]["hosts"]) == (
        str(envs / "affected"),
        ["a"],
    )
    assert summary["troubles"][0]["example"] == str(envs / "broken" / "conda-meta" / "state")


def test_hosts_are_counted_by_their_worst_and_numpys_by_version(summarise, fleet):
    code, printed, said = summarise("--json", fleet(**a_fleet()))
    summary = json.loads(printed)
    assert (code, said) == (1, "")
    assert summary["hosts"] == {
        "AFFECTED": 2,
        "LATENT": 1,
        "FIXED": 1,
        "UNKNOWN": 1,
        "no numpy": 1,
        "no answer": 1,
    }
    # what a host said before it failed counts
    assert (summary["prefixes"], summary["numpys"]) == (8, 11)
    assert [(each["version"], each["AFFECTED"]) for each in summary["versions"]] == [
        ("", 0),
        ("2.3.5", 3),
        ("2.4.5", 0),
        ("2.10.0", 1),
    ]
    assert [(each["prefix"], each["hosts"]) for each in summary["affected"]] == [
        ("/b", ["a"]),
        ("/opt/conda/envs/a", ["a", "b", "g"]),
    ]
    assert summary["no_answer"] == [{"host": "g", "why": "no end after 600 seconds"}]
    assert summary["troubles"] == [
        {"trouble": "broken", "places": 1, "example": "/d", "hosts": ["a"]}
    ]
    assert [(each["reason"], each["hosts"]) for each in summary["unknown"]] == [("because", ["d"])]


def test_the_text_has_it_as_tables(summarise, fleet):
    _, printed, _ = summarise(fleet(**a_fleet()))
    lines = [line.split() for line in printed.splitlines()]
    for expected in (
        "7 2 1 1 1 1 1",
        "2.3.5 3 2 3 0",
        "/opt/conda/envs/a 2.3.5 py311h1_0 conda-forge mkl csp a b g",
        "because 1 /opt/conda/envs/a d",
        "g no end after 600 seconds",
        "broken 1 /d a",
        "11 numpys in 8 prefixes, by version",
    ):
        assert expected.split() in lines


def test_many_hosts_are_named_in_part(summarise, fleet):
    folder = fleet(**{f"h{number}": [row("AFFECTED")] for number in range(5)})
    assert "h0 h1 h2 and 2 more" in summarise(folder)[1]
    assert len(json.loads(summarise("--json", folder)[1])["affected"][0]["hosts"]) == 5


@pytest.mark.parametrize(
    ("hosts", "code"),
    [
        ({"a": [row("FIXED"), row("LATENT")], "b": []}, 0),
        ({"a": [row("AFFECTED")]}, 1),
        ({"a": [], "b": [{"failed": "x"}]}, 1),
    ],
)
def test_only_a_fleet_that_answered_and_has_nothing_affected_is_0(summarise, fleet, hosts, code):
    assert summarise(fleet(**hosts))[0] == code


@pytest.mark.parametrize(
    "line",
    [
        "Welcome!",
        '{"half',
        "[]",
        "1",
        "null",
        "{}",
        '{"verdict": "SPLENDID"}',
        '{"verdict": ["AFFECTED"]}',
        '{"verdict": "FIXED"}',
        '{"trouble": "x"}',
        "\0",
        "\udcff",
        "[" * 100_000,
        json.dumps(row("FIXED", importers=1)),
    ],
)
def test_a_line_that_is_none_of_the_audits_is_a_trouble(summarise, fleet, line):
    code, printed, _ = summarise("--json", fleet(a=line + "\n\n" + json.dumps(row("FIXED")) + "\n"))
    summary = json.loads(printed)
    assert (code, summary["numpys"]) == (0, 1)
    (trouble,) = summary["troubles"]
    assert (
        trouble["trouble"] == "printed what is no line of the audit"
        and len(trouble["example"]) <= 100
    )


@pytest.mark.parametrize("form", ["--html", "--json", None])
def test_names_steer_no_terminal_in_any_locale(summarise, fleet, form):
    folder = fleet(
        **{
            HOSTILE_HOST: [
                row("AFFECTED", HOSTILE, HOSTILE),
                {"trouble": HOSTILE, "path": HOSTILE},
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
    (tmp_path / "scripts").symlink_to(paths.ROOT / "scripts")
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    page = tmp_path / "audits.html"
    assert "numpys in 8 prefixes" in (page.read_text() if page.exists() else done.stdout)


# --- the page


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
    """Sends a headless Chromium a command of the WebDriver protocol: (method, path, what is sent) to what is answered."""
    debian.install("chromium", "chromium-driver")
    (port,) = free_ports(1)
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "--window-size=1300,1000",
        # what is asked of any host is seen here
        f"--host-resolver-rules=MAP * 127.0.0.1:{served[1]}",
    ]

    def send(method, path, **what):
        body = json.dumps(what).encode() if method == "POST" else None
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/session{path}", body, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(
            subprocess.Popen(["/usr/bin/chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        )
        stack.callback(driver.terminate)
        wait_for(port, driver)
        session = send(
            "POST",
            "",
            capabilities={
                "alwaysMatch": {
                    "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments}
                }
            },
        )
        session = "/" + session["sessionId"]
        stack.callback(send, "DELETE", session)
        yield lambda method, path, **what: send(method, session + path, **what)


@pytest.fixture
def opened(browser, served):
    """Opens a page, with plain http from some host, and returns what else was asked for meanwhile."""

    def open_page(text):
        folder, _, asked = served
        # none that the browser may have kept
        name = f"{len(list(folder.iterdir()))}.html"
        (folder / name).write_text(text)
        asked.clear()
        browser("POST", "/url", url=f"http://fleet.example/{name}")
        assert asked.pop(0) == f"/{name}"
        # the browser's own wish
        return [path for path in asked if path != "/favicon.ico"]

    return open_page


@pytest.fixture
def page(fleet, opened):
    """The page of a fleet with all states and the worst of names, opened; what else was asked for meanwhile."""
    worst = {
        HOSTILE_HOST: [
            row("AFFECTED", HOSTILE, HOSTILE),
            {"trouble": HOSTILE, "path": HOSTILE},
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
        assert said in ask("[...document.querySelectorAll('td')].map(cell => cell.textContent)")


def test_each_picture_says_what_it_is_and_stands_beside_its_table(page, browser, ask):
    pictures = browser("POST", "/elements", using="css selector", value="svg")
    for picture, title in zip(
        pictures,
        ["Hosts, by their worst numpy", "12 numpys in 9 prefixes, by version"],
        strict=True,
    ):
        (element,) = picture.values()
        label = browser("GET", f"/element/{element}/computedlabel")
        assert browser("GET", f"/element/{element}/computedrole") in ("img", "image")
        assert label.startswith(title) and label.endswith("the table beside them has the numbers.")
    assert (
        ask("""[...document.querySelectorAll('svg')].map(
        svg => svg.nextElementSibling.getBoundingClientRect().left > svg.getBoundingClientRect().right)""")
        == [True, True]
    )


def test_the_bars_are_as_long_as_the_numbers_in_the_table(page, ask):
    shown = ask("""[...document.querySelectorAll('svg')].map(svg => [...svg.querySelectorAll('rect title')].map(
        title => [title.textContent, title.parentNode.getBBox().width]))""")
    for bars in shown:
        units = [width / int(title.split(": ")[-1].split()[0]) for title, width in bars]
        assert len(bars) > 3 and max(units) - min(units) < 0.2
    assert "2.3.5: 3 AFFECTED" in [title for title, _ in shown[1]]


def test_no_word_of_a_picture_lies_outside_of_it_or_on_another(page, ask):
    boxes = ask("""[...document.querySelectorAll('svg')].map(svg => [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height,
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
        "[...new Set([...document.querySelectorAll('svg rect')].map(bar => getComputedStyle(bar).fill))]"
    )
    assert len(fills) == 6
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
