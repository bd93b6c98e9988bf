"""`feedstock lint` finds what is wrong, with each of its tools."""

import json

import pytest

BROKEN = {
    "ruff": ("scripts/numpy_feedstock/paths.py", "from pathlib", "import os\nfrom pathlib", "F401"),
    "ruff-format": ("scripts/numpy_feedstock/paths.py", '= BUILD / "logs"', '= BUILD/"logs"', ""),
    "mypy": ("scripts/numpy_feedstock/files.py", "(path: Path) -> str", "(path) -> str", "untyped"),
    "shellcheck": (".ci/run", 'cd "$(dirname', 'cd $(ls)\ncd "$(dirname', "SC2046"),
    "yamllint": (".gitlab-ci.yml", "stages:", "stages: []\nstages:", "duplication of key"),
    "schemas": (".gitlab/packages.yml", "when: manual", "when: asked", "asked"),
    "actionlint": (
        ".github/workflows/build.yml",
        "needs: variants",
        "needs: variant",
        'needs job "variant" which does not exist',
    ),
    "zizmor": (
        ".github/workflows/build.yml",
        "- run: ./scripts/feedstock lint",
        "- run: echo ${{ github.event.pull_request.title }}",
        "template-injection",
    ),
}


@pytest.mark.parametrize("tool", BROKEN)
def test_a_mistake_is_found_by_its_tool(clone, tool):
    path, old, new, said = BROKEN[tool]
    clone.replace(path, old, new)
    done = clone.run(f"./scripts/feedstock lint --only {tool}")
    assert done.returncode == 1, done.stderr
    assert path.rpartition("/")[2] in done.stdout and said in done.stdout


def test_a_function_that_is_too_long_is_found_unless_it_is_listed(clone):
    body = "".join(f"    value = {number}\n" for number in range(60))
    clone.file("scripts/long.py").write_text(f"def long():\n{body}")
    command = "./scripts/feedstock lint --only function-length --json"
    (result,) = json.loads(clone.run(command).stdout)
    assert "scripts/long.py:1: long has 61 lines of 60" in result["output"]

    with open(clone.file("pyproject.toml"), "a") as stream:
        stream.write('[tool.feedstock.long-functions]\n"scripts/long.py:long" = "a test"\n')
    (result,) = json.loads(clone.run(command).stdout)
    assert "scripts/long.py" not in result["output"]


def test_a_listed_function_that_is_not_long_is_found(clone):
    with open(clone.file("pyproject.toml"), "a") as stream:
        stream.write('[tool.feedstock.long-functions]\n"scripts/gone.py:gone" = "a test"\n')
    done = clone.run("./scripts/feedstock lint --only function-length")
    assert done.returncode == 1
    assert "scripts/gone.py:gone" in done.stdout


def test_without_files_to_look_at_it_is_wrong_use(clone):
    clone.file(".gitlab/packages.yml").unlink()
    done = clone.run("./scripts/feedstock lint --only schemas")
    assert done.returncode == 2
    assert "there are no CI files to look at" in done.stderr


@pytest.mark.parametrize("tool", ["ruff", "function-length"])
def test_a_folder_that_another_repository_ignores_is_not_called_clean(clone, tool):
    """As `git archive` leaves one: git names no file of it."""
    clone.run("rm -rf .git; git init -q ..; echo /clone/ > ../.gitignore")
    done = clone.run(f"./scripts/feedstock lint --only {tool}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there are no Python files to look at" in done.stderr
