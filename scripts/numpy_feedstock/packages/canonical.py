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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .. import git, paths, redact
from ..errors import FeedstockError, UsageError

# stands for the prefix, which the installer puts in its place; the builder's own is as long
PREFIX = ("/" + "placehold_" * 26)[:255]
INDEX, PATHS, ABOUT = (f"info/{name}.json" for name in ("index", "paths", "about"))
RENDERED = "info/recipe/rendered_recipe.yaml"
_BUILD_FOLDER, _FOLDER = "/build", "file:///local"
_SECONDS_BEFORE = 1 << 24


def source_date() -> int:
    """Return when the recipe was last changed, in seconds since 1970.

    It is the date of what is built from the recipe: SOURCE_DATE_EPOCH where it is set
    (reproducible-builds.org), else the recipe's newest commit, without git its newest file.
    Raises UsageError when the variable is no number.
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


def rewrite(path: Path, seconds: int) -> dict[str, str]:
    """Bring a package, as the builder left it, into the canonical form, in place.

    path : of the .conda file
    seconds : the package's date, since 1970

    Returns what it was built with, {"build: gcc_linux-64-12.2.0-0.conda": sha256}. Packages from
    a file:// channel are local to this machine; the package itself no longer lists their hashes.
    Raises FeedstockError when the path of the build folder is left in a file.
    """
    import yaml
    from rattler.package_streaming import extract

    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        folder = Path(temporary)
        extract(path, folder)
        rendered = yaml.safe_load((folder / RENDERED).read_text())
        built_in = rendered["build_configuration"]["directories"]["build_dir"]
        installed = {
            f"{environment}: {record['fn']}": record["sha256"]
            for environment, record in _installed_records(rendered)
        }
        _replace_prefix(folder)

        def change_index(index: dict[str, Any]) -> None:
            index.update(timestamp=seconds * 1000, depends=sorted(index["depends"]))

        def change_about(about: dict[str, Any]) -> None:
            about["channels"] = list(map(_public_url, about.get("channels", [])))

        _edit_json(folder / INDEX, change_index)
        _edit_json(folder / ABOUT, change_about)
        _scrub_rendered_recipe(rendered, seconds)
        text = yaml.safe_dump(rendered, sort_keys=False, width=1000)
        (folder / RENDERED).write_text(text)
        _refuse_leftover_paths(folder, built_in, path.name)
        partial = path.with_suffix(".partial")
        pack(folder, partial, path.name.removesuffix(".conda"), seconds)
    partial.replace(path)
    return installed


def _installed_records(rendered: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (environment, record) of every package that was installed for the build."""
    for environment in ("build", "host"):
        dependencies = rendered["finalized_dependencies"][environment] or {}
        for record in dependencies.get("resolved", []):
            yield environment, record


def _replace_prefix(folder: Path) -> None:
    placed = json.loads((folder / PATHS).read_text())
    for entry in placed["paths"]:
        prefix = entry.get("prefix_placeholder")
        if prefix:
            _check_length(prefix)
            file = folder / entry["_path"]
            file.write_bytes(file.read_bytes().replace(prefix.encode(), PREFIX.encode()))
            entry["prefix_placeholder"] = PREFIX
    for record in folder.rglob("*.dist-info/RECORD"):
        _fix_wheel_record(record)
    for entry in placed["paths"]:
        # symlinks: rattler-build records the target's size and hash
        data = (folder / entry["_path"]).read_bytes()
        entry.update(sha256=hashlib.sha256(data).hexdigest(), size_in_bytes=len(data))
    placed["paths"].sort(key=lambda entry: entry["_path"])
    (folder / PATHS).write_text(json.dumps(placed, indent=2) + "\n")


def _check_length(prefix: str) -> None:
    if len(prefix) != len(PREFIX):
        raise FeedstockError(
            "the path of the build folder is too long",
            expected=f"a prefix of {len(PREFIX)}",
            found=prefix,
        )


def _fix_wheel_record(record: Path) -> None:
    """Correct pip's list of installed files. The builder changed some of them after pip."""
    rows: list[tuple[str, str, str]] = []
    for name, digest, size in csv.reader(io.StringIO(record.read_text())):
        if not digest:
            rows.append((name, digest, size))
            continue
        data = (record.parents[1] / name).read_bytes()
        encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
        rows.append((name, "sha256=" + encoded.rstrip("="), str(len(data))))
    with record.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(sorted(rows))


def _edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=2) + "\n")


def _scrub_rendered_recipe(rendered: dict[str, Any], seconds: int) -> None:
    """Take out of the builder's record what it says about the machine."""
    recipe = rendered["recipe"]
    upstream = recipe.get("context", {}).get("upstream")
    if upstream:
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
    configuration["channels"] = list(map(_public_url, configuration["channels"]))
    configuration["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    for platform in ("host_platform", "build_platform"):
        # its kernel and its CPU
        configuration[platform]["virtual_packages"] = []
    for environment in filter(None, rendered["finalized_dependencies"].values()):
        _scrub_environment(environment)


def _scrub_environment(environment: dict[str, Any]) -> None:
    # run_exports add theirs in any order
    for kind in ("specs", "depends"):
        environment.get(kind, []).sort(key=json.dumps)
    if "resolved" in environment:
        records = map(_public_record, environment["resolved"])
        environment["resolved"] = sorted(records, key=lambda record: str(record["name"]))


def _public_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return what others can use of a record, without the secrets in its URLs.

    Records of a file:// channel keep name, version and subdir only: elsewhere the same package
    has other bytes and another build string.
    """
    if not record["url"].startswith("file:"):
        urls = {key: redact.url(record[key]) for key in ("url", "channel") if record.get(key)}
        return {**record, **urls}
    return {key: record[key] for key in ("name", "version", "subdir")}


def _public_url(url: str) -> str:
    """Return a channel's URL without secrets. One that is a folder loses its path."""
    if url.startswith("file:"):
        return _FOLDER
    return redact.url(url)


def _refuse_leftover_paths(folder: Path, built_in: str, filename: str) -> None:
    left = [name for name, member in members(folder) if built_in.encode() in member.data]
    if left:
        raise FeedstockError(
            f"the path of the build folder is left in {filename}",
            found=f"{built_in} in {', '.join(left)}",
        )


class Member(NamedTuple):
    """What is packed of a file. Date and owner are the same for all files of a package.

    kind : "file", "program" or "link"
    data : of a link, its target
    """

    kind: str
    data: bytes


def members(folder: Path) -> Iterator[tuple[str, Member]]:
    """Yield (name, Member) of every file of an unpacked package, in order."""
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.is_symlink():
            yield name, Member("link", os.fsencode(file.readlink()))
        elif file.is_file():
            kind = "program" if file.stat().st_mode & 0o100 else "file"
            yield name, Member(kind, file.read_bytes())


def pack(folder: Path, path: Path, stem: str, seconds: int, level: int = 10) -> None:
    """Make the .conda file ``path`` of a folder. The files alone decide its bytes.

    stem : name-version-build
    seconds : the package's date, since 1970
    level : of zstd; 15 takes nine times as long for one percent
    """
    import zstandard

    date = date_of_files(stem, seconds)

    with zipfile.ZipFile(path, "w") as archive:

        def put(name: str, data: bytes) -> None:
            # without a date an entry is of 1980, the first year that zip files know
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)

        put("metadata.json", json.dumps({"conda_pkg_format_version": 2}).encode())
        for part in ("pkg", "info"):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as tar:
                for name, member in members(folder):
                    if name.startswith("info/") == (part == "info"):
                        _add_member(tar, name, member, date)
            put(f"{part}-{stem}.tar.zst", zstandard.compress(stream.getvalue(), level))


def date_of_files(stem: str, seconds: int) -> int:
    """Return the date of a package's files. It is at most 194 days before the package's own.

    Two packages of one recipe have different dates. Python compares bytecode that it wrote
    itself with the source by date and size. Installers leave such bytecode behind when they
    replace a package, and version.py has the same size in 2.4.3 and in 2.4.4.

    stem : name-version-build
    seconds : the package's date, since 1970
    """
    digest = hashlib.sha256(stem.encode()).digest()
    before = int.from_bytes(digest[:4], "big") % _SECONDS_BEFORE
    return max(0, seconds - before)


def _add_member(tar: tarfile.TarFile, name: str, member: Member, seconds: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mtime = seconds
    entry.mode = 0o644 if member.kind == "file" else 0o755
    if member.kind == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, os.fsdecode(member.data)
    else:
        entry.size = len(member.data)
    tar.addfile(entry, io.BytesIO(member.data))
