"""The paths in the repository, and in the folder build/, which git ignores."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipe" / "recipe.yaml"
BUILD_CONFIG = ROOT / "conda_build_config.yaml"
OUTPUT = ROOT / "output"  # the channel that `feedstock build` puts packages into
HEALED = ROOT / "healed"  # the same of `feedstock hotfix`
CHANNEL = ROOT / "channel"  # the same of `feedstock publish`

# Everything that can be made again is here. The path stays the same, because the
# compiler cache hits only for the same path.
BUILD = ROOT / "build"
WHEELS = BUILD / "wheels"
SDISTS = BUILD / "sdists"
WORK = BUILD / "work"  # rattler-build's output folder: builds, sources, environments
# the same for `verify --rebuild`, in another folder: the bytes must not depend on it
REBUILD = BUILD / "rebuild"
LOGS = BUILD / "logs"
COMPILER_CACHE = BUILD / "sccache"
PACKAGE_CACHE = BUILD / "rattler"
