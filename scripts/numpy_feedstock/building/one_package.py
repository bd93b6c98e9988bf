"""One package: built, tested, and put into a channel."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import child, files, git, paths, redact
from ..channels import channel, channel_folder
from ..errors import FeedstockError
from ..packages import junit, package_tests
from ..packages.record import RESULTS, Record, beside, inputs_digest, read_record
from ..packages.specs import oldest_glibc
from ..progress import Progress
from ..variant import Variant
from . import bootstrap, builder, compiler_cache, dates, sdist, workspace

BUILT, UP_TO_DATE, FAILED, UNFINISHED = "built", "up to date", "failed", "not finished"


@dataclass(frozen=True)
class Settings:
    """What a call of the verb says about every package.

    names : channels to build from, or ["bootstrap"]
    output : folder of the channel that the packages go to
    label : of numpy's own tests, "fast" or "full"
    """

    names: list[str]
    output: Path
    label: str


@dataclass(frozen=True)
class Origin:
    """What a package is made from, as it is before the work begins.

    channels : URLs of the channels to build and test with, which may hold passwords
    inputs : digest of everything that the build depends on
    commit : of this repository
    """

    channels: list[str]
    inputs: str
    commit: str


@dataclass(frozen=True)
class Compiled:
    """A package that was built and not tested yet."""

    path: Path
    installed: dict[str, str]
    minutes: float
    cache_hits: int
    cache_misses: int


@dataclass(frozen=True)
class Tested:
    """The tests of a package that passed all of them.

    passed : {name of the test: True}
    results : of numpy's own tests, as JUnit XML
    """

    passed: dict[str, bool]
    results: Path
    minutes: float


@dataclass(frozen=True)
class Outcome:
    """What became of one package.

    state : BUILT, UP_TO_DATE, FAILED, or UNFINISHED when the work was stopped before its end
    record : None when it failed or is unfinished
    error : why it failed, or None
    """

    wanted: Variant
    state: str
    record: Record | None = None
    error: FeedstockError | None = None


def build_one(wanted: Variant, settings: Settings, progress: Progress) -> Outcome:
    """Build, test and add one package, unless it is there already. Raises FeedstockError."""
    origin = find_origin(wanted, settings.names, progress)
    finished = settings.output / wanted.platform / wanted.filename
    known = read_record(finished)
    if known and is_up_to_date(known, origin.inputs, settings.label):
        progress.step("nothing changed since it was built and tested: nothing to do")
        return Outcome(wanted, UP_TO_DATE, known)

    compiled = compile_one(wanted, origin.channels, progress)
    refuse_edited(wanted, origin, settings.names)
    tested = test_one(wanted, compiled.path, origin.channels, settings, progress)
    record = make_record(wanted, origin, compiled, tested, settings.label)
    if record.channels != origin.channels:
        progress.step(
            "the record keeps no password and no token of --channel. Where another verb needs "
            "them, it takes them from the file that RATTLER_AUTH_FILE names"
        )
    # the record is written first: each package in the channel has one
    record.write(finished)
    shutil.copyfile(tested.results, beside(finished, RESULTS))
    channel_folder.add(compiled.path, settings.output, wanted.platform)
    progress.step(f"finished: {record.build_minutes} min to build, {record.test_minutes} to test")
    return Outcome(wanted, BUILT, record)


def find_origin(wanted: Variant, names: list[str], progress: Progress) -> Origin:
    """Return what a package is made from now. The bootstrap channel is made if it is wanted.

    The commit is asked for here, because a person may edit or commit while the package is made.
    """
    if names == ["bootstrap"]:
        names = [str(bootstrap.ensure(wanted.python, progress.step))]
    return Origin(list(map(channel.url, names)), inputs_of(wanted, names), git.commit())


def refuse_edited(wanted: Variant, origin: Origin, names: list[str]) -> None:
    """Raise FeedstockError when what a package is made from changed while it was built.

    The builder reads some files at the beginning and packs them all at the end.
    """
    if names == ["bootstrap"]:
        names = [str(bootstrap.folder_of(wanted.python))]
    if inputs_of(wanted, names) != origin.inputs:
        raise FeedstockError(
            f"{wanted}: the recipe, the build config or the channel changed while it was built",
            remedy="run the same command again, and edit nothing meanwhile",
        )


def inputs_of(wanted: Variant, names: list[str]) -> str:
    """Return the digest of all that a package of these channels is made from.

    A password or a token is no part of it: another one does not change the package.
    """
    epoch = os.environ.get(dates.VARIABLE) or None
    urls = list(map(channel.public_url, names))
    return inputs_digest(wanted.filename, urls, bootstrap.made_from(names), epoch)


def make_record(
    wanted: Variant, origin: Origin, compiled: Compiled, tested: Tested, label: str
) -> Record:
    """Return the record of a package that passed its tests."""
    return Record(
        filename=compiled.path.name,
        sha256=files.sha256(compiled.path),
        size=compiled.path.stat().st_size,
        blas=wanted.blas,
        glibc_floor=oldest_glibc(compiled.path),
        channels=list(map(redact.url, origin.channels)),
        inputs=origin.inputs,
        label=label,
        tests=tested.passed,
        numpy_tests=junit.count(junit.outcomes(tested.results)),
        build_minutes=compiled.minutes,
        test_minutes=tested.minutes,
        cache_hits=compiled.cache_hits,
        cache_misses=compiled.cache_misses,
        commit=origin.commit,
        installed=compiled.installed,
    )


def refuse_red(wanted: Variant, path: Path, tests: Mapping[str, bool], output: Path) -> None:
    """Raise FeedstockError when a test of the package failed."""
    red = [name for name, passed in tests.items() if not passed]
    if red:
        raise FeedstockError(
            f"{wanted}: built, but failed its tests: {', '.join(red)}; not put into {output}",
            package=path,
            logs=paths.LOGS,
        )


def is_up_to_date(record: Record, inputs: str, label: str) -> bool:
    """Return whether a package is of these inputs, and passed the tests of this label."""
    return record.inputs == inputs and passed_tests(record, label)


def passed_tests(record: Record, label: str) -> bool:
    """Return whether a package passed the tests of a label. The full tests hold the fast ones."""
    return record.passed and label in ("fast", record.label)


def compile_one(wanted: Variant, channels: list[str], progress: Progress) -> Compiled:
    """Build one package, without its tests. Raises FeedstockError."""
    source = sdist.provide(wanted.source_url, wanted.version, wanted.sha256, progress.step)
    started = time.monotonic()
    log = workspace.new_log(wanted.filename, "build")
    progress.step(f"building; log: {log}")
    with compiler_cache.serve(progress.step) as counts:
        path, installed = child.run(
            builder.build_variant,
            wanted,
            source,
            channels,
            paths.WORK,
            dates.package_date(),
            log=log,
            say=progress.working,
            secrets=redact.tokens_at_end(channels),
        )
        hits, misses = counts()
    return Compiled(path, installed, minutes_since(started), hits, misses)


def minutes_since(started: float) -> float:
    """Return the minutes since a reading of the monotonic clock, to one decimal."""
    return round((time.monotonic() - started) / 60, 1)


def test_one(
    wanted: Variant, path: Path, channels: list[str], settings: Settings, progress: Progress
) -> Tested:
    """Test one package. Raises FeedstockError when a test fails."""
    started = time.monotonic()
    results = beside(paths.LOGS / wanted.filename, RESULTS)
    passed = run_tests(path, channels, settings.label, results, progress)
    refuse_red(wanted, path, passed, settings.output)
    return Tested(passed, results, minutes_since(started))


def run_tests(
    path: Path, channels: list[str], label: str, results: Path, progress: Progress
) -> dict[str, bool]:
    """Run every test of a package, also after a failed test. Returns {name: passed}.

    label : of numpy's own tests, "fast" or "full"
    results : receives the results of numpy's own tests, as JUnit XML
    """
    results.unlink(missing_ok=True)
    os.environ.update(NUMPY_TEST_LABEL=label, NUMPY_TEST_RESULTS=str(results))
    passed = {}
    secrets = redact.tokens_at_end(channels)
    for number, name in enumerate(package_tests.names(path)):
        log = workspace.new_log(path.name, f"test-{number}")
        progress.step(f"testing: {name}; log: {log}")
        passed[name], output = child.run(
            builder.run_test,
            str(path),
            number,
            channels,
            log=log,
            say=progress.working,
            secrets=secrets,
        )
        if not passed[name]:
            progress.step(f"FAILED: {name}\n{redact.words(output, secrets)}")
    return passed
