"""benchmark: how fast a package is beside the released wheel, where no BLAS is called."""

import json
import math
import statistics
import subprocess
import tempfile
from pathlib import Path

from .. import figures, options, prefix, released
from ..errors import UsageError
from ..output import tested
from ..progress import Progress
from ..specs import exactly

EPILOG = """\
examples:
  feedstock benchmark                    the OpenBLAS package of 2.3.5, five rounds
  feedstock benchmark --rounds 20        on a busy machine
  feedstock benchmark --record           the README's figures, anew

Both run on the package's Python, in turns; a ratio is the wheel's time over the
package's, each the fastest of the rounds: above 1 the package is faster.
"""
OPERATIONS = Path(__file__).with_name("timed_operations.py")


def configure_parser(parser):
    options.add_tested(parser)
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="runs of each, in turns (default: 5)"
    )
    options.add_record(parser)
    options.add_json(parser)


def execute(args):
    """Run the verb; exit code 0. Raises FeedstockError."""
    if args.rounds < 1:
        raise UsageError(f"--rounds must be at least 1, found {args.rounds}")
    if args.numpy not in released.known():
        raise UsageError(
            f"no released wheel of numpy {args.numpy} is known", known=", ".join(released.known())
        )
    # what is compared calls no BLAS: one flavour stands for both
    ((_, path),) = tested(args.numpy, args.blas or ["openblas"], args.output).items()
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        Progress() as progress,
    ):
        progress.subject = path.name
        python = (
            prefix.install(prefix.sources(path), [exactly(path)], Path(folder, "prefix"))
            / "bin/python"
        )
        rows = compare(python, released.unpack_release(args.numpy), args.rounds, progress.step)
        same = simd(python) == simd(python, released.unpack_release(args.numpy))
    result = {
        "host": figures.host(),
        "package": path.name,
        "rounds": args.rounds,
        "same_simd": same,
        "rows": rows,
    }
    result["geometric_mean"] = round(
        math.exp(statistics.fmean(math.log(row["ratio"]) for row in rows)), 3
    )
    if args.record:
        figures.record("benchmark", result)
    figures.show("benchmark", result, args.json)
    return 0


def compare(python, wheel, rounds, report):
    """A row for each operation: the seconds of the package and of the wheel, and their ratio."""
    best = {"package": {}, "wheel": {}}
    for turn in range(rounds):
        report(f"round {turn + 1} of {rounds}")
        # who comes first changes, so that what the machine does meanwhile falls on both
        # -P: its folder has a module named as one of the standard library
        for kind in sorted(best, reverse=turn % 2):
            for operation, seconds in json.loads(
                run(python, ["-P", OPERATIONS], wheel if kind == "wheel" else None)
            ).items():
                best[kind][operation] = min(seconds, best[kind].get(operation, math.inf))
    return [
        {
            "operation": operation,
            "package": package,
            "wheel": best["wheel"][operation],
            "ratio": best["wheel"][operation] / package,
        }
        for operation, package in best["package"].items()
    ]


def simd(python, wheel=None):
    """The CPU features numpy was compiled for: baseline, found and not found on this machine."""
    code = (
        "import json, numpy; print(json.dumps(numpy.show_config(mode='dicts')['SIMD Extensions']))"
    )
    return json.loads(run(python, ["-c", code], wheel))


def run(python, command, wheel):
    """The output of a Python that imports the wheel's numpy, or its own."""
    environment = {"PYTHONPATH": str(wheel)} if wheel else {}
    return subprocess.check_output(
        [python, *command], env={"PATH": "/usr/bin:/bin", **environment}, text=True
    )
