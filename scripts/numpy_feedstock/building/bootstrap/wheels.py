"""Wheels as conda packages: one rule for all that no recipe takes apart."""

import email
import zipfile
from collections.abc import Iterator
from email.message import Message
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


def recipe(wheel: Path) -> dict[str, Any]:
    """Return the recipe of one wheel: pip installs it, and its metadata names what it needs."""
    name, version, _, _ = parse_wheel_filename(wheel.name)
    metadata = _metadata(wheel)
    # pip runs out of its own wheel: so pip's package needs no pip
    install = (
        f'PYTHONPATH=$(echo {wheel.parent}/pip-*.whl) "$PYTHON" -m pip install '
        f"--no-deps --no-index --no-warn-script-location --ignore-installed {wheel}"
    )
    return {
        "package": {"name": CONDA_NAME.get(name, name), "version": str(version)},
        "build": {
            "number": 0,
            "script": [install],
            "dynamic_linking": {"binary_relocation": False},
        },
        "requirements": {
            "host": ["python"],
            "run": ["python", *run_requirements(metadata), *ALSO_NEEDS.get(name, [])],
        },
        "about": {
            "license": "LicenseRef-see-the-wheel",
            "summary": metadata.get("Summary", "") or str(name),
        },
    }


def run_requirements(metadata: Message) -> Iterator[str]:
    """Yield what a wheel requires as match specs.

    Markers are decided for this machine, and extras are left out.
    """
    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name = canonicalize_name(requirement.name)
            yield f"{CONDA_NAME.get(name, name)} {requirement.specifier}".strip()


def versions(folder: Path) -> dict[str, str]:
    """Return {"mkl_devel_version": "2025.3.0", ...} of the wheels in a folder."""
    found = {}
    for path in folder.glob("*.whl"):
        name, version, _, _ = parse_wheel_filename(path.name)
        found[f"{name.replace('-', '_')}_version"] = str(version)
    return found


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(members[0]))
