"""The canonical form removes what differs between two builds, and the package still works."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from rattler.package_streaming import extract

from numpy_feedstock import child, paths
from numpy_feedstock.building import builder
from numpy_feedstock.channels import channel, channel_folder, prefix
from numpy_feedstock.errors import FeedstockError, UsageError
from numpy_feedstock.packages import canonical

SECONDS = 1_700_000_000
SCRIPT = [
    "mkdir -p $PREFIX/bin $PREFIX/lib/site-packages/told-1.dist-info",
    'printf "#!$PREFIX/bin/python\\n" > $PREFIX/bin/tell',
    "chmod +x $PREFIX/bin/tell",
    "ln -s tell $PREFIX/bin/say",
    'printf "\\0$PREFIX/lib\\0end" > $PREFIX/lib/binary',
    "sum=$(sha256sum $PREFIX/bin/tell | cut -d' ' -f1)",
    'echo "../../bin/tell,sha256=$sum,7" > $PREFIX/lib/site-packages/told-1.dist-info/RECORD',
]


def build(folder, script=SCRIPT, **recipe):
    """A small real package, as the builder leaves it; its path."""
    recipe = {"package": {"name": "told", "version": "1"}, "build": {"script": script}, **recipe}
    child.run(builder.build_recipe, recipe, str(folder), {}, log=folder.with_suffix(".log"))
    (made,) = folder.glob(f"*/told-{recipe['package']['version']}-*.conda")
    return made


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The package, built in two folders whose paths are not of one length."""
    folder = tmp_path_factory.mktemp("raw")
    return [build(folder / name) for name in ("here", "elsewhere")]


@pytest.fixture
def packages(raw, tmp_path):
    """Copies of both in the canonical form."""
    copies = []
    for package in raw:
        copies.append(tmp_path / package.parents[1].name / package.parent.name / package.name)
        copies[-1].parent.mkdir(parents=True)
        shutil.copy(package, copies[-1])
        canonical.rewrite(copies[-1], SECONDS)
    return copies


def digests(packages):
    return {hashlib.sha256(package.read_bytes()).hexdigest() for package in packages}


def test_two_builds_are_the_same_bytes(raw, packages):
    assert len(digests(raw)) == 2
    assert len(digests(packages)) == 1


def test_another_date_is_another_package(raw, packages):
    shutil.copy(raw[0], packages[0])
    canonical.rewrite(packages[0], SECONDS + 1)
    assert len(digests(packages)) == 2


def test_an_installer_still_puts_the_prefix_in_its_place(packages, tmp_path):
    """It also checks the sums of paths.json."""
    (tmp_path / "channel").mkdir()
    channel_folder.add(packages[0], tmp_path / "channel", packages[0].parent.name)
    prefix.install([channel.url(tmp_path / "channel")], ["told"], tmp_path / "installed")
    assert (tmp_path / "installed/bin/tell").read_text() == f"#!{tmp_path}/installed/bin/python\n"
    assert os.access(tmp_path / "installed/bin/tell", os.X_OK)
    assert str((tmp_path / "installed/bin/say").readlink()) == "tell"
    assert (
        (tmp_path / "installed/lib/binary")
        .read_bytes()
        .startswith(f"\0{tmp_path}/installed/lib\0".encode())
    )


def test_every_list_of_files_is_right(packages, tmp_path):
    extract(packages[0], tmp_path / "unpacked")
    entries = json.loads((tmp_path / "unpacked/info/paths.json").read_text())["paths"]
    assert {entry["_path"] for entry in entries} >= {"bin/tell", "bin/say", "lib/binary"}
    for entry in entries:
        data = (tmp_path / "unpacked" / entry["_path"]).read_bytes()
        assert (entry["sha256"], entry["size_in_bytes"]) == (
            hashlib.sha256(data).hexdigest(),
            len(data),
        ), entry
        assert entry.get("prefix_placeholder") in (None, canonical.PREFIX)
    size = (tmp_path / "unpacked/bin/tell").stat().st_size
    (record,) = (tmp_path / "unpacked").rglob("RECORD")
    name, digest, recorded = record.read_text().strip().split(",")
    assert (
        digest
        == "sha256="
        + subprocess.check_output(
            "openssl dgst -sha256 -binary bin/tell | base64 | tr +/ -_ | tr -d =",
            shell=True,
            text=True,
            cwd=tmp_path / "unpacked",
        ).strip()
    )
    assert int(recorded) == size


def test_dependencies_are_in_order(tmp_path):
    """Those that come from run_exports are not, as the builder writes them."""
    package = build(tmp_path / "needs", requirements={"run": ["zlib", "bzip2"]})
    canonical.rewrite(package, SECONDS)
    extract(package, tmp_path / "unpacked")
    assert json.loads((tmp_path / "unpacked/info/index.json").read_text())["depends"] == [
        "bzip2",
        "zlib",
    ]
    rendered = yaml.safe_load((tmp_path / "unpacked" / canonical.RENDERED).read_text())
    assert rendered["finalized_dependencies"]["run"]["depends"] == [
        {"source": "bzip2"},
        {"source": "zlib"},
    ]


def test_bytecode_that_python_wrote_for_an_older_package_is_not_run(tmp_path):
    """Installers leave it behind, and compare nothing; the two texts have one size."""
    folder, environment = tmp_path / "channel", tmp_path / "environment"
    folder.mkdir()
    for version in ("1", "2"):
        script = ["mkdir -p $PREFIX/lib", f"echo number = {version} > $PREFIX/lib/told_number.py"]
        made = build(
            tmp_path / f"made-{version}", script, package={"name": "told", "version": version}
        )
        canonical.rewrite(made, SECONDS)
        channel_folder.add(made, folder, made.parent.name)
        prefix.install([channel.url(folder)], [f"told={version}"], environment)
        assert imported_number(environment) == version
        assert list(environment.rglob("told_number.*.pyc"))


def imported_number(environment):
    """What a Python that writes bytecode finds in the package's module."""
    program = "import told_number; print(told_number.number)"
    variables = {"PYTHONPATH": str(environment / "lib"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-c", program]
    return subprocess.check_output(command, env=variables, text=True).strip()


def test_the_files_of_each_package_have_one_date_and_those_of_two_packages_two():
    stems = [f"numpy-2.4.{patch}-mkl_py311h0123456_100" for patch in range(5)]
    dates = [canonical.date_of_files(stem, SECONDS) for stem in stems]
    assert len(set(dates)) == len(stems)
    assert dates == [canonical.date_of_files(stem, SECONDS) for stem in stems]
    half_a_year = 200 * 24 * 3600
    assert all(SECONDS - half_a_year < date <= SECONDS for date in dates)
    assert canonical.date_of_files(stems[0], 0) == 0


def test_nothing_tells_of_the_machine(raw, packages, tmp_path):
    extract(packages[0], tmp_path / "unpacked")
    for name, member in canonical.members(tmp_path / "unpacked"):
        assert str(raw[0].parents[2]).encode() not in member.data, name
        assert not re.search(rb"__linux=|__glibc=|__archspec=", member.data), name


def test_the_path_of_the_build_folder_in_a_file_is_refused(tmp_path):
    package = build(tmp_path / "leaks", ["mkdir -p $PREFIX", "echo $SRC_DIR > $PREFIX/leak"])
    before = package.read_bytes()
    with pytest.raises(
        FeedstockError,
        match=r"is left in told-1-\w+\.conda\n  found: /.*rattler-build_told_\d+ in leak$",
    ):
        canonical.rewrite(package, SECONDS)
    assert package.read_bytes() == before
    assert [path.name for path in package.parent.glob("*.partial")] == []


def test_the_date_is_the_environments_or_that_of_the_recipes_newest_commit(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12345")
    assert canonical.source_date() == 12345
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(
        UsageError,
        match="SOURCE_DATE_EPOCH is not a date\n"
        "  expected: seconds since 1970\n"
        "  found:    yesterday",
    ):
        canonical.source_date()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    asked = []
    monkeypatch.setattr(canonical.git, "last_change", lambda files: asked.append(files) or 54321)
    assert canonical.source_date() == 54321
    assert asked == [[paths.ROOT / "recipe", paths.ROOT / "conda_build_config.yaml"]]


def test_without_git_the_date_is_that_of_the_newest_file(monkeypatch, tmp_path):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(canonical.paths, "ROOT", tmp_path)
    monkeypatch.setattr(canonical.paths, "RECIPE", tmp_path / "recipe/recipe.yaml")
    monkeypatch.setattr(canonical.paths, "BUILD_CONFIG", tmp_path / "config.yaml")
    (tmp_path / "recipe").mkdir()
    for name, seconds in (
        ("recipe/recipe.yaml", 100),
        ("recipe/build.sh", 300),
        ("config.yaml", 200),
    ):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    assert canonical.source_date() == 300


def test_where_the_source_came_from_leaves_no_trace(tmp_path):
    """The builder's copy of the archive, or a mirror: the package names upstream's."""
    source = tmp_path / "source.txt"
    source.write_text("the source")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    upstream = "https://upstream.example/source.txt"
    made = build(
        tmp_path / "channel",
        ["cp source.txt $PREFIX/told.txt"],
        context={"upstream": upstream},
        source=[{"url": source.as_uri(), "sha256": digest}],
    )
    canonical.rewrite(made, SECONDS)
    extract(made, tmp_path / "unpacked")
    record = (tmp_path / "unpacked" / canonical.RENDERED).read_text()
    rendered = yaml.safe_load(record)
    sources = [*rendered["recipe"]["source"], *rendered["finalized_sources"]]
    assert {each["url"] for each in sources} == {upstream}
    assert {each["sha256"] for each in sources} == {digest}
    assert str(tmp_path) not in record
