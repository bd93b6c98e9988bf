#!/usr/bin/env python3
"""Sum up the audits of a fleet, of which a folder has one file for each host.

HOST.jsonl has the lines that `audit_numpy.py --json` printed on the host, none where it
found no numpy; or {"failed": WHY} where there was no answer. One file and the standard
library of Python 3.6, as the audit.
"""

import argparse
import collections
import html
import json
import os
import re
import signal
import sys

EPILOG = """\
exit code: 0 all hosts answered and nothing is AFFECTED, 1 otherwise, 2 wrong use

examples:
  summarise_audits.py audits
  summarise_audits.py --html audits > audits.html   a page with pictures, which needs no network
  summarise_audits.py --json audits | python3 -m json.tool
"""
SUFFIX = ".jsonl"
VERDICTS = ("AFFECTED", "LATENT", "FIXED", "UNKNOWN")
# of a host: its worst numpy's verdict, where it has one; what is not known may be affected
WORST_FIRST = ("AFFECTED", "UNKNOWN", "LATENT", "FIXED")
NO_NUMPY, NO_ANSWER = "no numpy", "no answer"
HOST_STATES = VERDICTS + (NO_NUMPY, NO_ANSWER)
# what is told of a numpy: one on a file server has the same on each host
TOLD = ("prefix", "version", "build", "channel", "blas")
# hosts that a cell names; --json has them all
NAMED = 3


# --- what the hosts said


def read_host(path):
    """What a host said: (rows, troubles, why it failed or None). Raises OSError.

    A line that is none of the audit's, as a login script prints some, is a trouble, too.
    """
    rows, troubles, failed = [], [], None
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in filter(str.strip, stream):
            try:
                entry = json.loads(line)
                if "failed" in entry:
                    failed = str(entry["failed"]).strip()
                elif "exit" in entry:
                    continue
                elif "trouble" in entry:
                    troubles.append((str(entry["trouble"]), str(entry["path"])))
                else:
                    rows.append(_row(entry))
            except (ValueError, KeyError, TypeError, RecursionError):
                troubles.append(("printed what is no line of the audit", line.strip()[:100]))
    return rows, troubles, failed


def _row(entry):
    if entry["verdict"] not in VERDICTS:
        raise ValueError(entry["verdict"])
    row = {name: str(entry[name] or "") for name in TOLD + ("verdict", "reason")}
    return dict(row, importers=" ".join(map(str, entry["importers"])))


def summarise(folder):
    """The summary of a folder, as --json has it. Raises OSError."""
    states = collections.Counter({state: 0 for state in HOST_STATES})
    versions = collections.defaultdict(collections.Counter)
    prefixes, no_answer = set(), []
    affected, unknown, troubles = (collections.defaultdict(list) for _ in range(3))
    for name in sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX)):
        host = name[: -len(SUFFIX)]
        rows, said, failed = read_host(os.path.join(folder, name))
        verdicts = [row["verdict"] for row in rows]
        states[
            NO_ANSWER
            if failed is not None
            else min(verdicts, key=WORST_FIRST.index, default=NO_NUMPY)
        ] += 1
        if failed is not None:
            no_answer.append({"host": host, "why": failed})
        for row in rows:
            prefixes.add((host, row["prefix"]))
            versions[row["version"]][row["verdict"]] += 1
            if row["verdict"] == "AFFECTED":
                affected[tuple(row[name] for name in TOLD + ("importers",))].append(host)
            if row["verdict"] == "UNKNOWN":
                unknown[row["reason"]].append((host, row["prefix"]))
        for what, where in said:
            troubles[what].append((host, where))
    return {
        "hosts": states,
        "prefixes": len(prefixes),
        "numpys": sum(sum(counts.values()) for counts in versions.values()),
        "versions": [
            dict({verdict: versions[version][verdict] for verdict in VERDICTS}, version=version)
            for version in sorted(versions, key=_release)
        ],
        "affected": [
            dict(zip(TOLD + ("importers",), key), hosts=_once(affected[key]))
            for key in sorted(affected)
        ],
        "unknown": [_places({"reason": reason}, unknown[reason]) for reason in sorted(unknown)],
        "no_answer": no_answer,
        "troubles": [_places({"trouble": what}, troubles[what]) for what in sorted(troubles)],
    }


def _release(version):
    """To sort by: 2.10 comes after 2.9."""
    return [
        (int(number), rest) for number, rest in re.findall(r"([0-9]+)([^0-9]*)", version)
    ], version


def _places(about, places):
    return dict(
        about, places=len(places), example=places[0][1], hosts=_once(host for host, _ in places)
    )


def _once(hosts):
    return sorted(set(hosts))


# --- how it is said; names come from many machines, and none may steer the reader's


def shown(value):
    """Text for any terminal and page: a name may hold what is no text, or what steers it."""
    return re.sub(
        "[^ -~]", lambda match: match.group().encode("unicode_escape").decode(), str(value)
    )


def sections(summary):
    """The tables: (title, header, rows of str and int)."""
    states = summary["hosts"]
    yield (
        "Hosts, by their worst numpy",
        ("HOSTS",) + HOST_STATES,
        [(sum(states.values()),) + tuple(states[each] for each in HOST_STATES)],
    )
    title = "%d numpys in %d prefixes, by version" % (summary["numpys"], summary["prefixes"])
    yield (
        title,
        ("NUMPY",) + VERDICTS,
        [
            (each["version"] or "?",) + tuple(each[verdict] for verdict in VERDICTS)
            for each in summary["versions"]
        ],
    )
    yield (
        "Affected",
        ("PREFIX", "NUMPY", "CHANNEL", "BLAS", "IMPORTERS", "HOSTS"),
        [
            (
                each["prefix"],
                (each["version"] + " " + each["build"]).strip(),
                each["channel"],
                each["blas"],
                each["importers"],
                named(each["hosts"]),
            )
            for each in summary["affected"]
        ],
    )
    yield (
        "Not known",
        ("REASON", "PLACES", "FOR EXAMPLE", "HOSTS"),
        [
            (each["reason"], each["places"], each["example"], named(each["hosts"]))
            for each in summary["unknown"]
        ],
    )
    yield (
        "No answer",
        ("HOST", "WHY"),
        [(each["host"], each["why"]) for each in summary["no_answer"]],
    )
    yield (
        "Troubles",
        ("TROUBLE", "PLACES", "FOR EXAMPLE", "HOSTS"),
        [
            (each["trouble"], each["places"], each["example"], named(each["hosts"]))
            for each in summary["troubles"]
        ],
    )


def named(hosts):
    """Some of them by name."""
    more = " and %d more" % (len(hosts) - NAMED) if len(hosts) > NAMED else ""
    return " ".join(hosts[:NAMED]) + more


def text(summary):
    """The lines for a terminal."""
    for title, header, rows in sections(summary):
        if rows:
            lines = [header] + [tuple(shown(cell).strip() or "-" for cell in row) for row in rows]
            widths = [max(map(len, column)) for column in zip(*lines)]
            yield title
            for line in lines:
                yield (
                    "  "
                    + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                )


# --- the page

# colours that the colour-blind tell apart, each with black text on it; every bar has a line around it and a number beside it
STYLE = """
:root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
section { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }
h2 { flex-basis: 100%; margin: 2rem 0 0; font-size: 1.2rem; }
div { flex: 2 1 20rem; min-width: 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid; }
td { overflow-wrap: anywhere; min-width: 3rem; }
th { white-space: nowrap; }
.number { text-align: right; }
svg { flex: 1 1 20rem; max-width: 32rem; }
svg text { fill: currentColor; font-size: 13px; }
svg rect { stroke: currentColor; }
svg .on { fill: black; text-anchor: middle; }
.AFFECTED { fill: #e8702a; } .LATENT { fill: #f0c04a; } .FIXED { fill: #4fb595; } .UNKNOWN { fill: #a9a9a9; }
.no-numpy { fill: #e4e4e4; } .no-answer { fill: #c79ad8; }
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
<p>AFFECTED: the import multiplies matrices, with MKL. LATENT: with another BLAS; MKL would make it hang. FIXED: it multiplies none.
UNKNOWN: could not be told, for the reason that is given.</p>
%s
</body>
</html>"""
# pixels
WIDTH, LABEL, ROW, BAR = 520, 100, 26, 18
# as wide as a letter or a figure, and some more
LETTER = 9


def page(summary):
    """The HTML page."""
    parts = []
    for number, (title, header, rows) in enumerate(sections(summary)):
        if rows:
            # the first two count verdicts: of hosts in all, and of each version
            picture = bars("bars-%d" % number, title, header[1:], rows) if number < 2 else ""
            parts.append(
                "<section>\n<h2>%s</h2>\n%s%s</section>"
                % (title, picture, _table(title, header, rows))
            )
    return PAGE % (STYLE, "\n".join(parts))


def _table(title, header, rows):
    kinds = [' class="number"' if isinstance(cell, int) else "" for cell in rows[0]]
    lines = [
        "<tr>%s</tr>"
        % "".join('<th scope="col"%s>%s</th>' % pair for pair in zip(kinds, map(_text, header)))
    ]
    lines += [
        "<tr>%s</tr>" % "".join("<td%s>%s</td>" % pair for pair in zip(kinds, map(_text, row)))
        for row in rows
    ]
    # to be scrolled with the keys, too
    return '<div role="region" aria-label="%s" tabindex="0"><table>\n%s\n</table></div>\n' % (
        _text(title),
        "\n".join(lines),
    )


def _text(value):
    return html.escape(shown(value))


def bars(name, title, states, rows):
    """An SVG: a bar for each row, of a part for each state; all of one scale."""
    most = max(sum(row[1:]) for row in (_counts(row, states) for row in rows)) or 1
    scale = (WIDTH - LABEL - 60) / most
    lines = []
    for top, row in zip(range(4, 4 + ROW * len(rows), ROW), (_counts(row, states) for row in rows)):
        label, left = _text(row[0] if len(row[0]) < 14 else row[0][:12] + "..."), LABEL
        lines.append('<text x="0" y="%d">%s</text>' % (top + 13, label))
        for state, count in zip(states, row[1:]):
            if count:
                lines.append(
                    '<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"><title>%s: %d %s</title></rect>'
                    % (state.replace(" ", "-"), left, top, count * scale, BAR, label, count, state)
                )
                if count * scale > LETTER * len(str(count)):
                    lines.append(
                        '<text class="on" x="%.1f" y="%d">%d</text>'
                        % (left + count * scale / 2, top + 13, count)
                    )
                left += count * scale
        lines.append('<text x="%.1f" y="%d">%d</text>' % (left + 6, top + 13, sum(row[1:])))
    used = [
        state
        for place, state in enumerate(states, 1)
        if any(_counts(row, states)[place] for row in rows)
    ]
    top, left = 4 + ROW * len(rows) + 8, 0
    for state in used:
        length = 32 + LETTER * len(state)
        if left + length > WIDTH:
            top, left = top + ROW, 0
        lines.append(
            '<rect class="%s" x="%d" y="%d" width="12" height="12"/>'
            % (state.replace(" ", "-"), left + 1, top)
        )
        lines.append('<text x="%d" y="%d">%s</text>' % (left + 18, top + 11, state))
        left += length
    return SVG.format(
        name=name,
        width=WIDTH,
        height=top + 18,
        title=_text(title),
        states=", ".join(used),
        lines="\n".join(lines),
    )


SVG = """\
<svg role="img" viewBox="0 0 {width} {height}" aria-labelledby="{name}-title {name}-desc">
<title id="{name}-title">{title}</title>
<desc id="{name}-desc">Bars of {states}; the table beside them has the numbers.</desc>
{lines}
</svg>
"""


def _counts(row, states):
    """A label and a number for each state: where the first cell is one, it is their sum."""
    return ("hosts" if isinstance(row[0], int) else row[0],) + row[1 : 1 + len(states)]


def main(argv=None):
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="the one with a file HOST.jsonl for each host"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="as one line of JSON, with the names of all hosts"
    )
    form.add_argument("--html", action="store_true", help="as a page for a browser")
    args = parser.parse_args(argv)
    try:
        summary = summarise(args.folder)
    except OSError as error:
        parser.error(shown(error))
    if not sum(summary["hosts"].values()):
        parser.error("no *%s in %s" % (SUFFIX, shown(args.folder)))
    print(
        json.dumps(summary)
        if args.json
        else page(summary)
        if args.html
        else "\n".join(text(summary))
    )
    return int(bool(summary["affected"] or summary["no_answer"]))


if __name__ == "__main__":
    # as any tool whose output is piped into head
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
