"""A plugin of pytest: the order of the files, for when several processes run them side by side.

The longest files come first, so that no process starts one of them at the end. Files that need
the built packages come last, except for one: its process builds them while the others run the
rest.
"""

from pathlib import Path

import yaml

LONGEST = Path(__file__).parents[1] / "longest.yaml"
# the fixture that builds them
PACKAGES = "packages"


def pytest_collection_modifyitems(items):
    longest = yaml.safe_load(LONGEST.read_text())
    need_packages = {file_of(item) for item in items if PACKAGES in item.fixturenames}
    order = sorted_files(dict.fromkeys(map(file_of, items)), need_packages, longest)
    places = {file: place for place, file in enumerate(order)}
    items.sort(key=lambda item: places[file_of(item)])


def file_of(item):
    """The path of a test's file below the root of the repository."""
    return item.nodeid.partition("::")[0]


def sorted_files(files, need_packages, longest):
    """Put files of tests in order. Returns their list.

    files : paths, in any order
    need_packages : those with a test that needs the built packages
    longest : paths of those that take long, the longest first
    """
    length = {file: place for place, file in enumerate(longest)}
    by_length = sorted(files, key=lambda file: length.get(file, len(length)))
    without = [file for file in by_length if file not in need_packages]
    builders = [file for file in by_length if file in need_packages]
    return [*builders[:1], *without, *builders[1:]]
