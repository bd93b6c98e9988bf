"""In a list of packages, one that fails does not hide what is found about the others."""

import json
import types

import pytest

from helpers import small
from numpy_feedstock import cli
from numpy_feedstock.channels import originals
from numpy_feedstock.publishing import signing
from numpy_feedstock.verbs import old_glibc

# the system refuses to look for it, also when root asks
TOO_LONG = "n" * 300 + ".conda"


@pytest.fixture
def packages(tmp_path):
    """Two packages of numpy that hold nothing but metadata."""
    return [str(small.make(tmp_path / "linux-64", number)) for number in (1, 2)]


def call(capsys, *words):
    """The exit code, the output and the errors of a command."""
    code = cli.main(list(words))
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return code, shown.out, shown.err


def test_verify_tells_what_it_found_of_each(packages, capsys):
    first, second = packages
    names = [first, TOO_LONG, "missing.conda", "/dev/null", second]
    code, out, _ = call(capsys, "verify", *names, "--json")
    found = json.loads(out)
    assert code == 1
    assert found["packages"] == [name.rpartition("/")[2] for name in names]
    assert {each["package"] for each in found["findings"]} == set(found["packages"])
    (refused,) = [each for each in found["findings"] if each["package"] == TOO_LONG]
    assert "File name too long" in refused["found"] and "remedy: " in refused["found"]


def test_verify_is_wrong_use_when_no_package_can_be_read(capsys):
    code, out, err = call(capsys, "verify", TOO_LONG, "missing.conda")
    assert (code, out) == (2, "")
    assert "File name too long" in err and "no such file: missing.conda" in err


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_publish_names_the_fault_of_each_and_publishes_nothing(
    more, packages, tmp_path, monkeypatch, capsys
):
    signing.make(tmp_path / "key.pem")
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "key.pem"))
    target = tmp_path / "channel"
    names = [packages[0], TOO_LONG, "missing.conda", packages[1]]
    code, out, err = call(capsys, "publish", *names, "--to", str(target), *more)
    assert (code, out) == (2, "")
    for name in packages:
        assert f"refused: {name.rpartition('/')[2]}: no record of its tests" in err
    assert "File name too long" in err and "no such file: missing.conda" in err
    assert "nothing was published" in err and not target.exists()


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_hotfix_names_each_input_that_is_none(more, packages, tmp_path, capsys):
    names = [packages[0], TOO_LONG, "missing.conda", "s3://bucket/x", packages[1]]
    code, out, err = call(capsys, "hotfix", *names, "--output", str(tmp_path / "healed"), *more)
    assert (code, out) == (2, "")
    for reason in ("File name too long", "not there: missing.conda", "not read: s3://bucket/x"):
        assert reason in err
    assert "nothing was healed" in err and not (tmp_path / "healed").exists()


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_hotfix_judges_each_package_although_one_cannot_be_read(
    more, packages, tmp_path, monkeypatch, capsys
):
    fetch = originals.fetch

    def refuse(source, say):
        if source.location == packages[0]:
            raise PermissionError(13, "Permission denied", source.location)
        return fetch(source, say)

    monkeypatch.setattr(originals, "fetch", refuse)
    words = ("hotfix", *packages, "--output", str(tmp_path / "healed"), "--json", *more)
    code, out, _ = call(capsys, *words)
    first, second = json.loads(out)["packages"]
    assert code == 1
    assert first["state"] == "refused" and "Permission denied" in first["reason"]
    assert second["state"] == "refused" and "Permission denied" not in second["reason"]


def test_scan_wheels_names_each_release_that_it_does_not_know(capsys):
    code, out, err = call(capsys, "scan-wheels", "8.8", "2.3.5", "9.9")
    assert (code, out) == (2, "")
    assert "unknown numpy release: 8.8, 9.9\n" in err


@pytest.mark.parametrize("error", [old_glibc.FeedstockError("gone"), OSError(2, "gone", "x")])
def test_old_glibc_checks_each_package_although_one_cannot_be_installed(
    error, tmp_path, monkeypatch, capsys
):
    def check(package, folder, progress):
        yield old_glibc.Finding(package.filename, "glibc", True, "2.28", "2.28")
        if package.filename == "a.conda":
            raise error

    def fake(path):
        return types.SimpleNamespace(filename=path.name, build_string="mkl_py311h0000000_100")

    monkeypatch.setattr(old_glibc, "check_package", check)
    monkeypatch.setattr(old_glibc, "open_package", fake)
    monkeypatch.setattr(old_glibc.rootfs, "made", lambda python: (tmp_path, True))
    monkeypatch.setattr(old_glibc.rootfs, "ensure", lambda python, progress: tmp_path)
    code, out, _ = call(capsys, "old-glibc", "a.conda", "b.conda", "--json")
    found = [(row["package"], row["check"], row["green"]) for row in json.loads(out)]
    assert code == 1
    assert found == [
        ("a.conda", "glibc", True),
        ("a.conda", "installation", False),
        ("b.conda", "glibc", True),
    ]
