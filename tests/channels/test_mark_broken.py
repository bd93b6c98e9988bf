"""Broken builds: marked in a channel's index so that solvers avoid them, and unmarked again."""

import contextlib
import functools
import http.server
import io
import json
import shutil
import tarfile
import threading

import pytest
import yaml
from rattler.exceptions import SolverError
from rattler.package_streaming import extract

from helpers import repack
from helpers.numpy_init import PATCHED, UNGATED
from helpers.shipped import RELEASE, solve
from numpy_feedstock import cli, files
from numpy_feedstock.channels import broken, channel, channel_folder, channel_patch, prefix
from numpy_feedstock.packages import patch, specs

MIRRORED, NEUTRAL, OURS = "mkl_py311hbad_0", "py311hneutral_0", "mkl_py311hours_100"
WITH_MKL = ["numpy=2.3.5", "blas=*=mkl"]


def line(build, **more):
    return {
        "package": f"linux-64/numpy-2.3.5-{build}.conda",
        "reason": "hangs",
        "added": "2026-11-25",
        **more,
    }


BOTH = [line(MIRRORED), line(NEUTRAL, only_with="mkl")]


def make(folder, name, version, build, *depends, number=0, constrains=(), init=None):
    """A small package in a channel's linux-64; its path."""
    unpacked = folder.parent / f"{name}-{version}-{build}"
    index = {
        "name": name,
        "version": version,
        "build": build,
        "build_number": number,
        "subdir": "linux-64",
    }
    repack.replace(
        unpacked / "info/index.json",
        json.dumps({**index, "depends": depends, "constrains": constrains}),
    )
    repack.replace(unpacked / "info/paths.json", json.dumps({"paths": [], "paths_version": 1}))
    if init:
        repack.replace(unpacked / "lib/python3.11/site-packages/numpy/__init__.py", init)
    path = folder / "linux-64" / f"{unpacked.name}.conda"
    path.parent.mkdir(parents=True, exist_ok=True)
    return repack.pack(unpacked, path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A channel with three builds of numpy.

    One is linked to MKL and broken. One is broken only where the BLAS is MKL. One is patched.
    """
    folder = tmp_path_factory.mktemp("made") / "channel"
    for blas in ("mkl", "openblas"):
        make(folder, blas, "1", "0")
        make(folder, "libblas", "3.11.0", f"0_{blas}", blas)
        make(folder, "libcblas", "3.11.0", f"0_{blas}", f"libblas 3.11.0 0_{blas}")
        make(folder, "blas", "2.311", blas, f"libblas 3.11.0 0_{blas}")
    make(folder, "numpy", "2.3.5", MIRRORED, "libblas * *mkl", init=UNGATED)
    make(
        folder,
        "numpy",
        "2.3.5",
        NEUTRAL,
        "libcblas >=3.9",
        constrains=["numpy-base <0a0"],
        init=UNGATED,
    )
    make(folder, "numpy", "2.3.5", OURS, "libblas * *mkl", number=100, init=PATCHED)
    make(folder, "numpy", "2.3.4", NEUTRAL, "libcblas >=3.9", init=UNGATED)
    with channel_folder.locked(folder):
        channel_folder.index(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """The channel, to be changed."""
    return shutil.copytree(made, tmp_path / "channel")


@pytest.fixture
def mark(folder, tmp_path, capsys):
    """Run the verb with these lines as its list; (exit code, standard output, standard error)."""

    def run(lines, *options, name="list.yaml"):
        text = (
            lines
            if isinstance(lines, str)
            else yaml.safe_dump(lines).replace("'2026-11-25'", "2026-11-25")
        )
        (tmp_path / name).write_text(text)
        code = cli.main(["mark-broken", str(folder), "--list", str(tmp_path / name), *options])
        return code, *capsys.readouterr()

    return run


def picked(folder, *specs):
    """The build of numpy that a solver picks."""
    return solve([channel.url(folder)], specs)["numpy"]


def exactly(build):
    return f"numpy==2.3.5={build}"


def state(folder):
    """{file: (bytes, time of the last change)} of a channel."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextlib.contextmanager
def served(folder):
    """The channel over HTTP: (its URL, the paths that were asked for)."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


def test_what_is_marked_is_not_picked_and_the_solver_says_why(folder, mark):
    assert picked(folder, exactly(MIRRORED)) == MIRRORED
    assert mark(BOTH)[0] == 0
    assert picked(folder, *WITH_MKL) == OURS
    with pytest.raises(SolverError, match="package_has_been_revoked"):
        picked(folder, exactly(MIRRORED))


def test_without_a_patched_build_the_solver_takes_another_release(folder, mark):
    (folder / f"linux-64/numpy-2.3.5-{OURS}.conda").unlink()
    with channel_folder.locked(folder):
        channel_folder.index(folder)
    assert picked(folder, "numpy", "blas=*=mkl") in (MIRRORED, NEUTRAL)
    mark(BOTH)
    (numpy,) = [
        record
        for record in prefix.solve([channel.url(folder)], ["numpy", "blas=*=mkl"])
        if record.name.normalized == "numpy"
    ]
    assert str(numpy.version) == "2.3.4"


def test_only_with_mkl_leaves_the_users_of_openblas_alone(folder, mark):
    assert picked(folder, exactly(NEUTRAL), "blas=*=mkl") == NEUTRAL
    mark(BOTH)
    with pytest.raises(SolverError, match="numpy 2.3.5 would constrain\n.*mkl <0a0"):
        picked(folder, exactly(NEUTRAL), "blas=*=mkl")
    assert picked(folder, exactly(NEUTRAL), "blas=*=openblas") == NEUTRAL
    assert "openblas" in solve([channel.url(folder)], [exactly(NEUTRAL)])


def test_over_http_by_the_shards_of_the_index_too(folder, mark):
    mark(BOTH)
    with (
        served(folder) as (url, asked),
        pytest.raises(SolverError, match="package_has_been_revoked"),
    ):
        solve([url], [exactly(MIRRORED)])
    assert any("/shards/" in path for path in asked)


def test_only_the_named_builds_change_and_the_report_says_how(folder, mark):
    before = channel_patch.read_entries(folder)
    code, out, _ = mark([*BOTH, line("py312hneutral_0")])
    after = channel_patch.read_entries(folder)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {each["package"] for each in BOTH} and before.keys() == after.keys()
    assert f"{BOTH[0]['package']}: hangs\n  depends    + package_has_been_revoked\n" in out
    assert f"{BOTH[1]['package']}: hangs\n  constrains + mkl <0a0\n" in out
    assert (
        "2 of 12 entries of the index changed; of the 3 builds in list.yaml the channel holds 2\n"
        in out
    )
    assert "not in the channel: linux-64/numpy-2.3.5-py312hneutral_0.conda" in out


def test_a_dry_run_says_what_a_run_does_and_changes_no_byte(folder, mark):
    for lines in (BOTH, BOTH[:1], []):
        before = state(folder)
        promised = json.loads(mark(lines, "--dry-run", "--json")[1])
        assert state(folder) == before
        done = json.loads(mark(lines, "--json")[1])
        assert promised.pop("dry_run") and not done.pop("dry_run")
        assert promised == done and done["changed"]


def test_a_line_removed_brings_the_build_back(folder, mark):
    before = channel_patch.read_entries(folder)
    mark(BOTH)
    _, out, _ = mark(BOTH[1:])
    assert (
        f"{BOTH[0]['package']}: not listed, so as the package itself says\n"
        "  depends    - package_has_been_revoked\n" in out
    )
    assert picked(folder, exactly(MIRRORED)) == MIRRORED
    mark([])
    assert channel_patch.read_entries(folder) == before
    (patch,) = json.loads((folder / "noarch/repodata.json").read_text())["packages.conda"].values()
    assert patch["sha256"] == files.sha256(folder / "noarch" / channel_folder.PATCH_PACKAGE)
    assert picked(folder, exactly(NEUTRAL), "blas=*=mkl") == NEUTRAL


@pytest.mark.parametrize("lines", [BOTH, []])
def test_a_second_run_has_nothing_to_do(folder, mark, lines):
    mark(lines)
    before = state(folder)
    assert mark(lines)[1].startswith("nothing to do; ")
    after = state(folder)
    assert {path.name for path in after if after[path] != before.get(path)} <= {".lock"}


def test_marks_stay_when_packages_are_added(folder, mark, tmp_path):
    mark(BOTH)
    new = make(tmp_path / "elsewhere", "numpy", "2.3.5", "mkl_py312hours_100", "libblas * *mkl")
    channel_folder.add(new, folder, "linux-64")
    assert picked(folder, exactly("mkl_py312hours_100"))
    with pytest.raises(SolverError):
        picked(folder, exactly(MIRRORED))
    mark([])
    channel_folder.add(
        make(tmp_path / "elsewhere", "numpy", "2.3.5", "mkl_py313hours_100", "libblas * *mkl"),
        folder,
        "linux-64",
    )
    assert picked(folder, exactly(MIRRORED)) == MIRRORED


def test_a_run_that_was_cut_short_is_finished_by_the_next(folder, mark):
    index = {path: path.read_bytes() for path in folder.glob("*/repodata*")}
    mark(BOTH)
    for path, content in index.items():
        path.write_bytes(content)
    assert picked(folder, exactly(MIRRORED)) == MIRRORED
    assert mark(BOTH)[1].startswith(BOTH[0]["package"])
    with pytest.raises(SolverError):
        picked(folder, exactly(MIRRORED))


def test_or_by_whoever_indexes_next(folder, mark):
    mark(BOTH)
    channel_patch.add(folder, {})
    with channel_folder.locked(folder):
        channel_folder.index(folder)
    assert picked(folder, exactly(MIRRORED)) == MIRRORED


def test_readers_meanwhile_see_a_whole_index(folder, mark):
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            for subdir in ("linux-64", "noarch"):
                seen.append(
                    len(
                        json.loads((folder / subdir / "repodata.json").read_text())[
                            "packages.conda"
                        ]
                    )
                )
            done.wait(0.001)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for lines in (BOTH, [], BOTH):
            assert mark(lines)[0] == 0
    finally:
        done.set()
        reader.join()
    # the patch package itself comes into noarch
    assert set(seen) == {12, 0, 1}


def test_another_file_of_that_name_is_refused_and_nothing_changes(folder, mark):
    before = state(folder)
    code, out, error = mark([line(MIRRORED), line(NEUTRAL, sha256="0" * 64)])
    assert (code, out) == (2, "")
    assert (
        f"another file than the list means: {folder}/linux-64/numpy-2.3.5-{NEUTRAL}.conda\n"
        f"  expected: sha256 {'0' * 64}\n" in error
    )
    after = state(folder)
    assert {path.name for path in after if after[path] != before.get(path)} <= {".lock"}


def test_suggested_are_the_unpatched_builds_that_are_not_listed(folder, mark):
    before = state(folder)
    code, out, error = mark([], "--list-unmarked")
    assert state(folder) == before
    assert [(each["package"], each.get("only_with")) for each in yaml.safe_load(out)] == [
        (BOTH[0]["package"], None),
        (BOTH[1]["package"], "mkl"),
    ]
    assert "2 unpatched builds of numpy are not in" in error
    assert mark(out)[1].startswith(BOTH[0]["package"])
    assert mark(out, "--list-unmarked")[1:] == ("\n", error.replace("2", "0", 1))


NAME = "package: linux-64/numpy-2.3.5-py311h2e04523_0.conda"
REST = "reason: hangs, added: 2026-11-25"
BAD_LISTS = {
    "- [": "the list is not YAML: {path}\n  found: while parsing",
    "- {a: \x01}": "the list is not YAML: {path}\n  found: unacceptable character",
    "# all gone": "not a list: {path}\n  expected: entries that begin with a dash, or [] for none",
    NAME: "not a list: {path}\n",
    "- numpy": "{path} line 1: not an entry\n"
    "  expected: package, reason, added, sha256, only_with\n"
    "  found:    numpy",
    f"- {{{NAME}, {REST}, because: of it}}": "{path} line 1: unknown key: because\n"
    "  known: package, reason",
    f"- {{{NAME}, {REST}, reason: twice}}": "{path} line 1: the key reason is there twice\n",
    f"- {{{NAME}, {REST}}}\n\n- {{{NAME}, {REST}}}": "{path} line 3: listed twice: "
    "linux-64/numpy-2.3.5-py311h2e04523_0.conda\n",
    f"- {{{REST}}}": "{path} line 1: package is missing\n"
    "  expected: subdir/name-version-build.conda or .tar.bz2\n",
    **{
        f"- {{package: '{name}', {REST}}}": "line 1: package is wrong\n"
        "  expected: subdir/name-version-build.conda or .tar.bz2\n"
        f"  found:    {name}\n"
        for name in (
            "linux-64/numpy-2.3.5-*.conda",
            "linux-64/numpy-2.3.5-py31[12]h2e04523_0.conda",
            "linux-64/numpy-2.3.5-py311h2e04523_0.zip",
            "numpy-2.3.5-py311h2e04523_0.conda",
            "linux-65/numpy-2.3.5-py311h2e04523_0.conda",
            "../linux-64/numpy-2.3.5-0.conda",
        )
    },
    f"# of conda-forge\n\n- {{{NAME}, added: 2026-11-25}}": "{path} line 3: reason is missing\n"
    "  expected: a text\n",
    f"- {{{NAME}, added: 2026-11-25, reason: ' '}}": "line 1: reason is wrong\n",
    f"- {{{NAME}, added: 2026-11-25, reason: 31284}}": "line 1: reason is wrong\n"
    "  expected: a text\n  found:    31284",
    f"- {{{NAME}, reason: hangs}}": "line 1: added is missing\n  expected: a date, 2026-11-25",
    f"- {{{NAME}, reason: hangs, added: yesterday}}": "line 1: added is wrong\n"
    "  expected: a date, 2026-11-25\n  found:    yesterday",
    f"- {{{NAME}, {REST}, sha256: 62953ae2}}": "line 1: sha256 is wrong\n"
    "  expected: 64 hexadecimal digits\n",
    f"- {{{NAME}, {REST}, sha256: }}": "line 1: sha256 is wrong\n",
    f"- {{{NAME}, {REST}, only_with: 'mkl >=2025'}}": "line 1: only_with is wrong\n"
    "  expected: the name of a package\n",
}


@pytest.mark.parametrize(("text", "message"), BAD_LISTS.items())
def test_a_list_that_is_not_right_is_refused_by_its_line(folder, mark, tmp_path, text, message):
    before = state(folder)
    code, out, error = mark(text)
    assert (code, out) == (2, "")
    assert message.format(path=tmp_path / "list.yaml") in error
    assert state(folder) == before


def test_a_list_that_is_not_there_and_a_folder_that_is_no_channel(tmp_path, capsys):
    assert cli.main(["mark-broken", str(tmp_path)]) == 2
    assert f"not the folder of an indexed channel: {tmp_path}\n" in capsys.readouterr().err
    (tmp_path / "noarch").mkdir()
    (tmp_path / "noarch/repodata.json").write_text("{}")
    assert cli.main(["mark-broken", str(tmp_path), "--list", str(tmp_path / "none.yaml")]) == 2
    assert (
        f"the list cannot be read: {tmp_path}/none.yaml\n  found: No such file or directory"
        in capsys.readouterr().err
    )


def test_the_shipped_list_names_releases_that_need_the_patch_and_each_exact_file():
    entries = broken.read()
    assert {entry.package.split("-")[2] for entry in entries} == patch.applies_to()
    assert all(entry.sha256 and entry.only_with == "mkl" for entry in entries)
    assert len({entry.sha256 for entry in entries}) == len(entries)


@pytest.mark.packages
def test_of_the_real_package_and_an_unpatched_one_ours_is_left(
    packages, channels, tmp_path, capsys
):
    """A mirrored package is made of ours: the patch is undone, the build number is 0."""
    folder, ours = tmp_path / "channel", specs.exactly(packages["mkl"])
    unpacked = tmp_path / "unpacked"
    extract(packages["mkl"], unpacked)
    prefix.undo_patch(unpacked)
    build = ours.split("=")[-1].replace("_100", "_0")
    repack.edit_json(
        unpacked / "info/index.json", lambda index: index.update(build=build, build_number=0)
    )
    (folder / "linux-64").mkdir(parents=True)
    mirrored = repack.pack(
        unpacked, folder / "linux-64" / packages["mkl"].name.replace("_100.", "_0.")
    )
    channel_folder.add(packages["mkl"], folder, "linux-64")
    sources = [channel.url(folder), channels[1]]
    exact = f"numpy=={RELEASE}={build}"
    assert solve(sources, [exact])["numpy"] == build

    assert cli.main(["mark-broken", str(folder), "--list-unmarked"]) == 0
    suggested = capsys.readouterr().out
    assert [each["package"] for each in yaml.safe_load(suggested)] == [f"linux-64/{mirrored.name}"]
    (tmp_path / "list.yaml").write_text(suggested)
    assert cli.main(["mark-broken", str(folder), "--list", str(tmp_path / "list.yaml")]) == 0
    assert solve(sources, [f"numpy={RELEASE}", "blas=*=mkl"])["numpy"] == ours.split("=")[-1]
    with pytest.raises(SolverError, match="package_has_been_revoked"):
        solve(sources, [exact])

    (tmp_path / "list.yaml").write_text("[]\n")
    assert cli.main(["mark-broken", str(folder), "--list", str(tmp_path / "list.yaml")]) == 0
    assert solve(sources, [exact])["numpy"] == build


# --- packages of the older form, other lists, and what other tools did


def make_tar_bz2(folder, build, *depends, init=None, about="{}"):
    """A numpy in linux-64 as a .tar.bz2; its path."""
    index = {"name": "numpy", "version": "2.3.5", "build": build, "build_number": 0}
    members = {
        "info/index.json": json.dumps({**index, "subdir": "linux-64", "depends": depends}),
        "info/paths.json": json.dumps({"paths": [], "paths_version": 1}),
        "info/files": "",
        "info/about.json": about,
        "lib/python3.11/site-packages/numpy/__init__.py": init or "",
    }
    path = folder / "linux-64" / f"numpy-2.3.5-{build}.tar.bz2"
    with tarfile.open(path, "w:bz2") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_a_tar_bz2_is_listed_and_marked_like_a_conda_file(folder, mark):
    path = make_tar_bz2(folder, "old_0", "libblas * *mkl", init=UNGATED)
    channel_folder.index(folder)
    listed = mark([], "--list-unmarked")[1]
    packages = [each["package"] for each in yaml.safe_load(listed)]
    assert packages == [BOTH[0]["package"], f"linux-64/{path.name}", BOTH[1]["package"]]
    assert picked(folder, exactly("old_0")) == "old_0"
    assert mark(listed)[0] == 0
    with pytest.raises(SolverError, match="package_has_been_revoked"):
        picked(folder, exactly("old_0"))
    mark([])
    assert picked(folder, exactly("old_0")) == "old_0"


@pytest.mark.parametrize("init", ["def (", "a\0b", "-" * 100_000 + "1", "link"])
def test_a_package_that_cannot_be_judged_is_named_and_hides_no_other(init, folder, mark):
    path = make_tar_bz2(folder, "odd_0", init=init)
    if init == "link":
        # a link out of the package, to a file of this machine
        with tarfile.open(path, "w:bz2") as tar:
            member = tarfile.TarInfo("lib/python3.11/site-packages/numpy/__init__.py")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(member)
    code, out, error = mark([], "--list-unmarked")
    assert code == 1
    assert f"not known whether it is unpatched: linux-64/{path.name}: " in error
    listed = [each["package"] for each in yaml.safe_load(out)]
    assert listed == [each["package"] for each in BOTH]


@pytest.mark.parametrize("original", ["../x", "a/b", "", ".", None, 5])
def test_a_twin_that_names_no_file_as_its_original_has_none(original, folder, mark):
    about = {"extra": {"hotfix": {"original": original, "original_sha256": "0"}}}
    make_tar_bz2(folder, "odd_50", about=json.dumps(about))
    assert mark([], "--list-healed") == (0, "\n", "")


def test_what_another_list_unmarks_is_named_before_it_changes(folder, mark, monkeypatch):
    mark(BOTH)
    code, out, error = mark(BOTH[1:], "--dry-run", name="other.yaml")
    named = f"not in the list, so no longer marked: {BOTH[0]['package']}\n"
    assert code == 0 and named in error

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(channel_patch, "add", stop)
    before = state(folder)
    code, out, error = mark(BOTH[1:], name="other.yaml")
    assert code == 1 and named in error
    after = state(folder)
    assert {path.name for path in after if after[path] != before.get(path)} <= {".lock"}


def spoil(folder, change):
    """Change the index of linux-64 as another tool does."""
    path = folder / "linux-64" / "repodata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


NUMPY = f"numpy-2.3.5-{NEUTRAL}.conda"
OTHER = "numpy-2.3.4-py311hneutral_0.conda"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["packages.conda"][NUMPY].update(depends=["python >=3.11"]),
        lambda content: content["packages.conda"][OTHER].update(constrains=["scipy <1"]),
        lambda content: content["packages.conda"][OTHER].update(track_features="blas"),
        lambda content: content["packages.conda"][OTHER]["depends"].append("patched"),
        lambda content: content.update(removed=[OTHER]),
    ],
)
def test_an_index_that_another_tool_patched_is_left_as_it_is(change, folder, mark):
    spoil(folder, change)
    before = state(folder)
    for options in ((), ("--dry-run",)):
        code, out, error = mark(BOTH, *options)
        assert (code, out) == (2, "")
        assert "another tool has patched the index" in error and "which would be lost" in error
    after = state(folder)
    assert {path.name for path in after if after[path] != before.get(path)} <= {".lock"}


@pytest.mark.parametrize("content", ["", " ", "null", "[]", "{", '"text"', '{"packages": null}'])
def test_an_index_that_is_not_whole_is_a_clear_error(content, folder, mark):
    (folder / "linux-64" / "repodata.json").write_text(content)
    before = state(folder)
    for options in ((), ("--dry-run",)):
        code, out, error = mark(BOTH, *options)
        assert (code, out) == (1, "")
        assert f"the index is not right: {folder}/linux-64/repodata.json\n  expected: " in error
    after = state(folder)
    assert {path.name for path in after if after[path] != before.get(path)} <= {".lock"}
