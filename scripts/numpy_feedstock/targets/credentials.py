"""Credentials for servers: out of the variables that rattler-build knows, or what rattler has stored.

They are taken from nowhere else, and go into nothing but requests to the server they are for.
"""

import json
import os
import urllib.parse
from pathlib import Path

from ..errors import UsageError

FILE_VARIABLE = "RATTLER_AUTH_FILE"
DEFAULT_FILE = "~/.rattler/credentials.json"


def place(url, kind, *variables):
    """Where a server's credentials are looked for, in words for a remedy."""
    return f"{', '.join(variables)}, or {kind} for {_host(url)} in the file that {FILE_VARIABLE} names ({DEFAULT_FILE})"


def stored(url):
    """What rattler has stored for a URL's host, {"BearerToken": "..."}; {} for nothing. The keyring is not asked.

    Raises UsageError for a file that is not rattler's.
    """
    labels = _host(url).split(".")
    # as rattler does: the host itself, or all hosts of a domain
    names = [_host(url), *(f"*.{'.'.join(labels[start:])}" for start in range(len(labels)))]
    files = [
        _read(Path(path).expanduser())
        for path in (os.environ.get(FILE_VARIABLE), DEFAULT_FILE)
        if path
    ]
    return next((content[name] for name in names for content in files if name in content), {})


def token(url, kind, variable):
    """One secret word for a server: out of the variable, or what is stored for its host as ``kind``; None without one."""
    if os.environ.get(variable):
        return os.environ[variable]
    found = stored(url)
    if found and kind not in found:
        remedy = f"`rattler auth login` stores {kind}; or set {variable}"
        raise UsageError(
            f"credentials of another kind are stored for {_host(url)}",
            expected=kind,
            found=", ".join(found),
            remedy=remedy,
        )
    return found.get(kind)


def _host(url):
    return urllib.parse.urlsplit(url).hostname


def _read(path):
    """{host: credentials}; nothing that is in the file gets into a message."""
    try:
        content = json.loads(path.read_text())
        if all(isinstance(entry, dict) for entry in content.values()):
            return content
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(
            f"the file of credentials cannot be read: {path}", found=error.strerror
        ) from None
    except (ValueError, AttributeError):
        pass
    expected = '{"HOST": {"BearerToken": "..."}}'
    raise UsageError(
        f"not a file of rattler's credentials: {path}",
        expected=expected,
        remedy="`rattler auth login` writes one",
    )
