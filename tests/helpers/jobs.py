"""The jobs of both CI files, and their lines run as a runner runs them."""

import re

import yaml

from numpy_feedstock import paths

WORKFLOW = ".github/workflows/build.yml"
PIPELINE = ".gitlab-ci.yml"
CHILD = ".gitlab/packages.yml"
EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")
# a job of GitLab, and the rest of the file
KEYWORDS = ("workflow", "stages")


def read(path, root=paths.ROOT):
    return yaml.safe_load((root / path).read_text())


def github():
    """The jobs of GitHub, {name: job}."""
    return read(WORKFLOW)["jobs"]


def gitlab():
    """The jobs of GitLab's parent and child pipeline, {name: job}, without those of `variants`."""
    files = (read(PIPELINE), read(CHILD))
    return {name: job for file in files for name, job in file.items() if name not in KEYWORDS}


def lines(job):
    """The shell lines of a job."""
    if "script" in job:
        return job["script"]
    return [line for step in job["steps"] for line in step.get("run", "").splitlines()]


def scripts(job, values):
    """What a runner hands to the shell, one after the other: [(script, variables)].

    values : {"matrix.numpy": ...} for GitHub, {"numpy": ...} for GitLab; a value that is not
        there is an empty text on GitHub and no variable on GitLab
    """
    if "script" in job:
        # GitLab's runner makes one script of all lines
        return [("\n".join(job["script"]), dict(values))]
    steps = [step for step in job["steps"] if "run" in step]
    return [(filled(step["run"], values), _variables(step, values)) for step in steps]


def filled(text, values):
    """A text of a workflow with the values of its expressions."""
    return EXPRESSION.sub(lambda found: values.get(found[1], ""), text)


def _variables(step, values):
    return {name: filled(str(value), values) for name, value in step.get("env", {}).items()}


def run(clone, job, values, change=lambda script: script, **variables):
    """Run the scripts of a job until one fails. Returns the CompletedProcess of the last one.

    change : a function of a script, where a test cannot run it as it stands
    variables : those that the runner itself sets
    """
    for script, own in scripts(job, values):
        done = clone.run(change(script), **{**variables, **own})
        if done.returncode:
            break
    return done
