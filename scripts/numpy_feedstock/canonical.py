"""The canonical form of a package: the same bytes whenever, wherever and by whom it was built.

The builder writes down where and when it ran: the build folder's path stands in every
file that names the prefix, the clock in the index, paths and the machine in its records.
Here all of that is replaced by what is the same everywhere, and the package is packed
again with its members in order. What was compiled stays as it is.
"""

import base64
import csv
import hashlib
import io
import json
import os
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

from . import git, paths
from .errors import FeedstockError, UsageError

# stands for the prefix, which the installer puts in its place; the builder's own is as long
PREFIX = ("/" + "placehold_" * 26)[:255]
INDEX, PATHS, ABOUT = (f"info/{name}.json" for name in ("index", "paths", "about"))
RENDERED = "info/recipe/rendered_recipe.yaml"
_BUILD_FOLDER, _FOLDER = "/build", "file:///local"


def source_date():
    """When the recipe was last changed, in seconds since 1970: the date of what is built from it.

    SOURCE_DATE_EPOCH where it is set (reproducible-builds.org); the recipe's newest
    commit; without git its newest file. UsageError when the variable is no number.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        if not given.isdecimal():
            raise UsageError(
                "SOURCE_DATE_EPOCH is not a date", expected="seconds since 1970", found=given
            )
        return int(given)
    files = [paths.RECIPE.parent, paths.BUILD_CONFIG]
    committed = git.last_change(files)
    if committed is not None:
        return committed
    newest = max(
        path.stat().st_mtime
        for folder in files
        for path in (folder, *folder.rglob("*"))
        if path.is_file()
    )
    return int(newest)


def rewrite(package, seconds):
    """Bring a package, as the builder left it, into the canonical form, in place.

    package : Path of a .conda file
    seconds : its date, since 1970

    Returns what it was built with, {"build: gcc_linux-64-12.2.0-0.conda": sha256}: what came out
    of a folder is this machine's, and no longer told by the package.
    Raises FeedstockError when the path of the build folder is left in a file.
    """
    import yaml
    from rattler.package_streaming import extract

    with tempfile.TemporaryDirectory(dir=package.parent) as temporary:
        folder = Path(temporary)
        extract(package, folder)
        rendered = yaml.safe_load((folder / RENDERED).read_text())
        built_in = rendered["build_configuration"]["directories"]["build_dir"]
        installed = {
            f"{place}: {record['fn']}": record["sha256"] for place, record in _resolved(rendered)
        }
        _replace_prefix(folder)
        _edit_json(
            folder / INDEX,
            lambda index: index.update(timestamp=seconds * 1000, depends=sorted(index["depends"])),
        )
        _edit_json(
            folder / ABOUT,
            lambda about: about.update(
                channels=[_public(url) for url in about.get("channels", [])]
            ),
        )
        (folder / RENDERED).write_text(
            yaml.safe_dump(_rendered(rendered, seconds), sort_keys=False, width=1000)
        )
        _check_left(folder, built_in, package)
        partial = package.with_suffix(".partial")
        pack(folder, partial, package.name.removesuffix(".conda"), seconds)
    partial.replace(package)
    return installed


def _resolved(rendered):
    """(environment, record) of every package that was installed to build it."""
    for place in ("build", "host"):
        for record in (rendered["finalized_dependencies"][place] or {}).get("resolved", []):
            yield place, record


def _replace_prefix(folder):
    placed = json.loads((folder / PATHS).read_text())
    for entry in placed["paths"]:
        if prefix := entry.get("prefix_placeholder"):
            if len(prefix) != len(PREFIX):
                raise FeedstockError(
                    "the path of the build folder is too long",
                    expected=f"a prefix of {len(PREFIX)}",
                    found=prefix,
                )
            file = folder / entry["_path"]
            file.write_bytes(file.read_bytes().replace(prefix.encode(), PREFIX.encode()))
            entry["prefix_placeholder"] = PREFIX
    for record in folder.rglob("*.dist-info/RECORD"):
        _correct(record)
    for entry in placed["paths"]:
        data = (folder / entry["_path"]).read_bytes()
        # of a link, as the builder has it, those of its target
        entry.update(sha256=hashlib.sha256(data).hexdigest(), size_in_bytes=len(data))
    placed["paths"].sort(key=lambda entry: entry["_path"])
    (folder / PATHS).write_text(json.dumps(placed, indent=2) + "\n")


def _correct(record):
    """Let pip's list of installed files say what is there: its sums are older than the last touch of the builder."""
    rows = []
    for name, digest, size in csv.reader(io.StringIO(record.read_text())):
        if digest:
            data = (record.parents[1] / name).read_bytes()
            digest, size = (
                "sha256="
                + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("="),
                len(data),
            )
        rows.append((name, digest, size))
    with record.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(sorted(rows))


def _edit_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=2) + "\n")


def _rendered(rendered, seconds):
    """The builder's record without what it says of the machine."""
    recipe = rendered["recipe"]
    if upstream := recipe.get("context", {}).get("upstream"):
        # not the copy that was handed to the builder, or a mirror
        for source in (*recipe["source"], *rendered["finalized_sources"]):
            source["url"] = upstream
    configuration = rendered["build_configuration"]
    configuration["directories"] = {
        "host_prefix": PREFIX,
        "build_prefix": f"{_BUILD_FOLDER}/build_env",
        "work_dir": f"{_BUILD_FOLDER}/work",
        "build_dir": _BUILD_FOLDER,
    }
    configuration["channels"] = [_public(url) for url in configuration["channels"]]
    configuration["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    for platform in ("host_platform", "build_platform"):
        # its kernel and its CPU
        configuration[platform]["virtual_packages"] = []
    for environment in filter(None, rendered["finalized_dependencies"].values()):
        # what run_exports add comes in any order
        for kind in ("specs", "depends"):
            environment.get(kind, []).sort(key=json.dumps)
        if "resolved" in environment:
            environment["resolved"] = sorted(
                map(_public_record, environment["resolved"]), key=lambda record: record["name"]
            )
    return rendered


def _public_record(record):
    """A package of a folder, which others have not, by name and version: made elsewhere, its bytes and its build string are others."""
    keys = ("name", "version", "subdir") if record["url"].startswith("file:") else record
    return {key: record[key] for key in keys}


def _public(url):
    """A channel; one that is a folder without its path."""
    return _FOLDER if url.startswith("file:") else url


def _check_left(folder, built_in, package):
    left = [name for name, member in members(folder) if built_in.encode() in member.data]
    if left:
        raise FeedstockError(
            f"the path of the build folder is left in {package.name}",
            found=f"{built_in} in {', '.join(left)}",
        )


class Member(NamedTuple):
    """What of a file is packed: a date and an owner of its own it has not."""

    kind: str  # "file", "program" or "link"
    data: bytes  # a link's target


def members(folder):
    """(name, Member) of every file of an unpacked package, in order."""
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_symlink():
            yield name, Member("link", os.fsencode(file.readlink()))
        elif file.is_file():
            yield (
                name,
                Member("program" if file.stat().st_mode & 0o100 else "file", file.read_bytes()),
            )


def pack(folder, path, stem, seconds, level=10):
    """Make the .conda file ``path`` of a folder, whose files alone decide its bytes.

    stem : str, name-version-build
    seconds : the date of the members, since 1970
    level : of zstd; 15 takes nine times as long for one percent
    """
    import zstandard

    with zipfile.ZipFile(path, "w") as archive:

        def put(name, data):
            entry = zipfile.ZipInfo(name)  # of 1980, the first date that there is
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)

        put("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        for part in ("pkg", "info"):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as tar:
                for name, member in members(folder):
                    if name.startswith("info/") == (part == "info"):
                        _add(tar, name, member, seconds)
            put(f"{part}-{stem}.tar.zst", zstandard.compress(stream.getvalue(), level))


def _add(tar, name, member, seconds):
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.mode = seconds, 0o644 if member.kind == "file" else 0o755
    if member.kind == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, os.fsdecode(member.data)
    else:
        entry.size = len(member.data)
    tar.addfile(entry, io.BytesIO(member.data))
