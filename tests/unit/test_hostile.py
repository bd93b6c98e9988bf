"""Packages that strangers made: none of them hangs `verify`, fills the disk, or hides a result."""

import io
import json
import os
import tarfile
import time
import zipfile

import pytest
import zstandard

from helpers import repack, small, verified
from numpy_feedstock import cli, policy
from numpy_feedstock.errors import UsageError, shown
from numpy_feedstock.packages import archive, elf, known_texts, marshalled, safe_yaml
from numpy_feedstock.packages.archive import Unsafe
from numpy_feedstock.packages.unpacked import unpack

STEM = "numpy-2.3.5-mkl_py311h0000001_100"
INDEX = {
    "name": "numpy",
    "version": "2.3.5",
    "build": "mkl_py311h0000001_100",
    "build_number": 100,
    "subdir": "linux-64",
    "depends": ["python_abi 3.11.* *_cp311"],
}
INIT = "lib/python3.11/site-packages/numpy/__init__.py"


def entry(name, data=b"", **values):
    """A TarInfo with its content."""
    found = tarfile.TarInfo(name)
    found.size = len(data)
    for key, value in values.items():
        setattr(found, key, value)
    return found, data


def link(name, target):
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def tar(*entries):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for found, data in entries:
            archive.addfile(found, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def package(tmp_path):
    """Make a package whose archives are given entry by entry; its path."""

    def make(*entries, info=(), raw=None, stem=STEM):
        metadata = [
            entry("info/index.json", json.dumps(INDEX).encode()),
            entry("info/paths.json", json.dumps({"paths": []}).encode()),
        ]
        path = tmp_path / f"{stem}.conda"
        with zipfile.ZipFile(path, "w") as zip_file:
            zip_file.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
            content = raw if raw is not None else tar(*entries)
            zip_file.writestr(f"pkg-{stem}.tar.zst", zstandard.compress(content))
            zip_file.writestr(f"info-{stem}.tar.zst", zstandard.compress(tar(*metadata, *info)))
        return path

    return make


@pytest.fixture
def limits(monkeypatch):
    """Give the policy smaller limits."""

    def change(**values):
        before = policy.limits()
        changed = policy.Limits(**{**vars(before), **values})
        for module in (policy, archive, safe_yaml):
            monkeypatch.setattr(module, "limits", lambda: changed)

    return change


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "/proc/kmsg", "../" * 8 + "etc/passwd", "../" * 30 + "dev/zero"]
)
@pytest.mark.parametrize("name", ["info/recipe/variant_config.yaml", "info/run_exports.json", INIT])
def test_a_link_that_leaves_the_package_is_not_followed(name, target, package, tmp_path):
    path = package(
        *([link(name, target)] if name == INIT else []),
        info=[link(name, target)] if name != INIT else [],
    )
    with pytest.raises(Unsafe, match="expected: a link inside the package"):
        unpack(path, tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_a_chain_of_links_that_leaves_the_package(package, tmp_path):
    """Each of them looks harmless by itself."""
    path = package(
        link("a/b/up", ".."), link("lib/out", "../a/b/up/../.."), entry("lib/file", b"x")
    )
    folder = tmp_path / "parent" / "unpacked"
    folder.mkdir(parents=True)
    with pytest.raises(Unsafe, match="leaves the package"):
        unpack(path, folder)


def test_a_file_below_a_link_is_refused(package, tmp_path):
    path = package(link("lib", "info"), entry("lib/index.json", b"{}"))
    with pytest.raises(Unsafe, match="expected: a folder above it"):
        unpack(path, tmp_path / "unpacked")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_a_device_is_refused(kind, package):
    with pytest.raises(Unsafe, match="expected: a file or a link"):
        archive.read(package(entry("lib/device", type=kind)))


@pytest.mark.parametrize("name", ["/etc/cron.d/job", "../out", "lib/../../out", "a\\..\\b"])
def test_a_name_outside_of_the_package_is_refused(name, package):
    with pytest.raises(Unsafe, match="a printable path inside the package"):
        archive.read(package(entry(name, b"x")))


def test_a_named_pipe_in_place_of_the_package_is_wrong_use(tmp_path, capsys):
    os.mkfifo(tmp_path / "numpy-2.3.5-x_0.conda")
    assert cli.main(["verify", str(tmp_path / "numpy-2.3.5-x_0.conda")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_small_file_that_unpacks_to_much(package, limits):
    path = package(entry("lib/zeros", bytes(4 << 20)))
    assert path.stat().st_size < 10_000
    archive.read(path)
    limits(bytes=1 << 20)
    with pytest.raises(Unsafe, match=r"expected: at most 1 MB \(policy.yaml\)"):
        archive.read(path)


def test_bytes_after_the_end_of_an_archive_count(package, limits):
    path = package(raw=tar(entry("lib/file", b"x")) + bytes(4 << 20))
    limits(bytes=1 << 20)
    with pytest.raises(Unsafe, match="too large when it is unpacked"):
        archive.read(path)


def test_a_name_of_a_gigabyte_counts(package, limits):
    """tarfile reads it whole, before anybody sees it."""
    path = package(entry("lib/" + "n" * (4 << 20), b"x"))
    limits(bytes=1 << 20)
    with pytest.raises(Unsafe, match="too large when it is unpacked"):
        archive.read(path)


def test_hard_links_count_with_what_they_write(package, limits):
    links = [
        entry(f"lib/{number}", type=tarfile.LNKTYPE, linkname="lib/file") for number in range(20)
    ]
    path = package(entry("lib/file", bytes(100_000)), *links)
    limits(bytes=1 << 20)
    with pytest.raises(Unsafe, match="too large when it is unpacked"):
        archive.read(path)


def test_a_file_with_holes_counts_whole(package, limits):
    path = package(
        entry("lib/holes", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(4 << 30)})
    )
    limits(bytes=1 << 20)
    try:
        assert archive.read(path)["lib/holes"].data == b""
    except archive.BadArchive:
        pass


def test_too_many_members_and_too_many_folders(package, limits):
    limits(members=10, depth=5)
    many = package(*[entry(f"lib/{number}", type=tarfile.DIRTYPE) for number in range(20)])
    with pytest.raises(Unsafe, match=r"expected: at most 10 \(policy.yaml\)"):
        archive.read(many)
    deep = package(entry("a/b/c/d/e/f", b""))
    with pytest.raises(Unsafe, match=r"expected: at most 5 folders \(policy.yaml\)"):
        archive.read(deep)


def test_what_takes_too_long_is_ended(package, limits, monkeypatch):
    """The clock is looked at whenever bytes are read, in every thread."""
    limits(seconds=1)
    monkeypatch.setattr(archive._Members, "_check_name", lambda *args: time.sleep(0.1))
    many = package(*[entry(f"lib/file{number}", b"x" * 2000) for number in range(30)])
    with pytest.raises(policy.TooSlow, match=r"expected: at most 1 seconds \(policy.yaml\)"):
        archive.read(many)


def test_a_limit_of_time_ends_with_its_block(limits):
    limits(seconds=1)
    with policy.time_limit("this"):
        pass
    end = os.times().elapsed + 1.5
    while os.times().elapsed < end:
        pass


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{key}: &{key} [{', '.join(9 * [f'*{before}'])}]\n"
    for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "has an alias"),
        ("a: &a [*a]", "has an alias"),
        ("[" * 100_000, "is nested too deeply"),
        ("a: {", "is not YAML"),
        ("!!python/object/apply:os.system [true]", "is not YAML"),
    ],
    ids=["bomb", "itself", "deep", "cut", "object"],
)
def test_yaml_of_strangers(text, message):
    with pytest.raises(safe_yaml.UnsafeYaml, match=message):
        safe_yaml.load(text, "info/recipe/variant_config.yaml")


def test_yaml_that_is_too_large(limits):
    limits(yaml_bytes=10)
    with pytest.raises(safe_yaml.UnsafeYaml, match="at most 10 bytes"):
        safe_yaml.load("a: bbbbbbbbbbbbbb", "it")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"paths": [{"_path": 1}]}', "{}", "[]", "\xff"]
)
def test_json_of_strangers_is_wrong_use(content, package, tmp_path):
    path = package(info=[entry("info/paths.json2")])
    folder = tmp_path / "folder"
    (folder / "info").mkdir(parents=True)
    (folder / "info/index.json").write_text(json.dumps(INDEX))
    (folder / "info/paths.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match="not a whole conda package"):
        unpack(repack.pack(folder, path), tmp_path / "unpacked")


SOURCES = {
    "parentheses": "x = " + "(" * 5000 + "1" + ")" * 5000 + "\n",
    "signs": "x = " + "-" * 200_000 + "1\n",
    "attributes": "x" + ".a" * 100_000 + "\n",
    "operators": "x = 1" + " + 1" * 100_000 + "\n",
    "nul": "x = '\0'\n",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_that_ends_a_parser_is_a_finding(source, package):
    found = verified.findings(package(entry(INIT, source.encode())))
    gate = [each for each in found if each.check == "gate"]
    assert gate and all(each.found for each in gate)
    # the checks after it still ran
    assert {each.check for each in found} >= {"gate", "recipe", "metadata"}


def elf_with(offset, data):
    with open("/bin/sh", "rb") as stream:
        content = bytearray(stream.read())
    content[offset : offset + len(data)] = data
    return bytes(content)


@pytest.mark.parametrize("offset", range(4, 64, 4))
def test_an_elf_file_with_a_wrong_header_is_read_or_broken(offset):
    """Never anything else: no traceback, no endless loop."""
    for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x80\x01\x80"):
        try:
            elf.parse(elf_with(offset, value))
        except ValueError as error:
            assert str(error).startswith("broken ELF file")


def test_one_bad_package_does_not_hide_anothers_result(package, tmp_path, capsys):
    bomb = package(*[link(f"lib/{number}", "/etc/passwd") for number in range(3)])
    (tmp_path / "other").mkdir()
    good = small.make(tmp_path / "other", 7)
    assert cli.main(["verify", "--json", str(bomb), str(good)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["packages"] == [bomb.name, good.name]
    checks = {(each["package"], each["check"]) for each in said["findings"]}
    assert (bomb.name, "package") in checks
    assert {(good.name, "gate"), (good.name, "recipe")} <= checks


def test_a_check_that_fails_is_a_finding_and_the_others_run(package, monkeypatch):
    from numpy_feedstock.packages import checks

    def fail(unpacked):
        raise KeyError("what nobody expected")
        yield

    monkeypatch.setitem(checks.CHECKS, "symbols", fail)
    found = verified.findings(package())
    assert "KeyError" in next(each.found for each in found if each.check == "symbols")
    assert {each.check for each in found} >= {"gate", "recipe", "metadata"}


def test_two_packages_of_one_name_keep_their_own_findings(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = small.make(tmp_path / "a", 7)
    second = small.make(tmp_path / "b", 7, license="BSD-3-Clause")
    assert first.name == second.name
    assert cli.main(["verify", str(first), str(second)]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "findings (" in line]
    assert len(lines) == 2 and lines[0] != lines[1]


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\rb", "a\\rb"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
        ("é and 漢字", "é and 漢字"),
        ("a\tb\nc", "a\tb\nc"),
    ],
)
def test_a_terminal_is_shown_nothing_that_it_obeys(text, harmless):
    assert shown(text) == harmless


@pytest.mark.parametrize("name", ["lib/\x1b]0;title\x07", "lib/\udcff\udcfe", "lib/\u202etxt"])
def test_the_name_of_a_member_is_shown_harmlessly(name, package, capsys):
    path = package(entry(name, b"x"))
    assert cli.main(["verify", "--json", str(path)]) in (1, 2)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "\x1b" not in text and "\u202e" not in text
        text.encode()


def test_the_name_of_a_package_is_shown_harmlessly(tmp_path, capsys):
    path = tmp_path / "numpy-\x1b[31m\udcff-1.conda"
    path.write_bytes(b"no package")
    assert cli.main(["verify", os.fspath(path)]) == 2
    said = capsys.readouterr()
    assert "\x1b" not in said.err and "\\x1b[31m" in said.err


def test_strings_of_the_filled_in_file_may_differ_and_its_code_may_not():
    template = known_texts.of_release("2.3.5").config
    filled = template.replace("@C_COMP@", "gcc").replace("@BLAS_FOUND@", "True")
    assert known_texts.is_from_template(filled, template)
    for code in ('gcc" + str(1) + "', 'gcc", "more": "', '\\" + str(1) + "'):
        changed = template.replace("@C_COMP@", code)
        assert not known_texts.is_from_template(changed, template), code
    assert not known_texts.is_from_template(template + "import os\n", template)
    assert not known_texts.is_from_template(template.replace('"@C_COMP@"', 'f"{1}"'), template)


def test_every_release_of_the_patch_has_its_texts():
    from numpy_feedstock.packages import patch

    for release in patch.applies_to():
        known = known_texts.of_release(release)
        assert len(known.hashes) > 200 and "numpy/__init__.py" in known.hashes
        assert "numpy/_core/_multiarray_umath" in known.extensions
    assert known_texts.of_release("1.0") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = 1", "x = 1", True),
        ("x = 1", "x = 2", False),
        (
            "x = ('a', 'b', 3.5, 1j, 2**70, None, ...)",
            "x = ('a', 'b', 3.5, 1j, 2**71, None, ...)",
            False,
        ),
        ("def f(a): return a in {1, 2, 'x'}", "def f(a): return a in {'x', 2, 1}", True),
        ("def f(a): return a", "def f(b): return b", False),
        ("x = b'a'", "x = 'a'", False),
        ("a @ b", "a * b", False),
    ],
)
def test_bytecode_is_compared_by_what_it_does(one, other, same):
    import marshal

    codes = [compile(text, f"{number}.py", "exec") for number, text in enumerate((one, other))]
    first, second = (marshalled.parse(marshal.dumps(code)) for code in codes)
    assert (first == second) == same


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"c",
        b"\xe3" + 3 * b"\0",
        b"r\xff\xff\xff\xff",
        b"(" + 4 * b"\xff",
        b")\x01" * 5000,
        b"?",
        b"NN",
        b"l\xff\xff\xff\x7f",
    ],
)
def test_bytes_that_are_no_bytecode(data):
    with pytest.raises(marshalled.BadMarshal):
        marshalled.parse(data)


def test_the_order_of_a_set_does_not_tell_two_bytecodes_apart():
    """Each process has another one."""
    one, two = b"i\1\0\0\0", b"i\2\0\0\0"
    first = marshalled.parse(b"\xbe\2\0\0\0" + one + two)
    second = marshalled.parse(b"\x3e\2\0\0\0" + two + one)
    assert first == second
    assert first != marshalled.parse(b"\x3e\2\0\0\0" + one + one)
    in_order = (b")\2" + one + two, b")\2" + two + one)
    assert marshalled.parse(in_order[0]) != marshalled.parse(in_order[1])
