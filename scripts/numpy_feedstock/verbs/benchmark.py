"""benchmark: compare the speed of a package with the released wheel, where no BLAS is called."""

import argparse
import json
import math
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import options, variant
from ..channels import prefix
from ..channels.output import tested
from ..errors import FeedstockError, UsageError, refusal
from ..measuring import figures, measurements, released
from ..measuring.measurements import Benchmark, SpeedRow
from ..progress import Progress, Say

EPILOG = """\
examples:
  feedstock benchmark                    the OpenBLAS package of 2.3.5, five rounds
  feedstock benchmark --rounds 20        on a busy machine
  feedstock benchmark --record           make the figures of docs/evidence.md again

Both run on the package's Python, in turns. A ratio is the wheel's time divided by the
package's time, each the fastest of all rounds. Above 1 the package is faster.
"""
OPERATIONS = Path(measurements.__file__).with_name("timed_operations.py")
_SIMD = "import json, numpy; print(json.dumps(numpy.show_config(mode='dicts')['SIMD Extensions']))"


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_tested(parser, "openblas, mkl-2025 or mkl-2026 (default: openblas)")
    parser.add_argument(
        "--rounds",
        type=options.whole_number(1, 10_000),
        default=5,
        metavar="N",
        help="runs of each, in turns (default: 5)",
    )
    options.add_record(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; exit code 0. Raises FeedstockError."""
    # the operations call no BLAS, so one flavour stands for all
    flavours = args.blas or ["openblas"]
    if len(flavours) > 1 or variant.ALL in flavours:
        raise UsageError(f"one --blas is compared at a time, found {', '.join(flavours)}")
    (path,) = tested(args.numpy, flavours, args.output).values()
    wheel = find_wheel(args.numpy)
    if args.record:
        figures.check_pages()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, Progress() as progress:
        progress.subject = path.name
        installed = prefix.install_package(path, [], Path(folder, "prefix"))
        python = installed / "bin/python"
        rows = compare(python, wheel, args.rounds, progress.step)
        same_simd = simd(python) == simd(python, wheel)
    mean = math.exp(statistics.fmean(math.log(row.ratio) for row in rows))
    result = Benchmark(
        host=measurements.this_host(),
        package=path.name,
        rounds=args.rounds,
        same_simd=same_simd,
        geometric_mean=round(mean, 3),
        rows=tuple(rows),
    )
    figures.show("benchmark", result, args.json)
    if args.record:
        figures.record("benchmark", result)
    return 0


def find_wheel(release: str) -> Path:
    """Return the folder with the released wheel of this Python. Raises UsageError."""
    known = released.known()
    if release not in known:
        raise UsageError(f"no released wheel of numpy {release} is known", known=", ".join(known))
    wheel = released.unpack_release(release)
    if wheel is None:
        raise UsageError(
            f"numpy {release} has no released wheel for this Python",
            known=", ".join(known[release]),
        )
    return wheel


def compare(python: Path, wheel: Path, rounds: int, say: Say) -> list[SpeedRow]:
    """Return a row for each operation."""
    best: dict[str, dict[str, float]] = {"package": {}, "wheel": {}}
    for turn in range(rounds):
        say(f"round {turn + 1} of {rounds}")
        # the order changes each round, so that other load on the machine slows both
        for kind in sorted(best, reverse=bool(turn % 2)):
            times = time_operations(python, wheel if kind == "wheel" else None)
            for operation, seconds in times.items():
                best[kind][operation] = min(seconds, best[kind].get(operation, math.inf))
    return [
        SpeedRow(operation, package, best["wheel"][operation], best["wheel"][operation] / package)
        for operation, package in best["package"].items()
    ]


def time_operations(python: Path, wheel: Path | None) -> dict[str, float]:
    """Return {operation: seconds of one call} of the wheel's numpy, or of the Python's own.

    Raises FeedstockError.
    """
    times = run(python, [str(OPERATIONS)], wheel)
    seconds = list(times.values()) if isinstance(times, dict) else []
    if not seconds or not all(isinstance(each, float) and each > 0 for each in seconds):
        raise FeedstockError(
            f"{_name(wheel)} cannot be timed",
            expected="seconds for each operation",
            found=str(times)[:200],
        )
    return dict(times)


def _name(wheel: Path | None) -> str:
    return "the wheel" if wheel else "the package"


def simd(python: Path, wheel: Path | None = None) -> Any:
    """Return the CPU features that numpy was compiled for, and those found on this machine."""
    return run(python, ["-c", _SIMD], wheel)


def run(python: Path, command: Sequence[str], wheel: Path | None) -> Any:
    """Return the JSON that a Python prints. It imports the wheel's numpy, or its own without one.

    Raises FeedstockError.
    """
    environment = {"PATH": "/usr/bin:/bin"}
    if wheel:
        environment["PYTHONPATH"] = str(wheel)
    what = f"{_name(wheel)} cannot be timed"
    try:
        done = subprocess.run([python, *command], env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
    except OSError as error:
        raise FeedstockError(what, found=refusal(error)) from None
    except ValueError as error:
        raise FeedstockError(what, found=f"its Python printed no JSON: {error}") from None
    raise FeedstockError(what, found=done.stderr.strip() or f"exit code {done.returncode}")
