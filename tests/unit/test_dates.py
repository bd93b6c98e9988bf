"""The date of the packages that are built now, and what no package can have as its date."""

import types
from pathlib import Path

import pytest

from numpy_feedstock import cli
from numpy_feedstock.building import dates, rebuild
from numpy_feedstock.errors import UsageError
from numpy_feedstock.packages import canonical

FIRST, LAST = 315_532_800, 4_354_819_199
RANGE = "315532800 (1980-01-01) to 4354819199 (2107-12-31), seconds since 1970"
# also text that Python takes for a number
NO_DATES = [
    "yesterday",
    "2025-11-16",
    "1763000000.5",
    "1e9",
    "nan",
    "inf",
    "-1",
    "+1763000000",
    " 1763000000",
    "1763000000\n",
    "1_763_000_000",
    "\u0661\u0667\u0666\u0663\u0660\u0660\u0660\u0660\u0660\u0660",
    "0x10",
    " ",
    "0",
    "1",
    str(FIRST - 1),
    str(LAST + 1),
    "253402300800",
    str(10**19),
    str(10**30),
    "9" * 5000,
]


@pytest.mark.parametrize("text", NO_DATES, ids=lambda text: ascii(text[:32]))
def test_a_date_that_no_package_can_have_is_refused(text, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    # a channel that does not answer: without the refusal nothing is built either
    words = ["build", "--channel", "http://127.0.0.1:9/nothing", "--output", str(tmp_path / "new")]
    for more in ((), ("--dry-run",)):
        assert cli.main([*words, *more]) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and "SOURCE_DATE_EPOCH" in shown.err and RANGE in shown.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", [FIRST, 1_763_000_000, LAST])
def test_a_date_in_the_range_is_taken(seconds, monkeypatch):
    for text in (str(seconds), f"00{seconds}"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        assert dates.package_date() == seconds


@pytest.mark.parametrize("seconds", [-1, 0, 1, FIRST - 1, LAST + 1, 10**30])
def test_a_date_of_the_recipe_that_no_package_can_have_is_refused(seconds, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(canonical.git, "last_change", lambda files: seconds)
    with pytest.raises(UsageError, match="no package can have this date") as caught:
        dates.package_date()
    assert RANGE in str(caught.value) and "set SOURCE_DATE_EPOCH" in str(caught.value)


@pytest.mark.parametrize("seconds", [FIRST, LAST])
def test_both_ends_of_the_range_can_be_packed(seconds, tmp_path):
    (tmp_path / "info").mkdir()
    (tmp_path / "info/index.json").write_text("{}")
    path = tmp_path / "a-1-0.conda"
    canonical.pack(tmp_path, path, "a-1-0", seconds)
    assert path.stat().st_size > 100


def package(**index):
    """An unpacked package with this index, as far as its date is asked for."""
    return types.SimpleNamespace(path=Path("numpy.conda"), index=index)


@pytest.mark.parametrize(
    "timestamp", [None, "1763000000000", 1.5, [], -1, 0, 1_763_000_000, 10**18, 10**30]
)
def test_a_package_whose_date_no_package_can_have_is_not_rebuilt(timestamp):
    with pytest.raises(UsageError, match="cannot be rebuilt: no package can have the date"):
        rebuild._date_of(package(timestamp=timestamp))
    with pytest.raises(UsageError):
        rebuild._date_of(package())


def test_a_package_is_rebuilt_with_its_own_date():
    assert rebuild._date_of(package(timestamp=1_763_000_000_999)) == 1_763_000_000
