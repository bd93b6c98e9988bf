"""variants: list the packages that conda_build_config.yaml asks for."""

import argparse
import json
import math
from dataclasses import asdict, dataclass

from .. import options, variant
from ..channels import channel
from ..errors import UsageError
from ..tables import table
from ..variant import Variant

EPILOG = """\
examples:
  feedstock variants                               all for this platform
  feedstock variants --platform linux-aarch64      all for another one
  feedstock variants --json                        in one line, as CI takes its jobs from it
  feedstock variants --numpy 2.3.5 --python 3.11 --blas openblas --build-config > one.yaml
                                                   one of them, for `conda build recipe -m one.yaml`
"""


@dataclass(frozen=True)
class Row:
    """What is printed about one package. CI takes its jobs from it."""

    platform: str
    numpy: str
    python: str
    blas: str
    package: str  # file name


def configure_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--platform",
        action="append",
        choices=variant.PLATFORMS,
        help="repeatable (default: this one)",
    )
    options.add_numpy(parser, default="those switched on")
    options.add_python(parser, default="all")
    options.add_blas(parser, default="all")
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument(
        "--build-config",
        action="store_true",
        help="a build config for conda-build that leaves only these packages",
    )


def execute(args: argparse.Namespace) -> int:
    """Run the verb; exit code 0. Raises UsageError."""
    platforms = list(dict.fromkeys(args.platform or [channel.this_platform()]))
    if args.build_config and len(platforms) > 1:
        raise UsageError("a build config is for one platform", found=", ".join(platforms))
    found: list[Variant] = []
    for platform in platforms:
        found += variant.select(args.numpy, args.python, args.blas, platform)
    if args.build_config:
        # JSON is also YAML
        print(json.dumps(build_config(found), indent=1))
    else:
        print_result(list(map(_row, found)), args.json)
    return 0


def _row(wanted: Variant) -> Row:
    return Row(wanted.platform, wanted.version, wanted.python, wanted.flavour, wanted.filename)


def print_result(rows: list[Row], as_json: bool) -> None:
    """Print JSON in one line, or a table."""
    content = list(map(asdict, rows))
    if as_json:
        print(json.dumps(content))
    else:
        print(table(content))


def build_config(variants: list[Variant]) -> dict[str, list[str]]:
    """Return the lists of the build config, reduced to the values of these variants.

    Raises UsageError when the lists give more packages than these: they are multiplied.
    """
    values: dict[str, list[str]] = {}
    for wanted in variants:
        for key, value in wanted.keys:
            known = values.setdefault(key, [])
            if value not in known:
                known.append(value)
    product = math.prod(map(len, values.values()))
    if product != len(variants):
        raise UsageError(
            "one build config cannot hold these packages alone: its lists are multiplied",
            expected=f"{len(variants)} packages",
            found=f"{product} packages",
            remedy="make a build config for each release: name it with --numpy",
        )
    return values
