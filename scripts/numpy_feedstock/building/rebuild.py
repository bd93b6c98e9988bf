"""Build a finished package again from the recipe inside it, and compare the two."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import child, files, paths, redact, variant
from ..channels import channel, prefix
from ..errors import FeedstockError, UsageError
from ..packages import archive, canonical
from ..packages.archive import Member
from ..packages.record import read_record
from ..packages.unpacked import Unpacked
from ..progress import Progress, Say
from . import bootstrap, builder, dates, sdist, workspace

RECIPE_FILES = ("recipe.yaml", "variant_config.yaml", "rendered_recipe.yaml")
Difference = tuple[str, str, str]


def rebuild(
    path: Path, unpacked: Unpacked, asked: list[str] | None, progress: Progress
) -> list[Difference]:
    """Build a package again. Returns (file, found, allowed) for each difference; [] without one.

    asked : the values of --channel. Without them, the channels that the record beside the
        package names are used

    The compiler cache stays off, because it may hold what the first build compiled. Raises
    UsageError or FeedstockError for a package that cannot be rebuilt here.
    """
    work = paths.REBUILD
    # an earlier rebuild left its result there for a person to look at
    shutil.rmtree(work, ignore_errors=True)
    recipe = work / "recipe"
    _check_rebuildable(unpacked)
    seconds = _date_of(unpacked)
    shutil.copytree(
        unpacked.folder / "info/recipe",
        recipe,
        ignore=shutil.ignore_patterns("rendered_recipe.yaml"),
    )
    wanted, dependencies = _described(unpacked, recipe)
    channels = _channels(path, asked, wanted.python, progress.step)
    _check_dependencies(path, dependencies, channels)

    source = sdist.provide(wanted.source_url, wanted.version, wanted.sha256, progress.step, recipe)
    log = workspace.new_log(wanted.filename, "rebuild")
    progress.step(f"rebuilding; log: {log}")
    rebuilt, _ = child.run(
        builder.build_recorded,
        recipe,
        source,
        channels,
        work,
        seconds,
        log=log,
        say=progress.working,
        secrets=redact.tokens_at_end(channels),
    )
    if files.sha256(rebuilt) == files.sha256(path):
        return []
    progress.step(f"not the same; the rebuilt package is kept: {rebuilt}")
    return list(compare(unpacked.members, archive.read(rebuilt)))


def _check_rebuildable(unpacked: Unpacked) -> None:
    """Raise UsageError when a package is for another platform, or has no recipe in it."""
    filename = unpacked.path.name
    if unpacked.index["subdir"] != channel.this_platform():
        raise UsageError(
            f"{filename} cannot be rebuilt on this machine",
            expected=channel.this_platform(),
            found=unpacked.index["subdir"],
        )
    for name in RECIPE_FILES:
        if f"info/recipe/{name}" not in unpacked.files:
            raise UsageError(
                f"{filename} cannot be rebuilt: there is no recipe in it",
                expected=f"info/recipe/{name}",
                found="no such file",
            )


def _date_of(unpacked: Unpacked) -> int:
    """Return the package's date, in seconds since 1970. Raises UsageError when it has none."""
    timestamp = unpacked.index.get("timestamp")
    if isinstance(timestamp, int) and dates.is_date(timestamp // 1000):
        return timestamp // 1000
    raise UsageError(
        f"{unpacked.path.name} cannot be rebuilt: no package can have the date in its index.json",
        expected=dates.RANGE,
        found=f"timestamp {str(timestamp)[:40]}, in milliseconds",
    )


def _described(unpacked: Unpacked, recipe: Path) -> tuple[variant.Variant, dict[str, Any]]:
    """Return the variant that a package is, and the dependencies that it was built with."""
    from rattler_build import RattlerBuildError

    try:
        # read with our own reader first: it refuses YAML that would exhaust another reader
        for name in RECIPE_FILES:
            unpacked.yaml(f"info/recipe/{name}")
        wanted = variant.describe(variant.recorded(recipe))
        return wanted, unpacked.yaml(canonical.RENDERED)["finalized_dependencies"]
    except (RattlerBuildError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{unpacked.path.name} cannot be rebuilt: its info/recipe is not of this feedstock",
            found=repr(error),
        ) from None


def _channels(path: Path, asked: list[str] | None, python: str, say: Say) -> list[str]:
    record = read_record(path)
    if asked is None and record and all(map(channel.reachable, record.channels)):
        return record.channels
    names = channel.choose(asked)
    if names == ["bootstrap"]:
        names = [str(bootstrap.ensure(python, say))]
    return [channel.url(name) for name in names]


def _check_dependencies(path: Path, dependencies: dict[str, Any], channels: list[str]) -> None:
    """Raise FeedstockError unless the channels resolve to what the package was built with."""
    from rattler.exceptions import SolverError

    for environment in ("build", "host"):
        recorded = _recorded_versions(dependencies[environment])
        try:
            found = _solved_versions(channels, dependencies[environment], recorded)
        except SolverError as error:
            raise FeedstockError(
                f"{path.name} cannot be rebuilt from {', '.join(channels)}", found=error
            ) from None
        names = sorted(recorded | found)
        differ = [name for name in names if recorded.get(name) != found.get(name)]
        if differ:
            raise FeedstockError(
                f"{path.name} cannot be rebuilt: {', '.join(channels)} now resolves to other "
                "build dependencies",
                recorded=", ".join(f"{name} {recorded.get(name, '-')}" for name in differ),
                found=", ".join(f"{name} {found.get(name, '-')}" for name in differ),
                remedy="name a channel that has them with --channel",
            )


def _recorded_versions(environment: dict[str, Any]) -> dict[str, str]:
    """Return {name: "version build"} of what was installed.

    For a package of a file:// channel it is the version alone: its record has no build string.
    """
    versions = {}
    for record in environment["resolved"]:
        parts = [str(record["version"]), record.get("build", "")]
        versions[record["name"]] = " ".join(filter(None, parts))
    return versions


def _solved_versions(
    channels: list[str], environment: dict[str, Any], recorded: dict[str, str]
) -> dict[str, str]:
    """Return {name: "version build"} of what the channels resolve to now."""
    # a spec is from the recipe, or the variant or a run_export made it
    specs = [spec.get("spec") or spec["source"] for spec in environment["specs"]]
    versions = {}
    for record in prefix.solve(channels, specs):
        name, version = record.name.normalized, str(record.version)
        if " " in recorded.get(name, " "):
            version = f"{version} {record.build}"
        versions[name] = version
    return versions


def compare(shipped: dict[str, Member], rebuilt: dict[str, Member]) -> Iterator[Difference]:
    """Yield (file, found, allowed) for every difference between the members of two packages."""
    same = True
    for name in sorted(shipped | rebuilt):
        found, allowed = shipped.get(name), rebuilt.get(name)
        if found is None or allowed is None:
            same = False
            states = ["there" if member else "missing" for member in (found, allowed)]
            yield name, states[0], f"{states[1]}, as rebuilt"
        elif _kind(found) != _kind(allowed):
            same = False
            yield name, _kind(found), f"{_kind(allowed)}, as rebuilt"
        elif found.data != allowed.data:
            same = False
            start = len(os.path.commonprefix([found.data, allowed.data]))
            yield (
                name,
                f"{len(found.data)} bytes, other ones from byte {start} on",
                f"{len(allowed.data)} bytes, as rebuilt",
            )
    if same:
        yield "", "the same members, packed otherwise", "the same bytes, as rebuilt"


def _kind(member: Member) -> str:
    if member.link:
        return "link"
    if member.mode & 0o100:
        return "program"
    return "file"
