"""What `feedstock build` makes when it is told nothing, for the tests on real packages."""

import shutil
import sys

from numpy_feedstock import paths
from numpy_feedstock.channels import prefix

RELEASE = "2.3.5"
FLAVOURS = ("mkl", "openblas")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
OUTPUT = paths.ROOT / "output"


def copy(packages, folder):
    """Copy packages, their records and the results of numpy's tests into a folder.

    packages : {flavour: Path}
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in packages.values():
        for file in path.parent.glob(f"{path.stem}.*"):
            shutil.copy(file, folder)


def copy_tree(folder):
    """Copy the checkout without output/ into a folder. The copy shares build/ with this one."""
    ignore = shutil.ignore_patterns(".git", "build", "output", "__pycache__")
    shutil.copytree(paths.ROOT, folder, symlinks=True, ignore=ignore)
    (folder / "build").symlink_to(paths.BUILD)


def solve(channels, specs):
    """What a solver picks: {name: build string}."""
    return {record.name.normalized: str(record.build) for record in prefix.solve(channels, specs)}
