"""docs/pinning.md: which builds each of its specs can bring, tried on conda-forge's records."""

import json
import re

import pytest
import rattler

from helpers import conda_forge
from numpy_feedstock import paths, variant
from numpy_feedstock.packages import hotfix

ROW = re.compile(r"^\| `(numpy[^`]*)` \| (yes|no) \| (yes|no) \| (yes|no) \|$", re.MULTILINE)
PAGE = (paths.ROOT / "docs" / "pinning.md").read_text()
HOLD, DO_NOT_HOLD = PAGE.split("## Pins that do not hold")


def unpatched():
    """conda-forge's records of the affected releases."""
    return [
        row
        for row in conda_forge.rows()
        if row["name"] == "numpy" and row["version"] in variant.known_releases()
    ]


def healed():
    """What `hotfix` makes of them: the build number plus an offset, in the build string as well."""
    found = []
    for row in unpatched():
        number = row["build_number"] + hotfix.BUILD_NUMBER_OFFSET
        build = re.sub(r"_\d+$", f"_{number}", row["build"])
        found.append({**row, "build_number": number, "build": build})
    return found


def built():
    """The packages of every known release, each flavour and Python."""
    found = []
    for platform in conda_forge.PLATFORMS:
        for each in variant.load(platform, list(variant.known_releases())):
            number = int(each.build_string.rsplit("_", 1)[1])
            row = {"version": each.version, "build": each.build_string, "build_number": number}
            found.append({**row, "name": "numpy", "subdir": platform})
    return found


def matches(spec, rows):
    """Whether a spec takes any of the records."""
    wanted = rattler.MatchSpec(spec, strict=False)
    return any(wanted.matches(_record(row)) for row in rows)


def _record(row):
    return rattler.PackageRecord(
        name=rattler.PackageName(row["name"]),
        version=rattler.VersionWithSource(row["version"]),
        build=rattler.BuildString(row["build"]),
        build_number=row["build_number"],
        subdir=row["subdir"],
        arch=None,
        platform=None,
    )


@pytest.mark.parametrize("row", ROW.findall(PAGE), ids=lambda row: row[0])
def test_a_spec_brings_what_the_page_says(row):
    spec, *said = row
    found = [matches(spec, rows) for rows in (unpatched(), healed(), built())]
    assert ["yes" if each else "no" for each in found] == said


def test_no_pin_that_holds_brings_an_unpatched_build():
    rows = ROW.findall(HOLD)
    assert len(rows) > 5
    assert not [spec for spec, unpatched_too, *_ in rows if unpatched_too == "yes"]
    assert all(unpatched_too == "yes" for _, unpatched_too, *_ in ROW.findall(DO_NOT_HOLD))


def test_no_row_of_the_page_is_overlooked():
    assert len(ROW.findall(PAGE)) == len(re.findall(r"^\| `numpy", PAGE, re.MULTILINE))


def test_every_command_of_the_pages_pins_a_build():
    """Or picks the flavour by the package blas, which conda-forge's own numpy can have as well."""
    text = "".join(
        (paths.ROOT / page).read_text() for page in ("README.md", "scripts/fleet/README.md")
    )
    specs = set(re.findall(r"numpy[=\[]+[\w.=*'\[\]>,_]*\*[\w*]*", text))
    assert specs
    for spec in specs:
        assert not matches(spec, unpatched()), json.dumps(spec)
