"""Where credentials are taken from, and that they are in no message."""

import json

import pytest

from numpy_feedstock.errors import UsageError
from numpy_feedstock.publishing.targets import credentials


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (credentials.FILE_VARIABLE, "QUETZ_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def store(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_host_comes_before_its_domain_and_the_named_file_before_the_usual_one(
    tmp_path, monkeypatch
):
    usual, named = tmp_path / ".rattler" / "credentials.json", tmp_path / "named.json"
    assert credentials.stored("https://quetz.example.com:8000/channel") == {}
    store(usual, {"*.com": {"CondaToken": "5"}, "*.example.com": {"CondaToken": "4"}})
    assert credentials.stored("https://quetz.example.com:8000/channel") == {"CondaToken": "4"}
    assert credentials.stored("https://example.com") == {"CondaToken": "4"}
    assert credentials.stored("https://example.org") == {}
    store(usual, {"quetz.example.com": {"CondaToken": "3"}, "*.example.com": {"CondaToken": "4"}})
    assert credentials.stored("https://quetz.example.com:8000/channel") == {"CondaToken": "3"}
    store(named, {"quetz.example.com": {"CondaToken": "2"}})
    monkeypatch.setenv(credentials.FILE_VARIABLE, str(named))
    assert credentials.stored("https://quetz.example.com:8000/channel") == {"CondaToken": "2"}


def test_a_variable_comes_before_what_is_stored(tmp_path, monkeypatch):
    store(tmp_path / ".rattler" / "credentials.json", {"host": {"CondaToken": "stored"}})
    assert credentials.token("https://host", "CondaToken", "QUETZ_API_KEY") == "stored"
    monkeypatch.setenv("QUETZ_API_KEY", "variable")
    assert credentials.token("https://host", "CondaToken", "QUETZ_API_KEY") == "variable"


@pytest.mark.parametrize(
    "content", ['{"host": {"CondaToken": "secret"', '["secret"]', '{"host": "secret"}']
)
def test_a_file_of_another_form_is_named_and_not_quoted(content, tmp_path):
    store(tmp_path / ".rattler" / "credentials.json", content)
    with pytest.raises(
        UsageError,
        match=r"not a file of rattler's credentials: .*/\.rattler/credentials\.json\n  expected: ",
    ) as refused:
        credentials.stored("https://host")
    assert "secret" not in str(refused.value)


def test_credentials_of_another_kind_are_named_and_not_quoted(tmp_path):
    store(tmp_path / ".rattler" / "credentials.json", {"host": {"BearerToken": "secret"}})
    with pytest.raises(
        UsageError,
        match="stored for host\n  expected: CondaToken\n  found:    BearerToken\n  remedy: ",
    ) as refused:
        credentials.token("https://host", "CondaToken", "QUETZ_API_KEY")
    assert "secret" not in str(refused.value)
