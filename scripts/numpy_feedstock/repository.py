"""The files of this repository that a person wrote, and the functions in them."""

import ast
import dataclasses
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

from . import paths
from .errors import UsageError

MOST_LINES = 60  # lines of a function, at most


@dataclasses.dataclass(frozen=True)
class Function:
    """A function that is too long."""

    file: str  # path from the root of the repository
    name: str
    line: int
    lines: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name} has {self.lines} lines of {MOST_LINES}"

    @property
    def key(self) -> str:
        """Return the name of the function in pyproject.toml, "path:name"."""
        return f"{self.file}:{self.name}"


def files() -> list[Path]:
    """Return the files that git keeps or would keep, without links. Raises UsageError."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(
            f"git does not know the files of {paths.ROOT}",
            found=done.stderr.strip(),
            remedy="run this in a clone of the repository",
        )
    every = [paths.ROOT / name for name in sorted(set(done.stdout.split("\0"))) if name]
    return [path for path in every if path.is_file() and not path.is_symlink()]


def with_suffix(*suffixes: str) -> list[Path]:
    """Return the files whose names end like this."""
    return [path for path in files() if path.suffix in suffixes]


def scripts(suffix: str, interpreter: bytes) -> list[Path]:
    """Return the scripts of a language, by the suffix of the file or by its first line."""
    return [path for path in files() if path.suffix == suffix or _runs(path, interpreter)]


def _runs(path: Path, interpreter: bytes) -> bool:
    if path.suffix:
        return False
    with open(path, "rb") as stream:
        first = stream.readline(200)
    return first.startswith(b"#!") and interpreter in first


def long_functions() -> list[Function]:
    """Return the functions with more than MOST_LINES lines."""
    every = [function for path in scripts(".py", b"python") for function in _functions(path)]
    return [function for function in every if function.lines > MOST_LINES]


def allowed_long_functions() -> dict[str, str]:
    """Return the exceptions that pyproject.toml names: {"path:name": reason}."""
    with open(paths.ROOT / "pyproject.toml", "rb") as stream:
        settings = tomllib.load(stream)["tool"].get("feedstock", {})
    allowed: dict[str, str] = settings.get("long-functions", {})
    return allowed


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = str(path.relative_to(paths.ROOT))
            # the node ends at its last line and begins after its decorators
            yield Function(name, node.name, node.lineno, (node.end_lineno or 0) - node.lineno + 1)
