"""Wheels as conda packages: one rule for all that no recipe takes apart."""

import importlib.metadata
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

# wheels that a recipe of ``recipes/`` takes apart
TAKEN_APART = {
    "ninja",
    "pkgconf",
    "mkl",
    "mkl-devel",
    "mkl-include",
    "onemkl-license",
    "intel-openmp",
    "tbb",
    "ngsolve-openblas",
    "numpy",
    "ziglang",
}
# where conda-forge's name is not PyPI's
CONDA_NAME = {
    "build": "python-build",
    "typing-extensions": "typing_extensions",
    "pyproject-hooks": "pyproject_hooks",
}
# what conda-forge's package needs and the wheel's metadata does not say
ALSO_NEEDS = {"meson": ["ninja"]}
INSTALL = "-m pip install --no-deps --no-index --no-warn-script-location --ignore-installed"


def recipe(wheel: Path, python: str) -> dict[str, Any]:
    """Return the recipe of one wheel: pip installs it, and its metadata names what it needs.

    python : the minor version that its requirements are for, "3.11"

    A wheel of pure Python becomes one package for all Pythons.
    """
    name, version, _, tags = parse_wheel_filename(wheel.name)
    metadata = _metadata(wheel)
    run = [*run_requirements(metadata.requires or [], python), *ALSO_NEEDS.get(name, [])]
    if all(tag.abi == "none" and tag.platform == "any" for tag in tags):
        supported = metadata.metadata["Requires-Python"] or ""
        scripts = metadata.entry_points.select(group="console_scripts")
        build: dict[str, Any] = {
            "noarch": "python",
            # no Python of the channel: this one unpacks the wheel as well
            "script": [f'{sys.executable} {INSTALL} --no-compile --prefix "$PREFIX" {wheel}'],
            "python": {"entry_points": [f"{each.name} = {each.value}" for each in scripts]},
        }
        requirements = {"run": [f"python {supported}".strip(), *run]}
    else:
        build = {
            "string": f"py{python.replace('.', '')}h${{{{ hash }}}}_0",
            "script": [f'"$PYTHON" {INSTALL} {wheel}'],
            "dynamic_linking": {"binary_relocation": False},
        }
        requirements = {"host": ["python", "pip"], "run": ["python", *run]}
    return {
        "package": {"name": CONDA_NAME.get(name, name), "version": str(version)},
        "build": {"number": 0, **build},
        "requirements": requirements,
        "about": {
            "license": "LicenseRef-see-the-wheel",
            "summary": metadata.metadata["Summary"] or str(name),
        },
    }


def run_requirements(required: Iterable[str], python: str) -> Iterator[str]:
    """Yield what a wheel requires as match specs.

    required : lines of its metadata
    python : the minor version that decides the markers; extras are left out
    """
    environment = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    for line in required:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            yield f"{CONDA_NAME.get(name, name)} {requirement.specifier}".strip()


def versions(folder: Path) -> dict[str, str]:
    """Return {"mkl_devel_version": "2025.3.0", ...} of the wheels in a folder."""
    found = {}
    for path in folder.glob("*.whl"):
        name, version, _, _ = parse_wheel_filename(path.name)
        found[f"{name.replace('-', '_')}_version"] = str(version)
    return found


def _metadata(wheel: Path) -> importlib.metadata.PathDistribution:
    archive = zipfile.ZipFile(wheel)
    (folder,) = [
        each for each in zipfile.Path(archive).iterdir() if each.name.endswith(".dist-info")
    ]
    return importlib.metadata.PathDistribution(folder)
