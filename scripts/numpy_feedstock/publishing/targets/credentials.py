"""Credentials for servers: from the variables that rattler-build knows, or what rattler stored.

They come from nowhere else. They are sent only to the server that they belong to.
"""

import json
import os
import urllib.parse
from pathlib import Path
from typing import Any

from ... import redact
from ...errors import UsageError

FILE_VARIABLE = "RATTLER_AUTH_FILE"
DEFAULT_FILE = "~/.rattler/credentials.json"


def where_looked_for(url: str, kind: str, *variables: str) -> str:
    """Return where a server's credentials are looked for, in words for a remedy."""
    return (
        f"{', '.join(variables)}, or {kind} for {_host(url)} "
        f"in the file that {FILE_VARIABLE} names ({DEFAULT_FILE})"
    )


def variable(name: str) -> str | None:
    """Return the secret that a variable holds; None without one.

    Raises UsageError when it cannot be one. The value is not shown.
    """
    value = os.environ.get(name)
    if not value:
        return None
    return _checked(value, f"the value of {name}")


def _checked(value: str, where: str) -> str:
    fault = redact.fault_of_secret(value)
    if fault:
        raise UsageError(
            f"{where} cannot be used as a secret",
            expected="ASCII characters without blanks and line ends",
            found=fault,
            remedy="store it again, without a line end (printf, not echo)",
        )
    return value


def password(value: str, where: str) -> str:
    """Return a user or a password. Blanks and letters outside of ASCII are allowed.

    Raises UsageError for one with a line end. The value is not shown.
    """
    if not value.isprintable():
        raise UsageError(f"{where} has a line end or another control character")
    return value


def stored(url: str) -> dict[str, Any]:
    """Return what rattler has stored for a URL's host, {"BearerToken": "..."}; {} for nothing.

    The keyring is not asked. Raises UsageError for a file that is not rattler's.
    """
    host = _host(url)
    labels = host.split(".")
    # rattler stores them for the host itself, or for all hosts of a domain
    names = [host, *(f"*.{'.'.join(labels[start:])}" for start in range(len(labels)))]
    contents = [
        _read(_expanded(path)) for path in (os.environ.get(FILE_VARIABLE), DEFAULT_FILE) if path
    ]
    for name in names:
        for content in contents:
            if name in content:
                return content[name]
    return {}


def token(url: str, kind: str, name: str) -> str | None:
    """Return one secret word for a server; None without one.

    kind : of what is stored for the server's host, "BearerToken"
    name : of the variable that comes first
    """
    value = variable(name)
    if value:
        return value
    found = stored(url)
    if found and kind not in found:
        raise UsageError(
            f"credentials of another kind are stored for {_host(url)}",
            expected=kind,
            found=", ".join(found),
            remedy=f"`rattler auth login` stores {kind}; or set {name}",
        )
    return stored_word(found, kind, url)


def stored_word(found: dict[str, Any], kind: str, url: str) -> str | None:
    """Return the word that is stored as ``kind``, checked; None without one."""
    value = found.get(kind)
    if value is None:
        return None
    where = f"the {kind} that is stored for {_host(url)}"
    if not isinstance(value, str):
        raise UsageError(f"{where} is not a text")
    return _checked(value, where)


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or ""


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        # a user without a home folder has stored nothing there
        return Path(path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return {host: credentials}. No message shows the content of the file."""
    try:
        content = json.loads(path.read_text())
        if all(isinstance(entry, dict) for entry in content.values()):
            return dict(content)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(
            f"the file of credentials cannot be read: {path}", found=error.strerror
        ) from None
    except (ValueError, AttributeError):
        pass
    raise UsageError(
        f"not a file of rattler's credentials: {path}",
        expected='{"HOST": {"BearerToken": "..."}}',
        remedy="`rattler auth login` writes one",
    )
