"""The bootstrap channel's rules: wheels to recipes, Pythons, and what the machine lacks."""

import concurrent.futures
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from numpy_feedstock import paths, variant
from numpy_feedstock.building import apt, bootstrap
from numpy_feedstock.building.bootstrap import debian, machine, wheels
from numpy_feedstock.errors import FeedstockError, UsageError

RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"
LISTS = [*bootstrap.SHARED_WHEELS, *bootstrap.PYTHON_WHEELS]


# --- wheels


def test_requirements_become_match_specs():
    required = [
        "packaging>=24.0",
        "pyproject_hooks",
        "colorama; os_name == 'nt'",
        "uv>=0.1; extra == 'uv'",
        "build<2,>=1.0; python_version >= '3.8'",
    ]
    assert list(wheels.run_requirements(required, "3.11")) == [
        "packaging >=24.0",
        "pyproject_hooks",
        "python-build <2,>=1.0",
    ]


@pytest.mark.parametrize(("python", "expected"), [("3.11", ["old"]), ("3.14", ["new"])])
def test_the_python_of_the_channel_decides_markers_not_the_running_one(python, expected):
    required = ["old; python_version < '3.13'", "new; python_full_version >= '3.13'"]
    assert list(wheels.run_requirements(required, python)) == expected


@pytest.fixture
def wheel(tmp_path):
    """A function that makes a wheel with these tags; its path."""

    def make(tags):
        path = tmp_path / f"some_tool-1.2-{tags}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("some_tool.py", "def main(): pass\n")
            archive.writestr(
                "some_tool-1.2.dist-info/METADATA",
                "Metadata-Version: 2.1\nName: some-tool\nVersion: 1.2\nSummary: A tool.\n"
                "Requires-Python: >=3.9,!=3.10.1\nRequires-Dist: packaging\n",
            )
            archive.writestr(
                "some_tool-1.2.dist-info/entry_points.txt",
                "[console_scripts]\nsome-tool = some_tool:main\n[other]\nx = some_tool:main\n",
            )
        return path

    return make


@pytest.mark.parametrize("tags", ["py3-none-any", "py2.py3-none-any"])
def test_a_wheel_of_pure_python_becomes_one_package_for_all_pythons(wheel, tags):
    made = wheels.recipe(wheel(tags), "3.11")
    assert made["package"] == {"name": "some-tool", "version": "1.2"}
    assert made["build"]["noarch"] == "python"
    assert made["build"]["python"] == {"entry_points": ["some-tool = some_tool:main"]}
    assert made["requirements"] == {"run": ["python >=3.9,!=3.10.1", "packaging"]}


@pytest.mark.parametrize("tags", ["cp312-cp312-manylinux_2_17_x86_64", "cp38-abi3-linux_x86_64"])
def test_a_compiled_wheel_becomes_a_package_that_names_its_python(wheel, tags):
    made = wheels.recipe(wheel(tags), "3.12")
    assert "noarch" not in made["build"]
    assert made["build"]["string"].startswith("py312h")
    assert made["requirements"] == {"host": ["python", "pip"], "run": ["python", "packaging"]}


@pytest.mark.parametrize("name", LISTS)
def test_every_wheel_is_pinned_by_hash(name):
    lines = (bootstrap.HERE / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert pins and all(" \\" in pin and "==" in pin for pin in pins)


@pytest.mark.parametrize("name", bootstrap.SHARED_WHEELS)
def test_a_release_that_not_all_pythons_share_is_not_in_a_shared_list(name):
    lines = (bootstrap.HERE / name).read_text().splitlines()
    assert [line for line in lines if "python_" in line] == []


def test_the_wheels_of_mkl_are_those_that_the_build_config_names():
    pinned = yaml.safe_load(paths.BUILD_CONFIG.read_text())["blas_impl"]
    named = [line["then"].split()[1] for line in pinned if isinstance(line, dict)]
    lists = [(bootstrap.HERE / name).read_text() for name in bootstrap.SHARED_WHEELS]
    for release, text in zip(named, lists, strict=True):
        assert f"\nmkl-devel=={release}." in text


# --- Debian's gcc


def test_a_machine_without_a_compiler_is_told_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError,
        match=r"missing on this machine: gcc, g\+\+\n"
        r"  remedy: on Debian: apt-get install gcc g\+\+",
    ):
        machine.inspect()


@pytest.mark.parametrize("other", ["12.2.0", "15.1.0"])
def test_another_gcc_does_not_stand_in_for_the_one_that_is_pinned(monkeypatch, tmp_path, other):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    write_program(tmp_path / "apt-get", "")
    write_program(tmp_path / "dpkg", "")
    with pytest.raises(FeedstockError) as raised:
        debian.gcc_packages(other).download(print)
    said = str(raised.value)
    assert "Debian's gcc 14 cannot be downloaded: no archive" in said
    assert "expected: gcc 14, which conda_build_config.yaml pins" in said
    assert f"found:    gcc {other} on this machine" in said
    assert "remedy:   make gcc and g++ of version 14 the first on PATH" in said
    assert list(tmp_path.glob("gcc-*")) == []


def test_an_apt_that_cannot_be_started_is_no_archive(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    put_unknown_program(tmp_path / "apt-get")
    assert apt.mirror("trixie") is None


def test_a_package_that_dpkg_cannot_unpack_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    write_program(tmp_path / "dpkg", "echo 'not a package' >&2; exit 2")
    (tmp_path / "libc6_2.deb").touch()
    with pytest.raises(FeedstockError) as raised:
        debian.unpack_python(tmp_path, "3.14")
    assert f"dpkg cannot unpack {tmp_path / 'libc6_2.deb'}" in str(raised.value)
    assert "found:  not a package" in str(raised.value)
    assert not (tmp_path / "unpacked" / "python3.14").exists()


def put_compilers(folder, gcc, gxx):
    write_program(folder / "gcc", gcc)
    write_program(folder / "g++", gxx)


def test_a_machine_whose_own_gcc_is_the_pinned_one_needs_no_other(monkeypatch, tmp_path):
    put_compilers(tmp_path, "echo 14.2.0", "echo 14.2.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert debian.gcc_packages(machine.inspect().machine_gcc) is None


def test_a_gcc_without_its_gxx_is_not_the_pinned_one(monkeypatch, tmp_path):
    put_compilers(tmp_path, "echo 14.2.0", "echo 12.2.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = debian.gcc_packages(machine.inspect().machine_gcc)
    assert wanted.found == "gcc 14.2.0 and g++ 12.2.0 on this machine"


def test_a_compiler_that_does_not_work_is_refused(monkeypatch, tmp_path):
    put_compilers(tmp_path, "echo 14.2.0", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"gcc or g\+\+ does not say its version"):
        machine.inspect()
    put_unknown_program(tmp_path / "g++")
    with pytest.raises(UsageError, match=r"gcc or g\+\+ does not say its version"):
        machine.inspect()


@pytest.mark.parametrize(
    ("python", "gcc", "there", "said"),
    [
        ("3.98", "12.2.0", "apt-get", "Debian's gcc 14 cannot be downloaded: {no} dpkg"),
        ("3.98", "12.2.0", "dpkg", "Debian's gcc 14 cannot be downloaded: {no} apt-get"),
        ("3.98", "12.2.0", "", "Debian's gcc 14 cannot be downloaded: {no} apt-get and no dpkg"),
        ("3.99", "14.2.0", "dpkg", "Debian's Python 3.99 cannot be downloaded: {no} apt-get"),
        ("3.99", "14.2.0", "apt-get dpkg", ""),
        ("3.98", "14.2.0", "", ""),
    ],
)
def test_a_machine_that_cannot_get_debians_packages_is_told_before_any_work(
    monkeypatch, lonely, answering, python, gcc, there, said
):
    monkeypatch.setattr(debian, "python_suites", lambda: {"3.99": "trixie"})
    answering(lonely / "python3.98", "3.98.1")
    put_compilers(lonely, f"echo {gcc}", f"echo {gcc}")
    for name in there.split():
        write_program(lonely / name, "exit 1")
    if not said:
        bootstrap.check(python)
        return
    for verb in (bootstrap.check, lambda python: bootstrap.ensure(python, pytest.fail)):
        with pytest.raises(UsageError) as raised:
            verb(python)
        assert said.format(no="this machine has no") in str(raised.value)
    # what is there already is used
    for debs in (debian.gcc_packages(gcc), debian.python_packages("3.99")):
        if debs:
            debs._folder().mkdir()
    if "dpkg" in there:
        bootstrap.check(python)


def test_the_gcc_that_is_downloaded_is_the_one_that_the_build_config_pins():
    pinned = yaml.safe_load(paths.BUILD_CONFIG.read_text())
    wanted = str(debian.read(debian.GCC)["gcc"])
    for compiler in ("c", "cxx"):
        assert {"if": "linux", "then": wanted} in pinned[f"{compiler}_compiler_version"]
    assert pinned["fortran_compiler_version"] == [wanted]


# --- Pythons


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def lonely(monkeypatch, tmp_path):
    """A machine on which only the running Python is."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "versions" / "3.11.7"))
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    return tmp_path


@pytest.fixture
def answering(tmp_path):
    """A function that writes a program which answers as the Python of a version does."""
    include = tmp_path / "include"
    include.mkdir()
    (include / "Python.h").touch()

    def write(path, version, include=include, soabi=None, conda=False):
        minor = "".join(version.split(".")[:2])
        answer = {
            "program": str(path),
            "version": version,
            "soabi": soabi or f"cpython-{minor}-x86_64-linux-gnu",
            "conda": conda,
            "include": str(include),
        }
        write_program(path, f"echo '{json.dumps(answer)}'")
        return path

    return write


def test_a_python_is_found_behind_a_program_that_answers_for_others(
    monkeypatch, tmp_path, answering
):
    """As pyenv's shims do: they are the first on PATH and refuse."""
    shim = tmp_path / "shims" / "python3.99"
    write_program(shim, "echo 'python3.99: command not found' >&2; exit 127")
    program = answering(tmp_path / "bin" / "python3.99", "3.99.1")
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{program.parent}{os.pathsep}/bin")
    found = machine.find_interpreter("3.99")
    assert (found.interpreter, found.python_version) == (str(program), "3.99.1")


@pytest.mark.parametrize("how", ["beside the running one", "behind pyenv's shims"])
def test_the_newest_python_of_a_version_manager_is_found(monkeypatch, tmp_path, answering, how):
    versions = tmp_path / "versions"
    for name in ("3.99.9", "3.99.10", "3.98.1"):
        minor = ".".join(name.split(".")[:2])
        answering(versions / name / "bin" / f"python{minor}", name)
    shims = tmp_path / "shims"
    write_program(shims / "python3.99", "exit 127")
    if how == "beside the running one":
        monkeypatch.setattr(sys, "base_prefix", str(versions / "3.11.7"))
        monkeypatch.setenv("PATH", "/bin")
    else:
        monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "elsewhere" / "usr"))
        monkeypatch.setenv("PATH", f"{shims}{os.pathsep}/bin")
    found = machine.find_interpreter("3.99")
    assert found.interpreter == str(versions / "3.99.10" / "bin" / "python3.99")


# a Python that says that its ABI is another one
IMPOSTOR = """\
#!{python}
import sys, sysconfig
sysconfig.get_config_vars()["SOABI"] = {soabi!r}
exec(sys.argv[2])
"""


def put_impostor(path, soabi):
    path.write_text(IMPOSTOR.format(python=sys.executable, soabi=soabi))
    path.chmod(0o755)


@pytest.mark.parametrize(
    "soabi",
    [
        "pypy399-pp73-x86_64-linux-gnu",
        "graalpy241-399-native-x86_64-linux",
        "cpython-399t-x86_64-linux-gnu",  # free-threaded
        "cpython-399d-x86_64-linux-gnu",  # a debug build
        "cpython-399-i386-linux-gnu",
        "cpython-399-x86_64-linux-musl",
        "cpython-398-x86_64-linux-gnu",
        None,
    ],
)
def test_a_python_of_another_abi_does_not_stand_in(lonely, soabi):
    program = lonely / "python3.99"
    put_impostor(program, "cpython-399-x86_64-linux-gnu")
    assert machine.find_interpreter("3.99").python_version == platform.python_version()
    put_impostor(program, soabi)
    with pytest.raises(UsageError, match="no python3.99 on PATH") as raised:
        machine.find_interpreter("3.99")
    assert "expected: a CPython with the ABI cpython-399-x86_64-linux-gnu" in str(raised.value)


def test_a_real_python_under_the_name_of_another_version_does_not_stand_in(lonely):
    (lonely / "python3.99").symlink_to(os.path.realpath(sys.executable))
    with pytest.raises(UsageError, match="no python3.99 on PATH"):
        machine.find_interpreter("3.99")


def test_what_else_a_version_manager_has_does_not_stand_in(lonely, answering):
    versions = lonely / "versions"
    soabis = {
        "graalpy-24.1.0": "graalpy241-399-native-x86_64-linux",
        "pypy3.99-7.3.19": "pypy399-pp73-x86_64-linux-gnu",
        "3.99.10t": "cpython-399t-x86_64-linux-gnu",
        "3.99.9": None,
        "3.99.1": None,
    }
    for name, soabi in soabis.items():
        answering(versions / name / "bin" / "python3.99", "3.99.9", soabi=soabi)
    # the copy of conda's lacks the libraries of other packages
    conda = versions / "miniconda3-3.99-24.11.1-0"
    answering(conda / "bin" / "python3.99", "3.99.9", conda=True)
    found = machine.find_interpreter("3.99")
    assert found.interpreter == str(versions / "3.99.9" / "bin" / "python3.99")
    # it is better than none
    for name in soabis:
        shutil.rmtree(versions / name)
    assert machine.find_interpreter("3.99").interpreter == str(conda / "bin" / "python3.99")


def put_unknown_program(path):
    path.write_bytes(b"\x00\x01 of another machine")
    path.chmod(0o755)


def put_talkative_program(path):
    write_program(path, "echo hello")


def put_listing_program(path):
    write_program(path, "echo '[1]'")


@pytest.mark.parametrize(
    "put", [put_unknown_program, Path.mkdir, put_talkative_program, put_listing_program]
)
def test_a_program_that_is_no_python_is_passed_over(lonely, monkeypatch, answering, put):
    put(lonely / "python3.99")
    program = answering(lonely / "later" / "python3.99", "3.99.1")
    monkeypatch.setenv("PATH", f"{lonely}{os.pathsep}{program.parent}{os.pathsep}/bin")
    assert machine.find_interpreter("3.99").interpreter == str(program)


def test_a_python_without_headers_gives_way_to_one_that_has_them(lonely, answering):
    answering(lonely / "python3.99", "3.99.9", include=lonely / "none")
    later = answering(lonely / "versions" / "3.99.1" / "bin" / "python3.99", "3.99.1")
    assert machine.find_interpreter("3.99").interpreter == str(later)


@pytest.mark.parametrize("python", debian.python_suites())
def test_a_python_without_headers_gives_way_to_debians(lonely, monkeypatch, answering, python):
    program = answering(lonely / f"python{python}", f"{python}.1", include=lonely / "none")
    monkeypatch.setattr(sys, "executable", str(program))
    assert machine.find_interpreter(python).python_suite == debian.python_suites()[python]


def test_the_running_python_is_the_base_of_its_environment():
    found = machine.find_interpreter(RUNNING)
    command = [found.interpreter, "-c", "import sys; print(sys.prefix == sys.base_prefix)"]
    assert subprocess.check_output(command, text=True) == "True\n"


def test_a_python_without_headers_is_refused_with_the_package_that_has_them(
    monkeypatch, tmp_path, answering
):
    program = answering(tmp_path / "bin" / "python3.99", "3.99.1", include=tmp_path / "none")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/bin")
    with pytest.raises(UsageError) as raised:
        machine.find_interpreter("3.99")
    assert f"missing on this machine: python3.99-dev (the headers of {program})" in str(
        raised.value
    )
    assert "remedy: on Debian: apt-get install python3.99-dev" in str(raised.value)


def test_a_python_that_is_nowhere_is_refused(lonely):
    with pytest.raises(UsageError, match="no python3.99 on PATH") as raised:
        machine.find_interpreter("3.99")
    assert "3.13 and 3.14 are taken from Debian" in str(raised.value)


@pytest.mark.parametrize(
    "python", [each for each in debian.python_suites() if each != RUNNING] or ["3.14"]
)
def test_a_python_that_the_machine_lacks_is_debians(lonely, python):
    found = machine.find_interpreter(python)
    assert (found.interpreter, found.python_suite) == ("", debian.python_suites()[python])
    assert found.abi == f"cp3{python.split('.')[1]}"
    write_program(lonely / "apt-get", "")
    write_program(lonely / "dpkg", "")
    with pytest.raises(FeedstockError) as raised:
        debian.python_packages(python).download(print)
    said = str(raised.value)
    assert f"Debian's Python {python} cannot be downloaded: no archive" in said
    assert f"remedy:   install python{python}, or name another --python" in said
    assert not list(lonely.glob("build/*"))


def test_debian_is_asked_for_pythons_of_the_build_config_alone():
    assert set(debian.python_suites()) <= set(variant.known_pythons())


@pytest.mark.parametrize(
    ("python", "build"), [("3.11", "cpython"), ("3.12", "cpython"), ("3.13", "cp313")]
)
def test_the_build_string_of_python_is_conda_forges(python, build):
    assert machine.Interpreter(python, "", "").build == build


# --- the channels of Pythons


def test_a_channel_shares_the_files_of_the_packages_and_nothing_that_is_written_to(tmp_path):
    shared = tmp_path / "bootstrap"
    (shared / "linux-64").mkdir(parents=True)
    names = ["linux-64/mkl-1-0.conda", "linux-64/repodata.json", bootstrap.MARKER]
    for name in names:
        (shared / name).write_text(name)
    bootstrap._link_packages(shared, tmp_path / "bootstrap-3.11")
    linked = {
        str(path.relative_to(tmp_path / "bootstrap-3.11")): path.stat().st_nlink
        for path in (tmp_path / "bootstrap-3.11").rglob("*")
        if path.is_file()
    }
    assert linked == {"linux-64/mkl-1-0.conda": 2, "linux-64/repodata.json": 1}


def test_the_packages_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    shared = tmp_path / "bootstrap"
    shared.mkdir()
    (shared / "mkl-1-0.conda").write_text("bytes")
    bootstrap._link_packages(shared, tmp_path / "bootstrap-3.11")
    assert (tmp_path / "bootstrap-3.11" / "mkl-1-0.conda").read_text() == "bytes"


CODE = [path.name for path in sorted(bootstrap.HERE.glob("*.py"))]


@pytest.mark.parametrize(
    "changed",
    [*(f"bootstrap/{name}" for name in CODE), "builder.py", "bootstrap/recipes/*/recipe.yaml"],
)
def test_a_channel_of_other_code_is_not_current(monkeypatch, tmp_path, changed):
    building = tmp_path / "building"
    shutil.copytree(bootstrap.HERE.parent, building)
    monkeypatch.setattr(bootstrap, "HERE", building / "bootstrap")
    facts = machine.Machine("2.36", "14.2.0")
    asked = machine.Interpreter("3.11", "/usr/bin/python3.11", "3.11.7")
    before = bootstrap._identity(facts, asked)
    assert bootstrap._identity(facts, asked) == before
    for path in building.glob(changed):
        path.write_text(f"{path.read_text()}# changed\n")
    after = bootstrap._identity(facts, asked)
    assert after["recipes"] != before["recipes"]
    assert after["python_recipes"] != before["python_recipes"]


def test_a_channel_for_another_oldest_python_is_not_current(monkeypatch):
    facts = machine.Machine("2.36", "14.2.0")
    before = bootstrap._shared_identity(facts)
    monkeypatch.setattr(variant, "known_pythons", lambda: ["3.99"])
    assert bootstrap._shared_identity(facts) != before


def test_two_processes_do_not_make_a_channel_at_once(monkeypatch, tmp_path):
    """Both would write into one folder. The second one waits and takes what the first one made."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(bootstrap, "_check_debian", lambda facts, interpreter: None)
    second_is_here, made = threading.Event(), []

    def say(line):
        assert line == f"waiting for another process that holds {tmp_path / 'bootstrap.lock'}"
        second_is_here.set()

    def make(channel, identity, *_):
        made.append(channel)
        if len(made) == 2:
            second_is_here.set()
        assert second_is_here.wait(300)
        channel.mkdir()
        (channel / bootstrap.MARKER).write_text(json.dumps(identity))

    monkeypatch.setattr(bootstrap, "_make", make)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(bootstrap.ensure, RUNNING, say) for _ in range(2)]
        channels = [each.result() for each in both]
    assert channels == [tmp_path / f"bootstrap-{RUNNING}"] * 2
    assert made == channels[:1]
    # what is finished is used without waiting
    with bootstrap._alone("bootstrap", pytest.fail):
        assert bootstrap.ensure(RUNNING, pytest.fail) == channels[0]


def test_two_processes_do_not_download_wheels_at_once(monkeypatch, tmp_path):
    """A verb that makes no channel downloads them, too."""
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(paths, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(bootstrap, "HERE", tmp_path)
    (tmp_path / "list.txt").write_text("./none.whl\n")
    waits, said = threading.Event(), []

    def say(line):
        said.append(line)
        if line.startswith("waiting"):
            waits.set()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with bootstrap._alone("wheels", pytest.fail):
            second = pool.submit(
                bootstrap.download_wheels, ["list.txt"], sys.executable, "3.11", say
            )
            assert waits.wait(300)
            assert not second.done()
        # pip's turn
        with pytest.raises(FeedstockError, match="pip could not download the wheels"):
            second.result()
    assert said[1:] == [f"waiting for another process that holds {tmp_path / 'wheels.lock'}"]
