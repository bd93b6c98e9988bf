"""old-glibc: the packages run on an older glibc, in a root of another Linux.

Each package is put, with what it needs at run time, before the root's own
Python, and then: its declared glibc, an import, a matrix product, numpy's tests
of linalg, the repro, and the control: the same package with its patch undone,
which the repro must find AFFECTED.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import bootstrap, channel, child, compiler_cache, elf, options, paths, prefix, rootfs
from ..errors import UsageError
from ..output import all_packages
from ..progress import Progress
from ..specs import oldest_glibc

EPILOG = """\
examples:
  feedstock old-glibc                          every package in output/, on glibc 2.31
  feedstock old-glibc --dry-run                what would be made and run
  feedstock old-glibc --root /srv/ubi8         in a root that is there already

a root of RHEL 8 (glibc 2.28), from its ubi8 image, wherever podman gets that:
  podman run --name floor UBI8_IMAGE dnf install -y python3.11 python3.11-devel gcc-c++
  mkdir /srv/ubi8 && podman export floor | tar -x -C /srv/ubi8
"""
TEST_TOOLS = ("pytest", "hypothesis")
# of numpy's chained errors the first says which library or symbol version is missing
IMPORT = """
import os, sys
try:
    import numpy
except ImportError as error:
    while error.__cause__:
        error = error.__cause__
    sys.exit(str(error))
print(numpy.__version__, "on", os.confstr("CS_GNU_LIBC_VERSION"))
"""
# numpy multiplies integers without the BLAS: exact, to compare with
MATMUL = """
import numpy, re
a = numpy.arange(250000).reshape(500, 500) % 97
assert ((a.astype(float) @ a) == (a @ a)).all(), "wrong product"
print("right, by", *set(re.findall(r"lib(?:mkl_rt|openblas)\\b.*", open("/proc/self/maps").read())))
"""
LIBRARY = {"mkl": "libmkl_rt.so.2", "openblas": "libopenblas.so.0"}
# what the repro must end with where the patch is undone
AFFECTED = {"mkl": "AFFECTED: hang, calls, threads failed", "openblas": "AFFECTED: calls failed"}
CHECK_SECONDS = 1800  # of one check, on a busy machine


@dataclass
class Finding:
    """The outcome of one check on one package."""

    package: str
    check: str
    green: bool
    expected: str
    found: str
    output: str = ""  # all that the check printed


def configure_parser(parser):
    parser.add_argument(
        "packages",
        nargs="*",
        type=Path,
        metavar="PACKAGE",
        help="numpy package (default: all in output/)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help=(
            "a Linux in a directory, with the packages' Python, its headers and a C++ compiler "
            "(default: Debian 11 with a CPython, made in build/)"
        ),
    )
    options.add_dry_run(parser)
    options.add_json(parser)
    options.add_verbose(parser)


def execute(args):
    """Run the verb; exit code 0 when all checks are green, else 1. Raises FeedstockError."""
    from tabulate import tabulate

    if args.root:
        rootfs.glibc(args.root)
    packages = [open_package(path) for path in args.packages or all_packages()]
    if args.dry_run:
        rows = [{"package": package.filename, **_plan(args.root, package)} for package in packages]
        print(json.dumps(rows, indent=1) if args.json else tabulate(rows, headers="keys"))
        return 0
    findings = []
    with Progress(stream=sys.stderr, verbose=args.verbose) as progress:
        for package in packages:
            progress.subject = package.filename
            folder = args.root or rootfs.ensure(python_of(package), progress)
            for finding in examine(package, folder, progress):
                findings.append(finding)
                progress.step(
                    f"{finding.check}: {'ok' if finding.green else 'RED'}: {finding.found}"
                )
                if finding.output and (args.verbose or not finding.green):
                    progress.step(finding.output)
    report(findings, args.json)
    return 0 if all(finding.green for finding in findings) else 1


def open_package(path):
    """The package at a path; UsageError when it is not one of ours."""
    from rattler_build import Package, RattlerBuildError

    try:
        package = Package.from_file(path)
    except RattlerBuildError as error:
        raise UsageError(f"not a package: {path}", found=error) from None
    if package.name != "numpy" or blas_of(package) not in AFFECTED:
        raise UsageError(
            f"not a package of this feedstock: {path}",
            found=f"{package.name} {package.build_string}",
        )
    return package


def blas_of(package):
    return package.build_string.split("_")[0]


def python_of(package):
    """Its Python's minor version, "3.11"."""
    return re.sub(r".*_py3(\d+)h.*", r"3.\1", package.build_string)


def examine(package, folder, progress):
    """The findings on one package in a root; what is red ends them where nothing after it would prove anything."""
    here, python = rootfs.glibc(folder), rootfs.interpreter(folder, python_of(package))
    floor = oldest_glibc(Path(package.path))
    green = elf.order(floor) <= elf.order(here)
    found = f"needs __glibc >={floor}, the root has {here}"
    yield Finding(package.filename, "glibc", green, f"__glibc at most {here}", found)
    if not green:
        return
    source = bootstrap.ensure(python_of(package), compiler_cache.program(), progress.step)
    # in build/, so that the package cache's files are linked and not copied
    with tempfile.TemporaryDirectory(dir=paths.BUILD, prefix="floor-") as stage:
        assembled = Path(stage, "prefix")
        child.run(
            prefix.assemble,
            package.path,
            [channel.url(source)],
            TEST_TOOLS,
            assembled,
            log=paths.LOGS / "floor.log",
        )
        shutil.copytree(paths.RECIPE.parent / "repro", Path(stage, "repro"))
        repro, blas = [python, "/mnt/repro/repro.py", "--timeout", "10"], blas_of(package)
        for name, argv, code, expected in (
            ("import", [python, "-c", IMPORT], 0, f"{package.version} on glibc {here}"),
            ("matmul", [python, "-c", MATMUL], 0, f"right, by {LIBRARY[blas]}"),
            (
                "linalg",
                [
                    python,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "--pyargs",
                    "numpy.linalg",
                ],
                0,
                " passed",
            ),
            ("repro", repro, 0, "not affected"),
            ("control", repro, 1, AFFECTED[blas]),
        ):
            progress.step(f"running: {name}")
            if name == "control":
                prefix.undo_patch(assembled)
            finding = run_check(package, folder, stage, name, argv, code, expected)
            yield finding
            if name in ("import", "repro") and not finding.green:
                return


def run_check(package, folder, stage, name, argv, code, expected):
    """The Finding of one command: its exit code and the last line it printed."""
    env = {"PYTHONPATH": f"/mnt/prefix/lib/python{python_of(package)}/site-packages"}
    try:
        done = rootfs.run(folder, argv, stage=stage, env=env, timeout=CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding(
            package.filename, name, False, expected, f"did not end in {CHECK_SECONDS} seconds"
        )
    output = (done.stderr + done.stdout).strip()
    last = output.splitlines()[-1] if output else f"exit code {done.returncode}, no output"
    if argv[1].endswith("repro.py") and done.returncode == 2:
        raise UsageError(f"the repro cannot run in {folder}", found=last)
    return Finding(
        package.filename, name, done.returncode == code and expected in last, expected, last, output
    )


def report(findings, as_json):
    """The closing table, or JSON."""
    from tabulate import tabulate

    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    rows = [
        {
            "package": each.package,
            "check": each.check,
            "": "ok" if each.green else "RED",
            "expected": each.expected,
            "found": each.found,
        }
        for each in findings
    ]
    print(tabulate(rows, headers="keys"))


def _plan(given, package):
    if given:
        return {
            "root": str(given),
            "to do": f"run in glibc {rootfs.glibc(given)}, {rootfs.interpreter(given, python_of(package))}",
        }
    folder, there = rootfs.made(python_of(package))
    return {
        "root": str(folder),
        "to do": "run"
        if there
        else f"make it: Debian's {rootfs.SUITE}, CPython {python_of(package)}; run",
    }
