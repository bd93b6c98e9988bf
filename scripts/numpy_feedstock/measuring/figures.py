"""Figures: the measured results as tables and as a plot, in the README and in docs/evidence.md.

A page holds a figure between `<!-- BLOCK -->` and `<!-- /BLOCK -->`. The text
between the marks is what ``render`` makes of the last result; a test compares them.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .. import files, paths
from ..errors import FeedstockError, UsageError, shown
from ..packages.record import NOT_BUILT
from ..tables import table
from . import hang_plot, measurements
from .measurements import (
    Benchmark,
    ComparedTests,
    HangMatrix,
    HangRow,
    Host,
    Matrix,
    MatrixRow,
    Measurement,
    OnOneHost,
    ScanOfWheels,
)

PAGES = (
    paths.ROOT / "README.md",
    paths.ROOT / "docs" / "evidence.md",
    paths.ROOT / "docs" / "matrix.md",
)
PLOT = paths.ROOT / "docs" / "hang-matrix.svg"

# stands where nothing could be measured
FAILED = "FAILED"


def show(block: str, result: Measurement, as_json: bool) -> None:
    """Print a result: the text of a block, or JSON."""
    if as_json:
        print(result.as_json(), end="")
    else:
        print(render(block, result, "simple"))


def record(
    name: str, result: Measurement, merge: Callable[[Any, Any], Measurement] | None = None
) -> None:
    """Keep a result under a name of measurements.KINDS and paste it into the pages.

    merge : makes what is kept of the result and the one that is recorded

    Raises FeedstockError when not all of it can be kept. Then nothing is changed.
    """
    with measurements.recording():
        if merge:
            result = merge(result, measurements.load(name))
        texts = {measurements.file_of(name): result.as_json()}
        for page, text in _pages().items():
            renewed = _with_result(text, name, result)
            if renewed != text:
                texts[page] = renewed
        if name == "hang-matrix" and isinstance(result, HangMatrix):
            texts[PLOT] = hang_plot.draw(result)
        try:
            files.write_all(texts)
        except OSError as error:
            raise FeedstockError(
                f"the result of {name} cannot be recorded",
                found=error,
                remedy="nothing was changed: mend it, and run the same command again",
            ) from None


def check_pages() -> None:
    """Raise UsageError when a result could not be pasted into the pages, before the work."""
    _pages()


def _pages() -> dict[Path, str]:
    """Return {page: its text}. Raises UsageError for a page that cannot hold the figures."""
    texts = {}
    for page in PAGES:
        try:
            texts[page] = page.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _no_page(page, error) from None
        if not os.access(page, os.W_OK):
            raise _no_page(page, "no permission to write it")
        for block in blocks(texts[page]):
            if block not in BLOCKS:
                raise _no_page(page, f"the mark <!-- {block} -->, which no figure has")
    return texts


def _no_page(page: Path, found: object) -> UsageError:
    return UsageError(
        f"no result can be recorded: the figures cannot be pasted into {page}",
        expected=f"a page in UTF-8 with marks of {', '.join(BLOCKS)}",
        found=found,
        remedy=f"git restore {page}",
    )


def blocks(text: str) -> dict[str, str]:
    """Return {block: the text between its marks} of a page."""
    return dict(re.findall(r"<!-- (\S+) -->\n(.*?)<!-- /\1 -->", text, re.DOTALL))


def pasted(block: str) -> str:
    """Return the text that a page has to hold between the marks of a block."""
    return _pasted(block, measurements.load(BLOCKS[block].result))


def _pasted(block: str, result: Measurement) -> str:
    return render(block, result) + "\n"


def render(block: str, result: Measurement, style: str = "pipe") -> str:
    """Return the text of a block; ``style`` is tabulate's name for a form of tables."""
    return shown(BLOCKS[block].render(result, style))


def _with_result(text: str, name: str, result: Measurement) -> str:
    """Return the text of a page with all blocks of a result made anew."""
    for block, content in blocks(text).items():
        if BLOCKS[block].result == name:
            # the mark is replaced, too, because a block that was never filled is empty
            mark = f"<!-- {block} -->\n"
            text = text.replace(mark + content, mark + _pasted(block, result))
    return text


def _host(result: OnOneHost) -> str:
    host = result.host
    return f"{_machine(host)}, Python {host.python}, {host.date}"


def _machine(host: Host) -> str:
    return f"{host.cpu}, {host.cores} cores, glibc {host.glibc}"


def _share(share: Sequence[int]) -> str:
    return f"{share[0]} of {share[1]}"


def _sum(shares: Iterable[Sequence[int]]) -> tuple[int, int]:
    """Return the sum of the parts and the sum of the wholes."""
    parts, wholes = zip(*shares, strict=True)
    return sum(parts), sum(wholes)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _scan_of_wheels(result: ScanOfWheels, style: str) -> str:
    rows = []
    for each in result.rows:
        row = {"numpy": each.release, "verdict": each.verdict}
        if each.fault:
            row["verdict"] = f"{FAILED}: {each.fault.splitlines()[0]}"
        elif each.reason:
            row["verdict"] += f": {each.reason}"
        else:
            row["has the check"] = _yes(each.has_check)
            row["gated"] = _yes(each.gated) if each.has_check else "-"
            row["products at import"] = str(each.products)
            row["hangs in the race"] = _share(each.hangs_in_race)
            row["hangs, main thread late"] = _share(each.hangs_main_late)
        rows.append(row)
    return f"{table(rows, style)}\n\n{_host(result)}; {result.seconds} seconds."


def _hang_matrix(result: HangMatrix, style: str) -> str:
    rows = []
    for control, package in hang_plot.pairs(result):
        pair = (control, package)
        rows.append(
            {
                "blas": package.blas,
                "layer": package.layer,
                "threads": package.threads,
                "glibc": package.glibc,
                "control: hangs in the race": _measured(control, _share(control.hangs_in_race)),
                "control: main thread late": _measured(control, _share(control.hangs_main_late)),
                "package: hangs in the race": _measured(package, _share(package.hangs_in_race)),
                "package: main thread late": _measured(package, _share(package.hangs_main_late)),
                "products": _both(_measured(row, row.products) for row in pair),
                "OS threads": _both(_measured(row, row.os_threads) for row in pair),
                "BLAS threads": _both(_measured(row, row.max_threads) for row in pair),
            }
        )
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    packages = ", ".join(result.packages.values())
    return f"{table(rows, style)}\n\n{_host(result)}; {versions}; {packages}."


def _measured(row: HangRow, value: object) -> str:
    """Return what is shown of a cell. What could not be measured is no number."""
    return FAILED if row.fault else str(value)


def _both(values: Iterable[str]) -> str:
    return ", ".join(values)


def _hang_summary(result: HangMatrix, style: str) -> str:
    """Return at most eight rows. Cells that differ only by the number of threads are one row."""
    rows = []
    for blas, layer in hang_plot.layers(result):
        cells = [row for row in result.rows if (row.blas, row.layer) == (blas, layer)]
        for threads, some in _thread_groups(cells):
            row = {"BLAS": hang_plot.label(blas, layer), "threads": threads}
            for kind, name in (("control", "unpatched"), ("package", "package")):
                of_kind = [cell for cell in some if cell.kind == kind]
                in_race = _sum(cell.hangs_in_race for cell in of_kind)
                main_late = _sum(cell.hangs_main_late for cell in of_kind)
                row[f"{name}: hangs in the race"] = _share(in_race)
                row[f"{name}: main thread late"] = _share(main_late)
            rows.append(row)
    return f"{table(rows, style)}\n\n{_host(result)}."


def _thread_groups(cells: Sequence[HangRow]) -> list[tuple[str, Sequence[HangRow]]]:
    """Return the cells of one thread and those of more, or all together where none hung."""
    if not any(cell.hangs_in_race[0] + cell.hangs_main_late[0] for cell in cells):
        return [("any", cells)]
    groups = [
        ("1", [cell for cell in cells if cell.threads == 1]),
        ("2 or more", [cell for cell in cells if cell.threads > 1]),
    ]
    return [(name, some) for name, some in groups if some]


def _compared_tests(result: ComparedTests, style: str) -> str:
    rows = []
    for row in result.rows:
        cells: dict[str, object] = {"package": result.packages[row.blas]}
        if row.fault:
            cells["on the control"] = f"{FAILED}: {row.fault.splitlines()[0]}"
        else:
            cells |= {
                "label": row.label,
                "numpy's tests": _counts(row.package),
                "on the control": _counts(row.control),
                "failed on the package only": len(row.only_package),
            }
        rows.append(cells)
    return f"{table(rows, style)}\n\n{_host(result)}."


def _counts(outcomes: Mapping[str, int]) -> str:
    return "{passed:,} passed, {failed} failed, {skipped:,} skipped".format(**outcomes)


def _benchmark(result: Benchmark, style: str) -> str:
    rows = [
        {
            "operation": row.operation,
            "package": f"{row.package * 1e6:.1f}",
            "wheel": f"{row.wheel * 1e6:.1f}",
            "ratio": f"{row.ratio:.2f}",
        }
        for row in sorted(result.rows, key=lambda row: row.ratio)
    ]
    return f"{table(rows, style)}\n\nMicroseconds. {_speed(result, style)}"


def _speed(result: Benchmark, style: str) -> str:
    ordered = sorted(result.rows, key=lambda row: row.ratio)
    worst, best = ordered[0], ordered[-1]
    simd = "the same" if result.same_simd else "other"
    return (
        f"{len(ordered)} operations without BLAS, {result.rounds} rounds: "
        f"geometric mean {result.geometric_mean:.2f}, "
        f"from {worst.ratio:.2f} ({worst.operation}) to {best.ratio:.2f} ({best.operation}); "
        f"{simd} SIMD features. {_host(result)}; {result.package}."
    )


def _matrix(result: Matrix, style: str) -> str:
    rows = []
    for each in result.rows:
        state = each.fault or NOT_BUILT
        row = {"package": each.package, "BLAS": each.blas, "tests": state}
        if each.is_built:
            row |= _built_cells(each)
        rows.append(row)
    return f"{table(rows, style)}\n\n{_matrix_summary(result)}"


def _built_cells(row: MatrixRow) -> dict[str, str]:
    return {
        "tests": f"{_share(row.tests)} passed, {row.label}",
        "numpy's tests": _counts(row.numpy_tests),
        "control": row.control or "not asked",
        "build min": f"{row.build_minutes:.1f}",
        "test min": f"{row.test_minutes:.1f}",
        "cache hits": _share((row.cache_hits, row.cache_hits + row.cache_misses)),
        "sha256": row.sha256,
        # 12 digits name a commit, "-dirty" has to stay
        "commit": row.commit[:12] + row.commit[40:],
    }


def _matrix_summary(result: Matrix) -> str:
    built = [row for row in result.rows if row.is_built]
    building = sum(row.build_minutes for row in built)
    testing = sum(row.test_minutes for row in built)
    text = (
        f"Packages built: {len(built)} of {len(result.rows)}. "
        f"Minutes for building: {building:.0f}, for testing: {testing:.0f}."
    )
    first, further = _first_and_further(built)
    if further:
        text += (
            f" The first package of a release and a Python took {median(first):.1f} minutes to "
            f"build, each further one {median(further):.1f} (medians)."
        )
    if built:
        text += f" Recorded: {_recorded(built)}."
    return text


def _recorded(rows: Iterable[MatrixRow]) -> str:
    """Return the machines on which rows were recorded, each with its first and its last day."""
    days: dict[str, list[str]] = {}
    for row in rows:
        if row.host:
            days.setdefault(_machine(row.host), []).append(row.host.date)
    return "; ".join(f"{machine}, {_period(dates)}" for machine, dates in days.items())


def _period(dates: Iterable[str]) -> str:
    first, *others = sorted(set(dates))
    return f"{first} to {others[-1]}" if others else first


def _first_and_further(built: Sequence[MatrixRow]) -> tuple[list[float], list[float]]:
    """Return the minutes to build the first package of each release and Python, and the others.

    The first one is that which found the fewest of its parts in the compiler cache.
    """
    first, further = [], []
    seen = set()
    for row in sorted(built, key=lambda row: row.cache_misses, reverse=True):
        if (row.numpy, row.python) in seen:
            further.append(row.build_minutes)
        else:
            first.append(row.build_minutes)
        seen.add((row.numpy, row.python))
    return first, further


@dataclass(frozen=True)
class Block:
    """A place in the pages."""

    result: str  # name of measurements.KINDS
    render: Callable[[Any, str], str]


BLOCKS = {
    "scan-wheels": Block("scan-wheels", _scan_of_wheels),
    "hangs": Block("hang-matrix", _hang_summary),
    "hang-matrix": Block("hang-matrix", _hang_matrix),
    "many-imports": Block("many-imports", _hang_matrix),
    "compare-tests": Block("compare-tests", _compared_tests),
    "matrix": Block("matrix", _matrix),
    "benchmark": Block("benchmark", _benchmark),
    "speed": Block("benchmark", _speed),
}
