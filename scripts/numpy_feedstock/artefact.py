"""Artefacts: finished packages and the record of how they were built and tested."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from rattler import Subdir
from rattler_build import Package

from . import canonical, elf, paths, variant
from .errors import UsageError

# files beside a package: its Record; the results of numpy's own tests, JUnit XML
RECORD = ".tests.json"
RESULTS = ".numpy-tests.xml"


@dataclasses.dataclass
class Record:
    """What `build` knows of an artefact; kept as JSON beside it."""

    artefact: str  # file name
    sha256: str
    size: int  # bytes
    blas: str
    glibc_floor: str  # as its dependencies say, "2.28"
    channels: list  # URLs, of what it was built and tested with
    inputs: str  # digest of everything that the build depends on
    label: str  # of numpy's own tests: "fast" or "full"
    tests: dict  # name of the test: passed or not
    numpy_tests: dict  # how many of numpy's own passed, failed, and were skipped
    build_minutes: float
    test_minutes: float
    cache_hits: int
    cache_misses: int
    commit: str = ""  # of this repository, with "-dirty" where files differed
    installed: dict = dataclasses.field(
        default_factory=dict
    )  # what it was built with, name: sha256

    @property
    def red(self):
        """Names of the tests that failed."""
        return [name for name, passed in self.tests.items() if not passed]

    @property
    def passed(self):
        return bool(self.tests) and not self.red

    def write(self, path):
        """Beside the package at ``path``, which need not be there yet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside(path, RECORD).write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def read_record(path):
    """The Record beside a package, or None when it is missing or is not about these bytes."""
    try:
        record = Record(**json.loads(beside(path, RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return record if path.exists() and record.sha256 == sha256(path) else None


def beside(path, ending):
    """Where RECORD or RESULTS of a package is."""
    return path.with_name(path.name.removesuffix(".conda") + ending)


def sha256(path):
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def glibc_floor(path):
    """The oldest glibc that a package's dependencies admit, "2.28"; "none" without one."""
    return floor(Package.from_file(path).depends, "__glibc") or "none"


def floor(depends, name):
    """The highest version that the specs of a dependency begin at, "2.28"; None without one."""
    floors = [
        spec.split(">=")[1].split(",")[0] for spec in depends if spec.startswith(f"{name} >=")
    ]
    return max(floors, key=elf.order, default=None)


def commit():
    """The commit of this repository, "4f0c2d1...", with "-dirty" where files differ; "" without one."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True).stdout.strip()


# what gives a test of the recipe its short name
_TEST_MARKS = {
    "numpy's own tests": "numpy.test(",
    "repro": "repro.py",
    "blas": "show_config",
    "f2py": "f2py -h",
    "imports": '"imports"',
}


def test_names(path):
    """A short name for each test of the package's test section, in order."""
    texts = [json.dumps(test.to_dict()) for test in Package.from_file(path).tests]
    return [
        next((name for name, mark in _TEST_MARKS.items() if mark in text), f"test {i}")
        for i, text in enumerate(texts)
    ]


def inputs_digest(*extra):
    """One digest of the recipe's folder, the build config, the canonical form and what else is given."""
    digest = hashlib.sha256(json.dumps(extra, sort_keys=True).encode())
    recipe = sorted(
        p for p in paths.RECIPE.parent.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    )
    for path in (paths.BUILD_CONFIG, Path(canonical.__file__), *recipe):
        digest.update(str(path.relative_to(paths.ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def add_arguments(parser):
    """Options that name built packages; ``built`` takes them."""
    parser.add_argument(
        "--numpy",
        default="2.3.5",
        metavar="RELEASE",
        help="numpy release that was built (default: 2.3.5)",
    )
    parser.add_argument(
        "--blas", action="append", help="mkl or openblas, repeatable (default: both)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=paths.ROOT / "output",
        metavar="DIR",
        help="channel they are in (default: output)",
    )


def built(release, flavours, output):
    """{flavour: path} of the packages for the running Python; UsageError names one that is not built and tested."""
    platform = str(Subdir.current())
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = variant.select([release], [python], flavours, platform)
    found = {v.blas: Path(output, platform, v.filename) for v in wanted}
    for blas, path in found.items():
        if read_record(path) is None:
            raise UsageError(
                f"not built and tested yet: {path}",
                remedy=f"feedstock build --numpy {release} --blas {blas}",
            )
    return found


def in_output():
    """The path of every package in output/; UsageError without one."""
    output = paths.ROOT / "output"
    found = sorted(output.rglob("*.conda"))
    if not found:
        raise UsageError(
            f"no packages in {output}", remedy="feedstock build, or name a .conda file"
        )
    return found


def spec(path):
    """The match spec of exactly this package: "numpy==2.3.5=mkl_py311h..._100"."""
    return "{}=={}={}".format(*path.name.removesuffix(".conda").rsplit("-", 2))
