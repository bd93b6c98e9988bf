"""The jobs of both CIs: their own lines, run in a fresh clone as the runner's shell runs them.

Nothing here reaches a network. Our own command runs for real. The programs that would fetch
from conda-forge (conda, micromamba) are stand-ins that keep their arguments. Where a line
would start to compile, the test says how it is changed.
"""

import base64
import http.server
import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from helpers import compiling, jobs, shipped
from numpy_feedstock import paths, variant
from numpy_feedstock.building import compiler_cache
from numpy_feedstock.building.bootstrap import debian, machine

PLATFORMS = ("linux-64", "linux-aarch64")
ROW = {"platform": "linux-64", "numpy": "2.3.5", "python": "3.11", "blas": "mkl"}
CI = {"github": jobs.github, "gitlab": jobs.gitlab}
BUILD = {"github": "build", "gitlab": ".build"}
NO_CHANNEL = "the channel does not answer: conda-forge"
both = pytest.mark.parametrize("ci", CI)


def matrix(ci, row):
    """What a runner knows of the row of a matrix."""
    return {f"matrix.{key}" if ci == "github" else key: value for key, value in row.items()}


def rows_of_github(clone):
    """The rows of the matrix, as the workflow takes them from its job `variants`."""
    job, output = jobs.github()["variants"], clone.temporary / "output"
    done = jobs.run(clone, job, {}, GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    assert job["outputs"] == {"list": "${{ steps.render.outputs.list }}"}
    (line,) = output.read_text().splitlines()
    return json.loads(line.removeprefix("list="))


def rows_of_gitlab(clone):
    """The rows of the matrix, as the child pipeline has them."""
    done = jobs.run(clone, jobs.gitlab()["variants"], {})
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load(clone.file("matrix.yml").read_text())
    assert made.keys() == {"build"} and made["build"].keys() == {"extends", "parallel"}
    assert made["build"]["extends"] == BUILD["gitlab"]
    return made["build"]["parallel"]["matrix"]


ROWS = {"github": rows_of_github, "gitlab": rows_of_gitlab}


def filenames(rows):
    return sorted(row["package"] for row in rows)


def rendered():
    return sorted(v.filename for platform in PLATFORMS for v in variant.load(platform))


@both
def test_every_variant_has_a_job(clone, ci):
    assert filenames(ROWS[ci](clone)) == rendered()


@both
def test_a_release_that_is_switched_on_has_its_jobs_at_once(clone, ci, monkeypatch):
    name = paths.BUILD_CONFIG.name
    clone.replace(name, "{if: false, then: 2.4.1 ", "{if: true,  then: 2.4.1 ")
    rows = ROWS[ci](clone)
    monkeypatch.setattr(paths, "BUILD_CONFIG", clone.file(name))
    assert "2.4.1" in {row["numpy"] for row in rows}
    assert filenames(rows) == rendered()


@both
def test_the_build_job_builds_the_package_of_its_row(clone, ci):
    """With --dry-run, and without the channel, because a plan asks it over the network."""

    def plan(script):
        (line,) = [line for line in script.splitlines() if "feedstock build" in line]
        assert line.endswith(" --tests full --channel conda-forge")
        return f"{line.removesuffix(' --channel conda-forge')} --channel bootstrap --dry-run --json"

    job = jobs.github()["build"] if ci == "github" else jobs.gitlab()[".build"]
    for row in [row for row in ROWS[ci](clone) if row["platform"] == "linux-64"]:
        script, variables = jobs.scripts(job, matrix(ci, row))[0]
        done = clone.run(plan(script), **variables)
        assert [each["package"] for each in json.loads(done.stdout)] == [row["package"]]


@both
def test_a_build_job_without_its_channel_is_red(clone, ci):
    done = jobs.run(clone, CI[ci]()[BUILD[ci]], matrix(ci, ROW))
    assert done.returncode == 2
    assert NO_CHANNEL in done.stderr
    assert not list(clone.folder.glob("output/**/*.conda"))


@pytest.mark.parametrize("name", ["build", "bootstrap"])
def test_a_job_of_github_that_builds_has_the_whole_history(name):
    """A package's date is that of the recipe's newest commit."""
    job = jobs.github()[name]
    assert any(" build " in line for line in jobs.lines(job))
    (checkout,) = [step for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert checkout["with"]["fetch-depth"] == 0


def test_a_job_of_gitlab_that_builds_has_the_whole_history():
    job = jobs.gitlab()[".build"]
    assert any(" build " in line for line in jobs.lines(job))
    assert job["variables"]["GIT_DEPTH"] == "0"


@pytest.mark.packages
@both
def test_a_build_job_verifies_what_it_built_and_keeps_it(clone, ci, packages):
    """The line that builds is left out: the packages of the tests are there in its place."""
    shipped.copy(packages, clone.file("output/linux-64"))

    def built(script):
        return "\n".join(line for line in script.splitlines() if "feedstock build" not in line)

    job = CI[ci]()[BUILD[ci]]
    done = jobs.run(clone, job, matrix(ci, ROW), change=built)
    assert done.returncode == 0, done.stderr
    assert f"{packages['mkl'].name}: 0 findings" in done.stdout
    for pattern in kept(job):
        assert list(clone.folder.glob(pattern)), pattern


def kept(job):
    """The patterns of the files that a job keeps when it is green."""
    if "artifacts" in job:
        return [path for path in job["artifacts"]["paths"] if path != "build/logs"]
    steps = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    return [step["with"]["path"] for step in steps if step.get("if") != "failure()"]


# what the image of the runner has, and what the runner itself sets
COMPILER = "#!/bin/sh\necho 14.2.0\n"


@pytest.fixture
def runner(clone):
    """The variables of GitHub's runner. Its image has gcc 14 beside an older gcc."""
    for name in ("gcc-14", "g++-14"):
        clone.add_program(name, COMPILER)
    path = clone.temporary / "github-path"
    return {"RUNNER_TEMP": str(clone.temporary), "GITHUB_PATH": str(path)}


def test_the_bootstrap_job_has_the_gcc_that_the_build_config_pins(clone, runner, monkeypatch):
    """So it needs none of Debian's packages, which Ubuntu's archives do not have."""
    job = jobs.github()["bootstrap"]
    assert "ubuntu" in job["runs-on"]
    named, building = (
        next(n for n, step in enumerate(job["steps"]) if word in step.get("run", ""))
        for word in ("GITHUB_PATH", " build ")
    )
    assert named < building
    done = clone.run(job["steps"][named]["run"], **runner)
    assert done.returncode == 0, done.stderr
    (folder,) = Path(runner["GITHUB_PATH"]).read_text().splitlines()
    monkeypatch.setenv("PATH", folder, prepend=os.pathsep)
    assert debian.gcc_packages(machine.inspect().machine_gcc) is None


@pytest.mark.packages
def test_the_bootstrap_job(clone, runner, packages):
    """With --dry-run in the line that builds: the packages of the tests are there in its place."""
    shipped.copy(packages, clone.file("output/linux-64"))

    def plan(script):
        return script.replace("build --channel bootstrap", "build --channel bootstrap --dry-run")

    done = jobs.run(clone, jobs.github()["bootstrap"], {}, change=plan, **runner)
    assert done.returncode == 0, done.stderr
    assert f"{packages['openblas'].name}: 0 findings" in done.stdout


# conda build, as the job needs it: it reads the config and puts packages into a folder
CONDA = """\
#!{python}
import os, shutil, sys
with open({calls!r}, "a") as stream:
    print(*sys.argv[1:], file=stream)
words = sys.argv[1:]
if words[:1] == ["run"]:
    words = words[words.index("conda") + 1 :]
if words[:1] == ["build"]:
    shutil.copy(words[words.index("-m") + 1], {config!r})
    target = os.path.join(words[words.index("--output-folder") + 1], "linux-64")
    shutil.copytree({packages!r}, target)
"""


@pytest.mark.packages
@both
def test_the_conda_build_job(clone, ci, packages):
    """conda and micromamba are stand-ins: their packages come from conda-forge."""
    shipped.copy(packages, clone.temporary / "built")
    config, calls = clone.temporary / "config.yaml", clone.temporary / "calls"
    program = CONDA.format(
        python=sys.executable,
        calls=str(calls),
        config=str(config),
        packages=str(clone.temporary / "built"),
    )
    for name in ("conda", "micromamba"):
        clone.add_program(name, program)
    job = CI[ci]()["conda-build"]
    done = jobs.run(clone, job, matrix(ci, {"platform": "linux-64"}))
    assert done.returncode == 0, done.stderr
    assert f"{packages['mkl'].name}: 0 findings" in done.stdout
    assert "conda build recipe -m build/one.yaml" in calls.read_text()
    # it gets each flavour of one release and Python
    found = variant.render("linux-64", yaml.safe_load(config.read_text()))
    strings = [each.recipe.to_dict()["build"]["string"] for each in found]
    wanted = variant.select(["2.3.5"], ["3.12"], None, "linux-64")
    assert sorted(strings) == sorted(each.build_string for each in wanted)
    for pattern in kept(job):
        assert list(clone.folder.glob(pattern)), pattern


@pytest.fixture
def publishing(clone, packages):
    """The values of the protected environment; the clone has the build jobs' packages."""
    shipped.copy(packages, clone.file("output/linux-64"))
    for record in clone.folder.glob("output/linux-64/*.tests.json"):
        content = json.loads(record.read_text())
        # as the build job's are
        content["channels"] = ["https://conda.anaconda.org/conda-forge/"]
        record.write_text(json.dumps(content))
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (clone.temporary / "key-file.pem").write_text(pem)
    (clone.temporary / "auth-file.json").write_text("{}")
    return {
        "github": {
            "vars.CHANNEL": str(clone.temporary / "channel"),
            "secrets.SIGNING_KEY": pem,
            "secrets.RATTLER_AUTH": "{}",
            "runner.temp": str(clone.temporary),
        },
        "gitlab": {
            "CHANNEL": str(clone.temporary / "channel"),
            "FEEDSTOCK_SIGNING_KEY": str(clone.temporary / "key-file.pem"),
            "RATTLER_AUTH_FILE": str(clone.temporary / "auth-file.json"),
        },
    }


@pytest.mark.packages
@both
def test_the_publish_job_publishes_what_the_build_jobs_kept(clone, ci, packages, publishing):
    done = jobs.run(clone, CI[ci]()["publish"], publishing[ci])
    assert done.returncode == 0, done.stdout + done.stderr
    published = {path.name for path in (clone.temporary / "channel").glob("*/*.conda")}
    assert {path.name for path in packages.values()} <= published
    assert not (clone.temporary / ".config").exists(), "it made a key of its own"
    # the key's text is in no log, in no form
    body = publishing["github"]["secrets.SIGNING_KEY"].splitlines()[1]
    for hidden in (body, base64.b64encode(body.encode()).decode()):
        assert hidden not in done.stdout + done.stderr


@pytest.mark.packages
@pytest.mark.parametrize(
    ("ci", "missing"),
    [
        ("github", "vars.CHANNEL"),
        ("github", "secrets.SIGNING_KEY"),
        ("github", "secrets.RATTLER_AUTH"),
        ("gitlab", "CHANNEL"),
        ("gitlab", "FEEDSTOCK_SIGNING_KEY"),
    ],
)
def test_the_publish_job_is_red_without(clone, ci, missing, publishing):
    del publishing[ci][missing]
    done = jobs.run(clone, CI[ci]()["publish"], publishing[ci])
    assert done.returncode != 0
    assert f"{missing.rpartition('.')[2]}: is not set" in done.stderr
    assert not (clone.temporary / "channel").exists()
    assert not (clone.temporary / "signing-key.pem").exists()


@pytest.mark.packages
@both
def test_the_publish_job_takes_no_package_of_the_bootstrap_channel(clone, ci, packages, publishing):
    shipped.copy(packages, clone.file("output/linux-64"))  # with the records that they have here
    done = jobs.run(clone, CI[ci]()["publish"], publishing[ci])
    assert done.returncode == 1
    assert "the bootstrap channel's toolchain" in done.stderr
    assert not list(clone.temporary.glob("channel/**/*.conda"))


@pytest.mark.packages
@both
def test_the_publish_job_is_red_without_packages(clone, ci, publishing):
    shutil.rmtree(clone.file("output"))
    done = jobs.run(clone, CI[ci]()["publish"], publishing[ci])
    assert done.returncode == 2
    assert "output/*/*.conda" in done.stderr


def test_the_lint_job(clone):
    assert jobs.lines(jobs.github()["lint"]) == jobs.lines(jobs.gitlab()["lint"])
    done = jobs.run(clone, jobs.github()["lint"], {})
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_quick_tests_job(clone):
    """The tests are collected and not run: they are part of every run of the tests."""
    assert jobs.lines(jobs.github()["quick-tests"]) == jobs.lines(jobs.gitlab()["quick-tests"])
    done = jobs.run(clone, jobs.github()["quick-tests"], {}, PYTEST_ADDOPTS="--collect-only -q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/unit/test_cli.py" in done.stdout and "tests/packages" not in done.stdout


def test_the_whole_check_runs_the_same_lines():
    text = (paths.ROOT / ".ci" / "run").read_text()
    assert text.index("./scripts/feedstock lint") < text.index("./scripts/feedstock test")


def test_every_platform_has_a_runner():
    runners = json.loads(re.search(r"'(.*)'", jobs.github()["build"]["runs-on"])[1])
    assert tuple(runners) == PLATFORMS
    assert jobs.github()["conda-build"]["strategy"]["matrix"]["runner"] == list(runners.values())
    assert jobs.gitlab()[".build"]["tags"] == ["$platform"]
    assert jobs.gitlab()["conda-build"]["parallel"]["matrix"] == [{"platform": list(PLATFORMS)}]


def test_github_publishes_from_a_protected_ref_after_all_jobs_and_an_approval():
    workflow, others = jobs.read(jobs.WORKFLOW), jobs.github()
    publish = others.pop("publish")
    assert publish["if"] == "github.event_name == 'push' && github.ref_protected"
    assert publish["environment"] == "internal-channel"
    assert {*publish["needs"], "variants"} == others.keys()
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("secrets." in str(job) or "permissions" in job for job in others.values())
    assert all("timeout-minutes" in job for job in (publish, *others.values()))


def test_a_run_of_github_that_waits_for_an_approval_holds_up_no_other_run():
    """GitHub lets it hold its groups, and cancels what waits for a group when another comes."""
    workflow, all_jobs = jobs.read(jobs.WORKFLOW), jobs.github()
    assert "'pull_request' && github.ref || github.run_id" in workflow["concurrency"]["group"]
    assert "pull_request" not in all_jobs["publish"]["if"]
    assert not any("concurrency" in job for job in all_jobs.values())


def test_gitlab_publishes_from_a_protected_ref_after_all_jobs_and_an_approval():
    others = jobs.gitlab()
    publish = others.pop("publish")
    forbid, allow = publish["rules"]
    assert forbid == {"if": "$CI_MERGE_REQUEST_IID", "when": "never"}
    assert (allow["if"], allow["when"]) == ('$CI_COMMIT_REF_PROTECTED == "true"', "manual")
    assert publish["environment"] == "internal-channel"
    assert "needs" not in publish  # so all jobs of the stages before it come first
    stages = jobs.read(jobs.CHILD)["stages"]
    assert stages == ["build", "publish"] == [others[".build"]["stage"], publish["stage"]]
    assert others["conda-build"]["stage"] == "build"
    assert all("timeout" in job or "trigger" in job for job in (publish, *others.values()))


def test_the_child_pipeline_has_jobs_in_every_pipeline_that_starts_it():
    """GitLab gives a child without `workflow` no jobs in the pipeline of a merge request."""
    (rule,) = jobs.read(jobs.CHILD)["workflow"]["rules"]
    assert rule == {"if": '$CI_PIPELINE_SOURCE == "parent_pipeline"'}
    (trigger,) = [job["trigger"] for job in jobs.gitlab().values() if "trigger" in job]
    assert {"local": jobs.CHILD} in trigger["include"]
    assert {"artifact": "matrix.yml", "job": "variants"} in trigger["include"]


@pytest.mark.parametrize("name", ["build", "bootstrap"])
def test_a_job_that_compiles_uses_the_cache_of_github(name):
    workflow, job = jobs.read(jobs.WORKFLOW), jobs.github()[name]
    uses = [step.get("uses", "").partition("@")[0] for step in job["steps"]]
    exporting = job["steps"][uses.index("actions/github-script")]["with"]["script"]
    exported = re.findall(r"exportVariable\('(\w+)', process\.env\.(\w+)\)", exporting)
    assert exported == [(each, each) for each in ("ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN")]
    building = next(n for n, step in enumerate(job["steps"]) if " build " in step.get("run", ""))
    assert uses.index("actions/github-script") < building
    assert compiler_cache.stores(workflow["env"]) == {"gha": "SCCACHE_GHA_ENABLED"}
    assert workflow["env"]["ACTIONS_CACHE_SERVICE_V2"] == "on"


def test_the_cache_asks_the_service_that_github_still_runs(tmp_path, monkeypatch):
    """A server stands in for GitHub's. sccache's own requests show which service it means."""
    compiling.prepare(tmp_path, monkeypatch)
    for name, value in jobs.read(jobs.WORKFLOW)["env"].items():
        monkeypatch.setenv(name, "READ_ONLY" if name == "SCCACHE_GHA_RW_MODE" else value)
    monkeypatch.setenv("ACTIONS_RUNTIME_TOKEN", "token")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EmptyCache) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("ACTIONS_RESULTS_URL", f"http://127.0.0.1:{server.server_port}/")
        EmptyCache.asked = set()
        counts, said = compiling.compile_once(tmp_path)
        server.shutdown()
    assert (counts, said) == ((0, 1), ["shared compiler cache: gha (SCCACHE_GHA_ENABLED)"])
    service = "/twirp/github.actions.results.api.v1.CacheService"
    assert EmptyCache.asked == {f"{service}/GetCacheEntryDownloadURL"}


class EmptyCache(http.server.BaseHTTPRequestHandler):
    """Keeps what it is asked, and has nothing."""

    asked = set()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.add(self.path)
        self.send_error(404)

    do_GET = do_POST

    def log_message(self, *_):
        pass


def test_a_pull_request_writes_no_cache():
    mode = jobs.read(jobs.WORKFLOW)["env"]["SCCACHE_GHA_RW_MODE"]
    pushed = "github.event_name == 'push' && github.ref == 'refs/heads/main'"
    assert mode == f"${{{{ {pushed} && 'READ_WRITE' || 'READ_ONLY' }}}}"
    every = {**jobs.github(), **jobs.gitlab()}
    assert not any("SCCACHE" in str(job) or "actions/cache" in str(job) for job in every.values())
    assert not any("cache" in job for job in jobs.gitlab().values())


def test_every_action_is_pinned_by_a_commit_and_says_its_version():
    uses = re.findall(r"uses: (.*)", (paths.ROOT / jobs.WORKFLOW).read_text())
    assert len(uses) > 10
    pinned = r"[\w-]+/[\w-]+(/[\w-]+)?@[0-9a-f]{40}  # v\d+\.\d+\.\d+"
    assert [use for use in uses if not re.fullmatch(pinned, use)] == []
    versions = {(use.split("@")[0].split("/")[1], use.split("@")[1]) for use in uses}
    assert len({name for name, _ in versions}) == len(versions)  # one version of each
