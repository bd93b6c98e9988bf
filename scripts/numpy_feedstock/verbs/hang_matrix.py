"""hang-matrix: what the packages do when imported inside dlopen, beside controls whose patch is undone."""

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .. import figures, git, options, paths, prefix, repro, rootfs
from ..errors import FeedstockError, UsageError
from ..output import tested
from ..progress import Progress
from ..specs import exactly

EPILOG = """\
examples:
  feedstock hang-matrix                                     the whole matrix, 20 imports a cell
  feedstock hang-matrix --blas mkl --layer GNU --threads 8  one row of it
  feedstock hang-matrix --record matrix                     the README's table, anew
  feedstock hang-matrix --layer INTEL --threads 2 --threads 8 --trials 1000 --record load

Half of the imports of a cell are plain, in the other half the race is decided: the
main thread comes last to its kernel. A cell stops at its third hang of a kind.
"""
LAYERS = ("INTEL", "GNU", "SEQUENTIAL", "TBB")
THREADS = (1, 2, 8)
KINDS = ("package", "control")
# the packages that a figure depends on
_TOLD = ("python", "mkl", "intel-openmp", "tbb", "libopenblas", "gxx_linux-64")


def configure_parser(parser):
    options.add_tested(parser)
    parser.add_argument(
        "--layer",
        action="append",
        choices=LAYERS,
        help="threading layer of MKL, repeatable (default: all)",
    )
    parser.add_argument(
        "--threads", action="append", type=int, metavar="N", help="repeatable (default: 1, 2 and 8)"
    )
    parser.add_argument(
        "--root",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help=(
            "a Linux in a directory, to examine them on its glibc too, repeatable; `feedstock old-glibc` makes build/root-3.11"
        ),
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="imports inside dlopen a cell (default: 20)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=10,
        metavar="SECONDS",
        help="after which an import counts as hung (default: 10)",
    )
    options.add_record(parser, names=("matrix", "load"))
    options.add_json(parser)
    options.add_dry_run(parser, "name the cells, measure nothing")


def execute(args):
    """Run the verb; exit code 0. Raises FeedstockError."""
    if (
        args.trials < 2
        or not args.timeout > 0
        or any(threads < 1 for threads in args.threads or ())
    ):
        raise UsageError("--trials must be 2 or more, --timeout above 0, --threads 1 or more")
    packages = tested(args.numpy, args.blas, args.output)
    cells = list(matrix(packages, args.layer or LAYERS, args.threads or THREADS))
    if args.dry_run:
        print(figures.table([{**cell, "imports": args.trials} for cell in cells]))
        return 0
    for directory in args.root:
        rootfs.glibc(directory)  # UsageError when it is none
    with Progress() as progress:
        progress.subject = f"numpy {args.numpy}"
        result = examine(cells, packages, args.root, args.trials, args.timeout, progress.step)
    if args.record:
        figures.record(args.record, result)
    figures.show("matrix", result, args.json)
    return 0


def matrix(flavours, layers, threads):
    """The cells: a flavour, MKL's threading layer, and a number of threads."""
    for blas in flavours:
        for layer in layers if blas == "mkl" else ["as built"]:
            for count in threads:
                yield {"blas": blas, "layer": layer, "threads": count}


def examine(cells, packages, roots, trials, timeout, report):
    """What `figures` keeps: the host, versions, and a row for each glibc, cell and kind of package."""
    import asyncio

    with tempfile.TemporaryDirectory(dir=paths.BUILD, prefix="evidence-") as folder:
        report("installing the packages and their controls")
        places, versions = make_prefixes(packages, Path(folder))
        for number, directory in enumerate(roots):
            places += [
                _in_root(directory, path, blas, kind, Path(folder, f"{number}-{blas}-{kind}"))
                for blas, path in packages.items()
                for kind in KINDS
            ]
        rows = asyncio.run(
            _examine_all(cells, places, ("--trials", trials, "--timeout", timeout), report)
        )
    names = {blas: path.name for blas, path in packages.items()}
    return {
        "host": figures.host(),
        "commit": git.commit(),
        "packages": names,
        "versions": versions,
        "rows": rows,
    }


@dataclass(frozen=True)
class Place:
    """Where a package or its control can be examined."""

    blas: str
    kind: str  # of KINDS
    glibc: str
    command: list  # what runs the repro there
    environment: dict


def make_prefixes(packages, folder):
    """The Places on this machine, and {package: version} of what is in them."""
    places, versions = [], {}
    for blas, path in packages.items():
        for kind in KINDS:
            specs = [exactly(path), "gxx_linux-64"]
            made = prefix.install(prefix.sources(path), specs, folder / f"{blas}-{kind}")
            if kind == "control":
                prefix.undo_patch(made)
            places.append(
                Place(
                    blas,
                    kind,
                    figures.host()["glibc"],
                    [made / "bin/python", repro.PROGRAM],
                    prefix.activated(made),
                )
            )
        records = [json.loads(record.read_text()) for record in made.glob("conda-meta/*.json")]
        versions.update(
            {record["name"]: record["version"] for record in records if record["name"] in _TOLD}
        )
    return places, dict(sorted(versions.items()))


def _in_root(directory, path, blas, kind, stage):
    """The Place of a package in a root; ``stage`` is the folder that is seen there."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    interpreter = rootfs.interpreter(directory, python)
    made = stage / "prefix"
    prefix.assemble(path, prefix.sources(path)[1:], [], made)
    if kind == "control":
        prefix.undo_patch(made)
    shutil.copytree(repro.PROGRAM.parent, stage / "repro")
    command = rootfs.command(directory, [interpreter, "/mnt/repro/repro.py"], stage=stage)
    # a conda Python's own library path leads there; MKL looks for TBB on it
    libraries = {"LD_LIBRARY_PATH": "/mnt/prefix/lib"}
    environment = rootfs.environment(
        {"PYTHONPATH": f"/mnt/prefix/lib/python{python}/site-packages", **libraries}
    )
    return Place(blas, kind, rootfs.glibc(directory), command, environment)


async def _examine_all(cells, places, args, report):
    import asyncio

    cores = asyncio.Semaphore(os.cpu_count())

    async def examine_one(cell, place):
        async with cores:
            examined = await repro.examine(
                place.command, *args, *_variables(cell), environment=place.environment
            )
        verdict = "AFFECTED" if examined["affected"] else "not affected"
        report(
            f"{cell['blas']} {cell['layer']} {cell['threads']} threads, glibc {place.glibc}, {place.kind}: {verdict}"
        )
        return _row(cell, place, examined)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(examine_one(cell, place))
                for cell in cells
                for place in places
                if place.blas == cell["blas"]
            ]
    except* FeedstockError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _variables(cell):
    """The repro's options that make a cell."""
    if cell["blas"] == "mkl":
        names = {
            "MKL_THREADING_LAYER": cell["layer"],
            "MKL_NUM_THREADS": cell["threads"],
            "MKL_DYNAMIC": "FALSE",
        }
    else:
        names = {"OPENBLAS_NUM_THREADS": cell["threads"]}
    return [part for name, value in names.items() for part in ("--env", f"{name}={value}")]


def _row(cell, place, examined):
    after = repro.after_import(examined)
    return {
        **cell,
        "kind": place.kind,
        "glibc": place.glibc,
        "calls": repro.calls(examined),
        "plain": repro.hangs(examined, late=False),
        "decided": repro.hangs(examined, late=True),
        "os_threads": after["os_threads"],
        "max_threads": after["max_threads"],
        "layer_found": after["layer"],
        "library": after["library"],
        "kernels": after["kernels"],
        "stacks": repro.stacks(examined),
    }
