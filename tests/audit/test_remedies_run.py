"""Each printed remedy is run by the tool that made the environment; the audit then says FIXED.

The numpys are small: one multiplies at import and needs MKL, the other is gated. Nothing imports
them. The tools are real, and take them from an index on this machine.
"""

import json
import subprocess
import sys

import pytest

from numpy_feedstock import paths

SCRIPT = paths.ROOT / "scripts" / "audit_numpy.py"
POETRY_PROJECT = """\
[project]
name = "demo"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["numpy (>=2.3.5)"]

[tool.poetry]
package-mode = false

[[tool.poetry.source]]
name = "local"
url = "{index}/"
priority = "primary"

[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
"""
UV_PROJECT = """\
[project]
name = "demo"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["numpy==2.3.5"]
"""


@pytest.fixture
def shell(variables, home):
    """Runs a line of a shell as the user; what it printed. Fails with its output."""

    def run(line):
        done = subprocess.run(
            ["bash", "-c", line], cwd=home, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def audit(home):
    """The only numpy in the home, as the audit's JSON has it."""

    def run():
        command = [sys.executable, SCRIPT, "--json", home]
        done = subprocess.run(command, capture_output=True, text=True)
        *rows, end = [json.loads(line) for line in done.stdout.splitlines()]
        (row,) = [row for row in rows if row["type"] == "numpy"]
        assert (end["left_out"], end["unreadable"]) == (0, 0)
        return row

    return run


@pytest.fixture
def check(shell, audit):
    """Makes an environment, runs the remedy that the audit prints, and audits again."""

    def run(make, installer):
        shell(make)
        row = audit()
        assert (row["verdict"], row["installer"]) == ("AFFECTED", installer)
        shell(row["remedies"][-1])
        after = audit()
        assert (after["verdict"], after["version"]) == ("FIXED", "2.4.5")
        assert (after["prefix"], after["installer"]) == (row["prefix"], installer)
        return row["remedies"][-1]

    return run


def test_a_venv_with_pip(check):
    check("python3 -m venv app && app/bin/pip install -q numpy==2.3.5", "pip")


def test_a_venv_without_pip(check):
    install = "python3 -m pip --python app/bin/python install -q numpy==2.3.5"
    check(f"python3 -m venv --without-pip app && {install}", "no pip")


def test_a_venv_of_uv_in_a_folder_whose_name_has_to_be_quoted(check):
    check('uv venv -q "it\'s mine" && uv pip install -q --python "it\'s mine" numpy==2.3.5', "uv")


def test_a_project_of_uv(check, home):
    (home / "project").mkdir()
    (home / "project" / "pyproject.toml").write_text(UV_PROJECT)
    assert check("cd project && uv sync -q", "uv").startswith("uv add --project ")


def test_a_tool_of_uv(check, variables, index):
    install = "uv tool install -q --with numpy==2.3.5 demoapp"
    assert check(install, "uv tool").startswith("uv tool install")


def test_an_application_of_pipx(check):
    check("pipx install -q demoapp && pipx runpip demoapp install -q numpy==2.3.5", "pipx")


@pytest.mark.parametrize("place", ["in the project", "in poetry's cache"])
def test_a_project_of_poetry(shell, audit, home, index, place):
    project = home / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(POETRY_PROJECT.format(index=index))
    inside = str(place == "in the project").lower()
    shell(f"cd project && poetry config --local virtualenvs.in-project {inside}")
    shell("cd project && poetry add -q numpy==2.3.5")
    row = audit()
    assert (row["verdict"], row["installer"]) == ("AFFECTED", "poetry")
    # where the project is, an environment in poetry's cache does not tell
    shell(row["remedies"][-1].replace("PROJECT", "project"))
    after = audit()
    assert (after["verdict"], after["prefix"]) == ("FIXED", row["prefix"])


def test_a_folder_that_pip_filled(check):
    check("python3 -m pip install -q --target vendored numpy==2.3.5", "folder")


def test_the_packages_of_a_user(check, variables):
    variables["PIP_BREAK_SYSTEM_PACKAGES"] = "1"
    check("python3 -m pip install -q --user numpy==2.3.5", "pip user")
