"""The record of a package: how `build` made it and tested it, as JSON beside it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from .. import files, paths

# endings of the two files beside a package: its Record, and the results of numpy's tests
RECORD = ".tests.json"
RESULTS = ".numpy-tests.xml"


@dataclasses.dataclass
class Record:
    """What `build` knows about a package."""

    filename: str
    sha256: str
    size: int  # bytes
    blas: str
    glibc_floor: str  # the oldest glibc that its dependencies allow, "2.28"
    channels: list[str]  # URLs of the channels whose packages it was built and tested with
    inputs: str  # digest of everything that the build depends on
    label: str  # label of numpy's tests: "fast" or "full"
    tests: dict[str, bool]  # name of the test: passed or not
    numpy_tests: dict[str, int]  # how many of numpy's tests passed, failed, and were skipped
    build_minutes: float
    test_minutes: float
    cache_hits: int
    cache_misses: int
    commit: str = ""  # commit of this repository, with "-dirty" when files differed
    # the packages that it was built with, name: sha256
    installed: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def red(self) -> list[str]:
        """Names of the tests that failed."""
        return [name for name, passed in self.tests.items() if not passed]

    @property
    def passed(self) -> bool:
        return bool(self.tests) and not self.red

    def write(self, path: Path) -> None:
        """Write the record beside the package at ``path``. The package may come later."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dataclasses.asdict(self), indent=1)
        beside(path, RECORD).write_text(text + "\n")


def read_record(path: Path) -> Record | None:
    """Return the Record beside a package; None when there is none for exactly these bytes."""
    try:
        record = Record(**json.loads(beside(path, RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    if not path.exists() or record.sha256 != files.sha256(path):
        return None
    return record


def beside(path: Path, ending: str) -> Path:
    """Return the path of the file beside a package with this ending (RECORD or RESULTS)."""
    return path.with_name(path.name.removesuffix(".conda") + ending)


def inputs_digest(*extra: Any) -> str:
    """Return one digest of the recipe's folder, the build config, the canonical form and ``extra``.

    extra : other values that the build depends on; JSON must be able to hold them
    """
    digest = hashlib.sha256(json.dumps(extra, sort_keys=True).encode())
    for path in (paths.BUILD_CONFIG, Path(__file__).with_name("canonical.py"), *_recipe_files()):
        digest.update(str(path.relative_to(paths.ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _recipe_files() -> list[Path]:
    every = sorted(paths.RECIPE.parent.rglob("*"))
    return [path for path in every if path.is_file() and "__pycache__" not in path.parts]
