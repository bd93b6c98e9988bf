"""A channel that wants a password or a token: it is reached, and nothing tells the secret."""

import base64
import functools
import http.server
import json
import threading

import pytest
import yaml

from helpers import small
from numpy_feedstock import child, paths, redact
from numpy_feedstock.channels import channel, channel_folder, prefix
from numpy_feedstock.errors import FeedstockError, UsageError
from numpy_feedstock.packages import canonical

PASSWORD, ENCODED, TOKEN = "s3cr3t/W rd", "s3cr3t%2FW%20rd", "tk-s3cr3t"


class Private(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as /auth/ to user and password, and as /t/TOKEN/token/ to the token.

    Below /api/, too, where Quetz has the token: rattler does not know it there.
    """

    def send_head(self):
        # its answer 304 lacks the headers that rattler wants of one
        del self.headers["If-Modified-Since"]
        path = self.path
        given = self.headers.get("Authorization", "")
        expected = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        if path.startswith("/auth/") and given == expected:
            self.path = path.removeprefix("/auth")
            return super().send_head()
        for start in (f"/t/{TOKEN}/token", f"/api/t/{TOKEN}/token"):
            if path.startswith(f"{start}/"):
                self.path = path.removeprefix(start)
                return super().send_head()
        self.send_error(401)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The only package of the channel."""
    folder = tmp_path_factory.mktemp("private")
    made = small.make(folder, 1)
    return channel_folder.add(made, folder / "channel", channel.this_platform())


@pytest.fixture
def host(package, monkeypatch, tmp_path):
    """Host and port of the channel's server. Rattler has no credentials for it yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RATTLER_AUTH_FILE", raising=False)
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "PACKAGE_CACHE", tmp_path / "packages")
    handler = functools.partial(Private, directory=str(package.parents[1]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


BY_PASSWORD = {"BasicHTTP": {"username": "me", "password": PASSWORD}}
BY_TOKEN = {"CondaToken": TOKEN}
# {where the credentials are: (the URL, what rattler's own file holds)}
WAYS = {
    "password in the URL": (f"http://me:{ENCODED}@HOST/auth", None),
    "token in the URL": (f"http://HOST/t/{TOKEN}/token", None),
    "token within the URL": (f"http://HOST/api/t/{TOKEN}/token", None),
    "password in the file": ("http://HOST/auth", BY_PASSWORD),
    "token in the file": ("http://HOST/token", BY_TOKEN),
}


@pytest.fixture(params=WAYS)
def url(request, host, monkeypatch, tmp_path):
    """The URL of the channel. The credentials for it are in the URL, or rattler has them."""
    url, credentials = WAYS[request.param]
    if credentials:
        (tmp_path / "auth.json").write_text(json.dumps({"127.0.0.1": credentials}))
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
    return url.replace("HOST", host)


def test_it_is_chosen_and_installed_from(url, package, tmp_path):
    assert channel.choose([url]) == [url]
    installed = prefix.install([channel.url(url)], ["numpy"], tmp_path / "prefix")
    assert list((installed / "conda-meta").glob("numpy-2.3.5-*.json"))


@pytest.mark.parametrize("bad", ["http://me:no-s3cr3t@HOST/auth", "http://HOST/t/no-s3cr3t/token"])
def test_with_a_wrong_secret_it_does_not_answer_and_the_reason_is_named(host, bad):
    with pytest.raises(UsageError, match="does not answer: http") as raised:
        channel.choose([bad.replace("HOST", host)])
    assert "401" in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


def test_a_record_without_the_password_says_where_to_put_it(host, tmp_path):
    made = small.make(tmp_path, 2)
    small.write_record(made, channels=[f"http://{host}/auth/"])
    with pytest.raises(UsageError, match="keeps no password and no token") as raised:
        prefix.built_with(made)
    assert "RATTLER_AUTH_FILE" in str(raised.value) and "401" in str(raised.value)


def test_a_record_with_the_password_in_it_is_used_and_not_shown(host, tmp_path):
    made = small.make(tmp_path, 2)
    for secret, port in ((ENCODED, host), ("no-s3cr3t", host), (ENCODED, "127.0.0.1:9")):
        url = f"http://me:{secret}@{port}/auth/"
        small.write_record(made, channels=[url])
        if (secret, port) == (ENCODED, host):
            assert prefix.built_with(made) == [url]
            continue
        with pytest.raises(FeedstockError, match="does not answer: http") as raised:
            prefix.built_with(made)
        assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("content", ["{broken", "[]"])
def test_credentials_that_cannot_be_read_are_named(host, monkeypatch, tmp_path, content):
    (tmp_path / "auth.json").write_text(content)
    monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
    with pytest.raises(UsageError, match=r"credentials cannot be read\n  found: .*auth.json"):
        channel.choose([f"http://{host}/auth"])


def build_from(url, folder, say):
    """Build a small package whose recipe wants the channel's package, and log it."""
    from rattler_build import RenderConfig, Stage0Recipe, ToolConfiguration, VariantConfig

    from numpy_feedstock.building.builder import Log

    recipe = {
        "package": {"name": "told", "version": "1"},
        "build": {"script": ["touch $PREFIX/told"]},
        "requirements": {"host": ["numpy"]},
    }
    (rendered,) = Stage0Recipe.from_dict(recipe).render(VariantConfig(), RenderConfig())
    result = rendered.run_build(
        tool_config=ToolConfiguration(test_strategy="skip"),
        output_dir=folder,
        channels=[url],
        no_build_id=True,
        progress_callback=Log(say),
    )
    canonical.rewrite(result.packages[0], 1_700_000_000)
    return result.packages[0]


def test_a_package_that_is_built_from_it_and_the_log_hold_no_secret(url, host, tmp_path):
    """The builder writes the URL of each package that it installs into the new one."""
    from rattler.package_streaming import extract

    made = child.run(build_from, url, str(tmp_path / "work"), log=tmp_path / "log")
    extract(made, tmp_path / "unpacked")
    texts = [path.read_bytes() for path in (tmp_path / "unpacked" / "info").rglob("*.*")]
    for text in [*texts, (tmp_path / "log").read_bytes()]:
        assert b"s3cr3t" not in text
    rendered = (tmp_path / "unpacked" / canonical.RENDERED).read_text()
    name = redact.url(url).removeprefix(f"http://{host}/")
    assert f"url: http://{host}/{name}/linux-64/numpy-2.3.5-" in rendered
    about = json.loads((tmp_path / "unpacked" / canonical.ABOUT).read_text())
    configuration = yaml.safe_load(rendered)["build_configuration"]
    for listed in (about["channels"], configuration["channels"]):
        assert [each.rstrip("/") for each in listed] == [f"http://{host}/{name}"]
