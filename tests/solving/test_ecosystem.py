"""docs/ecosystem.md: what the indexer writes that other tools read."""

import asyncio
import datetime
import json
import re
import shutil
import subprocess
import sys

import pytest
import rattler

from helpers import conda_forge, repack, small, solves
from numpy_feedstock import paths
from numpy_feedstock.publishing import provenance

PAGE = (paths.ROOT / "docs" / "ecosystem.md").read_text()
EXPORTS = {"weak": ["numpy >=1.23,<3"]}
# a process of its own: the indexer's threads can crash an interpreter that shuts down
INDEX = """
import asyncio, os, sys, rattler, rattler.index
folder, toml, force = sys.argv[1:]
config = rattler.Config.from_toml(toml)
asyncio.run(rattler.index.index_fs(folder, config=config, force=force == "True"))
os._exit(0)
"""


@pytest.fixture
def channel(tmp_path):
    """A channel's folder with one package that has run_exports."""
    package = small.make(tmp_path / "new", 1)
    folder = package.with_suffix("")  # what it was packed from
    (folder / "info" / "run_exports.json").write_text(json.dumps(EXPORTS))
    (tmp_path / "channel" / "linux-64").mkdir(parents=True)
    (tmp_path / "channel" / "noarch").mkdir()
    repack.pack(folder, tmp_path / "channel" / "linux-64" / package.name)
    return tmp_path / "channel"


def index(folder, toml="", force=False):
    """Index a channel; the linux-64 index."""
    subprocess.run([sys.executable, "-c", INDEX, folder, toml, str(force)], check=True)
    return json.loads((folder / "linux-64" / "repodata.json").read_text())


def record_of(repodata):
    (record,) = repodata["packages.conda"].values()
    return record


def test_the_index_has_the_run_exports(channel):
    assert record_of(index(channel))["run_exports"] == EXPORTS


@pytest.mark.parametrize("force", [False, True])
def test_the_time_of_the_first_index_stays(channel, force):
    first = record_of(index(channel))["indexed_timestamp"]
    now = datetime.datetime.now(datetime.UTC).timestamp() * 1000
    assert abs(now - first) < 60_000
    assert record_of(index(channel, force=force))["indexed_timestamp"] == first


def test_the_relation_of_the_page_is_written_and_the_next_index_removes_it(channel):
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    toml = toml.replace("/srv/conda/fixed", str(channel))
    assert index(channel, toml)["info"]["channel_relations"] == {"overrides": "../conda-forge"}
    assert "channel_relations" not in index(channel)["info"]


def test_a_related_channel_need_not_be_named(newest, tmp_path):
    """Our channel alone brings conda-forge's packages, once its index says what it overrides."""
    server = tmp_path / "server"
    shutil.copytree(newest.ours.removeprefix("file://"), server / "fixed")
    shutil.copytree(newest.conda_forge.removeprefix("file://"), server / "conda-forge")
    alone = [(server / "fixed").as_uri()]
    specs = [solves.MKL, "python=3.11"]
    assert "python" in conda_forge.solve(alone, specs).refusal
    for path in (server / "fixed").glob("*/repodata.json"):
        repodata = json.loads(path.read_text())
        repodata["info"]["channel_relations"] = {"overrides": "../conda-forge"}
        path.write_text(json.dumps(repodata))
    solved = conda_forge.solve(alone, specs)
    assert not solved.refusal
    assert solves.is_ours(solved["numpy"])


def test_the_index_leaves_the_notice_of_the_page(channel):
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    (channel / "notices.json").write_text(text)
    index(channel)
    (notice,) = asyncio.run(rattler.Gateway().channel_notices([rattler.Channel(channel.as_uri())]))
    assert notice.id == json.loads(text)["notices"][0]["id"]


def test_the_attestation_is_the_one_of_cep_27():
    """Its type, one subject with the file's name and one hash, the channel without a slash."""
    subject = provenance.Subject("numpy-2.3.5-mkl_py311h0000001_100.conda", "0" * 64)
    statement = provenance.publish_statement(subject, "https://example.org/fixed/")
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://schemas.conda.org/attestations-publish-1.schema.json",
        "subject": [{"name": subject.filename, "digest": {"sha256": "0" * 64}}],
        "predicate": {"targetChannel": "https://example.org/fixed"},
    }


@pytest.fixture
def cooldown():
    """Options of a solve on the day before ours was built."""
    return {"exclude_newer": datetime.datetime(2026, 4, 30, tzinfo=datetime.UTC)}


SPECS = ["python=3.12", "libblas=*=*_mkl"]


def test_a_cooldown_hides_a_fresh_build_and_the_pin_says_so(newest, cooldown):
    both = [newest.ours, newest.conda_forge]
    assert solves.is_ours(conda_forge.solve(both, [solves.MKL, *SPECS])["numpy"])
    hidden = conda_forge.solve(both, [solves.MKL, *SPECS], **cooldown)
    assert "numpy ==2.3.5 mkl*_1* cannot be installed" in hidden.refusal


@pytest.mark.parametrize("priority", ["Flexible", "Disabled"])
def test_without_the_pin_a_cooldown_brings_the_unpatched_build(newest, cooldown, priority):
    both = [newest.ours, newest.conda_forge]
    options = {"channel_priority": getattr(rattler.ChannelPriority, priority)}
    assert solves.is_ours(conda_forge.solve(both, ["numpy=2.3.5", *SPECS], **options)["numpy"])
    solved = conda_forge.solve(both, ["numpy=2.3.5", *SPECS], **options, **cooldown)
    assert not solves.is_ours(solved["numpy"])


def test_strict_priority_refuses_instead(newest, cooldown):
    """pixi's default: the hidden build still keeps the channels below from giving one."""
    both = [newest.ours, newest.conda_forge]
    solved = conda_forge.solve(both, ["numpy=2.3.5", *SPECS], **cooldown)
    assert "strict channel priority" in solved.refusal
