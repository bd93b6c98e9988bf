"""variants: the packages that conda_build_config.yaml asks for, as rendered from the recipe."""

import json

from .. import channel, options, variant
from ..errors import UsageError

EPILOG = """\
examples:
  feedstock variants                               all for this platform
  feedstock variants --platform linux-aarch64      all for another one
  feedstock variants --json                        in one line, as CI takes its jobs from it
  feedstock variants --numpy 2.3.5 --python 3.11 --blas openblas --build-config > one.yaml
                                                   one of them, for `conda build recipe -m one.yaml`
"""


def configure_parser(parser):
    parser.add_argument(
        "--platform",
        action="append",
        choices=variant.PLATFORMS,
        help="repeatable (default: this one)",
    )
    options.add_numpy(parser, default="those switched on")
    options.add_python(parser, default="all")
    options.add_blas(parser)
    form = parser.add_mutually_exclusive_group()
    options.add_json(form)
    form.add_argument(
        "--build-config",
        action="store_true",
        help="a build config that conda-build takes besides, which leaves only these",
    )


def execute(args):
    """Run the verb; exit code 0. Raises UsageError."""
    from tabulate import tabulate

    platforms = args.platform or [channel.this_platform()]
    if args.build_config and len(platforms) > 1:
        raise UsageError("a build config is for one platform", found=", ".join(platforms))
    found = [
        v
        for platform in platforms
        for v in variant.select(args.numpy, args.python, args.blas, platform)
    ]
    if args.build_config:
        print(json.dumps(build_config(found), indent=1))  # which YAML is a superset of
        return 0
    rows = [
        {
            "platform": v.platform,
            "numpy": v.version,
            "python": v.python,
            "blas": v.flavour,
            "package": v.filename,
        }
        for v in found
    ]
    print(json.dumps(rows) if args.json else tabulate(rows, headers="keys", disable_numparse=True))
    return 0


def build_config(variants):
    """The lists of the build config without what these variants do not use: {key: values}."""
    keys = {}
    for key, value in [item for v in variants for item in v.keys]:
        keys.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in keys.items()}
