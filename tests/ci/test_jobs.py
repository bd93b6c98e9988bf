"""The jobs of both CIs: that they are the variants, and that what is published was tested, verified and approved.

No CI runs here. The lines that list the variants do, in a checkout of their own, and
every other line is put to the command line's parser.
"""

import json
import re
import shlex

import pytest
import yaml
from rattler_build import VariantConfig

from numpy_feedstock import cli, paths, variant
from numpy_feedstock.verbs import variants

PLATFORMS = ("linux-64", "linux-aarch64")
GITHUB = paths.ROOT / ".github" / "workflows" / "build.yml"
GITLAB = (paths.ROOT / ".gitlab-ci.yml", paths.ROOT / ".gitlab" / "packages.yml")


def github():
    """{name: job} of the workflow."""
    return yaml.safe_load(GITHUB.read_text())["jobs"]


def gitlab():
    """{name: job} of the parent and of the child pipeline, without what `variants` adds."""
    keywords = ("workflow", "stages")
    return {
        name: job
        for file in GITLAB
        for name, job in yaml.safe_load(file.read_text()).items()
        if name not in keywords
    }


def lines(job):
    """The shell lines of a job of either."""
    if "script" in job:
        return job["script"]
    return [line for step in job.get("steps", []) for line in step.get("run", "").splitlines()]


def filled(variable, line, row):
    """A line with the values of a matrix in the places of its variables."""
    return re.sub(variable, lambda found: row[found[1]], line)


def of_github(runner):
    """A (matrix, build line) for each job, as the workflow gets them."""
    jobs = github()
    (step,) = [step for step in jobs["variants"]["steps"] if step.get("id") == "render"]
    assert jobs["variants"]["outputs"] == {"list": "${{ steps.render.outputs.list }}"}
    assert jobs["build"]["strategy"]["matrix"] == {
        "include": "${{ fromJSON(needs.variants.outputs.list) }}"
    }
    runner.run(step["run"], GITHUB_OUTPUT=str(runner.folder / "output"))
    (line,) = (runner.folder / "output").read_text().splitlines()
    for row in json.loads(line.removeprefix("list=")):
        yield row, filled(r"\$\{\{ matrix\.(\w+) \}\}", lines(jobs["build"])[0], row)


def of_gitlab(runner):
    """A (matrix, build line) for each job, as the child pipeline gets them."""
    jobs = gitlab()
    (line,) = lines(jobs["variants"])
    runner.run(line)
    made = yaml.safe_load((runner.folder / "matrix.yml").read_text())
    assert jobs["packages"]["trigger"]["include"] == [
        {"artifact": "matrix.yml", "job": "variants"},
        {"local": str(GITLAB[1].relative_to(paths.ROOT))},
    ]
    assert made.keys() == {"build"} and made["build"].keys() == {"extends", "parallel"}
    for row in made["build"]["parallel"]["matrix"]:
        yield row, filled(r"\$(\w+)", lines(jobs[made["build"]["extends"]])[0], row)


def parsed(line):
    """What the command makes of a line of a job; argparse exits where it makes nothing of it."""
    command, *args = shlex.split(re.split(r" [|>] ", line)[0])
    assert command == "./scripts/feedstock"
    return cli.parser().parse_args(args)


def built(jobs, variants):
    """The variants that the jobs build, by the lines that they run."""
    for row, line in jobs:
        args = parsed(line)
        wanted = ([row["platform"]], args.numpy, args.python, args.blas)
        (found,) = [
            v for v in variants if ([v.platform], [v.version], [v.python], [v.blas]) == wanted
        ]
        assert (row["package"], args.tests) == (found.filename, "full")
        yield found.filename


def rendered():
    return [v for platform in PLATFORMS for v in variant.load(platform)]


@pytest.mark.parametrize("jobs", [of_github, of_gitlab])
def test_every_variant_has_a_job_that_builds_it(runner, jobs):
    variants = rendered()
    assert {v.platform for v in variants} == set(PLATFORMS)
    assert sorted(built(jobs(runner), variants)) == sorted(v.filename for v in variants)


@pytest.mark.parametrize("jobs", [of_github, of_gitlab])
def test_a_release_that_is_switched_on_has_its_jobs_at_once(runner, jobs, monkeypatch):
    runner.change_build_config("{if: false, then: 2.4.1 ", "{if: true,  then: 2.4.1 ")
    monkeypatch.setattr(paths, "BUILD_CONFIG", runner.folder / paths.BUILD_CONFIG.name)
    variants = rendered()
    assert "2.4.1" in {v.version for v in variants}
    assert sorted(built(jobs(runner), variants)) == sorted(v.filename for v in variants)


def test_every_platform_has_a_runner():
    runners = json.loads(re.search(r"'(.*)'", github()["build"]["runs-on"])[1])
    assert tuple(runners) == PLATFORMS
    assert github()["conda-build"]["strategy"]["matrix"]["runner"] == list(runners.values())
    assert gitlab()[".build"]["tags"] == ["$platform"]
    assert gitlab()["conda-build"]["parallel"]["matrix"] == [{"platform": list(PLATFORMS)}]


@pytest.mark.parametrize("jobs", [github(), gitlab()], ids=["github", "gitlab"])
def test_every_line_is_one_that_the_command_takes(jobs):
    mine = [
        line
        for job in jobs.values()
        for line in lines(job)
        if line.startswith("./scripts/feedstock")
    ]
    assert len(mine) >= 6
    for line in mine:
        parsed(re.sub(r"\$\{\{.*?\}\}|\$\w+", "X", line))


@pytest.mark.parametrize("jobs", [github(), gitlab()], ids=["github", "gitlab"])
def test_conda_build_gets_each_flavour_of_one_release_and_python(jobs, tmp_path):
    (line,) = [line for line in lines(jobs["conda-build"]) if "--build-config" in line]
    args = parsed(line)
    for platform in PLATFORMS:
        wanted = variant.select(args.numpy, args.python, args.blas, platform)
        (tmp_path / "one.yaml").write_text(json.dumps(variants.build_config(wanted), indent=1))
        override = VariantConfig.from_file(tmp_path / "one.yaml").to_dict()
        found = [
            each.recipe.to_dict()["build"]["string"] for each in variant.render(platform, override)
        ]
        assert sorted(found) == sorted(v.build_string for v in wanted)
        assert {v.blas for v in wanted} == {v.blas for v in variant.load(platform)}


@pytest.mark.parametrize(
    ("jobs", "build"), [(github(), "build"), (gitlab(), ".build")], ids=["github", "gitlab"]
)
def test_every_job_that_builds_verifies_and_keeps_what_it_built(jobs, build):
    for job in (jobs[build], jobs["conda-build"]):
        builds, verifies = lines(job)[-2:]
        assert re.search("feedstock build|conda build recipe", builds)
        assert verifies.startswith("./scripts/feedstock verify")
    assert "output/*/numpy-*" in str(jobs[build])
    assert "build/conda-build/*/*.conda" in str(jobs["conda-build"])


def test_github_publishes_from_a_protected_ref_after_all_jobs_and_an_approval():
    workflow, jobs = yaml.safe_load(GITHUB.read_text()), github()
    publish = jobs.pop("publish")
    assert publish["if"] == "github.event_name == 'push' && github.ref_protected"
    assert publish["environment"] == "internal-channel"
    assert {*publish["needs"], "variants"} == jobs.keys()
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("secrets." in str(job) or "permissions" in job for job in jobs.values())
    assert all("timeout-minutes" in job for job in (publish, *jobs.values()))


def test_gitlab_publishes_from_a_protected_ref_after_all_jobs_and_an_approval():
    jobs = gitlab()
    publish = jobs.pop("publish")
    forbid, allow = publish["rules"]
    assert forbid == {"if": "$CI_MERGE_REQUEST_IID", "when": "never"}
    assert (allow["if"], allow["when"]) == ('$CI_COMMIT_REF_PROTECTED == "true"', "manual")
    assert publish["environment"] == "internal-channel"
    assert "needs" not in publish  # so all jobs of the stages before it come first
    assert (
        yaml.safe_load(GITLAB[1].read_text())["stages"]
        == ["build", "publish"]
        == [jobs[".build"]["stage"], publish["stage"]]
    )
    assert jobs["conda-build"]["stage"] == "build"
    assert all("timeout" in job or "trigger" in job for job in (publish, *jobs.values()))


def test_every_action_is_pinned_by_a_commit_and_says_its_version():
    uses = re.findall(r"uses: (.*)", GITHUB.read_text())
    assert len(uses) > 10
    pinned = r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+"
    assert [use for use in uses if not re.fullmatch(pinned, use)] == []
    assert len({use.split("@")[0] for use in uses}) == len(set(uses))  # one version of each
