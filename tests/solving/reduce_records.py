#!/usr/bin/env python3
"""Make records.jsonl.zst, conda-forge's records for the solving tests, out of a full set.

    python tests/solving/reduce_records.py FOLDER

FOLDER holds records.jsonl.zst and synthetic.json: records of conda-forge as public lock files
carry them, one JSON object a line ({subdir, fn, record, source}). What is kept: every package that
a solve of ROOTS can reach, without builds for other Pythons, for CUDA and for other systems, and
without hashes, sizes and licences, which no solver reads.

Few lock files carry run_exports, and a package has them from its first build on. A record of
EXPORTERS without takes those of the nearest release that has them, with its own version in them,
and says so in `exports_from`.
"""

import argparse
import collections
import io
import json
import pathlib
import re

import zstandard

RECORDS = pathlib.Path(__file__).parent / "records.jsonl.zst"

COMPILERS = ("gcc", "gxx", "gfortran", "sysroot", "cross-python")
# the names in the recipe, in the README's commands, and in the environments of the tests
ROOTS = {
    *(f"{name}_{target}" for name in COMPILERS for target in ("linux-64", "linux-aarch64")),
    *("python", "python_abi", "cython", "meson-python", "pip", "python-build", "ninja"),
    *("pkg-config", "pkgconf", "libblas", "libcblas", "liblapack", "blas", "openblas"),
    *("libopenblas", "mkl", "mkl-devel", "mkl-include", "libgcc", "libstdcxx", "libstdcxx-ng"),
    *("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "meson", "pytz", "setuptools"),
    *("typing_extensions", "numpy", "numpy-base", "nomkl", "csp"),
    *("scipy", "pandas", "pyarrow", "scikit-learn", "numba", "pytorch"),
}
EXPORTERS = {
    *(f"{name}_{target}" for name in COMPILERS for target in ("linux-64", "linux-aarch64")),
    *("python", "mkl-devel", "libopenblas", "libblas", "libcblas", "liblapack"),
}
# builds for a Python that we do not build for, for free-threaded ones, for GPUs
_OTHER_BUILD = re.compile(r"py(27|3[5-9]|310|315)|_cp(3\d+t|38|39|310)\b|cuda|rocm|pypy")
_OTHER_DEPENDENCY = re.compile(
    r"(__cuda|__win|__osx|cuda-version|cudatoolkit)\b|python_abi 3\.(8|9|10|15)\.|.*_cp3\d+t$"
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    by_name = collections.defaultdict(list)
    for row in read_full_set(folder):
        if is_usable(row["record"]):
            by_name[row["record"]["name"]].append(reduce_row(row))
    kept = [row for name in sorted(reachable(by_name)) for row in by_name[name]]
    for name in EXPORTERS:
        complete_run_exports(by_name[name])
    # similar lines beside each other compress well
    kept.sort(key=lambda row: (row["name"], row["subdir"], row["timestamp"], row["fn"]))
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in kept)
    RECORDS.write_bytes(zstandard.ZstdCompressor(level=22).compress(text.encode()))
    print(f"{RECORDS}: {len(kept)} records, {RECORDS.stat().st_size:,} bytes")


def read_full_set(folder):
    """The rows of the full set, as dicts."""
    with open(folder / "records.jsonl.zst", "rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
        yield from map(json.loads, io.TextIOWrapper(stream, "utf-8"))
    yield from json.loads((folder / "synthetic.json").read_text())


def is_usable(record):
    """Whether a record can be in an environment of the tests."""
    if _OTHER_BUILD.search(record["build"]):
        return False
    return not any(_OTHER_DEPENDENCY.match(spec) for spec in record["depends"])


def reduce_row(row):
    """What is kept of a row, as a flat dict. Time stamps are in seconds."""
    record = row["record"]
    kept = {key: record[key] for key in ("name", "version", "build", "build_number")}
    stamp = record["timestamp"]
    if stamp > 1e11:
        stamp //= 1000
    kept.update(subdir=row["subdir"], fn=row["fn"], source=row["source"], timestamp=stamp)
    kept["depends"] = record["depends"]
    for key in ("constrains", "track_features", "noarch"):
        if record.get(key):
            kept[key] = record[key]
    exports = record.get("x_run_exports")
    if exports:
        kept["run_exports"] = exports if isinstance(exports, dict) else {"weak": exports}
    return kept


def reachable(by_name):
    """The names that a solve of ROOTS can look at."""
    found, left = set(), list(ROOTS)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            specs = [spec for row in by_name[name] for spec in row["depends"]]
            left += [re.split(r"[ =<>!~]", spec, maxsplit=1)[0] for spec in specs]
    return found


def complete_run_exports(rows):
    """Give each record without run_exports those of the nearest release of its package."""
    donors = [row for row in rows if "run_exports" in row]
    for row in rows:
        if "run_exports" in row or not donors:
            continue
        donor = min(donors, key=lambda other: distance(row, other))
        row["run_exports"] = {
            kind: [rewrite(spec, donor["version"], row["version"]) for spec in specs]
            for kind, specs in donor["run_exports"].items()
        }
        row["exports_from"] = donor["fn"]


def distance(row, other):
    """How far two records of a package are from each other; the smallest is the nearest."""
    theirs, mine = other["version"].split("."), row["version"].split(".")
    shared = [a == b for a, b in zip(theirs, mine, strict=False)]
    depth = (shared + [False]).index(False)
    return (
        -depth,
        other["subdir"] != row["subdir"],
        other["build"].rsplit("_", 1)[-1] != row["build"].rsplit("_", 1)[-1],
        abs(other["timestamp"] - row["timestamp"]),
    )


def rewrite(spec, old, new):
    """A run export of release `old`, "mkl >=2026.0.0,<2027.0a0", as release `new` has it."""
    if old == new:
        return spec
    olds, news = old.split("."), new.split(".")
    for length in (3, 2, 1):
        before, after = ".".join(olds[:length]), ".".join(news[:length])
        spec = re.sub(rf"(?<=[ =]){re.escape(before)}(?![\w])", after, spec)
    spec = re.sub(rf"<{int(olds[0]) + 1}\.0a0", f"<{int(news[0]) + 1}.0a0", spec)
    return spec.replace(f"cp{''.join(olds[:2])}", f"cp{''.join(news[:2])}")


if __name__ == "__main__":
    main()
