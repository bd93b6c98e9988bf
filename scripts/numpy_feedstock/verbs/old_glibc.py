"""old-glibc: run the packages on an older glibc, in the file tree of another Linux.

Each package and what it needs at run time come before the other Linux's own
Python. The checks are: the glibc that the package declares, an import, a matrix
product, numpy's tests of linalg, the repro, and the control. The control is the
same package with its patch undone, and the repro must find the matrix product.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import options, paths
from ..building import bootstrap
from ..channels import channel, prefix
from ..channels.output import all_packages
from ..errors import FeedstockError, UsageError, reason
from ..measuring import repro, rootfs
from ..packages.record import read_record
from ..packages.specs import oldest_glibc
from ..progress import Progress
from ..tables import table

if TYPE_CHECKING:
    from rattler_build import Package

EPILOG = """\
examples:
  feedstock old-glibc                          every package in output/, on glibc 2.31
  feedstock old-glibc --dry-run                what would be made and run
  feedstock old-glibc --root /srv/ubi8         in a rootfs that is there already

podman makes such a rootfs of RHEL 8 (glibc 2.28) from its ubi8 image:
  podman run --name ubi8 UBI8_IMAGE dnf install -y python3.11 python3.11-devel gcc-c++
  mkdir /srv/ubi8 && podman export ubi8 | tar -x -C /srv/ubi8
"""
TEST_TOOLS = ("pytest", "hypothesis")
# numpy chains its errors; the first one names the missing library or symbol version
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
# numpy multiplies integers exactly and without the BLAS, so the results can be compared
MATMUL = """
import numpy, re
a = numpy.arange(250000).reshape(500, 500) % 97
assert ((a.astype(float) @ a) == (a @ a)).all(), "wrong product"
print("right, by", *set(re.findall(r"lib(?:mkl_rt|openblas)\\b.*", open("/proc/self/maps").read())))
"""
LINALG = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "numpy.linalg")
REPRO = ("/mnt/repro/repro.py", "--json", "--timeout", "10")
# name of the library in the message; MKL's soname changes with its major version
LIBRARY = {"mkl": "libmkl_rt.so.", "openblas": "libopenblas.so.0"}
# the repro must say this of a control
CONTROL = {"mkl": "AFFECTED: hang, calls, threads failed", "openblas": "LATENT: calls failed"}
CHECK_SECONDS = 1800  # seconds for one check, on a busy machine


@dataclass(frozen=True)
class Finding:
    """The outcome of one check on one package."""

    package: str  # file name
    check: str
    green: bool
    expected: str
    found: str
    output: str = ""  # all that the check printed


@dataclass(frozen=True)
class Setup:
    """A package that can be run in a rootfs."""

    package: "Package"
    rootfs: Path
    python: str  # path of the rootfs's Python
    stage: Path  # is seen there as /mnt

    @property
    def blas(self) -> str:
        return blas_of(self.package)

    @property
    def prefix(self) -> Path:
        return self.stage / "prefix"

    def run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run the rootfs's Python. Raises subprocess.TimeoutExpired after CHECK_SECONDS."""
        minor = python_of(self.package)
        variables = {"PYTHONPATH": f"/mnt/prefix/lib/python{minor}/site-packages"}
        command = [self.python, *argv]
        return rootfs.run(self.rootfs, command, self.stage, variables, CHECK_SECONDS)


def configure_parser(parser: argparse.ArgumentParser) -> None:
    options.add_packages(parser)
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help=(
            "a Linux in a directory (a rootfs), with the packages' Python, its headers and a "
            "C++ compiler (default: Debian 11 with a CPython, made in build/)"
        ),
    )
    options.add_dry_run(parser, "say what would be made and run, change nothing")
    options.add_json(parser)
    options.add_verbose(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb; exit code 0 when all checks are green, else 1. Raises FeedstockError."""
    if args.root:
        rootfs.glibc(args.root)  # raises UsageError when the folder is no rootfs
    packages = [open_package(path) for path in args.packages or all_packages()]
    if args.root:
        for python in {python_of(package) for package in packages}:
            rootfs.check_tools(args.root, python)
    elif not all(rootfs.made(python_of(package))[1] for package in packages):
        rootfs.check_can_make()
    if args.dry_run:
        print_plan([plan(args.root, package) for package in packages], args.json)
        return 0
    findings: list[Finding] = []
    try:
        run_checks(packages, args.root, args.verbose, findings)
    finally:
        # the findings so far are printed, also after an error
        if findings:
            print_result(findings, args.json)
    return 0 if all(finding.green for finding in findings) else 1


def run_checks(
    packages: "Sequence[Package]", given: Path | None, verbose: bool, findings: list[Finding]
) -> None:
    """Add the findings on all packages to the list. One that fails does not stop the others.

    given : the rootfs of --root
    """
    with Progress(verbose=verbose) as progress:
        for package in packages:
            progress.subject = package.filename
            folder = given or rootfs.ensure(python_of(package), progress)
            for finding in try_check(package, folder, progress):
                findings.append(finding)
                colour = "ok" if finding.green else "RED"
                progress.step(f"{finding.check}: {colour}: {finding.found}")
                if finding.output and (verbose or not finding.green):
                    progress.step(finding.output)


def open_package(path: Path) -> "Package":
    """Return the package at a path. Raises UsageError when it is not one of ours."""
    from rattler_build import Package, RattlerBuildError

    try:
        package = Package.from_file(path)
    except RattlerBuildError as error:
        raise UsageError(f"not a package: {path}", found=error) from None
    if package.name != "numpy" or blas_of(package) not in CONTROL:
        raise UsageError(
            f"not a package of this feedstock: {path}",
            found=f"{package.name} {package.build_string}",
        )
    return package


def blas_of(package: "Package") -> str:
    return str(package.build_string).split("_")[0]


def python_of(package: "Package") -> str:
    """Return the minor version of a package's Python, "3.11"."""
    return re.sub(r".*_py3(\d+)h.*", r"3.\1", package.build_string)


def try_check(package: "Package", folder: Path, progress: Progress) -> Iterator[Finding]:
    """Yield the findings on one package. An error is a red one, and ends the checks of it."""
    try:
        yield from check_package(package, folder, progress)
    except (FeedstockError, OSError) as error:
        expected = "a package that can be installed and run"
        yield Finding(package.filename, "installation", False, expected, reason(error))


def check_package(package: "Package", folder: Path, progress: Progress) -> Iterator[Finding]:
    """Yield the findings on one package in a rootfs.

    After a red check, checks that would prove nothing are left out.
    """
    here = rootfs.glibc(folder)
    glibc = check_glibc(package, here)
    yield glibc
    if not glibc.green:
        return
    # in build/, where files of the package cache can be linked instead of copied
    with tempfile.TemporaryDirectory(dir=paths.BUILD, prefix="old-glibc-") as stage:
        python = rootfs.interpreter(folder, python_of(package))
        setup = Setup(package, folder, python, Path(stage))
        channels = channels_of(package, progress)
        prefix.assemble(Path(package.path), channels, TEST_TOOLS, setup.prefix)
        shutil.copytree(repro.FOLDER, setup.stage / "repro")
        yield from check_setup(setup, here, progress)


def check_setup(setup: Setup, glibc: str, progress: Progress) -> Iterator[Finding]:
    """Run the checks and yield their findings. The import is first, the control last."""
    package = setup.package
    progress.step("running: import")
    imported = check_output(setup, "import", ["-c", IMPORT], f"{package.version} on glibc {glibc}")
    yield imported
    if not imported.green:
        return
    progress.step("running: matmul")
    yield check_output(setup, "matmul", ["-c", MATMUL], f"right, by {LIBRARY[setup.blas]}")
    progress.step("running: linalg")
    yield check_output(setup, "linalg", LINALG, " passed")
    progress.step("running: repro")
    fixed = check_repro(setup, "repro", "FIXED")
    yield fixed
    if not fixed.green:
        return
    progress.step("running: control")
    prefix.undo_patch(setup.prefix)
    yield check_repro(setup, "control", CONTROL[setup.blas])


def check_glibc(package: "Package", here: str) -> Finding:
    """Compare the glibc that a package declares with the rootfs's."""
    from rattler import Version

    needed = oldest_glibc(Path(package.path))
    green = needed == "none" or Version(needed) <= Version(here)
    found = f"needs __glibc >={needed}, the rootfs has {here}"
    return Finding(package.filename, "glibc", green, f"__glibc at most {here}", found)


def check_output(setup: Setup, check: str, argv: Sequence[str], expected: str) -> Finding:
    """Run Python. It must end with 0, and its last line must have the expected text."""
    try:
        done = setup.run(argv)
    except subprocess.TimeoutExpired:
        return too_slow(setup, check, expected)
    output = (done.stderr + done.stdout).strip()
    last = output.splitlines()[-1] if output else f"exit code {done.returncode}, no output"
    green = done.returncode == 0 and expected in last
    return Finding(setup.package.filename, check, green, expected, last, output)


def check_repro(setup: Setup, check: str, expected: str) -> Finding:
    """Run the repro. Its verdict must begin with the expected text."""
    try:
        done = setup.run(REPRO)
    except subprocess.TimeoutExpired:
        return too_slow(setup, check, expected)
    try:
        found = repro.parse(done.returncode, done.stdout, done.stderr).summary
    except FeedstockError as error:
        found = f"no verdict: {error}"
    green = found.startswith(expected)
    return Finding(setup.package.filename, check, green, expected, found, done.stderr.strip())


def too_slow(setup: Setup, check: str, expected: str) -> Finding:
    found = f"did not end in {CHECK_SECONDS} seconds"
    return Finding(setup.package.filename, check, False, expected, found)


def channels_of(package: "Package", progress: Progress) -> list[str]:
    """Return the URLs of the channels that have what a package needs."""
    path = Path(package.path)
    if read_record(path):
        return prefix.built_with(path)
    names = channel.choose(["auto"])
    if names == ["bootstrap"]:
        python = python_of(package)
        names = [str(bootstrap.ensure(python, progress.step))]
    return [channel.url(name) for name in names]


def print_result(findings: Sequence[Finding], as_json: bool) -> None:
    """Print the closing table, or JSON."""
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
    print(table(rows, one_line=False))


@dataclass(frozen=True)
class Plan:
    """What --dry-run says about one package."""

    package: str  # file name
    root: str
    to_do: str


def plan(given: Path | None, package: "Package") -> Plan:
    """Return what would be done with a package; ``given`` is the rootfs of --root."""
    python = python_of(package)
    if given:
        found = f"glibc {rootfs.glibc(given)}, {rootfs.interpreter(given, python)}"
        return Plan(package.filename, str(given), f"run in {found}")
    folder, there = rootfs.made(python)
    to_do = "run" if there else f"make it: Debian's {rootfs.SUITE}, CPython {python}; run"
    return Plan(package.filename, str(folder), to_do)


def print_plan(plans: Sequence[Plan], as_json: bool) -> None:
    rows = [asdict(each) for each in plans]
    print(json.dumps(rows, indent=1) if as_json else table(rows))
