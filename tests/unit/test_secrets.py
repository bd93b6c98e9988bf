"""Tokens and keys stay out of what people and logs see, whatever is wrong with them."""

import pytest

from numpy_feedstock import child, cli, redact
from numpy_feedstock.errors import FeedstockError
from numpy_feedstock.progress import Progress
from numpy_feedstock.publishing import signing

MARK = "s3cr3tW0rd"
SPOILED = [
    f"{MARK}\n",
    f" {MARK}",
    f"{MARK}\r",
    f"a\n{MARK}",
    f"{MARK}\x1b[0m",
    f"{MARK}ü",
    f"a {MARK}",
]
TOKENS = {
    "QUETZ_API_KEY": "quetz+http://127.0.0.1:9/channel",
    "ARTIFACTORY_TOKEN": "artifactory+http://127.0.0.1:9/channel",
    "PREFIX_API_KEY": "https://prefix.dev/channel",
    "ANACONDA_API_KEY": "https://anaconda.org/owner",
    "AWS_ACCESS_KEY_ID": "s3://bucket/channel",
    "AWS_SECRET_ACCESS_KEY": "s3://bucket/channel",
    "AWS_SESSION_TOKEN": "s3://bucket/channel",
}
PROXIES = [
    f"ftp://me:{MARK}@host",
    f"http://me:{MARK}@host:99999",
    f"http://me:{MARK}@host:port",
    f"http://me:{MARK}@[::1",
    f"socks5://me:{MARK}@host:1",
    f"http://me:{MARK}@host\n",
    f"//{MARK}",
    f"{MARK}://",
]
ENDPOINTS = [
    f"http://me:{MARK}@127.0.0.1:9",
    f"http://me:{MARK}@[::1",
    f"127.0.0.1:9/{MARK}",
    f"ftp://{MARK}",
    f"http://127.0.0.1:99999/{MARK}",
    f"http://127.0.0.1:9/{MARK}\n",
]
TARGETS = [
    f"me:{MARK}@host:/x",
    f"me:{MARK}@host",
    f"https://me:{MARK}@prefix.dev/channel",
    f"https://{MARK}@anaconda.org/owner",
    f"quetz://me:{MARK}@host/channel",
    f"quetz://host/t/{MARK}/channel",
    f"artifactory://host/channel?token={MARK}",
    f"artifactory://host/channel#{MARK}",
    f"s3://key:{MARK}@bucket/x",
    f"sftp://me:{MARK}@host/x",
    f"file://me:{MARK}@host/x",
    f"https://me:{MARK}@[::1",
    f"quetz://host/{MARK}\n@",
]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder to work in, a key of its own, and none of the user's credentials."""
    home = tmp_path / "home"
    home.mkdir()
    signing.make(home / "key.pem")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv(signing.VARIABLE, str(home / "key.pem"))
    for name in (*TOKENS, "AWS_ENDPOINT_URL", "AWS_PROFILE", "RATTLER_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def refused(workplace, capfd):
    """Run a verb that has to fail; what it said. It leaves nothing behind and says no secret."""

    def run(*args):
        code = cli.main(args)
        said = "".join(capfd.readouterr())
        assert code in (1, 2)
        assert MARK not in said
        assert "Traceback" not in said
        assert not list(workplace.iterdir())
        return said

    return run


@pytest.mark.parametrize("verb", [("publish", "--to"), ("check-channel",)], ids=lambda v: v[0])
@pytest.mark.parametrize("spoiled", SPOILED, ids=ascii)
@pytest.mark.parametrize("variable", TOKENS)
def test_a_token_that_cannot_be_one_is_named_by_its_variable(
    variable, spoiled, verb, refused, monkeypatch
):
    monkeypatch.setenv(variable, spoiled)
    assert f"the value of {variable} cannot be used as a secret" in refused(*verb, TOKENS[variable])


@pytest.mark.parametrize("spoiled", [f"{MARK}\n", f"{MARK}\x07"], ids=ascii)
def test_a_password_with_a_line_end_is_refused(spoiled, refused, monkeypatch):
    monkeypatch.setenv("ARTIFACTORY_USERNAME", "me")
    monkeypatch.setenv("ARTIFACTORY_PASSWORD", spoiled)
    assert "has a line end" in refused("publish", "--to", TOKENS["ARTIFACTORY_TOKEN"])


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", PROXIES, ids=ascii)
@pytest.mark.parametrize("url", ["quetz+http://127.0.0.1:9/channel", "s3://bucket/channel"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    name, value, url, refused, monkeypatch
):
    monkeypatch.setenv(name, value)
    assert f"{name} does not name a proxy" in refused("publish", "--to", url)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("value", ENDPOINTS, ids=ascii)
def test_an_endpoint_that_cannot_be_used_is_named_by_its_variable(
    name, value, refused, monkeypatch
):
    monkeypatch.setenv(name, value)
    assert f"{name} does not name a server" in refused("publish", "--to", "s3://bucket/channel")


@pytest.mark.parametrize("verb", [("publish", "--to"), ("check-channel",)], ids=lambda v: v[0])
@pytest.mark.parametrize("target", TARGETS, ids=ascii)
def test_a_target_with_a_secret_in_it_is_refused_and_not_shown(target, verb, refused):
    assert "remedy" in refused(*verb, target) or "line end" in refused(*verb, target)


@pytest.mark.parametrize(
    "url", [f"https://me:{MARK}@127.0.0.1:9/c", f"http://127.0.0.1:9/t/{MARK}/c"]
)
def test_a_channel_with_a_secret_in_it_is_not_shown(url, refused):
    assert "the channel does not answer: http" in refused("build", "--channel", url)


# --- URLs in what people and logs see

URLS = [
    f"http://me:{MARK}@host/c",
    f"HTTP://me:{MARK}@host/c",
    f"http://me:{MARK}%2F%20@host/c",
    f"http://me:a/{MARK}@host/c",
    f"http://me:8/{MARK}@host/c",
    f"http://me:a?{MARK}@host/c",
    f"http://me:a@{MARK}@host/c",
    f"http://me:a'{MARK}@host/c",
    f"http://{MARK}@host/c",
    f"http://host/t/{MARK}/c",
    f"http://host/api/t/{MARK}",
    f"https://host/c?token={MARK}",
    f"https://host/c?a='{MARK}",
    f"https://host/c#{MARK}",
    f"s3://key:{MARK}@bucket/c",
    f"s3://bucket/c?secret={MARK}",
    f"git+ssh://me:{MARK}@host/c",
    f"file://me:{MARK}@host/c",
]


@pytest.mark.parametrize("url", URLS)
def test_the_secrets_of_a_url_are_shown_nowhere(url, capsys):
    told = f"no answer from ({url}): 401, {url}"
    Progress().step(told)
    assert cli_error(told, capsys) == 2
    texts = [redact.urls_in(told), str(FeedstockError(told, found=told)), redact.argument(url)]
    for text in [*texts, *capsys.readouterr()]:
        assert MARK not in text
    assert "no answer from (" in texts[0] and "401" in texts[0]
    assert url.partition("://")[0] in texts[2]


def cli_error(told, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["build", told])
    return ended.value.code


@pytest.mark.parametrize(
    "text", [f"http://me:a {MARK}@host/c", f"http://me:{MARK}\t@h/c", f"me:{MARK}@host/c"]
)
def test_a_typed_value_may_hold_a_blank_or_lack_its_scheme(text):
    assert MARK not in redact.argument(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8443/conda-forge/label/x",
        "file:///home/t/me/channel@2",
        "/home/t/me/my channel@2",
        "conda-forge",
    ],
)
def test_what_is_no_secret_is_shown(text):
    assert redact.urls_in(text) == redact.argument(text) == redact.url(text) == text


def say_and_fail(url, how, say):
    say(f"missing for {url}, falling back")
    if how == "ours":
        raise FeedstockError(f"no answer: {url}")
    raise RuntimeError(f"no answer: {url}")


@pytest.mark.parametrize("how", ["ours", "another"])
def test_a_child_hides_a_token_that_is_taken_for_the_name_of_its_channel(tmp_path, how):
    lines, url = [], f"http://host/t/{MARK}/"
    with pytest.raises(FeedstockError) as raised:
        child.run(
            say_and_fail,
            f"the channel {MARK}",
            how,
            log=tmp_path / "log",
            say=lines.append,
            secrets=redact.tokens_at_end([url]),
        )
    assert lines == ["missing for the channel ***, falling back"]
    assert MARK not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (f"http://host/t/{MARK}", [MARK]),
        (f"http://host/api/t/{MARK}/?a#b", [MARK]),
        (f"http://host/t/{MARK}/channel", []),
        ("conda-forge", []),
        ("file:///t/folder/channel/", []),
    ],
)
def test_a_token_is_a_name_only_at_the_end_of_a_url(url, found):
    assert redact.tokens_at_end([url]) == found


@pytest.mark.parametrize("how", ["ours", "another"])
def test_a_child_hides_the_secrets_of_urls_in_its_log_and_its_error(tmp_path, how):
    lines = []
    with pytest.raises(FeedstockError) as raised:
        child.run(say_and_fail, URLS[0], how, log=tmp_path / "log", say=lines.append)
    log = (tmp_path / "log").read_text()
    for text in (log, *lines, str(raised.value)):
        assert MARK not in text
    assert "missing for http://***@host/c, falling back" in log
    assert lines == ["missing for http://***@host/c, falling back"]


# --- the signing key


def openssl_pem(*options):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    kinds = {
        "rsa": lambda bits: rsa.generate_private_key(65537, bits),
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    }
    kind, *more = options
    return (
        kinds[kind](*more)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def test_a_key_in_the_place_of_its_path_is_not_shown_and_makes_no_file(refused, monkeypatch):
    pem = openssl_pem("ec")
    body = "".join(pem.splitlines()[1:-1])
    for value in (pem, pem.replace("\n", " "), body, f"/tmp/{MARK}", MARK, "\n", "/dev/null", "/"):
        monkeypatch.setenv(signing.VARIABLE, value)
        said = refused("publish", "--to", "channel")
        assert f"{signing.VARIABLE} does not name a file" in said
        assert body[:20] not in said


def test_no_key_is_made_in_passing(refused, monkeypatch, tmp_path):
    monkeypatch.delenv(signing.VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert "feedstock make-key makes one" in refused("publish", "--to", "channel")
    assert not (tmp_path / "config").exists()
    assert cli.main(["make-key"]) == 0
    key = tmp_path / "config" / "numpy-feedstock" / "signing-key.pem"
    assert oct(key.stat().st_mode & 0o777) == "0o600"
    assert signing.public_key(signing.public_path(key)) == signing.signer().public_key
    before = key.read_bytes()
    assert "a file is there already" in refused("make-key")
    assert key.read_bytes() == before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(mode, tmp_path, refused, monkeypatch):
    signing.make(tmp_path / "open.pem")
    (tmp_path / "open.pem").chmod(mode)
    monkeypatch.setenv(signing.VARIABLE, str(tmp_path / "open.pem"))
    assert f"found:    mode {mode:04o}" in refused("publish", "--to", "channel")


def test_a_short_rsa_key_is_refused_to_sign_and_to_trust(tmp_path, refused, monkeypatch):
    for bits in (1024, 2047):
        path = tmp_path / f"{bits}.pem"
        path.write_text(openssl_pem("rsa", bits))
        path.chmod(0o600)
        monkeypatch.setenv(signing.VARIABLE, str(path))
        assert f"found:    {bits} bits" in refused("publish", "--to", "channel")


def test_the_public_half_is_derived_where_there_is_no_file(tmp_path, monkeypatch):
    for kind in (("ec",), ("rsa", 2048)):
        path = tmp_path / f"{kind[0]}.pem"
        path.write_text(openssl_pem(*kind))
        path.chmod(0o600)
        monkeypatch.setenv(signing.VARIABLE, str(path))
        assert signing.own_public_key() == signing.signer().public_key


# --- channels in records and statements


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        (f"https://me:{MARK}@host/c/", "https://host/c"),
        (f"https://host/t/{MARK}/c", "https://host/c"),
        (f"s3://key:{MARK}@Bucket/c", "s3://Bucket/c"),
        (f"HTTPS://{MARK}@host/c", "https://host/c"),
        (f"https://host:8443/c?token={MARK}#{MARK}", "https://host:8443/c"),
        (f"file:///home/{MARK}/build/bootstrap-3.11/", "bootstrap"),
        (f"/home/{MARK}/channel", "local folder"),
        (f"file:///home/{MARK}/", "local folder"),
        ("conda-forge", "conda-forge"),
        (f"https://me:{MARK}@[::1", redact.HIDDEN),
    ],
)
def test_a_channel_loses_what_only_its_user_may_know(channel, said):
    assert redact.channel(channel) == said
