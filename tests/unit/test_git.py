"""What git tells about a checkout: of this repository alone, and only what it knows."""

import os
import subprocess

import pytest

from helpers.clone import IDENTITY
from numpy_feedstock import git, paths
from numpy_feedstock.errors import UsageError

SECONDS = 1_700_000_000


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository: the first commit has the recipe, each later one has another file."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "repository"
    run(tmp_path, "init", "--quiet", folder)
    for number, name in enumerate(["recipe", "README", "CHANGELOG"]):
        (folder / name).touch()
        run(folder, "add", name)
        date = f"{SECONDS + number} +0000"
        run(folder, "commit", "--quiet", "--message", name, f"--date={date}")
    monkeypatch.setattr(paths, "ROOT", folder)
    return folder


def run(folder, *args):
    command = ["git", *args]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def clone(repository, depth, monkeypatch):
    """Make the checkout a shallow clone."""
    folder = repository.with_name(f"depth-{depth}")
    url = repository.as_uri()
    run(repository.parent, "clone", "--quiet", f"--depth={depth}", url, folder)
    monkeypatch.setattr(paths, "ROOT", folder)
    return folder


def date():
    return git.last_change([paths.ROOT / "recipe"])


def test_the_date_is_that_of_the_commit_which_changed_the_files(repository):
    assert date() == SECONDS
    assert git.last_change([repository / "recipe", repository / "README"]) == SECONDS + 1
    assert git.last_change([repository / "nothing"]) is None


@pytest.mark.parametrize("depth", [1, 2])
def test_a_shallow_clone_without_that_commit_is_refused(repository, depth, monkeypatch):
    folder = clone(repository, depth, monkeypatch)
    with pytest.raises(UsageError, match="the clone is shallow(?s:.*)git fetch --unshallow"):
        date()
    run(folder, "fetch", "--quiet", "--unshallow")
    assert date() == SECONDS


def test_a_shallow_clone_that_has_the_commit_gives_the_date_of_the_whole_one(
    repository, monkeypatch
):
    folder = clone(repository, 2, monkeypatch)
    assert git.last_change([folder / "CHANGELOG"]) == SECONDS + 2


def test_a_folder_in_another_repository_has_no_commit(repository, monkeypatch):
    """As `git archive` leaves one. The other repository may even track the files."""
    monkeypatch.setattr(paths, "ROOT", repository / "unpacked")
    paths.ROOT.mkdir()
    (paths.ROOT / "recipe").touch()
    assert (git.commit(), date()) == ("", None)
    run(repository, "add", "unpacked")
    run(repository, "commit", "--quiet", "--message=archive")
    assert (git.commit(), date()) == ("", None)


@pytest.mark.parametrize("variables", [["GIT_DIR"], ["GIT_DIR", "GIT_WORK_TREE"]])
def test_the_variables_of_another_repository_change_nothing(repository, variables, monkeypatch):
    expected = git.commit(), date()
    other = repository.with_name("other")
    run(repository.parent, "init", "--quiet", other)
    run(other, "commit", "--quiet", "--allow-empty", "--message=other")
    values = {"GIT_DIR": other / ".git", "GIT_WORK_TREE": repository}
    for name in variables:
        monkeypatch.setenv(name, str(values[name]))
    assert (git.commit(), date()) == expected
    assert len(expected[0]) == 40


def test_a_worktree_and_a_linked_path_are_the_repository(repository, monkeypatch):
    expected = git.commit(), date()
    run(repository, "worktree", "add", "--quiet", "--detach", "../worktree")
    repository.with_name("link").symlink_to(repository)
    for name in ("worktree", "link"):
        monkeypatch.setattr(paths, "ROOT", repository.with_name(name))
        assert (git.commit(), date()) == expected


def test_a_repository_that_git_does_not_read_has_no_date(repository):
    """So it is no reason to take the date of the newest file: that differs in each checkout."""
    (repository / ".git" / "config").write_text("[core")
    assert git.commit() == ""
    with pytest.raises(UsageError, match="git does not read this repository(?s:.*)bad config"):
        date()


def test_a_repository_without_a_commit_and_a_machine_without_git_have_no_date(
    repository, monkeypatch, tmp_path
):
    monkeypatch.setattr(paths, "ROOT", tmp_path / "empty")
    run(tmp_path, "init", "--quiet", "empty")
    assert (git.commit(), date()) == ("", None)
    monkeypatch.setattr(paths, "ROOT", repository)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (git.commit(), date()) == ("", None)


@pytest.mark.parametrize("name", ["notes", "repro/.probe.py.swp", "repro/__pycache__/probe.pyc"])
def test_a_file_of_the_recipe_that_is_in_no_commit_makes_the_commit_dirty(repository, name):
    """The builder packs it. git ignores the second and the third."""
    (repository / "recipe").unlink()
    (repository / "recipe" / "repro" / "__pycache__").mkdir(parents=True)
    (repository / "recipe" / "recipe.yaml").touch()
    (repository / ".gitignore").write_text("*.swp\n__pycache__/\n")
    run(repository, "add", ".")
    run(repository, "commit", "--quiet", "--message", "A folder")
    commit = run(repository, "rev-parse", "HEAD")
    (repository / "notes").touch()  # no part of a package
    assert git.commit() == commit
    (repository / "recipe" / name).touch()
    assert git.commit() == f"{commit}-dirty"
    (repository / "README").write_text("edited")
    assert git.commit() == f"{commit}-dirty"
