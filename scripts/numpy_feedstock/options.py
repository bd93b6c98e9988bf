"""Command-line options that verbs share, and the numbers that options take."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import paths

DEFAULT_RELEASE = "2.3.5"
# seconds; an import takes up to a second, and the repro takes no more than an hour
_SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 1, 3600


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a type for argparse: a number of this range, in digits."""

    def parse(text: str) -> int:
        # int() takes blanks, underscores and the digits of other scripts, too
        if re.fullmatch("[0-9]{1,10}", text) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"a whole number from {least} to {most} is needed, found {text[:40]!r}"
        )

    return parse


def _timeout(text: str) -> float:
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", text):
        if _SHORTEST_TIMEOUT <= float(text) <= LONGEST_TIMEOUT:
            return float(text)
    raise argparse.ArgumentTypeError(
        f"seconds from {_SHORTEST_TIMEOUT} to {LONGEST_TIMEOUT} are needed, found {text[:40]!r}"
    )


def add_json(parser: argparse.ArgumentParser | Any) -> None:
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")


def add_dry_run(
    parser: argparse.ArgumentParser | Any, what: str = "say what would be done, change nothing"
) -> None:
    parser.add_argument("--dry-run", action="store_true", help=what)


def add_verbose(parser: argparse.ArgumentParser, what: str = "show every line of the logs") -> None:
    """Add ``-v``, for verbs that have more to show, such as the lines of a log."""
    parser.add_argument("-v", "--verbose", action="store_true", help=what)


def add_jobs(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--jobs``: how many processes work at a time."""
    parser.add_argument("--jobs", type=whole_number(1, 1024), metavar="N", help=what)


def add_record(parser: argparse.ArgumentParser, names: tuple[str, ...] = ()) -> None:
    """Add ``--record``, for verbs that measure. With ``names``, it takes the record's name."""
    if names:
        parser.add_argument(
            "--record",
            choices=names,
            help="keep the result in tests/evidence under this name, and paste it into the pages",
        )
        return
    parser.add_argument(
        "--record",
        action="store_true",
        help="keep the result in tests/evidence, and paste it into the pages",
    )


def add_trials(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    """Add ``--trials`` and ``--timeout``."""
    parser.add_argument(
        "--trials",
        type=whole_number(2, 1_000_000),
        default=default,
        metavar="N",
        help=f"{what} (default: {default})",
    )
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=10,
        metavar="SECONDS",
        help="an import that takes longer counts as hung (default: 10)",
    )


def add_numpy(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--numpy``, repeatable; ``default`` is a text for the help."""
    parser.add_argument(
        "--numpy",
        action="append",
        metavar="RELEASE",
        help=f"numpy release, repeatable, or all (default: {default})",
    )


def add_python(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--python``, repeatable; ``default`` is a text for the help."""
    parser.add_argument(
        "--python",
        action="append",
        metavar="MINOR",
        help=f"minor version of Python, repeatable, or all (default: {default})",
    )


def add_blas(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--blas``, repeatable; ``default`` is a text for the help."""
    parser.add_argument(
        "--blas",
        action="append",
        metavar="FLAVOUR",
        help="openblas, mkl-2025, mkl-2026, mkl for both of these, or all; repeatable "
        f"(default: {default})",
    )


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--output",
        type=Path,
        default=paths.OUTPUT,
        metavar="DIR",
        help=f"{what} (default: output)",
    )


def add_packages(parser: argparse.ArgumentParser) -> None:
    """Add the paths of packages; the default is every package in output/."""
    parser.add_argument(
        "packages",
        nargs="*",
        type=Path,
        metavar="PACKAGE",
        help="a .conda file (default: every one in output/)",
    )


def add_tested(
    parser: argparse.ArgumentParser,
    blas: str = "openblas, mkl-2025 (also: mkl), mkl-2026, or all; repeatable "
    "(default: mkl-2025 and openblas)",
) -> None:
    """Add options that choose tested packages; ``output.tested`` takes the values.

    blas : the help of ``--blas``
    """
    parser.add_argument(
        "--numpy",
        default=DEFAULT_RELEASE,
        metavar="RELEASE",
        help=f"numpy release (default: {DEFAULT_RELEASE})",
    )
    parser.add_argument("--blas", action="append", metavar="FLAVOUR", help=blas)
    add_output(parser, "channel that the packages are in")


def add_channel(parser: argparse.ArgumentParser) -> None:
    """Add ``--channel``: where packages come from; ``channel.choose`` takes the value."""
    parser.add_argument(
        "--channel",
        action="append",
        metavar="CHANNEL",
        help=(
            "where to take packages from, repeatable: a URL, a folder, a name, `bootstrap`, or "
            "`auto` (default): the configured channels or conda-forge where reachable, "
            "else bootstrap"
        ),
    )
