"""hang-matrix: import the packages and their controls inside dlopen, and count the hangs."""

import argparse
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .. import git, options, paths
from ..channels import prefix
from ..channels.output import tested
from ..errors import FeedstockError, reason
from ..measuring import figures, hang_plot, measurements, repro, rootfs
from ..measuring.measurements import HangMatrix, HangRow
from ..progress import Progress, Say
from ..tables import table
from ..variant import THIS_PYTHON

EPILOG = """\
examples:
  feedstock hang-matrix                                     the whole matrix, 20 imports a cell
  feedstock hang-matrix --blas mkl --layer GNU --threads 8  one row of it
  feedstock hang-matrix --blas mkl-2025 --blas mkl-2026     two releases of MKL
  feedstock hang-matrix --record hang-matrix                make table and plot again
  feedstock hang-matrix --layer INTEL --threads 2 --threads 8 --trials 500 --record many-imports

Half of the imports of a cell are in the race. In the other half the race is decided: the
main thread comes last to its kernel. A cell stops at its third hang of a kind.
A cell that cannot be measured is shown as FAILED, and does not stop the others. The exit code
is 1 then, and nothing is recorded. After Ctrl-C the table shows what was measured.
"""
LAYERS = ("INTEL", "GNU", "SEQUENTIAL", "TBB")
THREADS = (1, 2, 8)
KINDS = ("package", "control")
# packages that the figures depend on
_REPORTED_PACKAGES = ("python", "mkl", "intel-openmp", "tbb", "libopenblas", "gxx_linux-64")


@dataclass(frozen=True)
class Cell:
    """A BLAS, and the settings that are asked of it."""

    blas: str  # flavour: "mkl-2025"
    layer: str  # threading layer
    threads: int

    def variables(self) -> dict[str, str]:
        """Return the environment variables that ask for it."""
        if not self.blas.startswith("mkl"):
            return {"OPENBLAS_NUM_THREADS": str(self.threads)}
        return {
            "MKL_THREADING_LAYER": self.layer,
            "MKL_NUM_THREADS": str(self.threads),
            "MKL_DYNAMIC": "FALSE",
        }


@dataclass(frozen=True)
class Setup:
    """An installed package or its control, and how the repro is run on it."""

    blas: str
    kind: str  # of KINDS
    glibc: str
    command: Sequence[str | Path] = ()  # the command that runs the repro there
    environment: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""  # why it could not be installed


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_tested(parser)
    parser.add_argument(
        "--layer",
        action="append",
        choices=LAYERS,
        help="threading layer of MKL, repeatable (default: all)",
    )
    parser.add_argument(
        "--threads",
        action="append",
        type=options.whole_number(1, 1024),
        metavar="N",
        help="repeatable (default: 1, 2 and 8)",
    )
    parser.add_argument(
        "--root",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help=(
            "a Linux in a directory (a rootfs), to run them on its glibc too, repeatable; "
            "`feedstock old-glibc` makes build/root-3.11"
        ),
    )
    options.add_trials(parser, 20, "imports inside dlopen for each cell")
    options.add_record(parser, names=("hang-matrix", "many-imports"))
    options.add_json(parser)
    options.add_dry_run(parser, "name the cells, measure nothing")


def execute(args: argparse.Namespace) -> int:
    """Run the verb; exit code 0. Raises FeedstockError, also when a cell could not be measured."""
    packages = tested(args.numpy, args.blas, args.output)
    for directory in args.root:
        rootfs.glibc(directory)  # raises UsageError when the folder is no rootfs
        rootfs.check_tools(directory, THIS_PYTHON)
    if args.record:
        figures.check_pages()
    cells = list(matrix(packages, args.layer or LAYERS, args.threads or THREADS))
    if args.dry_run:
        print_cells(cells, args.trials, args.json)
        return 0
    rows: list[HangRow] = []
    versions: dict[str, str] = {}
    try:
        with Progress() as progress:
            progress.subject = f"numpy {args.numpy}"
            measure(cells, packages, args, progress.step, rows, versions)
    finally:
        # also after Ctrl-C, because it took an hour
        result = HangMatrix(
            host=measurements.this_host(),
            commit=git.commit(),
            packages={blas: path.name for blas, path in packages.items()},
            versions=versions,
            rows=tuple(rows),
        )
        if rows:
            figures.show("hang-matrix", result, args.json)
    measurements.refuse_faults(rows)
    if args.record:
        figures.record(args.record, result)
    return 0


def matrix(
    flavours: Iterable[str], layers: Sequence[str], threads: Sequence[int]
) -> Iterator[Cell]:
    """Yield the cells: a flavour, MKL's threading layer, and a number of threads."""
    for blas in flavours:
        for layer in layers if blas.startswith("mkl") else [hang_plot.LAYER_AS_BUILT]:
            for count in threads:
                yield Cell(blas, layer, count)


def print_cells(cells: Sequence[Cell], trials: int, as_json: bool) -> None:
    rows = [{**asdict(cell), "imports": trials} for cell in cells]
    print(json.dumps(rows, indent=1) if as_json else table(rows))


def measure(
    cells: Sequence[Cell],
    packages: Mapping[str, Path],
    args: argparse.Namespace,
    say: Say,
    rows: list[HangRow],
    versions: dict[str, str],
) -> None:
    """Add a row for each cell, glibc and kind of package, and {package: version} of what matters.

    packages : {flavour: path}
    args : root, trials and timeout
    """
    paths.BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.BUILD, prefix="hang-matrix-") as folder:
        say("installing the packages and their controls")
        setups = install_here(packages, Path(folder), say)
        for number, directory in enumerate(args.root):
            stage = Path(folder, f"rootfs-{number}")
            setups += install_in_rootfs(packages, directory, stage, say)
        versions |= find_versions(Path(folder))
        common = ("--trials", args.trials, "--timeout", args.timeout)
        measure_cells(cells, setups, common, say, rows)


def install_all(
    packages: Mapping[str, Path], glibc: str, install: Callable[[Setup, Path], Setup], say: Say
) -> list[Setup]:
    """Return the setup of each package and its control, as ``install`` makes it of an empty one.

    What cannot be installed does not stop the others: the setup has the fault.
    """
    setups = []
    for blas, path in packages.items():
        for kind in KINDS:
            setup = Setup(blas, kind, glibc)
            try:
                setups.append(install(setup, path))
            except (FeedstockError, OSError) as error:
                say(f"{path.name}, {kind}: FAILED: {reason(error)}")
                setups.append(replace(setup, fault=reason(error)))
    return setups


def install_here(packages: Mapping[str, Path], folder: Path, say: Say) -> list[Setup]:
    """Return the setups on this machine."""

    def install(setup: Setup, path: Path) -> Setup:
        target = folder / f"{setup.blas}-{setup.kind}"
        made = prefix.install_package(path, ["gxx_linux-64"], target)
        if setup.kind == "control":
            prefix.undo_patch(made)
        command = [made / "bin/python", repro.PROGRAM]
        return replace(setup, command=command, environment=prefix.activated(made))

    return install_all(packages, measurements.this_host().glibc, install, say)


def find_versions(folder: Path) -> dict[str, str]:
    """Return {package: version} of what the figures depend on, or its versions where they differ.

    folder : with the prefixes of this machine
    """
    found = set()
    for path in folder.glob("*/conda-meta/*.json"):
        record = json.loads(path.read_text())
        if record["name"] in _REPORTED_PACKAGES:
            found.add((record["name"], record["version"]))
    joined: dict[str, str] = {}
    for name, version in sorted(found):
        joined[name] = f"{joined[name]} and {version}" if name in joined else version
    return joined


def install_in_rootfs(
    packages: Mapping[str, Path], directory: Path, folder: Path, say: Say
) -> list[Setup]:
    """Return the setups in another Linux.

    directory : the rootfs
    folder : a new folder, which is /mnt in the rootfs
    """
    interpreter = rootfs.interpreter(directory, THIS_PYTHON)
    environment = rootfs.environment(
        {
            "PYTHONPATH": f"/mnt/prefix/lib/python{THIS_PYTHON}/site-packages",
            # the library path of a conda Python leads there, and MKL looks for TBB on it
            "LD_LIBRARY_PATH": "/mnt/prefix/lib",
        }
    )

    def install(setup: Setup, path: Path) -> Setup:
        stage = folder / f"{setup.blas}-{setup.kind}"
        made = stage / "prefix"
        prefix.assemble(path, prefix.built_with(path), [], made)
        if setup.kind == "control":
            prefix.undo_patch(made)
        shutil.copytree(repro.FOLDER, stage / "repro")
        command = rootfs.command(directory, [interpreter, "/mnt/repro/repro.py"], stage)
        return replace(setup, command=command, environment=environment)

    return install_all(packages, rootfs.glibc(directory), install, say)


def measure_cells(
    cells: Sequence[Cell],
    setups: Sequence[Setup],
    common: Sequence[object],
    say: Say,
    rows: list[HangRow],
) -> None:
    """Add a row for each cell and setup of its BLAS; ``common`` are options of the repro."""
    jobs = {}
    for cell in cells:
        for setup in setups:
            if setup.blas != cell.blas:
                continue
            fault = setup.fault or repro.NOT_MEASURED
            row = HangRow(**asdict(cell), kind=setup.kind, glibc=setup.glibc, fault=fault)
            if not setup.fault:
                jobs[len(rows)] = functools.partial(_measure, row, cell, setup, common, say)
            rows.append(row)
    repro.measure_all(rows, jobs, os.cpu_count() or 1, say)


async def _measure(
    row: HangRow, cell: Cell, setup: Setup, common: Sequence[object], say: Say
) -> HangRow:
    """Return the row with what was measured. Raises FeedstockError."""
    args = list(common)
    for name, value in cell.variables().items():
        args += ["--env", f"{name}={value}"]
    report = await repro.run(setup.command, args, setup.environment)
    say(f"{row.name}: {report.verdict}")
    after = report.after_import()
    return replace(
        row,
        products=report.products(),
        hangs_in_race=report.hangs(main_late=False),
        hangs_main_late=report.hangs(main_late=True),
        os_threads=after["os_threads"],
        max_threads=after["max_threads"],
        layer_found=after["layer"],
        library=after["library"],
        kernels=after["kernels"],
        stacks=report.stacks(),
        fault="",
    )
