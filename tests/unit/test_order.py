"""Several processes end at the same time when none of them starts a long file at the end."""

import pytest
import yaml

from helpers import order
from numpy_feedstock import paths


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["quick", "slow", "builds", "slowly builds"],
            ["slowly builds", "slow", "quick", "builds"],
        ),
        (["quick", "slow"], ["slow", "quick"]),
        (["builds"], ["builds"]),
        ([], []),
    ],
)
def test_one_file_builds_then_the_longest_come_first(files, expected):
    need_packages = {"builds", "slowly builds"}
    assert order.sorted_files(files, need_packages, ["slowly builds", "slow"]) == expected


def test_every_listed_file_is_there():
    for file in yaml.safe_load(order.LONGEST.read_text()):
        assert (paths.ROOT / file).is_file(), file
