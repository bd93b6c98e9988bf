"""What `verify` finds in a package, called in this process."""

import tempfile
from pathlib import Path

from numpy_feedstock.packages import checks
from numpy_feedstock.packages.unpacked import unpack


def findings(path):
    """Every Finding of the checks on a package."""
    with tempfile.TemporaryDirectory() as folder:
        return checks.findings(path, unpack(path, Path(folder)), print)
