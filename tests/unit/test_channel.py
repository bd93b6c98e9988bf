"""The output channel: a package is in it whole, or not at all."""

import os
from pathlib import Path

import pytest

from numpy_feedstock import child
from numpy_feedstock.building import builder
from numpy_feedstock.channels import channel, channel_folder
from numpy_feedstock.errors import FeedstockError, UsageError


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A small real package with 3 MB that do not compress."""
    folder = tmp_path_factory.mktemp("made")
    recipe = {
        "package": {"name": "ballast", "version": "1"},
        "build": {"script": ["mkdir -p $PREFIX", "head -c 3000000 /dev/urandom > $PREFIX/ballast"]},
    }
    child.run(builder.build_recipe, recipe, str(folder), {}, log=folder / "log")
    (made,) = folder.glob("linux-64/*.conda")
    return made


def test_a_package_is_added_and_indexed(package, tmp_path):
    added = channel_folder.add(package, tmp_path, "linux-64")
    assert added.read_bytes() == package.read_bytes()
    assert package.name in (tmp_path / "linux-64" / "repodata.json").read_text()


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077], ids=oct)
@pytest.mark.parametrize(
    ("of_folder", "of_file"), [(0o755, 0o644), (0o2775, 0o664), (0o700, 0o600)], ids=oct
)
def test_permissions_follow_the_folder_whatever_the_umask_is(
    package, tmp_path, of_folder, of_file, umask
):
    tmp_path.chmod(of_folder)
    before = os.umask(umask)
    try:
        channel_folder.add(package, tmp_path, "linux-64")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {package.name, "repodata.json", ".lock"}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(of_file)}
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {oct(path.stat().st_mode & 0o2777) for path in folders} == {oct(of_folder)}


def test_on_a_full_disk_nothing_is_half_written(package, small_disk):
    with pytest.raises(
        FeedstockError,
        match="ballast.*could not be written: No space left on device\n  remedy: free some space",
    ):
        channel_folder.add(package, small_disk, "linux-64")
    assert not [
        path for path in small_disk.rglob("*") if path.is_file() and not path.name.endswith("lock")
    ]


def test_a_folder_that_cannot_be_written():
    with pytest.raises(
        UsageError, match="cannot be written: /dev/null/x\n  found:  Not a directory\n  remedy"
    ):
        channel_folder.check_writable(Path("/dev/null/x"))


def test_a_folder_is_a_channel_and_so_is_a_name(tmp_path):
    assert channel.url(tmp_path) == tmp_path.as_uri() + "/"
    assert channel.url("conda-forge").endswith("/conda-forge/")
    assert not channel.reachable(tmp_path)
    assert not channel.reachable("http://127.0.0.1:9/nowhere")


# --- what --channel may say


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of rattler-build's configuration of a user who has none yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    folder = tmp_path / ".config" / "rattler-build"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "content", [b"default-channels = [", b"default-channels = 3", b"\xff\xfe", b"= = ="]
)
def test_a_configuration_that_cannot_be_read_is_named(home, content):
    (home / "config.toml").write_bytes(content)
    with pytest.raises(UsageError, match="configuration cannot be read") as raised:
        channel.choose(None)
    assert str(home / "config.toml") in str(raised.value)


def test_the_password_of_a_configured_channel_is_not_shown(home):
    for line in ('["http://me:s3cr3t@host/c" x', '["http://me:s/3cr3t@host/c"]'):
        (home / "config.toml").write_text(f"default-channels = {line}")
        with pytest.raises(UsageError, match="http://\\*\\*\\*@host/c"):
            channel.choose(["auto"])


@pytest.mark.parametrize("name", ["c\udcff", "http://host/\udcff", "", " ", "http://", "a:b@c"])
def test_a_text_that_names_no_channel_is_refused(name):
    with pytest.raises(UsageError, match="not a channel: ."):
        channel.choose([name])


@pytest.mark.parametrize("word", ["auto", "bootstrap"])
def test_a_word_that_stands_for_channels_is_refused_beside_a_channel(word):
    for asked in ([word, "http://me:s3cr3t@host/c"], ["http://me:s3cr3t@host/c", word]):
        with pytest.raises(UsageError, match=f"--channel {word} cannot be given with") as raised:
            channel.choose(asked)
        assert "s3cr3t" not in str(raised.value)
    assert channel.choose(["bootstrap", "bootstrap"]) == ["bootstrap"]


@pytest.mark.parametrize("asked", [None, ["auto"], ["http://127.0.0.1:9/c"]])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("http_proxy", "ftp://x", "http_proxy does not name a proxy"),
        ("HTTPS_PROXY", "http://a:b", "HTTPS_PROXY does not name a proxy"),
        ("SSL_CERT_FILE", "/nonexistent", "look at SSL_CERT_FILE"),
    ],
)
def test_a_network_that_cannot_be_used_is_said_and_not_taken_for_silence(
    home, monkeypatch, asked, name, value, message
):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        channel.choose(asked)


def test_the_reason_is_named_when_a_channel_does_not_answer(tmp_path):
    with pytest.raises(UsageError, match=r"does not answer: http.*\n  found:  .*refused"):
        channel.choose(["http://127.0.0.1:9/c?token=s3cr3t"])
    with pytest.raises(UsageError, match=r"does not answer: .*\n  found:  no file .*repodata"):
        channel.choose([str(tmp_path)])
