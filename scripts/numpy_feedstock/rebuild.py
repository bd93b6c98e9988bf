"""Rebuild: a finished package built again, from the recipe that travels in it, and compared."""

import os
import shutil

from . import (
    bootstrap,
    builder,
    canonical,
    channel,
    child,
    files,
    paths,
    prefix,
    sdist,
    variant,
    workspace,
)
from .errors import FeedstockError, UsageError
from .record import read_record


def rebuild(path, package, asked, progress):
    """Build a package again and look for differences: a list of (file, found, allowed), empty where all bytes are the same.

    path : Path of the .conda file
    package : checks.Unpacked, the same unpacked
    asked : what --channel says; by default the channels that it was built from, if there is a record of them beside it

    The compiler cache stays off: what it holds may be the first build's. Raises
    UsageError or FeedstockError for a package that cannot be rebuilt here.
    """
    import yaml
    from rattler.package_streaming import extract
    from rattler_build import RattlerBuildError

    work = paths.REBUILD
    # what an earlier one left to be looked at
    shutil.rmtree(work, ignore_errors=True)
    recipe = work / "recipe"
    if (found := package.index["subdir"]) != channel.this_platform():
        raise UsageError(
            f"{path.name} cannot be rebuilt on this machine",
            expected=channel.this_platform(),
            found=found,
        )
    for name in ("recipe.yaml", "variant_config.yaml", "rendered_recipe.yaml"):
        if f"info/recipe/{name}" not in package.files:
            raise UsageError(
                f"{path.name} cannot be rebuilt: nothing in it says how",
                expected=f"info/recipe/{name}",
                found="no such file",
            )
    shutil.copytree(
        package.folder / "info/recipe",
        recipe,
        ignore=shutil.ignore_patterns("rendered_recipe.yaml"),
    )
    try:
        wanted = variant.describe(variant.recorded(recipe))
        dependencies = yaml.safe_load(package.text(canonical.RENDERED))["finalized_dependencies"]
    except (RattlerBuildError, yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path.name} cannot be rebuilt: its info/recipe is not one of this feedstock",
            found=repr(error),
        ) from None
    channels = _channels(path, asked, wanted.python, progress.step)
    _check_dependencies(path, dependencies, channels)

    archive = sdist.provide(wanted.source_url, wanted.version, wanted.sha256, progress.step, recipe)
    log = workspace.new_log(wanted.filename, "rebuild")
    progress.step(f"rebuilding; log: {log}")
    seconds = package.index.get("timestamp", 0) // 1000
    rebuilt, _ = child.run(
        builder.build_recorded,
        recipe,
        archive,
        channels,
        work,
        seconds,
        log=log,
        on_line=progress.working,
    )
    if files.sha256(rebuilt) == files.sha256(path):
        return []
    progress.step(f"not the same; to look at: {rebuilt}")
    extract(rebuilt, work / "unpacked")
    return list(compare(package.folder, work / "unpacked"))


def _channels(path, asked, python, report):
    record = read_record(path)
    if asked is None and record and all(map(channel.reachable, record.channels)):
        return record.channels
    names = channel.choose(asked)
    if names == ["bootstrap"]:
        names = [bootstrap.ensure(python, report)]
    return [channel.url(name) for name in names]


def _check_dependencies(path, dependencies, channels):
    """Raise FeedstockError unless the channels resolve to what the package was built with."""
    from rattler.exceptions import SolverError

    for environment in ("build", "host"):
        told = {each["name"]: each for each in dependencies[environment]["resolved"]}
        # a spec as the recipe has it, or made from it by the variant or a run_export
        specs = [spec.get("spec") or spec["source"] for spec in dependencies[environment]["specs"]]
        try:
            solved = prefix.solve(channels, specs)
        except SolverError as error:
            raise FeedstockError(
                f"{path.name} cannot be rebuilt from {', '.join(channels)}", found=error
            ) from None
        # of a channel in a folder no build strings are told
        without = {name for name, each in told.items() if "build" not in each}
        recorded = {
            name: _version(each["version"], each.get("build", ""), name in without)
            for name, each in told.items()
        }
        found = {
            each.name.normalized: _version(
                each.version, each.build, each.name.normalized in without
            )
            for each in solved
        }
        differ = [
            name for name in sorted(recorded | found) if recorded.get(name) != found.get(name)
        ]
        if differ:
            raise FeedstockError(
                f"{path.name} cannot be rebuilt: it was built with others than {', '.join(channels)} resolves to",
                recorded=", ".join(f"{name} {recorded.get(name, '-')}" for name in differ),
                found=", ".join(f"{name} {found.get(name, '-')}" for name in differ),
                remedy="name a channel that has them with --channel",
            )


def _version(version, build, alone):
    return str(version) if alone else f"{version} {build}"


def compare(shipped, rebuilt):
    """Every difference between two unpacked packages: (file, found, allowed)."""
    ours, theirs = (dict(canonical.members(folder)) for folder in (shipped, rebuilt))
    same = True
    for name in sorted(ours | theirs):
        found, allowed = ours.get(name), theirs.get(name)
        if found == allowed:
            continue
        same = False
        if found is None or allowed is None:
            yield (
                name,
                "there" if found else "missing",
                "there, as rebuilt" if allowed else "missing, as rebuilt",
            )
        elif found.kind != allowed.kind:
            yield name, found.kind, f"{allowed.kind}, as rebuilt"
        else:
            start = len(os.path.commonprefix([found.data, allowed.data]))
            yield (
                name,
                f"{len(found.data)} bytes, other ones from byte {start} on",
                f"{len(allowed.data)} bytes, as rebuilt",
            )
    if same:
        yield "", "the same members, packed otherwise", "the same bytes, as rebuilt"
