"""Where things are: the tree that git keeps, and the folder that it does not."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipe" / "recipe.yaml"
BUILD_CONFIG = ROOT / "conda_build_config.yaml"
OUTPUT = ROOT / "output"  # the channel that `feedstock build` puts packages into

# One place for everything that can be made again. One place, because the
# compiler cache hits only for the same path.
BUILD = ROOT / "build"
WHEELS = BUILD / "wheels"
SDISTS = BUILD / "sdists"
WORK = BUILD / "work"  # rattler-build's output folder: builds, sources, environments
REBUILD = BUILD / "rebuild"  # elsewhere, to build finished packages again
LOGS = BUILD / "logs"
COMPILER_CACHE = BUILD / "sccache"
PACKAGE_CACHE = BUILD / "rattler"
