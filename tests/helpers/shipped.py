"""What `feedstock build` makes when it is told nothing, for the tests on real packages."""

import sys

from numpy_feedstock import paths
from numpy_feedstock.channels import prefix

RELEASE = "2.3.5"
FLAVOURS = ("mkl", "openblas")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
OUTPUT = paths.ROOT / "output"


def solve(channels, specs):
    """What a solver picks: {name: build string}."""
    return {record.name.normalized: str(record.build) for record in prefix.solve(channels, specs)}
