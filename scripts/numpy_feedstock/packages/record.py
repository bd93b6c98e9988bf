"""The record of a package: how `build` made it and tested it, as JSON beside it."""

import dataclasses
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

from .. import files, json_files, paths
from ..errors import FeedstockError
from . import junit

# endings of the two files beside a package: its Record, and the results of numpy's tests
RECORD = ".tests.json"
RESULTS = ".numpy-tests.xml"

# the state of a package that is not there
NOT_BUILT = "not built yet"


class NotTested(FeedstockError):
    """A package does not count as built and tested.

    state : NOT_BUILT, or one line that says what is wrong with the package or its record
    """

    def __init__(self, path: Path, state: str) -> None:
        self.state = state
        super().__init__(
            f"not built and tested: {path}",
            found=state,
            remedy="feedstock build makes the package and its record",
        )


@dataclasses.dataclass
class Record:
    """What `build` knows about a package."""

    filename: str
    sha256: str
    size: int  # bytes
    blas: str
    glibc_floor: str  # the oldest glibc that its dependencies allow, "2.28"
    # URLs of the channels whose packages it was built and tested with, without secrets
    channels: list[str]
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
        files.write_all({beside(path, RECORD): text + "\n"})


def read_record(path: Path) -> Record | None:
    """Return the Record beside a package; None when there is none for exactly these bytes."""
    try:
        return usable_record(path)
    except NotTested:
        return None


def passed_record(path: Path) -> Record:
    """Return the Record of a package that passed its tests. Raises NotTested."""
    record = usable_record(path)
    if not record.passed:
        raise NotTested(path, f"red: {', '.join(record.red) or 'no test was run'}")
    return record


def usable_record(path: Path) -> Record:
    """Return the Record beside a package, also when a test failed.

    Raises NotTested when there is no package, or no record of exactly this name and these bytes.
    """
    size = _size(path)
    record = _read(path)
    if record.filename != path.name:
        raise NotTested(path, f"renamed: its record is of {record.filename}")
    try:
        # a file of another size need not be read
        is_same = record.size == size and record.sha256 == files.sha256(path)
    except OSError as error:
        raise NotTested(path, _unreadable(error)) from None
    if not is_same:
        raise NotTested(path, "altered: its record is of other bytes")
    return record


def _size(path: Path) -> int:
    """Return the size of a package in bytes. Raises NotTested when it is no file."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        # a link may lead nowhere
        state = _unreadable(error) if path.is_symlink() else NOT_BUILT
        raise NotTested(path, state) from None
    except OSError as error:
        raise NotTested(path, _unreadable(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise NotTested(path, "unreadable: it is not a regular file")
    return status.st_size


def _unreadable(error: OSError) -> str:
    return f"unreadable: {error.strerror or error}"


def _read(path: Path) -> Record:
    """Return the Record beside a package, whatever it says. Raises NotTested."""
    try:
        record = json_files.read(beside(path, RECORD), Record)
        junit.check_counts(record.numpy_tests)
    except FileNotFoundError:
        raise NotTested(path, "no record is beside it") from None
    except OSError as error:
        raise NotTested(path, f"its record is {_unreadable(error)}") from None
    except ValueError as error:
        raise NotTested(path, f"its record is broken: {error}") from None
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
