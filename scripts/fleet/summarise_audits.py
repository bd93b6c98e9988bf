#!/usr/bin/env python3
"""Sum up the audits of a fleet, and say whether the rollout is done.

FOLDER has a file HOST.jsonl for each host. The ssh script and the playbook beside this file
write them. Each file has the lines that `audit_numpy.py --json` printed on the host. Where the
host was healed, the lines of `heal_numpy.py --json` stand before them. {"failed": WHY} says that
the host did not answer.

This is one file, and it needs only the standard library of Python 3.6.
"""

import argparse
import calendar
import collections
import html
import json
import os
import re
import signal
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

# An older Python stops at this line, and shows it.
NEEDED: str = "Python 3.6 or later: run this file with python3"

EPILOG = """\
a host is done if
  its file ends with the audit's `end`, and no line was lost,
  nothing on it is AFFECTED or UNKNOWN,
  nothing that may hold an environment was left out or unreadable,
  at least one of the folders is there,
  and its audit is not much older than the newest one (--max-age).

Without --hosts, the hosts of the last run count: the ssh script and the playbook keep their
names in FOLDER/hosts.txt. A file of another host is named and makes the fleet not done.

exit code:
  0  each host answered and is done
  1  some host is not done, did not answer, or is missing
  2  wrong use

examples:
  summarise_audits.py --hosts hosts.txt audits
  summarise_audits.py --hosts hosts.txt --html audits > audits.html   a page, which needs no network
  summarise_audits.py --hosts hosts.txt --json audits | python3 -m json.tool
  summarise_audits.py --max-age 200 audits     the hosts were asked over a week
"""
Line = Dict[str, Any]  # an object of JSON
Rows = List[Tuple[str, Line]]  # hosts, each with a numpy
Cells = Tuple[Any, ...]  # a row of a table
Where = Dict[str, List[str]]  # hosts, each with what is there
SCHEMA = 1  # of audit_numpy.py's lines
SUFFIX = ".jsonl"
LAST_RUN = "hosts.txt"
DATE_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
VERDICTS = ("AFFECTED", "LATENT", "FIXED", "UNKNOWN")
NO_NUMPY, INCOMPLETE, NO_ANSWER, MISSING = "no numpy", "not complete", "no answer", "missing"
HOST_STATES = VERDICTS + (INCOMPLETE, NO_NUMPY, NO_ANSWER, MISSING)
DONE_STATES = ("LATENT", "FIXED", NO_NUMPY)
# the same numpy on many hosts, as on a file server, has the same values of these
NUMPY_FIELDS = ("prefix", "version", "build", "channel", "blas", "installer", "owner")
# what numpys have in common that need the same work
GROUP_FIELDS = ("version", "build", "channel", "blas", "importers", "activation", "remedies")
HEAL_DONE = ("healed", "undone", "unchanged")
NOT_OURS = "printed what is no line of the audit"
NAMED = 3  # hosts that a cell of the terminal's tables names
TEXT_ROWS = 20  # rows of a table on the terminal


# --- what one host said


class Host:
    """What one host said."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = None
        self.rows, self.troubles, self.healing = [], [], []
        self.end, self.heal_end = None, None
        self.problems = []
        self.rows_after_end = False

    def problem(self, text: str) -> None:
        """Note once why this host is not done."""
        if text not in self.problems:
            self.problems.append(text)

    def state(self) -> str:
        """One of HOST_STATES."""
        if self.failed is not None:
            return NO_ANSWER
        verdicts = [row["verdict"] for row in self.rows]
        for verdict in ("AFFECTED", "UNKNOWN"):
            if verdict in verdicts:
                return verdict
        if self.problems:
            return INCOMPLETE
        for verdict in ("LATENT", "FIXED"):
            if verdict in verdicts:
                return verdict
        return NO_NUMPY


def read_host(name: str, path: str) -> Host:
    """What a host said. A file that cannot be read is a host without an answer."""
    host = Host(name)
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.strip():
                    _read_line(host, line.strip())
    except OSError as error:
        host.failed = str(error)
    _check_end(host)
    return host


def _read_line(host: Host, line: str) -> None:
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            raise TypeError(line)
        _take(host, entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        host.troubles.append(("", NOT_OURS, line[:100]))
        # a greeting of a login script is harmless; what looks like our line may be half of one
        if "{" in line:
            host.problem("a line of its file cannot be read")


def _take(host: Host, entry: Line) -> None:
    """Take a line. Raises KeyError, TypeError or ValueError if it is none of ours."""
    if "failed" in entry:
        host.failed = str(entry["failed"]).strip() or "no reason given"
    elif "result" in entry:
        host.healing.append(_heal_row(entry))
    elif "summary" in entry:
        host.heal_end = dict(entry["summary"])
    elif "type" not in entry and "trouble" in entry:
        # of heal_numpy.py; the audit, which comes after it, says it as well
        str(entry["path"])
    elif entry.get("schema") != SCHEMA:
        host.problem("its audit has another version: schema %s" % entry.get("schema"))
        raise ValueError(entry)
    elif entry["type"] == "numpy":
        host.rows.append(_numpy_row(entry))
        host.rows_after_end = host.end is not None
    elif entry["type"] == "trouble":
        kind = str(entry["kind"])
        host.troubles.append((kind, str(entry["trouble"]), str(entry["path"])))
    elif entry["type"] == "end":
        host.end = _end(entry)
        host.rows_after_end = False
    else:
        raise ValueError(entry["type"])


def _numpy_row(entry: Line) -> Line:
    if entry["verdict"] not in VERDICTS:
        raise ValueError(entry["verdict"])
    row = {name: str(entry[name] or "") for name in NUMPY_FIELDS + ("verdict", "reason")}
    row["importers"] = " ".join(map(str, entry["importers"]))
    pairs = sorted(dict(entry["activation"]).items())
    row["activation"] = " ".join("%s=%s" % pair for pair in pairs)
    row["remedies"] = tuple(map(str, entry["remedies"]))
    row["remedy_note"] = str(entry["remedy_note"] or "")
    row["healed"] = bool(entry["healed"])
    return row


def _heal_row(entry: Line) -> Line:
    return {name: str(entry[name] or "") for name in ("prefix", "result", "reason", "remedy")}


def _end(entry: Line) -> Line:
    fields = ("exit", "numpys", "left_out", "unreadable", "folders")
    end = {name: _count(entry[name]) for name in fields}
    end["verdicts"] = {str(name): _count(count) for name, count in entry["verdicts"].items()}
    if not isinstance(entry["roots"], list):
        raise TypeError(entry["roots"])
    end["roots"] = list(map(str, entry["roots"]))
    end["date"] = str(entry["date"])
    end["time"] = calendar.timegm(time.strptime(end["date"], DATE_FORMAT))
    return end


def _count(value: Any) -> int:
    """A number of things. Raises ValueError for what is none: true, -1, 0.5, infinity."""
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _check_end(host: Host) -> None:
    """Note why the host's audit is no proof."""
    if host.healing and host.heal_end is None:
        host.problem("healing did not end")
    if host.heal_end and host.heal_end.get("failed"):
        host.problem("healing failed")
    end = host.end
    if end is None:
        host.problem("the audit did not end: its last line is missing")
        return
    _check_rows(host, end)
    if not end["roots"]:
        host.problem("none of the folders is there")
    kinds = collections.Counter(kind for kind, _, _ in host.troubles)
    for kind, field in (("left out", "left_out"), ("unreadable", "unreadable")):
        count = max(end[field], kinds[kind])
        if count:
            host.problem("%d %s" % (count, kind))
    undecided = any(row["verdict"] in ("AFFECTED", "UNKNOWN") for row in host.rows)
    if end["exit"] != 0 and not undecided and not host.problems:
        host.problem("the audit ended with exit code %d" % end["exit"])


def _check_rows(host: Host, end: Line) -> None:
    """Note where the numpys are not the ones that the audit's last line counts."""
    if host.rows_after_end:
        host.problem("lines stand after the audit's last line")
    if len(host.rows) < end["numpys"]:
        host.problem("lines of its file were lost")
    counted = collections.Counter(row["verdict"] for row in host.rows)
    if any(counted[verdict] != count for verdict, count in end["verdicts"].items()):
        host.problem("its lines have other verdicts than its last line counts")


# --- the hosts that were to be asked


def read_hosts(path: str) -> List[str]:
    """The hosts of a hosts file, each once, in its order. Raises OSError.

    A line has a host as its first word. It may end like a line of Windows, or of no system.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        words = [line.split() for line in stream.read().splitlines()]
    names = [line[0] for line in words if line and not line[0].startswith("#")]
    return list(collections.OrderedDict.fromkeys(names))


def read_fleet(folder: str, expected: Optional[List[str]]) -> Tuple[List[Host], List[str]]:
    """(hosts, files of other hosts). Raises OSError.

    expected : names of hosts; None if nobody knows them: then all files count
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    found = [name[: -len(SUFFIX)] for name in names]
    wanted = found if expected is None else expected
    there = set(found)
    hosts = [
        read_host(name, os.path.join(folder, name + SUFFIX)) for name in wanted if name in there
    ]
    return hosts, sorted(there - set(wanted))


def mark_old(hosts: List[Host], max_age: float) -> None:
    """Note on each host whose audit is older than the newest one by more hours than that."""
    newest = max([host.end["time"] for host in hosts if host.end], default=0)
    # the clock of one host may be ahead, which makes no other host's audit old
    newest = min(newest, time.time())
    for host in hosts:
        if host.end and newest - host.end["time"] > max_age * 3600:
            host.problem("its audit is old: %s" % host.end["date"])


# --- the summary


def summarise(hosts: List[Host], expected: Optional[List[str]], others: List[str]) -> Line:
    """The summary, as --json has it.

    expected : names of the hosts that were to be asked, or None
    others : names of hosts that have a file and were not to be asked
    """
    known = {host.name for host in hosts}
    missing = [name for name in expected or [] if name not in known]
    states = collections.OrderedDict((state, 0) for state in HOST_STATES)
    for host in hosts:
        states[host.state()] += 1
    states[MISSING] = len(missing)
    rows = [(host.name, row) for host in hosts for row in host.rows]
    dates = sorted(host.end["date"] for host in hosts if host.end)
    done = bool(hosts) and not others and all(host.state() in DONE_STATES for host in hosts)
    return {
        "schema": 1,
        "done": done and not missing,
        "date": dates[-1] if dates else "",
        "oldest_date": dates[0] if dates else "",
        "expected": None if expected is None else len(expected),
        "hosts": states,
        "missing": missing,
        "not_in_hosts_file": others,
        "no_answer": [
            {"host": host.name, "why": host.failed} for host in hosts if host.failed is not None
        ],
        "not_complete": not_complete(hosts),
        "each_host": [about_host(host) for host in hosts],
        "prefixes": len({(host, row["prefix"]) for host, row in rows}),
        "numpys": len(rows),
        "versions": versions(rows),
        "affected": affected(rows),
        "owners": owners(rows),
        "unknown": unknown(rows),
        "healed_in_place": sum(row["healed"] for _, row in rows),
        "healing": healing(hosts),
        "troubles": troubles(hosts),
    }


def about_host(host: Host) -> Line:
    """What --json says of each host."""
    end = host.end or {}
    about = {"host": host.name, "state": host.state(), "not_done_because": host.problems}
    for field in ("date", "roots", "folders", "left_out", "unreadable"):
        about[field] = end.get(field)
    return about


def not_complete(hosts: List[Host]) -> List[Line]:
    """Why audits are no proof, with the hosts of each reason."""
    places = collections.defaultdict(list)
    for host in hosts:
        if host.failed is None:
            for problem in host.problems:
                # how many were left out differs from host to host; each_host has the numbers
                places[re.sub("^[0-9]+ ", "some ", problem)].append((host.name, problem))
    return _by_hosts(_places({"reason": reason}, places[reason]) for reason in places)


def versions(rows: Rows) -> List[Line]:
    """How many numpys of each version have each verdict."""
    counts = collections.defaultdict(collections.Counter)
    for _, row in rows:
        counts[row["version"]][row["verdict"]] += 1
    found = []
    for version in sorted(counts, key=_release):
        line = {verdict: counts[version][verdict] for verdict in VERDICTS}
        line["version"] = version
        found.append(line)
    return found


def _release(version: str) -> Tuple[List[Tuple[int, str]], str]:
    """To sort by: 2.10 comes after 2.9."""
    parts = re.findall(r"([0-9]+)([^0-9]*)", version)
    return [(int(number), rest) for number, rest in parts], version


def affected(rows: Rows) -> List[Line]:
    """The affected numpys, each with its hosts; what concerns most hosts comes first."""
    fields = NUMPY_FIELDS + ("importers", "activation", "remedies", "remedy_note")
    hosts = collections.defaultdict(list)
    for host, row in rows:
        if row["verdict"] == "AFFECTED":
            hosts[tuple(row[name] for name in fields)].append(host)
    return _by_hosts(dict(zip(fields, key), hosts=_once(hosts[key])) for key in hosts)


def owners(rows: Rows) -> List[Line]:
    """Whom the tickets go to: the owners of affected prefixes."""
    places = collections.defaultdict(set)
    for host, row in rows:
        if row["verdict"] == "AFFECTED":
            places[row["owner"]].add((host, row["prefix"]))
    return _by_hosts(_places({"owner": owner}, sorted(places[owner])) for owner in places)


def unknown(rows: Rows) -> List[Line]:
    """The reasons of UNKNOWN, with the places."""
    places = collections.defaultdict(list)
    for host, row in rows:
        if row["verdict"] == "UNKNOWN":
            places[row["reason"]].append((host, row["prefix"]))
    return _by_hosts(_places({"reason": reason}, places[reason]) for reason in places)


def healing(hosts: List[Host]) -> Optional[Line]:
    """What healing did: numbers, and what it did not heal. None if no host was healed."""
    healed = [host for host in hosts if host.healing or host.heal_end is not None]
    if not healed:
        return None
    results, left = collections.Counter(), 0
    places = collections.defaultdict(list)
    for host in healed:
        left += sum(row["verdict"] == "AFFECTED" for row in host.rows)
        for row in host.healing:
            results[row["result"]] += 1
            if row["result"] not in HEAL_DONE:
                key = (row["result"], row["reason"], row["remedy"])
                places[key].append((host.name, row["prefix"]))
    rest = []
    for key, where in places.items():
        about = dict(zip(("result", "reason", "remedy"), key))
        rest.append(_places(about, where))
    return {
        "hosts": len(healed),
        "results": dict(results),
        "left": left,
        "not_healed": _by_hosts(rest),
    }


def troubles(hosts: List[Host]) -> List[Line]:
    """What the audits could not look at, or did not like."""
    places = collections.defaultdict(list)
    for host in hosts:
        for kind, trouble, path in host.troubles:
            places[(kind, trouble)].append((host.name, path))
    return _by_hosts(
        _places({"kind": kind, "trouble": trouble}, places[(kind, trouble)])
        for kind, trouble in places
    )


def _places(about: Line, places: Sequence[Tuple[str, str]]) -> Line:
    """A line of the summary about a thing that was found at places: (host, path)."""
    found = dict(about, places=len(places), example=places[0][1])
    found["hosts"] = _once(host for host, _ in places)
    by_host = collections.OrderedDict()
    for host, path in places:
        by_host.setdefault(host, []).append(path)
    found["where"] = by_host
    return found


def _by_hosts(lines: Iterable[Line]) -> List[Line]:
    """What concerns most hosts comes first."""

    def place(line: Line) -> Tuple[int, str]:
        return -len(line["hosts"]), json.dumps(line, sort_keys=True)

    return sorted(lines, key=place)


def _once(hosts: Iterable[str]) -> List[str]:
    return sorted(set(hosts))


def affected_groups(summary: Line) -> List[Line]:
    """The affected numpys that need the same work: their own paths do not tell them apart."""
    groups = collections.OrderedDict()
    for line in summary["affected"]:
        common = dict(line, remedies=tuple(_without(line, each) for each in line["remedies"]))
        key = tuple(common[name] for name in GROUP_FIELDS)
        groups.setdefault(key, []).append(line)
    found = []
    for key, lines in groups.items():
        places = [
            (host, "%s (%s)" % (line["prefix"], line["owner"]))
            for line in lines
            for host in line["hosts"]
        ]
        group = _places(dict(zip(GROUP_FIELDS, key)), sorted(places))
        group["note"] = lines[0]["remedy_note"]
        found.append(group)
    return _by_hosts(found)


def _without(line: Line, remedy: str) -> str:
    """A remedy that names PREFIX instead of this prefix."""
    prefix = line["prefix"]
    return remedy.replace(prefix, "PREFIX") if len(prefix) > 1 else remedy


# --- tables: for the terminal and for the page


class Table:
    """A table.

    places : a dict of {host: what is there} for each row, or nothing
    first : whether its places are what people look for
    """

    def __init__(
        self,
        title: str,
        header: Tuple[str, ...],
        rows: Iterable[Cells],
        places: Iterable[Where] = (),
        first: bool = False,
    ) -> None:
        self.title, self.header, self.first = title, header, first
        self.rows, self.places = list(rows), list(places)


def shown(value: Any) -> str:
    """Text for any terminal and page: a name may hold what is no text, or what steers it."""
    return re.sub(
        "[^ -~]", lambda match: match.group().encode("unicode_escape").decode(), str(value)
    )


def headline(summary: Line) -> str:
    """One sentence: is the rollout done?"""
    states = summary["hosts"]
    total = sum(states.values())
    open_hosts = sum(count for state, count in states.items() if state not in DONE_STATES)
    if summary["done"]:
        text = "Done: %d hosts, nothing is AFFECTED." % total
    else:
        text = "Not done: %d of %d hosts are open." % (open_hosts, total)
    if summary["healed_in_place"]:
        text += " %d numpys are healed in place." % summary["healed_in_place"]
    if summary["not_in_hosts_file"]:
        text += " %d files are of other hosts." % len(summary["not_in_hosts_file"])
    if summary["date"]:
        text += " Audits from %s to %s." % (summary["oldest_date"], summary["date"])
    if summary["expected"] is None:
        text += " Without --hosts, a host that was never asked is not seen."
    return text


def tables(summary: Line) -> List[Table]:
    """All tables that have rows."""
    found = [hosts_table(summary), versions_table(summary)]
    found += [healing_table(summary), affected_table(summary), owners_table(summary)]
    found += list(open_tables(summary))
    return [table for table in found if table.rows]


def hosts_table(summary: Line) -> Table:
    states = summary["hosts"]
    row = (sum(states.values()),) + tuple(states[state] for state in HOST_STATES)
    return Table("Hosts, by their worst numpy", ("HOSTS",) + HOST_STATES, [row])


def versions_table(summary: Line) -> Table:
    title = "%d numpys in %d prefixes, by version" % (summary["numpys"], summary["prefixes"])
    rows = []
    for line in summary["versions"]:
        counts = tuple(line[verdict] for verdict in VERDICTS)
        rows.append((line["version"] or "?",) + counts)
    return Table(title, ("NUMPY",) + VERDICTS, rows)


def healing_table(summary: Line) -> Table:
    found = summary["healing"] or {"results": {}}
    rows = [(result, count) for result, count in sorted(found["results"].items())]
    if summary["healing"]:
        rows.append(("left: still AFFECTED", found["left"]))
    return Table("Healing", ("RESULT", "NUMPYS"), rows)


def affected_table(summary: Line) -> Table:
    groups = affected_groups(summary)
    rows = []
    for group in groups:
        numpy = (group["version"] + " " + group["build"]).strip()
        remedy = " or: ".join(group["remedies"]) or group["note"]
        about = (numpy, group["channel"], group["blas"], group["importers"], group["activation"])
        rows.append((len(group["hosts"]), group["places"]) + about + (remedy, group["example"]))
    header = ("HOSTS", "PLACES", "NUMPY", "CHANNEL", "BLAS", "IMPORTERS", "ACTIVATION")
    header += ("REMEDY", "FOR EXAMPLE")
    return Table("Affected", header, rows, [group["where"] for group in groups], True)


def owners_table(summary: Line) -> Table:
    lines = summary["owners"]
    rows = [(line["owner"], len(line["hosts"]), line["places"], line["example"]) for line in lines]
    header = ("OWNER", "HOSTS", "PREFIXES", "FOR EXAMPLE")
    # no lists: those of the affected numpys name the owners
    return Table("Owners of affected prefixes: whom the tickets go to", header, rows)


def open_tables(summary: Line) -> Iterator[Table]:
    """Tables of what is open for another reason."""
    healed = summary["healing"] or {"not_healed": []}
    yield _places_table("Not healed", ("RESULT", "REASON", "REMEDY"), healed["not_healed"])
    yield _places_table("Not known", ("REASON",), summary["unknown"])
    yield _places_table("Not complete", ("REASON",), summary["not_complete"])
    yield _places_table("No answer", ("WHY",), no_answer_lines(summary))
    for title, names in (
        ("Missing: in the hosts file, without a file in the folder", summary["missing"]),
        ("Other hosts: with a file, not in the hosts file", summary["not_in_hosts_file"]),
    ):
        where = collections.OrderedDict((name, []) for name in names)
        rows = [(len(names), _named(names))] if names else []
        yield Table(title, ("HOSTS", "NAMES"), rows, [where] if names else [])
    yield _places_table("Troubles", ("KIND", "TROUBLE"), summary["troubles"])


def no_answer_lines(summary: Line) -> List[Line]:
    """The reasons why hosts did not answer. One that names the host names HOST instead."""
    places = collections.defaultdict(list)
    for line in summary["no_answer"]:
        name = line["host"].split("@")[-1]
        why = re.sub(r"\b%s\b" % re.escape(name), "HOST", line["why"])
        places[why].append((line["host"], line["why"]))
    return _by_hosts(_places({"why": why}, places[why]) for why in places)


def _places_table(title: str, about: Tuple[str, ...], lines: List[Line]) -> Table:
    rows = []
    for line in lines:
        cells = tuple(line[name.lower()] for name in about)
        rows.append((len(line["hosts"]), line["places"]) + cells + (line["example"],))
    header = ("HOSTS", "PLACES") + about + ("FOR EXAMPLE",)
    return Table(title, header, rows, [line["where"] for line in lines])


def _named(hosts: Iterable[str]) -> str:
    """Some hosts by name."""
    hosts = list(hosts)
    more = " and %d more" % (len(hosts) - NAMED) if len(hosts) > NAMED else ""
    return " ".join(hosts[:NAMED]) + more


def text(summary: Line) -> Iterator[str]:
    """The lines for a terminal."""
    yield headline(summary)
    for table in tables(summary):
        header, rows = table.header, table.rows[:TEXT_ROWS]
        if table.places and table.header[-1] != "NAMES":
            header = header + ("ON",)
            rows = [row + (_named(where),) for row, where in zip(rows, table.places)]
        lines = [header] + [tuple(shown(cell).strip() or "-" for cell in row) for row in rows]
        widths = [max(map(len, column)) for column in zip(*lines)]
        yield ""
        yield table.title
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line, widths)]
            yield ("  " + "  ".join(cells)).rstrip()
        if len(table.rows) > TEXT_ROWS:
            yield "  and %d more; --json has all" % (len(table.rows) - TEXT_ROWS)


# --- the page

# The colour-blind tell these colours apart, and black text can be read on each of them. Every
# bar has a line around it and a number beside it.
STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
section { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
h2 { flex-basis: 100%; margin: 2rem 0 0; font-size: 1.2rem; }
div { flex: 2 1 20rem; min-width: 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.8rem 0.2rem 0;
  border-bottom: 1px solid; }
td { overflow-wrap: anywhere; min-width: 3rem; }
th { white-space: nowrap; }
pre { margin: 0.2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
.number { text-align: right; }
svg { flex: 1 1 20rem; max-width: 32rem; }
svg text { fill: currentColor; font-size: 13px; }
svg rect { stroke: currentColor; }
svg .on { fill: black; text-anchor: middle; }
.AFFECTED { fill: #e8702a; } .LATENT { fill: #f0c04a; } .FIXED { fill: #4fb595; }
.UNKNOWN { fill: #a9a9a9; } .not-complete { fill: #8fb8e8; }
.no-numpy { fill: #e4e4e4; } .no-answer { fill: #c79ad8; } .missing { fill: #f2a0b5; }
"""
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>numpy#31284 in the fleet</title>
<style>%s</style>
</head>
<body>
<h1>Which numpys hang when a static constructor imports them</h1>
<p><strong>%s</strong></p>
<p>AFFECTED: the import multiplies matrices, with MKL. LATENT: the same with another BLAS; MKL
would make it hang. FIXED: the import multiplies none. UNKNOWN: this could not be decided; the
reason is given. In a remedy, PREFIX stands for the environment.</p>
%s
</body>
</html>"""
PAGE_ROWS = 100  # rows of a table; the rest is in --json
LIST_LINES = 500  # lines of a list that opens at once
CELL = 500  # characters of a cell
# characters; the second is kept for all lists but those of the affected numpys
ALL_LISTS, OTHER_LISTS, ALL_CELLS = 880000, 40000, 80000
# pixels
WIDTH, LABEL, ROW, BAR = 520, 100, 26, 18
LETTER = 9  # a little more than a letter or a figure is wide


class Budget:
    """How many characters the page may still have."""

    def __init__(self) -> None:
        self.lists, self.cells = ALL_LISTS, ALL_CELLS


def page(summary: Line) -> str:
    """The HTML page: at most 1 MB, however many hosts there are."""
    budget, parts = Budget(), []
    for number, table in enumerate(tables(summary)):
        # the first two count verdicts: of all hosts, and of each version
        picture = ""
        if table.title.startswith("Hosts,") or table.header[0] == "NUMPY":
            picture = bars("bars-%d" % number, table.title, table.header[1:], table.rows)
        parts.append(
            "<section>\n<h2>%s</h2>\n%s%s</section>"
            % (_text(table.title), picture, _html_table(table, budget))
        )
    return PAGE % (STYLE, _text(headline(summary)), "\n".join(parts))


def _html_table(table: Table, budget: Budget) -> str:
    kinds = [' class="number"' if isinstance(cell, int) else "" for cell in table.rows[0]]
    heads = ['<th scope="col"%s>%s</th>' % pair for pair in zip(kinds, map(_text, table.header))]
    if table.places:
        heads.append('<th scope="col">WHERE</th>')
    lines = ["<tr>%s</tr>" % "".join(heads)]
    for number, row in enumerate(table.rows[:PAGE_ROWS]):
        cells = ["<td%s>%s</td>" % pair for pair in zip(kinds, map(_cell, row))]
        if table.places:
            cells.append("<td>%s</td>" % _where(table, number, budget))
        line = "<tr>%s</tr>" % "".join(cells)
        budget.cells -= sum(map(len, cells[: len(kinds)]))
        if budget.cells < 0:
            break
        lines.append(line)
    note = _more_rows(table.rows[len(lines) - 1 :], budget)
    # tabindex: so that it can be scrolled with the keys, too
    return '<div role="region" aria-label="%s" tabindex="0"><table>\n%s\n</table>%s</div>\n' % (
        _text(table.title),
        "\n".join(lines),
        note,
    )


def _more_rows(rows: List[Cells], budget: Budget) -> str:
    """The rows that have no place in the table, in lists that open."""
    lines = ["  ".join(_cell(value) or "-" for value in row) for row in rows]
    fitting = _fitting(lines, budget.lists // 2)
    parts = []
    for start in range(0, len(fitting), LIST_LINES):
        part = fitting[start : start + LIST_LINES]
        title = "%d to %d of %d more rows" % (start + 1, start + len(part), len(lines))
        parts.append(_list(title, part))
    budget.lists -= sum(map(len, parts))
    if len(fitting) < len(lines):
        parts.append("<p>And %d more rows; --json has all.</p>" % (len(lines) - len(fitting)))
    return "".join(parts)


def _where(table: Table, number: int, budget: Budget) -> str:
    """All places of a row, in lists that open."""
    where = table.places[number]
    # the first table's lists are what people open the page for; half of the rest for each other
    allowed = budget.lists - OTHER_LISTS if table.first else budget.lists // 2
    ending = _common_ending(list(where))
    lines = []
    for host, paths in where.items():
        name = host[: len(host) - len(ending)]
        lines.append(_text(" ".join([name] + [path for path in paths if path])))
    if sum(map(len, lines)) + len(lines) > allowed:
        fitting = _fitting(lines, allowed) if table.first else []
    else:
        fitting = lines
    lists = []
    for start in range(0, len(fitting), LIST_LINES):
        part = fitting[start : start + LIST_LINES]
        title = "%d to %d of %d hosts" % (start + 1, start + len(part), len(lines))
        if ending:
            title += ", each name ends with %s" % _text(ending)
        lists.append(_list(title, part))
    if len(fitting) < len(lines):
        lists.append(_folded_list(list(where)[len(fitting) :], allowed))
    budget.lists -= sum(map(len, lists))
    return "".join(lists)


def _fitting(lines: List[str], allowed: int) -> List[str]:
    """The first lines, with no more characters than allowed."""
    length = 0
    for number, line in enumerate(lines):
        length += len(line) + 1
        if length > allowed:
            return lines[:number]
    return lines


def _list(title: str, lines: List[str]) -> str:
    body = "\n".join(lines)
    return "<details><summary>%s</summary><pre>%s</pre></details>" % (title, body)


def _folded_list(hosts: List[str], allowed: int) -> str:
    """The hosts whose places would make the page too big: their names, in short."""
    names = [_text(name) for name in fold(hosts)]
    fitting = _fitting(names, max(allowed, OTHER_LISTS // 4))
    title = "%d hosts by name; --json has their places" % len(hosts)
    if len(fitting) < len(names):
        fitting = fitting + ["... --json has all"]
    return _list(title, fitting)


def _common_ending(hosts: List[str]) -> str:
    """The domain that all hosts have in common, with its dot; empty for one host."""
    if len(hosts) < 2:
        return ""
    ending = os.path.commonprefix([host[::-1] for host in hosts])[::-1]
    return ending[ending.index(".") :] if "." in ending else ""


def fold(hosts: Iterable[str]) -> Iterator[str]:
    """Names in short: node1, node2 and node3 are node[1-3]."""
    numbers = collections.OrderedDict()
    for host in hosts:
        match = re.match(r"([^0-9.]+)([0-9]{1,9})(\..*)?$", host)
        if match:
            before, digits, after = match.groups()
            key = (before, len(digits), after or "")
            numbers.setdefault(key, []).append(int(digits))
        else:
            numbers[(host,)] = None
    for key, found in numbers.items():
        if found is None:
            yield key[0]
            continue
        before, width, after = key
        if len(found) == 1:
            yield "%s%0*d%s" % (before, width, found[0], after)
        else:
            yield "%s[%s]%s" % (before, ",".join(_ranges(sorted(found), width)), after)


def _ranges(numbers: List[int], width: int) -> Iterator[str]:
    """Sorted numbers as 1-3 or 5."""
    first = last = numbers[0]
    for number in numbers[1:] + [None]:
        if number is not None and number <= last + 1:
            last = number
            continue
        short = "%0*d" % (width, first)
        yield short if first == last else "%s-%0*d" % (short, width, last)
        first = last = number


def _text(value: Any) -> str:
    return html.escape(shown(value))


def _cell(value: Any) -> str:
    value = shown(value)
    if len(value) > CELL:
        value = value[:CELL] + "..."
    return html.escape(value)


def bars(name: str, title: str, states: Sequence[str], rows: List[Cells]) -> str:
    """An SVG: a bar for each row, with a part for each state; all have one scale."""
    counted = [_counts(row, states) for row in rows[:PAGE_ROWS]]
    most = max(sum(row[1:]) for row in counted) or 1
    scale = (WIDTH - LABEL - 60) / most
    lines = []
    for number, row in enumerate(counted):
        lines += _bar(row, states, 4 + ROW * number, scale)
    used = [state for place, state in enumerate(states, 1) if any(row[place] for row in counted)]
    legend, bottom = _legend(used, 4 + ROW * len(counted) + 8)
    return SVG.format(
        name=name,
        width=WIDTH,
        height=bottom + 18,
        title=_text(title),
        states=", ".join(used),
        lines="\n".join(lines + legend),
    )


def _bar(row: Cells, states: Sequence[str], top: int, scale: float) -> Iterator[str]:
    """The elements of one bar."""
    name = row[0] if len(row[0]) < 14 else row[0][:12] + "..."
    label, left = _text(name), LABEL
    yield '<text x="0" y="%d">%s</text>' % (top + 13, label)
    for state, count in zip(states, row[1:]):
        if not count:
            continue
        width = count * scale
        shape = (state.replace(" ", "-"), left, top, width, BAR)
        yield (
            '<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d">' % shape
            + "<title>%s: %d %s</title></rect>" % (label, count, state)
        )
        if width > LETTER * len(str(count)):
            place = (left + width / 2, top + 13, count)
            yield '<text class="on" x="%.1f" y="%d">%d</text>' % place
        left += width
    yield '<text x="%.1f" y="%d">%d</text>' % (left + 6, top + 13, sum(row[1:]))


def _legend(states: Sequence[str], top: int) -> Tuple[List[str], int]:
    """(elements, the lowest row's top) of what the colours mean."""
    lines, left = [], 0
    for state in states:
        length = 32 + LETTER * len(state)
        if left + length > WIDTH:
            top, left = top + ROW, 0
        place = (state.replace(" ", "-"), left + 1, top)
        lines.append('<rect class="%s" x="%d" y="%d" width="12" height="12"/>' % place)
        lines.append('<text x="%d" y="%d">%s</text>' % (left + 18, top + 11, state))
        left += length
    return lines, top


SVG = """\
<svg role="img" viewBox="0 0 {width} {height}" aria-labelledby="{name}-title {name}-desc">
<title id="{name}-title">{title}</title>
<desc id="{name}-desc">Bars of {states}; the table beside them has the numbers.</desc>
{lines}
</svg>
"""


def _counts(row: Cells, states: Sequence[str]) -> Cells:
    """A label and a number for each state. Where the first cell is a number, it is their sum."""
    label = "hosts" if isinstance(row[0], int) else row[0]
    return (label,) + row[1 : 1 + len(states)]


# --- the command line


def hours(text: str) -> float:
    """The number of --max-age. With one like nan, no audit would be too old."""
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        return float(text)
    raise argparse.ArgumentTypeError("hours from 0 to 999999 are needed, found %r" % text[:40])


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="the one with a file HOST.jsonl for each host"
    )
    parser.add_argument(
        "--hosts", metavar="FILE", help="the hosts of the fleet, one a line; others do not count"
    )
    parser.add_argument(
        "--max-age",
        type=hours,
        default=24,
        metavar="HOURS",
        help="an audit that is older than the newest one by more is not current (default: 24)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="one line of JSON, with the names of all hosts"
    )
    form.add_argument("--html", action="store_true", help="a page for a browser")
    return parser


def expected_hosts(
    args: argparse.Namespace, parser: argparse.ArgumentParser
) -> Optional[List[str]]:
    """The names of the hosts that were to be asked; None if nobody knows. Raises OSError."""
    path = args.hosts
    if path is None:
        path = os.path.join(args.folder, LAST_RUN)
        if not os.path.exists(path):
            return None
    names = read_hosts(path)
    if not names:
        parser.error("no host is in %s" % shown(path))
    return names


def main(argv: Optional[List[str]] = None) -> int:
    """The exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        expected = expected_hosts(args, parser)
        hosts, others = read_fleet(args.folder, expected)
    except OSError as error:
        parser.error(shown(error))
    if not hosts and expected is None:
        parser.error("no *%s in %s" % (SUFFIX, shown(args.folder)))
    mark_old(hosts, args.max_age)
    summary = summarise(hosts, expected, others)
    if args.json:
        print(json.dumps(summary))
    elif args.html:
        print(page(summary))
    else:
        print("\n".join(text(summary)))
    return int(not summary["done"])


if __name__ == "__main__":
    # as any tool whose output is piped into head
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
