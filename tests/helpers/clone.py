"""A fresh clone of this repository, and a shell in it as a CI runner has one."""

import os
import subprocess
import sys
from pathlib import Path

from helpers import once
from helpers.command import environment
from numpy_feedstock import paths

# A fresh clone has no build/. The entry point makes it at its first use and fills it from the
# package index, which takes minutes. This stands in for python3, and for the index alone: at
# the first use of the entry point it links what the tests' own build/ has already.
PYTHON3 = """\
#!/bin/bash
if [[ ${{1-}} == *scripts/feedstock ]]; then
    mkdir -p build
    ln -sfn {build}/venv build/venv
    mkdir -p {build}/environments
    ln -sfn {build}/environments build/environments
fi
exec {python} "$@"
"""
IDENTITY = {f"GIT_{who}_{what}": "tests" for who in ("AUTHOR", "COMMITTER") for what in ("NAME",)}
IDENTITY |= {f"GIT_{who}_EMAIL": "tests@example.com" for who in ("AUTHOR", "COMMITTER")}
# nobody listens on this port: every program that asks the network is refused at once
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}


def git(folder, *args):
    done = subprocess.run(
        ["git", *args],
        cwd=folder,
        env=environment(IDENTITY),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


class Clone:
    """A clone of this repository, with the changes that are not committed yet."""

    def __init__(self, folder):
        self.folder = folder / "clone"
        self.temporary = folder / "temporary"
        self._programs = folder / "programs"
        for each in (self.temporary, self._programs):
            each.mkdir()
        # git writes the index, and another process of the tests may do the same
        with once.alone(paths.BUILD / "stash.lock"):
            commit = git(paths.ROOT, "stash", "create") or git(paths.ROOT, "rev-parse", "HEAD")
        git(folder, "clone", "--quiet", "--shared", "--no-checkout", paths.ROOT, self.folder)
        git(self.folder, "checkout", "--quiet", "--detach", commit)
        python = os.path.realpath(sys.executable)
        self.add_program("python3", PYTHON3.format(build=paths.BUILD, python=python))

    def add_program(self, name, text):
        """Put a program before those of the machine."""
        program = self._programs / name
        program.write_text(text)
        program.chmod(0o755)

    def run(self, script, *, options=("-eo", "pipefail"), **variables):
        """Run the lines of a job with bash. Returns the CompletedProcess.

        options : of bash
        variables : of the job, beside those that every runner has
        """
        file = self.temporary / "lines.sh"
        file.write_text(script + "\n")
        runner = {
            "PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.temporary),
            "LANG": "C.UTF-8",
            "CI": "true",
            **NO_NETWORK,
            # the tests set it where this clone is as shallow as the checkout
            **{name: os.environ[name] for name in ("SOURCE_DATE_EPOCH",) if name in os.environ},
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", *options, file],
            cwd=self.folder,
            env={**runner, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def file(self, path):
        return self.folder / path

    def replace(self, path, old, new):
        """Change one place of a file."""
        file = self.folder / path
        text = file.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        file.write_text(text.replace(old, new))
        return Path(path)
