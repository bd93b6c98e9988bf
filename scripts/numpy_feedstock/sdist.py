"""numpy's source archive, in the place where rattler-build looks for it.

The recipe names upstream's release URL. Where that cannot be reached the same
file (the sha256 decides) comes from the package index that pip is configured
for. It is put into rattler-build's source cache under upstream's URL: so the
recipe, and what the package says of its source, stay the same.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from . import paths
from .errors import FeedstockError

# pip's default when its configuration names no index; asked of pip itself
_DEFAULT_INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


def provide(url, version, sha256, work, report, recipe=paths.RECIPE.parent):
    """Make sure that rattler-build, working in ``work``, finds the source, and that the patches fit it.

    url : str, upstream's URL as the recipe renders it
    version, sha256 : str, of numpy's release
    work : Path, rattler-build's output folder
    recipe : Path, the recipe's folder, which holds the patches

    Raises FeedstockError when the file cannot be had, has another sha256, or a
    patch does not apply.
    """
    kept = archive(url, version, sha256, report)
    check_patches(kept, recipe)
    if not _cached(url, sha256, work).exists():
        _put(kept, url, sha256, work)


def archive(url, version, sha256, report):
    """The source archive of a release, kept and checked; its path."""
    kept = paths.SDISTS / f"numpy-{version}.tar.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        partial.write_bytes(_download(url, version, report))
        partial.rename(kept)
    check_sha256(kept, sha256)
    return kept


def check_patches(kept, recipe=paths.RECIPE.parent):
    """Raise FeedstockError unless each patch of a recipe's folder applies to an archive as it stands.

    rattler-build would place a hunk whose lines are merely similar: git does not.
    """
    for patch in sorted((recipe / "patches").glob("*.patch")):
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(kept) as tar:
                for name in re.findall(r"^--- a/(\S+)$", patch.read_text(), re.MULTILINE):
                    target = Path(folder, name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(
                        tar.extractfile(f"{kept.name.removesuffix('.tar.gz')}/{name}").read()
                    )
            command = ["git", "apply", "--check", str(patch)]
            checked = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                env={**os.environ, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)},
            )
        if checked.returncode:
            hunks = ", ".join(re.findall(r"patch failed: (\S+)", checked.stderr)) or "see found"
            raise FeedstockError(
                f"the patch does not apply to {kept.name}: {patch.name}",
                hunk=hunks,
                found=checked.stderr.strip(),
                remedy="make the patch anew from this release",
            )


def check_sha256(path, expected):
    """Raise FeedstockError unless the file's sha256 is the expected one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise FeedstockError(
            f"wrong sha256 of {path}",
            expected=f"{expected} ({paths.BUILD_CONFIG.name})",
            found=found,
            remedy="correct the line of the build config, or delete the file to download it again",
        )


def _download(url, version, report):
    import urllib.request

    from unearth import PackageFinder

    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            report(f"downloading {url}")
            return response.read()
    except OSError:
        report(
            f"upstream's release page is not reachable: numpy {version} comes from the package index"
        )
    finder = PackageFinder(
        index_urls=_index_urls(),
        no_binary=["numpy"],
        ignore_compatibility=True,
        trusted_hosts=_pip("trusted-host").split(),
    )
    best = finder.find_best_match(f"numpy=={version}").best
    if best is None:
        raise FeedstockError(
            f"numpy {version} has no source archive in the index that pip is configured for",
            remedy="pip config list",
        )
    response = finder.session.get(best.link.normalized)
    response.raise_for_status()
    return response.content


def _index_urls():
    configured = f"{_pip('index-url')} {_pip('extra-index-url')}".split()
    default = subprocess.check_output([sys.executable, "-c", _DEFAULT_INDEX], text=True).strip()
    return configured if _pip("index-url") else [default, *configured]


def _pip(setting):
    """A setting of pip's configuration, environment included; empty when it is not set."""
    listing = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    values = dict(line.split("=", 1) for line in listing.splitlines() if "=" in line)
    for section in (":env:.", "download.", "global."):
        if section + setting in values:
            return values[section + setting].strip("'").replace("\\n", " ")
    return ""


def _key(url, sha256):
    # rattler-build's own: Rust's DefaultHasher over the two strings
    import siphash24

    strings = b"".join(text.encode() + b"\xff" for text in (url, sha256))
    return f"{int.from_bytes(siphash24.siphash13(strings, key=bytes(16)).digest(), 'little'):x}"


def _cached(url, sha256, work):
    return work / "src_cache" / ".metadata" / f"{_key(url, sha256)}.json"


def _put(kept, url, sha256, work):
    cache = work / "src_cache"
    (cache / ".metadata").mkdir(parents=True, exist_ok=True)
    stem = _key(url, sha256)
    copy, tree = f"{stem}_{kept.name}", f"{stem}_extracted"
    shutil.copyfile(kept, cache / copy)
    shutil.rmtree(cache / tree, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder, tarfile.open(kept) as tar:
        # Python 3.11.2, Debian 12's, has no `filter` argument yet; the sha256 vouches for the file
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder)
        (root,) = Path(folder).iterdir()
        root.rename(cache / tree)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {
        "source_type": "url",
        "url": url,
        "checksum": sha256,
        "checksum_type": "sha256",
        "actual_filename": kept.name,
        "git_commit": None,
        "git_rev": None,
        "cache_path": copy,
        "extracted_path": tree,
        "last_accessed": now,
        "created": now,
        "lock_file": None,
    }
    # last: without it the rest is not seen
    _cached(url, sha256, work).write_text(json.dumps(entry))
