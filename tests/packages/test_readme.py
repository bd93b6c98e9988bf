"""The commands of the pages are run. Those of conda go to the solver and the renderer instead."""

import shlex
import shutil
import subprocess

import pytest
import yaml

from helpers import originals, pages, shipped
from helpers.shipped import solve
from numpy_feedstock import paths, variant
from numpy_feedstock.channels.prefix import activated
from numpy_feedstock.publishing import signing

pytestmark = pytest.mark.packages

COMMANDS = [
    command
    for page in (pages.README, pages.FLEET, pages.EVIDENCE, pages.MATRIX)
    for command in pages.commands(page)
]
# run by CI and by the fixtures, to the letter
RUN_BY_FIXTURES = ["./scripts/feedstock build", "./scripts/feedstock test"]
# by the tests of each verb, on less or in another form, because they take their time
MEASURED = [
    "./scripts/feedstock old-glibc",
    "./scripts/feedstock scan-wheels",
    "./scripts/feedstock hang-matrix --root build/root-3.11",
    "./scripts/feedstock compare-tests",
    "./scripts/feedstock build --numpy all --python all",
    "./scripts/feedstock matrix --controls --record",
    "./scripts/feedstock benchmark",
    "./scripts/feedstock verify --rebuild output/linux-64/numpy-2.3.5-mkl_*.conda",
    "python3 tests/benchmark_audit.py",
]
RUN_HERE = [
    "python tests/repro/repro.py",
    "./scripts/feedstock build --numpy 2.4.4 --blas mkl --dry-run",
    "./scripts/feedstock build --help",
    "./scripts/feedstock build --numpy all --python all --dry-run",
    "./scripts/feedstock matrix",
    "./scripts/feedstock hang-matrix --dry-run",
    "./scripts/feedstock verify",
    "./scripts/feedstock old-glibc --dry-run",
    "./scripts/feedstock publish --dry-run",
]
# one after the other, on a folder of the test's
CHANNEL = "/srv/conda/fixed"
MAKE_KEY = "./scripts/feedstock make-key"
ON_A_CHANNEL = [MAKE_KEY, *(command for command in COMMANDS if CHANNEL in command)]
# on a mirror of the test's, and on an environment of the test's
MIRROR, HEALED = "/srv/conda/mirror", "/srv/conda/healed"
HOTFIX = [command for command in COMMANDS if MIRROR in command]
HEAL = [command for command in COMMANDS if command.startswith("python3 scripts/heal_numpy.py")]
# on this machine's prefixes instead
AUDIT = "python3 scripts/audit_numpy.py /opt/conda/envs"
# by tests/fleet, to the letter but for the hosts
RUN_BY_FLEET = [command for command in COMMANDS if "scripts/fleet/" in command]
# conda is on no package index that CI reaches; what is done with conda-lock's file needs one
NEED_CONDA = [
    command
    for command in COMMANDS
    if command.startswith(("conda ", "pixi ", "conda-lock ")) or "conda-lock.yml" in command
]
PIN = "echo 'numpy 2.3.5 mkl*_1*' >> /opt/conda/envs/app/conda-meta/pinned"
UNPIN = "sed -i '/^numpy 2.3.5 mkl/d' /opt/conda/envs/app/conda-meta/pinned"
ONE_VARIANT = (
    "./scripts/feedstock variants --numpy 2.3.5 --python 3.11 --blas mkl-2026"
    " --build-config > one.yaml"
)


def test_every_command_of_the_pages_is_accounted_for():
    run = [*RUN_HERE, *ON_A_CHANNEL, *HOTFIX, *HEAL, AUDIT, PIN, UNPIN, ONE_VARIANT]
    elsewhere = [*RUN_BY_FIXTURES, *MEASURED, *RUN_BY_FLEET, *NEED_CONDA]
    assert set(COMMANDS) == {*run, *elsewhere}
    assert "./scripts/feedstock test" in (paths.ROOT / ".ci" / "run").read_text()


def on_this_machine(command):
    """The command as it is run on packages that the bootstrap channel's toolchain compiled."""
    publishes = "feedstock publish " in command
    return f"{command} --allow-bootstrap" if publishes else command


@pytest.fixture(scope="module")
def tree(tested_channel, tmp_path_factory):
    """A copy of the checkout whose output/ holds the packages under test and no others."""
    folder = tmp_path_factory.mktemp("checkout") / "tree"
    shipped.copy_tree(folder)
    shutil.copytree(tested_channel, folder / "output")
    return folder


def run_lines(lines, **replaced):
    """Run commands in the checkout, one after the other. Returns their exit codes.

    replaced : what stands in the place of a path of the pages, {path: Path}
    """
    codes = []
    for line in lines:
        for shown, path in replaced.items():
            line = line.replace(shown, shlex.quote(str(path)))
        done = subprocess.run(line, shell=True, cwd=paths.ROOT, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        codes.append(done.returncode)
    return codes


def test_a_mirror_is_healed(packages, tmp_path):
    originals.package(tmp_path / "mirror", originals.unpatched(packages["mkl"]))
    places = {MIRROR: tmp_path / "mirror", HEALED: tmp_path / "healed"}
    assert run_lines(HOTFIX, **places) == [0] * len(HOTFIX)
    assert len(list((tmp_path / "healed" / "linux-64").glob("*_50.conda"))) == 1


def test_an_environment_is_healed_and_healing_is_undone(control_copy):
    # the first line only looks: it found work to do
    assert run_lines(HEAL, **{"/opt/conda/envs": control_copy("mkl")}) == [1, 0, 0]


@pytest.mark.parametrize("command", RUN_HERE)
def test_it_runs(command, prefixes, tree):
    done = subprocess.run(
        on_this_machine(command),
        shell=True,
        cwd=tree,
        env=activated(prefixes["mkl"]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "verdict", "code"), [("prefixes", "FIXED", 0), ("controls", "AFFECTED", 1)]
)
def test_the_audit_tells_the_mkl_package_from_its_control(request, kind, verdict, code):
    prefix = request.getfixturevalue(kind)["mkl"]
    command = AUDIT.replace("/opt/conda/envs", shlex.quote(str(prefix)))
    done = subprocess.run(command, shell=True, cwd=paths.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith(verdict)]
    assert row[:2] == [verdict, "2.3.5"] and row[2].startswith("mkl_py") and row[4] == "mkl"


@pytest.mark.parametrize(
    "command", [command for command in NEED_CONDA if "numpy=" in command] + [PIN]
)
def test_the_specs_to_install_pick_our_mkl_build(command, channels):
    specs = [word for word in shlex.split(command) if "=" in word or word.startswith("numpy ")]
    assert solve(channels, specs)["numpy"].startswith("mkl_py")


def test_the_pin_is_taken_away_and_nothing_else(tmp_path):
    pinned = tmp_path / "pinned"
    pinned.write_text("python 3.11.*\n")
    for command in (PIN, UNPIN):
        line = command.replace("/opt/conda/envs/app/conda-meta/pinned", shlex.quote(str(pinned)))
        subprocess.run(line, shell=True, check=True)
    assert pinned.read_text() == "python 3.11.*\n"


def test_the_narrowed_conda_build_is_one_variant(tmp_path):
    subprocess.run(
        ONE_VARIANT.replace("one.yaml", str(tmp_path / "one.yaml")),
        shell=True,
        cwd=paths.ROOT,
        check=True,
    )
    (rendered,) = variant.render("linux-64", yaml.safe_load((tmp_path / "one.yaml").read_text()))
    assert rendered.recipe.to_dict()["build"]["string"].startswith("mkl_py311h")


def test_what_is_published_can_be_checked_and_marked(tree, tmp_path, monkeypatch):
    monkeypatch.delenv(signing.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for command in ON_A_CHANNEL:
        command = on_this_machine(command).replace(CHANNEL, str(tmp_path / "fixed"))
        done = subprocess.run(command, shell=True, cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not command.endswith("--dry-run") or "nothing to do" in done.stdout
