"""Figures: what was measured, kept as JSON in tests/evidence, and pasted from there into the README.

A block of the README between `<!-- NAME -->` and `<!-- /NAME -->` is what
``render`` makes of tests/evidence/NAME.json; a test compares them.
"""

import datetime
import json
import os
import platform
import re
from pathlib import Path

from . import paths

FOLDER = paths.ROOT / "tests" / "evidence"
README = paths.ROOT / "README.md"


def host():
    """What the figures depend on, and when they were taken."""
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "glibc": os.confstr("CS_GNU_LIBC_VERSION").split()[1],
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def show(block, result, as_json):
    """Print a result as JSON, or as a table."""
    print(json.dumps(result, indent=1) if as_json else render(block, result, "simple"))


def record(name, result):
    """Keep a result as tests/evidence/NAME.json and put it into the README."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    text = README.read_text()
    for block, content in blocks(text).items():
        if RENDERERS[block][0] == name:
            # with its mark: a block that was never filled is empty
            text = text.replace(
                f"<!-- {block} -->\n{content}", f"<!-- {block} -->\n{pasted(block)}"
            )
    README.write_text(text)


def load(name):
    """The result that was recorded last."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def blocks(text):
    """{name: content} of the README's blocks."""
    return dict(re.findall(r"<!-- (\S+) -->\n(.*?)<!-- /\1 -->", text, re.DOTALL))


def pasted(block):
    """What the README has to hold between the marks of a block."""
    name, _ = RENDERERS[block]
    return render(block, load(name)) + "\n"


def render(block, result, style="pipe"):
    """A block's text; ``style`` is tabulate's name for a table's."""
    _, renderer = RENDERERS[block]
    return renderer(result, style)


def table(rows, style="simple"):
    """Rows, dicts, as a table in one of tabulate's styles."""
    from tabulate import tabulate

    return tabulate(rows, headers="keys", tablefmt=style)


def _host(result):
    return "{cpu}, {cores} cores, glibc {glibc}, Python {python}, {date}".format(**result["host"])


def _share(pair):
    return "{} of {}".format(*pair)


def _bisect(result, style):
    yes = {True: "yes", False: "no"}
    rows = [
        {
            "numpy": row["release"],
            "check": yes[row["check"]],
            "gated": yes[row["gated"]] if row["check"] else "-",
            "products at import": row["calls"],
            "hangs": _share(row["plain"]),
            "hangs, main thread late": _share(row["decided"]),
            "verdict": row["verdict"],
        }
        if "calls" in row
        else {"numpy": row["release"], "verdict": row["verdict"]}
        for row in result["rows"]
    ]
    return f"{table(rows, style)}\n\n{_host(result)}; {result['seconds']} seconds."


def _matrix(result, style):
    kinds = {
        kind: [row for row in result["rows"] if row["kind"] == kind]
        for kind in ("control", "package")
    }
    rows = []
    for control, package in zip(kinds["control"], kinds["package"], strict=True):
        pair = (control, package)
        rows.append(
            {
                **{key: package[key] for key in ("blas", "layer", "threads", "glibc")},
                "control hangs": _share(control["plain"]),
                "and late": _share(control["decided"]),
                "package hangs": _share(package["plain"]),
                "and late ": _share(package["decided"]),
                "products": "{}, {}".format(*(row["calls"] for row in pair)),
                "OS threads": "{}, {}".format(*(row["os_threads"] for row in pair)),
                "BLAS threads": "{}, {}".format(*(row["max_threads"] for row in pair)),
            }
        )
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{table(rows, style)}\n\n{_host(result)}; {versions}; {', '.join(result['packages'].values())}."


def _suite(result, style):
    def counts(each):
        return "{passed:,} passed, {failed} failed, {skipped:,} skipped".format(**each)

    rows = [
        {
            "package": result["packages"][row["blas"]],
            "label": row["label"],
            "numpy's tests": counts(row["package"]),
            "on the control": counts(row["control"]),
            "failed on the package only": len(row["only_package"]),
        }
        for row in result["rows"]
    ]
    return f"{table(rows, style)}\n\n{_host(result)}."


def _benchmark(result, style):
    rows = sorted(result["rows"], key=lambda row: row["ratio"])
    told = [
        {
            **row,
            **{key: f"{row[key] * 1e6:.1f}" for key in ("package", "wheel")},
            "ratio": f"{row['ratio']:.2f}",
        }
        for row in rows
    ]
    return f"{table(told, style)}\n\nMicroseconds. {_speed(result, style)}"


def _speed(result, style):
    worst, best = (each(result["rows"], key=lambda row: row["ratio"]) for each in (min, max))
    simd = "the same" if result["same_simd"] else "other"
    return (
        f"{len(result['rows'])} operations without BLAS, {result['rounds']} rounds: geometric mean {result['geometric_mean']:.2f}, "
        f"from {worst['ratio']:.2f} ({worst['operation']}) to {best['ratio']:.2f} ({best['operation']}); {simd} SIMD features. "
        f"{_host(result)}; {result['package']}."
    )


# block: the result it shows, and what writes it
RENDERERS = {
    "bisect": ("bisect", _bisect),
    "matrix": ("matrix", _matrix),
    "load": ("load", _matrix),
    "suite": ("suite", _suite),
    "benchmark": ("benchmark", _benchmark),
    "speed": ("benchmark", _speed),
}
