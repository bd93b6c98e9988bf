"""The Python files of numpy's affected releases, by hash, from upstream's source archives.

known_texts.json holds them. To add a release, run this module from the repository's root:

    PYTHONPATH=scripts build/venv/bin/python -m numpy_feedstock.packages.known_texts FOLDER

FOLDER holds the source archive (numpy-2.3.5.tar.gz) and one wheel of each release.
"""

import argparse
import functools
import hashlib
import io
import json
import re
import tarfile
import tokenize
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import patch

FILE = Path(__file__).with_name("known_texts.json")
CONFIG = "numpy/__config__.py"
# folders of the archive that are not installed, or that no import runs
_LEFT_OUT = re.compile(r"/(tests|src|_build_utils|code_generators|lapack_lite)/|/tempita")


@dataclass(frozen=True)
class KnownTexts:
    """What numpy of one release consists of.

    hashes : {file: sha256} of its Python files without the tests; "numpy/version.py" is a file
    config : text of the template from which the build makes numpy/__config__.py
    extensions : modules in C, such as "numpy/_core/_multiarray_umath"
    """

    hashes: dict[str, str]
    config: str
    extensions: frozenset[str]


@functools.cache
def of_release(release: str) -> KnownTexts | None:
    """Return what is known about a release; None when nothing is."""
    content = _load()
    if release not in content["releases"]:
        return None
    hashes = {
        file: sha256
        for file, releases_by_sha256 in content["files"].items()
        for sha256, releases in releases_by_sha256.items()
        if release in releases
    }
    known = content["releases"][release]
    config = content["config_templates"][known["config_template"]]
    return KnownTexts(hashes, config, frozenset(known["extensions"]))


@functools.cache
def _load() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def is_from_template(text: str, template: str) -> bool:
    """Return whether a file differs from its template only in the values of plain strings.

    An f-string is code, so its text counts.
    """
    try:
        return _code_of(text) == _code_of(template)
    except (tokenize.TokenError, SyntaxError):
        return False


def _code_of(text: str) -> list[str]:
    return list(_code_tokens(text))


def _code_tokens(text: str) -> Iterator[str]:
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.INDENT:
            yield "indent"
        elif token.type == tokenize.DEDENT:
            yield "dedent"
        elif token.type == tokenize.STRING and _is_plain(token.string):
            yield "string"
        elif token.type not in layout:
            yield token.string


def _is_plain(string: str) -> bool:
    start = re.match(r"[A-Za-z]*", string)
    assert start is not None
    return "f" not in start[0].lower() and "t" not in start[0].lower()


def make(folder: Path) -> dict[str, Any]:
    """Return the content of known_texts.json for the archives and wheels in a folder.

    Raises UsageError when the folder lacks one of them.
    """
    files: dict[str, dict[str, list[str]]] = {}
    templates: list[str] = []
    releases = {}
    for release in sorted(patch.applies_to()):
        texts = _texts_of_archive(_only_file(folder, f"numpy-{release}.tar.gz"))
        config = texts.pop(f"{CONFIG}.in").decode()
        for name, data in texts.items():
            sha256 = hashlib.sha256(data).hexdigest()
            files.setdefault(name, {}).setdefault(sha256, []).append(release)
        if config not in templates:
            templates.append(config)
        wheel = _only_file(folder, f"numpy-{release}-cp*.whl")
        releases[release] = {
            "config_template": templates.index(config),
            "extensions": sorted(_extensions(wheel)),
        }
    return {"releases": releases, "config_templates": templates, "files": files}


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UsageError(
            f"cannot read the releases in {folder}",
            expected=f"one file {pattern}",
            found=", ".join(path.name for path in found) or "none",
            remedy="download it from PyPI: pip download",
        )
    return found[0]


def _texts_of_archive(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return dict(_texts(tar))


def _texts(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        name = member.name.partition("/")[2]
        is_python = name.startswith("numpy/") and name.endswith((".py", f"{CONFIG}.in"))
        if member.isfile() and is_python and not _LEFT_OUT.search(name):
            content = tar.extractfile(member)
            assert content is not None
            yield name, content.read()


def _extensions(wheel: Path) -> Iterator[str]:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("numpy/") and name.endswith(".so"):
                yield name.split(".")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write known_texts.json.")
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="holds the source archive and one wheel of each affected release",
    )
    try:
        content = make(parser.parse_args().folder)
    except UsageError as error:
        parser.error(str(error))
    FILE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
