"""Download numpy's source archive once, check it, and hand it to rattler-build.

The recipe names upstream's release page. Where that cannot be reached, the same file
comes from the package index that pip is configured for: its sha256 decides. rattler-build
takes it from the URL in the environment variable NUMPY_SOURCE, which the recipe reads.
"""

import contextlib
import logging
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .. import files, paths, redact
from ..errors import FeedstockError
from ..progress import Say

# the recipe takes the archive from the URL in this environment variable
VARIABLE = "NUMPY_SOURCE"
# prints pip's default index, which counts when pip's configuration names none
_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


def provide(
    url: str, version: str, sha256: str, say: Say, recipe_folder: Path = paths.RECIPE.parent
) -> Path:
    """Return the path of a release's source archive that the recipe's patches apply to.

    url : upstream's URL of the file
    version, sha256 : of numpy's release
    say : called with a line for a person
    recipe_folder : holds the folder ``patches``

    Raises FeedstockError when the file cannot be downloaded, when its sha256 is another,
    or when a patch does not apply.
    """
    kept = archive(url, version, sha256, say)
    check_patches(kept, recipe_folder)
    return kept


def archive(url: str, version: str, sha256: str, say: Say) -> Path:
    """Return the path of a release's source archive. Its sha256 was checked."""
    kept = paths.SDISTS / f"numpy-{version}.tar.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        content = _download(url, version, say)
        # in a folder of its own, because another process may download the same archive
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            partial = Path(folder, kept.name)
            partial.write_bytes(content)
            partial.replace(kept)
    check_sha256(kept, sha256)
    return kept


def check_patches(kept: Path, recipe_folder: Path = paths.RECIPE.parent) -> None:
    """Raise FeedstockError unless each patch of a recipe applies to an archive without fuzz.

    rattler-build also places a hunk whose lines are only similar. git does not.
    """
    for patch in sorted((recipe_folder / "patches").glob("*.patch")):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            _extract_patched_files(kept, patch, folder)
            checked = subprocess.run(
                ["git", "apply", "--check", patch],
                cwd=folder,
                capture_output=True,
                text=True,
                env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
            )
        if checked.returncode:
            hunks = re.findall(r"patch failed: (\S+)", checked.stderr)
            raise FeedstockError(
                f"the patch does not apply to {kept.name}: {patch.name}",
                hunk=", ".join(hunks) or "see found",
                found=checked.stderr.strip(),
                remedy="make the patch anew from this release",
            )


def _extract_patched_files(kept: Path, patch: Path, folder: Path) -> None:
    """Extract the files that a patch changes: the whole archive takes seconds."""
    root = kept.name.removesuffix(".tar.gz")
    with tarfile.open(kept) as tar:
        for name in re.findall(r"^--- a/(\S+)$", patch.read_text(), re.MULTILINE):
            if f"{root}/{name}" not in tar.getnames():
                continue  # git says that it is not there
            stream = tar.extractfile(f"{root}/{name}")
            assert stream is not None, f"{name} is not a file"
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stream.read())


def check_sha256(path: Path, expected: str) -> None:
    """Raise FeedstockError unless the file's sha256 is the expected one."""
    found = files.sha256(path)
    if found != expected:
        raise FeedstockError(
            f"wrong sha256 of {path}",
            expected=f"{expected} ({paths.BUILD_CONFIG.name})",
            found=found,
            remedy="correct the line of the build config, or delete the file to download it again",
        )


def _download(url: str, version: str, say: Say) -> bytes:
    import http.client
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            say(f"downloading {url}")
            return bytes(response.read())
    # an answer that breaks off is no OSError, and neither is a URL that cannot be read
    except (OSError, http.client.HTTPException, ValueError):
        say(f"upstream's release page does not send it: numpy {version} comes from pip's index")
    return _download_from_index(version)


def _download_from_index(version: str) -> bytes:
    import httpx2

    try:
        return _ask_index(version)
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or "no answer"
        raise FeedstockError(
            f"numpy {version} could not be downloaded from pip's index",
            found=redact.urls_in(f"{type(error).__name__}: {reason}"),
            remedy="run the same command again, or look at: pip config list",
        ) from None


def _ask_index(version: str) -> bytes:
    from unearth import PackageFinder

    finder = PackageFinder(
        index_urls=_index_urls(),
        no_binary=["numpy"],
        ignore_compatibility=True,
        trusted_hosts=_pip_setting("trusted-host").split(),
    )
    with _warnings_of("unearth") as warnings:
        best = finder.find_best_match(f"numpy=={version}").best
        if best is None:
            raise FeedstockError(
                f"numpy {version} has no source archive in the index that pip is configured for",
                found="; ".join(warnings) or "an index without it",
                remedy="pip config list",
            )
        answer = finder.session.get(best.link.normalized)
        answer.raise_for_status()
        return bytes(answer.content)


@contextlib.contextmanager
def _warnings_of(library: str) -> Iterator[list[str]]:
    """Collect what a library logs as warnings. Python prints them where nobody collects them."""
    warnings: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logger = logging.getLogger(library)
    logger.addHandler(collector)
    try:
        yield warnings
    finally:
        logger.removeHandler(collector)


def _index_urls() -> list[str]:
    main, extra = _pip_setting("index-url"), _pip_setting("extra-index-url")
    if not main:
        command = [sys.executable, "-c", _DEFAULT_INDEX]
        main = subprocess.check_output(command, text=True).strip()
    return [*main.split(), *extra.split()]


def _pip_setting(name: str) -> str:
    """Return a setting of pip's configuration or environment; "" when it is not set."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True)
    if listed.returncode:
        raise FeedstockError(
            "pip's configuration cannot be read",
            found=redact.urls_in(listed.stderr.strip()),
            remedy="correct it: pip config debug",
        )
    values = dict(line.split("=", 1) for line in listed.stdout.splitlines() if "=" in line)
    for section in (":env:.", "download.", "global."):
        if section + name in values:
            return values[section + name].strip("'").replace("\\n", " ")
    return ""
