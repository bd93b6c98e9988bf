"""Results of the verbs that measure, and the JSON files that keep the last results."""

import contextlib
import datetime
import fcntl
import json
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import json_files, paths
from ..errors import FeedstockError, UsageError
from ..packages import junit

FOLDER = paths.ROOT / "tests" / "evidence"

Share = tuple[int, int]  # how many of how many: imports that hung and were tried


@dataclass(frozen=True)
class Host:
    """The machine on which something was measured, and the day."""

    date: str  # "2026-11-25"
    cpu: str
    cores: int
    glibc: str  # "2.36"
    kernel: str
    python: str  # "3.11.7"


@dataclass(frozen=True)
class ReleaseRow:
    """One released wheel of numpy."""

    release: str
    verdict: str  # AFFECTED, FIXED or UNKNOWN, as audit_numpy.py defines them
    reason: str = ""  # why the verdict is UNKNOWN
    has_check: bool = False  # whether blas_fpe_check() is there
    gated: bool = False  # whether it runs on macOS only
    products: int = 0  # matrix products of one import
    hangs_in_race: Share = (0, 0)
    hangs_main_late: Share = (0, 0)
    stacks: str = ""  # native stacks of the first hang
    fault: str = ""  # why it could not be measured; never recorded

    @property
    def name(self) -> str:
        return self.release


@dataclass(frozen=True)
class HangRow:
    """A package or its control, under one threading layer, number of threads and glibc."""

    blas: str
    layer: str  # the threading layer that was asked for
    threads: int  # the number that was asked for
    kind: str  # "package" or "control"
    glibc: str
    products: int = 0  # matrix products of one import
    hangs_in_race: Share = (0, 0)
    hangs_main_late: Share = (0, 0)
    os_threads: int = 0  # threads of the process after one import
    max_threads: int = 0  # how many the BLAS may use
    layer_found: str = ""
    library: str = ""
    kernels: str = ""
    stacks: str = ""  # native stacks of the first hang
    fault: str = ""  # why it could not be measured; never recorded

    @property
    def name(self) -> str:
        where = f"{self.blas} {self.layer} {self.threads} threads, glibc {self.glibc}"
        return f"{where}, {self.kind}"


@dataclass(frozen=True)
class TestsRow:
    """numpy's own tests on a package and on its control; names of tests where they differ."""

    blas: str
    label: str = ""  # "fast" or "full"
    minutes: float = 0  # duration of the tests on the control
    package: dict[str, int] = field(default_factory=dict)  # how many passed, failed, were skipped
    control: dict[str, int] = field(default_factory=dict)
    both: tuple[str, ...] = ()  # tests that failed on both
    only_package: tuple[str, ...] = ()
    only_control: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()  # tests whose other results differ
    fault: str = ""  # why it could not be compared; never recorded

    @property
    def name(self) -> str:
        return self.blas


@dataclass(frozen=True)
class SpeedRow:
    """One operation of numpy; seconds of one call."""

    operation: str
    package: float
    wheel: float
    ratio: float  # wheel / package


@dataclass(frozen=True)
class MatrixRow:
    """One package of the matrix; what its record says, or nothing when it is not built yet."""

    numpy: str  # "2.3.5"
    python: str  # "3.11"
    blas: str  # the flavour, "mkl-2025"
    package: str  # file name
    label: str = ""  # of numpy's tests, "fast" or "full"; "" when the package is not built yet
    tests: Share = (0, 0)  # how many tests of the package passed, and how many it has
    numpy_tests: dict[str, int] = field(default_factory=dict)  # passed, failed, skipped
    build_minutes: float = 0
    test_minutes: float = 0
    cache_hits: int = 0
    cache_misses: int = 0
    sha256: str = ""
    commit: str = ""  # the commit of this repository that built it
    control: str = ""  # the repro's verdict on the control; "" when it was not asked
    fault: str = ""  # why a package that is there does not count as built; never recorded
    host: Host | None = None  # where and when the row was recorded; None when it is not built

    @property
    def is_built(self) -> bool:
        return bool(self.sha256)


@dataclass(frozen=True)
class Measurement:
    """The base of all results."""

    def as_json(self) -> str:
        """Return the text of the result's file."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class OnOneHost(Measurement):
    """The base of the results that are measured at once."""

    host: Host


@dataclass(frozen=True)
class ScanOfWheels(OnOneHost):
    """The result of scan-wheels."""

    seconds: int
    rows: tuple[ReleaseRow, ...]


@dataclass(frozen=True)
class HangMatrix(OnOneHost):
    """The result of hang-matrix."""

    commit: str  # the commit of this repository
    packages: dict[str, str]  # {flavour: file name}
    versions: dict[str, str]  # {name: version} of other packages that matter
    rows: tuple[HangRow, ...]


@dataclass(frozen=True)
class ComparedTests(OnOneHost):
    """The result of compare-tests."""

    packages: dict[str, str]  # {flavour: file name}
    rows: tuple[TestsRow, ...]


@dataclass(frozen=True)
class Matrix(Measurement):
    """The result of matrix. Each row has its own host and day."""

    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True)
class Benchmark(OnOneHost):
    """The result of benchmark."""

    package: str  # file name
    rounds: int
    same_simd: bool  # whether both were compiled for the same CPU features
    geometric_mean: float  # the mean of the ratios
    rows: tuple[SpeedRow, ...]


# {name of a file in FOLDER: the class of its content}
KINDS: dict[str, type[Measurement]] = {
    "scan-wheels": ScanOfWheels,
    "hang-matrix": HangMatrix,
    "many-imports": HangMatrix,
    "compare-tests": ComparedTests,
    "benchmark": Benchmark,
    "matrix": Matrix,
}


def this_host() -> Host:
    """Return the Host for this machine and today."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    libc = os.confstr("CS_GNU_LIBC_VERSION") or "glibc unknown"
    return Host(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cpu=model[1].strip() if model else platform.machine(),
        cores=os.cpu_count() or 1,
        glibc=libc.split()[1],
        kernel=platform.release(),
        python=platform.python_version(),
    )


def refuse_faults(rows: Sequence[ReleaseRow | HangRow | TestsRow]) -> None:
    """Raise FeedstockError when something could not be measured."""
    failed = [row for row in rows if row.fault]
    if failed:
        raise FeedstockError(
            f"not measured: {len(failed)} of {len(rows)}; nothing is recorded",
            **{row.name: row.fault.splitlines()[0] for row in failed},
            remedy="mend it, and run the same command again",
        )


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Let one process at a time record: what another one records meanwhile is not lost."""
    FOLDER.mkdir(exist_ok=True)
    folder = os.open(FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def load(name: str) -> Any:
    """Return the result that was kept last under a name of KINDS.

    Raises UsageError when its file cannot be read.
    """
    path = file_of(name)
    try:
        result = json_files.read(path, KINDS[name])
        _check_counts(result)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"an earlier record cannot be read: {path}",
            expected="the file as `feedstock` recorded it",
            found=error,
            remedy=f"git restore {path}",
        ) from None
    return result


def _check_counts(result: Measurement) -> None:
    """Raise ValueError when a row lacks results of numpy's tests."""
    if isinstance(result, Matrix):
        for row in result.rows:
            if row.is_built:
                junit.check_counts(row.numpy_tests)
    if isinstance(result, ComparedTests):
        for compared in result.rows:
            junit.check_counts(compared.package)
            junit.check_counts(compared.control)


def file_of(name: str) -> Path:
    """Return the path of the file of a result, one of KINDS."""
    return FOLDER / f"{name}.json"
