"""What is refused, by name and with the reason, and leaves nothing behind."""

import concurrent.futures
import dataclasses
import hashlib
import io
import tarfile
import zipfile

import pytest
import zstandard

from helpers import originals
from numpy_feedstock import policy
from numpy_feedstock.packages import archive, bytecode, hotfix, patch
from numpy_feedstock.packages.archive import BadArchive, Member
from numpy_feedstock.packages.hotfix import NotAffected, Refused

SITE = "lib/python3.11/site-packages"
INIT = f"{SITE}/numpy/__init__.py"


def heal(path):
    return hotfix.heal(hotfix.open_original(path, path.name), bytecode.find_pythons())


def with_text(members, change):
    return originals.changed(members, {INIT: change(members[INIT].data)})


TEXTS = {
    "already gated": (lambda text: patch.applied(text), NotAffected, "the check is gated"),
    "without the check": (
        lambda text: text.replace(b"    blas_fpe_check()\n", b"    pass\n"),
        NotAffected,
        "the check is absent",
    ),
    "edited": (lambda text: text + b"# edited\n", Refused, "not the text that upstream released"),
    "hand-patched": (
        lambda text: text.replace(b"x @ x", b"x.dot(x)"),
        Refused,
        "not the text that upstream released",
    ),
    "with Windows' line ends and an edited hunk": (
        lambda text: text.replace(b"(20, 20)", b"(21, 21)").replace(b"\n", b"\r\n"),
        hotfix.FeedstockError,
        "0 times",
    ),
    "with Windows' line ends and the hunk twice": (
        lambda text: (text + b'TEXT = """\n' + patch.hunk().before + b'"""\n').replace(
            b"\n", b"\r\n"
        ),
        hotfix.FeedstockError,
        "2 times",
    ),
    "with mixed line ends": (
        lambda text: text.replace(b"\n", b"\r\n", 5),
        hotfix.FeedstockError,
        "0 times",
    ),
    "cut off": (lambda text: text[:9000], hotfix.FeedstockError, "numpy/__init__.py"),
    "empty": (lambda text: b"", hotfix.FeedstockError, ""),
    "not UTF-8": (lambda text: b"\xff" + text, Refused, "not Python"),
    "not Python": (lambda text: b"if" + text, Refused, "not Python"),
    "nested too deeply": (lambda text: b"x = " + b"(" * 5000 + b")" * 5000, Refused, "not Python"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_text_that_is_not_a_released_one_is_refused(what, small, tmp_path):
    change, error, message = TEXTS[what]
    path = originals.package(tmp_path, with_text(small, change))
    with pytest.raises(error) as caught:
        heal(path)
    assert message in str(caught.value)


INDEXES = {
    "another release": ({"version": "2.4.5"}, NotAffected, "a release without the fault"),
    "an older release": ({"version": "2.2.6"}, NotAffected, "a release without the fault"),
    "another package": ({"name": "scipy"}, Refused, "not a package of numpy"),
    "noarch": ({"subdir": "noarch"}, Refused, "a platform without numpy"),
    "numbered like our own build, but not patched": (
        {"build": "mkl_py311h1_100", "build_number": 100},
        Refused,
        "numbered like a patched package",
    ),
    "numbered like a twin, but not patched": (
        {"build": "py311h1_50", "build_number": 50},
        Refused,
        "numbered like a patched package",
    ),
    "a number below zero": ({"build": "py311h1_-1", "build_number": -1}, Refused, "build number"),
    "a number that is true": (
        {"build": "py311h1_True", "build_number": True},
        Refused,
        "build number",
    ),
    "dependencies that are a number": ({"depends": 7}, Refused, "not a list of specs"),
    "dependencies that are null": ({"depends": None}, Refused, "not a list of specs"),
    "another number in the build string": ({"build": "py311h1_7"}, Refused, "build number"),
    "a number that is none": ({"build_number": "0"}, Refused, "build number"),
    "no version": ({"version": None}, Refused, "has no version"),
}


@pytest.mark.parametrize("what", INDEXES)
def test_a_package_that_is_not_an_original_is_refused(what, small, tmp_path):
    changes, error, message = INDEXES[what]
    path = originals.package(tmp_path, originals.with_index(small, **changes))
    with pytest.raises(error, match=message):
        heal(path)


def test_a_file_that_is_not_named_as_its_package_is_refused(small, tmp_path):
    path = originals.package(tmp_path, small)
    other = path.rename(path.with_name("numpy-2.3.5-py311hother_0.conda"))
    with pytest.raises((Refused, BadArchive)):
        heal(other)


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -100, -5000])
def test_a_truncated_package_is_refused(cut, small, tmp_path):
    path = originals.package(tmp_path, small)
    path.write_bytes(path.read_bytes()[:cut] if cut else b"")
    with pytest.raises(BadArchive):
        heal(path)


def test_a_truncated_bz2_package_is_refused(small, tmp_path):
    path = originals.package_bz2(tmp_path, small)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BadArchive):
        heal(path)


def damaged(small, **changes):
    """The members with other entries beside a paths.json that was not told."""
    made = dict(small)
    for name, data in changes.items():
        made[name] = Member(data, 0o644, 0)
    return made


FILES = {
    "a file that paths.json does not list": {f"{SITE}/numpy/extra.py": b""},
    "a file of other bytes than paths.json says": {f"{SITE}/numpy/__init__.pyi": b"other"},
    "a paths.json that is no JSON": {"info/paths.json": b"{"},
    "a paths.json that is a list": {"info/paths.json": b"[]"},
    "a paths.json nested too deeply": {"info/paths.json": b"[" * 100_000},
    "a paths.json of numbers": {"info/paths.json": b'{"paths": [1, 2]}'},
    "a paths.json without names": {"info/paths.json": b'{"paths": [{}]}'},
    "an index.json that is no JSON": {"info/index.json": b"\xff"},
    "an about.json whose extra is a list": {"info/about.json": b'{"extra": []}'},
    "an about.json whose extra is null": {"info/about.json": b'{"extra": null}'},
}


@pytest.mark.parametrize("what", FILES)
def test_files_and_metadata_that_disagree_are_refused(what, small, tmp_path):
    path = tmp_path / "linux-64" / originals.package(tmp_path, small).name
    archive.write(path, damaged(small, **FILES[what]))
    with pytest.raises(Refused):
        heal(path)


RECORD = f"{SITE}/numpy-2.3.5.dist-info/RECORD"
CONTENTS = {
    "a numpy for another Python": "lib/python3.12/site-packages/numpy/__init__.py",
    "a numpy outside of site-packages": "lib/numpy/__init__.py",
    "an extension module that Python takes first": f"{SITE}/numpy/__init__.cpython-311.so",
    "an extension module of Windows": f"{SITE}/numpy/__init__.cp311-win_amd64.pyd",
}


@pytest.mark.parametrize("what", CONTENTS)
def test_another_numpy_in_the_package_is_refused_by_its_name(what, small, tmp_path):
    name = CONTENTS[what]
    path = originals.package(tmp_path, originals.changed(small, {name: small[INIT].data}))
    with pytest.raises(Refused, match="not one numpy") as caught:
        heal(path)
    assert name in str(caught.value)


@pytest.mark.parametrize("record", [b"\xff\n", b'"' + b"a" * 200_000 + b'"\n'])
def test_a_record_that_cannot_be_read_is_refused(record, small, tmp_path):
    path = originals.package(tmp_path, originals.changed(small, {RECORD: record}))
    with pytest.raises(Refused, match="as conda's packages have them"):
        heal(path)


def test_metadata_that_are_too_large_are_refused(small, tmp_path):
    padded = small["info/paths.json"].data + b" " * (9 << 20)
    path = originals.package(tmp_path, damaged(small, **{"info/paths.json": padded}))
    with pytest.raises(Refused, match="a link, or too large"):
        heal(path)


def test_a_text_that_is_too_large_is_refused_before_it_is_parsed(small, tmp_path, monkeypatch):
    parsed = []
    monkeypatch.setattr(hotfix, "gate", parsed.append)
    path = originals.package(tmp_path, with_text(small, lambda text: text + b"#" * (9 << 20)))
    with pytest.raises(Refused, match="too large"):
        heal(path)
    assert not parsed


def test_bytecode_full_of_paths_is_searched_for_a_moment_only(small):
    """Each search looks at 8192 places: ten million paths would take hours."""
    made = b"x" * 4096 + b"/numpy/__init__.py" * 10_000_000
    assert bytecode.recorded_filename(made) is None


def entry(name, kind=tarfile.REGTYPE, target="", size=0):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, target, size
    return made


HOSTILE = {
    "a path that leaves the package": entry("../../etc/cron.d/x"),
    "an absolute path": entry("/etc/passwd"),
    "a link that leaves the package": entry(f"{SITE}/x", tarfile.SYMTYPE, "../../../../../etc"),
    "an absolute link": entry(f"{SITE}/x", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link to nothing": entry(f"{SITE}/x", tarfile.LNKTYPE, "nowhere"),
    "a device": entry(f"{SITE}/x", tarfile.CHRTYPE),
    "a FIFO": entry(f"{SITE}/x", tarfile.FIFOTYPE),
    "a member of its own name again": entry(INIT),
    "an escape sequence in a name": entry(f"{SITE}/\x1b[31m"),
    "a folder as deep as none": entry("a/" * 50 + "x"),
    "a backslash": entry("lib\\x"),
}


def with_entry(path, small, hostile):
    """Put a hostile member behind the others of a package."""
    stem = path.name.removesuffix(".conda")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, member in small.items():
            if not name.startswith("info/"):
                tar.addfile(entry(name, size=len(member.data)), io.BytesIO(member.data))
        tar.addfile(hostile)
    with zipfile.ZipFile(path) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    parts[f"pkg-{stem}.tar.zst"] = zstandard.compress(stream.getvalue(), 1)
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in parts.items():
            opened.writestr(name, data)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_member_is_refused_and_shown_harmlessly(what, small, tmp_path):
    path = originals.package(tmp_path, small)
    with_entry(path, small, HOSTILE[what])
    with pytest.raises(BadArchive) as caught:
        heal(path)
    assert "\x1b" not in str(caught.value)


def test_a_bomb_is_refused_before_it_is_unpacked(small, tmp_path, monkeypatch):
    small_limits = dataclasses.replace(policy.limits(), bytes=1 << 20)
    monkeypatch.setattr(archive, "limits", lambda: small_limits)
    bomb = originals.changed(small, {f"{SITE}/numpy/zeros.py": bytes(2 << 20)})
    path = originals.package(tmp_path, bomb)
    with pytest.raises(BadArchive, match="too large"):
        heal(path)


def test_reading_has_a_deadline_in_every_thread(small, tmp_path, monkeypatch):
    path = originals.package(tmp_path, small)
    no_time = dataclasses.replace(policy.limits(), seconds=-1)
    monkeypatch.setattr(archive, "limits", lambda: no_time)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        error = pool.submit(archive.read, path).exception()
    assert isinstance(error, policy.TooSlow)


def test_the_hash_of_a_released_text_is_what_decides(small):
    """The table names upstream's texts; the wheel has one of them."""
    assert hashlib.sha256(small[INIT].data).hexdigest() in hotfix.PATCHED_TEXTS
