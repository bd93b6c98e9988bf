"""Where the audit looks, and that it says where it did not."""

import os
import shutil
import struct

import pytest

from helpers import trees
from helpers.numpy_init import PATCHED
from helpers.trees import SITE_PACKAGES
from helpers.users import UNPRIVILEGED


def prefixes(numpys):
    return sorted(row["prefix"] for row in numpys)


# --- links


@pytest.mark.parametrize("link", ["conda/envs", "home/ann", "home/ann/.pixi", "srv/a/b/c"])
def test_a_link_to_a_folder_of_environments_is_followed(report, conda, tmp_path, link):
    conda(tmp_path / "scratch" / "envs" / "app")
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to(tmp_path / "scratch" / "envs")
    numpys, troubles, end = report(tmp_path / link.split("/")[0])
    assert (prefixes(numpys), troubles) == ([str(tmp_path / link / "app")], [])
    assert (end["exit"], end["left_out"]) == (1, 0)


def test_a_chain_of_links_and_a_relative_one_are_followed(rows, conda, tmp_path):
    conda(tmp_path / "a" / "app")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").symlink_to("../a")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "d").symlink_to("../b/c")
    numpys, _ = rows(tmp_path / "root")
    assert prefixes(numpys) == [str(tmp_path / "root" / "d" / "app")]


def test_an_environment_is_named_by_its_own_path_when_a_link_leads_there_too(rows, conda, tmp_path):
    (tmp_path / "a").symlink_to("z/app")
    conda(tmp_path / "z" / "app")
    numpys, troubles = rows(tmp_path)
    assert (prefixes(numpys), troubles) == ([str(tmp_path / "z" / "app")], [])


@pytest.mark.parametrize("target", ["{0}", "{0}/..", "/", "/proc/self/root"])
def test_a_link_out_of_the_given_folder_to_one_above_it_is_left_out_and_said(
    report, conda, tmp_path, target
):
    conda(tmp_path / "outside")
    conda(tmp_path / "root" / "app", source=PATCHED)
    (tmp_path / "root" / "up").symlink_to(target.format(tmp_path))
    numpys, (trouble,), end = report(tmp_path / "root")
    assert prefixes(numpys) == [str(tmp_path / "root" / "app")]
    assert (trouble["kind"], trouble["path"]) == ("left out", str(tmp_path / "root" / "up"))
    assert (end["left_out"], end["exit"]) == (1, 2)


def test_a_link_into_the_kernels_files_and_a_dangling_one_are_nothing(report, tmp_path):
    (tmp_path / "kernel").symlink_to("/sys")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "kernel2").symlink_to("/proc")
    numpys, troubles, end = report(tmp_path)
    assert (numpys, troubles, end["exit"], end["folders"]) == ([], [], 0, 1)


@pytest.mark.parametrize("link", ["lib", "lib/python3.11", SITE_PACKAGES, SITE_PACKAGES + "/numpy"])
def test_a_prefix_with_a_link_inside_has_its_row(rows, conda, tmp_path, link):
    prefix = conda(tmp_path / "root" / "app")
    shutil.move(prefix / link, tmp_path / "elsewhere")
    (prefix / link).symlink_to(tmp_path / "elsewhere")
    (row,), troubles = rows(tmp_path / "root")
    assert (row["verdict"], row["prefix"], row["build"], troubles) == (
        "AFFECTED",
        str(prefix),
        trees.CONDA_BUILD,
        [],
    )


def test_two_prefixes_that_share_a_library_by_a_link_have_a_row_each(rows, conda, tmp_path):
    first = conda(tmp_path / "a")
    second = conda(tmp_path / "b")
    shutil.rmtree(second / "lib")
    (second / "lib").symlink_to("../a/lib")
    numpys, _ = rows(tmp_path)
    assert prefixes(numpys) == [str(first), str(second)]


# --- caches, snapshots and other environments, judged by content


@pytest.mark.parametrize(
    "folder",
    [".cache/pypoetry/virtualenvs", ".cache/uv/environments-v2", "pkgs", ".git", "node_modules"],
)
def test_an_environment_in_a_folder_with_a_caches_name_is_found(rows, conda, tmp_path, folder):
    conda(tmp_path / "home" / folder / "app")
    numpys, troubles = rows(tmp_path)
    assert (prefixes(numpys), troubles) == ([str(tmp_path / "home" / folder / "app")], [])


def test_unpacked_packages_of_conda_and_uv_are_caches_and_counted(report, numpy, tmp_path):
    trees.put_cached_package(tmp_path / "any name", numpy)
    uv = tmp_path / "uv"
    numpy(uv / "archive-v0" / "abc")
    (uv / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    numpys, troubles, end = report(tmp_path)
    assert (numpys, troubles, end["caches"], end["exit"]) == ([], [], 2, 0)


def test_an_environment_that_looks_like_an_unpacked_package_is_found(rows, conda, tmp_path):
    prefix = conda(tmp_path / "app")
    (prefix / "info").mkdir()
    index = '{"name": "numpy", "version": "2.3.5", "build": "py311h1234567_0"}'
    (prefix / "info" / "index.json").write_text(index)
    assert prefixes(rows(tmp_path)[0]) == [str(prefix)]


def test_an_environment_that_uv_keeps_in_its_cache_is_found(rows, numpy, tmp_path):
    uv = tmp_path / "uv"
    trees.make_venv(uv / "archive-v0" / "abc", numpy)
    (uv / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    numpys, _ = rows(tmp_path)
    assert prefixes(numpys) == [str(uv / "archive-v0" / "abc")]


@pytest.mark.parametrize("name", [".snapshot", ".snapshots", ".zfs"])
def test_snapshots_are_left_out_and_said_and_looked_at_when_they_are_given(
    report, conda, tmp_path, name
):
    conda(tmp_path / "home" / name / "hourly" / "app")
    numpys, (trouble,), end = report(tmp_path)
    assert (numpys, trouble["kind"], end["left_out"], end["exit"]) == ([], "left out", 1, 2)
    assert prefixes(report(tmp_path / "home" / name)[0]) != []
    numpys, troubles, end = report("--exclude", name, tmp_path)
    assert (numpys, troubles, end["excluded"], end["exit"]) == ([], [], 1, 0)


@pytest.mark.parametrize("pattern", ["app", "{0}/home/app", "{0}/*/app"])
def test_what_is_excluded_is_counted_and_leaves_the_rest(report, conda, tmp_path, pattern):
    conda(tmp_path / "home" / "app")
    conda(tmp_path / "home" / "app2")
    numpys, _, end = report("--exclude", pattern.format(tmp_path), tmp_path)
    assert (prefixes(numpys), end["excluded"]) == ([str(tmp_path / "home" / "app2")], 1)


@pytest.mark.parametrize("marker", ["pyvenv.cfg", "conda-meta"])
@pytest.mark.parametrize(
    "below",
    ["miniconda3", "project/.venv", "share/tool/venv", "lib/tool/env", "envs/a/envs/b", "bin/x"],
)
def test_environments_inside_environments_are_found(rows, conda, tmp_path, marker, below):
    (tmp_path / "home" / marker).mkdir(parents=True)
    conda(tmp_path / "home" / below)
    numpys, _ = rows(tmp_path)
    assert prefixes(numpys) == [str(tmp_path / "home" / below)]


def test_conda_in_usr_local_hides_no_dist_packages(rows, conda, numpy, tmp_path):
    local = conda(tmp_path / "usr" / "local", source=PATCHED)
    numpy(local / "lib" / "python3.12" / "dist-packages")
    numpys, _ = rows(tmp_path)
    assert [(row["verdict"], row["build"]) for row in numpys] == [
        ("FIXED", trees.CONDA_BUILD),
        ("AFFECTED", ""),
    ]


def test_what_a_venv_takes_from_its_base_is_found(rows, numpy, tmp_path):
    numpy(tmp_path / "base" / SITE_PACKAGES)
    venv = tmp_path / "root" / "venv"
    (venv / SITE_PACKAGES).mkdir(parents=True)
    settings = f"home = {tmp_path}/base/bin\ninclude-system-site-packages = {{}}\n"
    (venv / "pyvenv.cfg").write_text(settings.format("false"))
    assert rows(tmp_path / "root")[0] == []
    for yes in ("true", "True", "TRUE"):
        (venv / "pyvenv.cfg").write_text(settings.format(yes))
        assert prefixes(rows(tmp_path / "root")[0]) == [str(tmp_path / "base")]


def test_a_numpy_that_a_pth_file_names_is_found(rows, numpy, tmp_path):
    numpy(tmp_path / "shared")
    site = tmp_path / "root" / SITE_PACKAGES
    site.mkdir(parents=True)
    (site / "shared.pth").write_text(f"import sys\n# a comment\n{tmp_path}/shared\n")
    assert prefixes(rows(tmp_path / "root")[0]) == [str(tmp_path / "shared")]


# --- installs that cannot be judged


@pytest.mark.parametrize(
    "names",
    [
        ["_numpy_editable_loader.py", "numpy-2.3.5.dist-info/"],
        ["numpy-editable.pth"],
        ["__editable__.numpy-2.3.5.pth"],
        ["__editable___numpy_2_3_5_finder.py"],
        ["numpy.egg-link"],
        ["numpy-2.3.5-py3.11-linux-x86_64.egg"],
        ["numpy-2.3.5-py3.11-linux-x86_64.egg/numpy/"],
        ["numpy-2.3.5.dist-info/"],
        ["numpy-2.3.5.egg-info/"],
    ],
)
@pytest.mark.parametrize("marker", ["pyvenv.cfg", "conda-meta", "no marker"])
def test_an_install_whose_files_are_elsewhere_is_unknown(report, tmp_path, names, marker):
    site = tmp_path / "e" / SITE_PACKAGES
    site.mkdir(parents=True)
    (tmp_path / "e" / marker).mkdir()
    for name in names:
        if name.endswith("/"):
            (site / name).mkdir(parents=True)
        else:
            (site / name).touch()
    (row,), _, end = report(tmp_path)
    assert (row["verdict"], end["exit"]) == ("UNKNOWN", 2)
    assert names[0].split("/")[0] in row["reason"]


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("_internal/numpy/_core", "_multiarray_umath.cpython-311-x86_64-linux-gnu.so"),
        ("numpy/core", "_multiarray_umath.cpython-311-x86_64-linux-gnu.so"),
        ("lib/numpy/_core", "_multiarray_umath.cpython-311-x86_64-linux-gnu.so"),
        ("numpy/_core", "_multiarray_umath.so"),
        ("numpy/_core", "_multiarray_umath.cp311-win_amd64.pyd"),
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_frozen_program_is_unknown(report, tmp_path, extension, folder, file, compiled):
    core = tmp_path / "program" / folder
    core.mkdir(parents=True)
    shutil.copy(extension(trees.MKL), core / file)
    if compiled:
        (core.parent / "__init__.pyc").touch()
    (row,), _, end = report(tmp_path)
    assert (row["verdict"], end["exit"]) == ("UNKNOWN", 2)
    assert "frozen" in row["reason"]


@pytest.mark.parametrize(("inside", "found"), [("numpy/_core/_multiarray_umath.so", 1), ("re", 0)])
def test_a_program_that_is_one_file_is_unknown_if_it_has_a_numpy(report, tmp_path, inside, found):
    """As PyInstaller ends its archive: names, then the cookie that says where they are."""
    names = b"\0" * 18 + inside.encode() + b"\0"
    archive = b"\x7fELF" + bytes(1 << 20) + names
    cookie = b"MEI\014\013\012\013\016" + struct.pack(
        "!IIII64s", len(archive) + 88, len(archive) - len(names), len(names), 311, b"libpython"
    )
    (tmp_path / "program").write_bytes(b"loader" + archive + cookie)
    (tmp_path / "program").chmod(0o755)
    numpys, troubles, end = report(tmp_path)
    assert [row["verdict"] for row in numpys] == ["UNKNOWN"] * found
    assert (troubles, end["exit"]) == ([], 2 * found)


@pytest.mark.parametrize(
    ("site", "name", "system"),
    [
        ("Lib/site-packages", "_multiarray_umath.cp311-win_amd64.pyd", "Windows"),
        ("lib/python3.11/site-packages", "_multiarray_umath.cpython-311-darwin.so", "macOS"),
        (
            "Versions/3.11/lib/python3.11/site-packages",
            "_multiarray_umath.cpython-311-darwin.so",
            "macOS",
        ),
    ],
)
def test_another_systems_numpy_is_unknown(report, numpy, tmp_path, site, name, system):
    numpy(tmp_path / "py" / site)
    core = tmp_path / "py" / site / "numpy" / "_core"
    (made,) = core.iterdir()
    made.rename(core / name)
    (core / name).write_bytes(b"MZ")
    (row,), troubles, end = report(tmp_path)
    assert (row["verdict"], end["exit"], troubles) == ("UNKNOWN", 2, [])
    assert system in row["reason"]


# --- what cannot be read


@pytest.mark.parametrize("pattern", ["{0}", "{0}/home", "{0}/home/*/.conda", "{0}/home/ann/.conda"])
def test_a_home_that_may_not_be_read_is_never_called_done(report, conda, tmp_path, pattern):
    conda(tmp_path / "home" / "ann" / ".conda" / "envs" / "app")
    (tmp_path / "home" / "ann").chmod(0)
    try:
        numpys, troubles, end = report(pattern.format(tmp_path), wrapper=UNPRIVILEGED)
    finally:
        (tmp_path / "home" / "ann").chmod(0o700)
    assert numpys == []
    assert "unreadable" in [trouble["kind"] for trouble in troubles]
    assert (end["unreadable"] > 0, end["exit"]) == (True, 2)


def test_the_last_line_says_what_was_looked_at(audit, conda, tmp_path):
    conda(tmp_path / "app", source=PATCHED)
    (tmp_path / ".snapshots").mkdir()
    code, printed, _ = audit(tmp_path)
    *_, last = printed.splitlines()
    assert code == 2
    assert "1 prefixes, 1 numpys. Left out: 1. Unreadable: 0." in last


def test_each_line_of_json_says_its_format_its_date_and_its_host(report, conda, tmp_path):
    conda(tmp_path / "app")
    (tmp_path / ".zfs").mkdir()
    (row,), (trouble,), end = report(tmp_path)
    for line in (row, trouble, end):
        assert line["schema"] == 1
        assert line["host"] == os.uname().nodename
        assert line["date"] == end["date"] and line["date"].endswith("Z")
    assert row["owner"] == "root" if os.geteuid() == 0 else row["owner"]
    assert end["verdicts"] == {"AFFECTED": 1, "LATENT": 0, "FIXED": 0, "UNKNOWN": 0}


# --- the quick mode


def test_quick_finds_the_known_layout_and_says_what_it_left_out(report, conda, numpy, tmp_path):
    base = conda(tmp_path / "conda")
    conda(base / "envs" / "a")
    (base / "envs" / "b").symlink_to(conda(tmp_path / "scratch" / "b"))
    numpys, _, end = report("--quick", base)
    assert prefixes(numpys) == [str(base), str(base / "envs" / "a"), str(base / "envs" / "b")]
    assert (end["quick"], end["left_out"]) == (True, 0)
    numpys, troubles, end = report("--quick", tmp_path)
    assert len(numpys) == 3
    assert ([trouble["path"] for trouble in troubles], end["left_out"]) == (
        [str(tmp_path / "scratch")],
        1,
    )


def test_quick_agrees_with_the_full_audit(report, conda, tmp_path):
    conda(tmp_path / "a")
    conda(tmp_path / "b", "0_openblas", needs=trees.INTERFACE)
    conda(tmp_path / "c", source=PATCHED)
    quick, full = report("--quick", tmp_path)[0], report(tmp_path)[0]
    for row in quick + full:
        del row["date"], row["activation"]
    assert quick == full
