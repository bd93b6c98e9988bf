"""What runs a CI's shell lines."""

import os
import shutil
import subprocess
import sys

import pytest

from numpy_feedstock import paths


class Runner:
    """A checkout, and a shell in it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("scripts", "recipe"):
            shutil.copytree(
                paths.ROOT / name,
                folder / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        shutil.copy(paths.BUILD_CONFIG, folder)
        (folder / "build").symlink_to(
            paths.BUILD
        )  # for the environment, which another Python would make anew
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))

    def run(self, line, **variables):
        environment = {
            **os.environ,
            **variables,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }
        subprocess.run(
            ["bash", "-eo", "pipefail", "-c", line], cwd=self.folder, env=environment, check=True
        )

    def change_build_config(self, old, new):
        file = self.folder / paths.BUILD_CONFIG.name
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))


@pytest.fixture
def runner(tmp_path):
    """For one test."""
    return Runner(tmp_path)
