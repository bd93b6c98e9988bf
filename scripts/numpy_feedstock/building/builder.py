"""rattler-build's calls. Runs inside a child process (see child.py)."""

import collections
import os
import shutil
from pathlib import Path
from typing import Any, cast

from .. import variant
from ..errors import FeedstockError
from ..packages import canonical
from ..progress import Say
from ..variant import Variant
from . import compiler_cache, sdist


class Log:
    """Hands each line of the builder's log to ``say`` and keeps the last ones.

    It has the methods of rattler-build's ProgressCallback that are of use here.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self.tail: collections.deque[str] = collections.deque(maxlen=30)

    def on_log(self, event: Any) -> None:
        self.tail.append(event.message)
        self._say(event.message)

    def on_build_step(self, event: Any) -> None:
        self.on_log(event)


def build_recipe(
    recipe: Path | dict[str, Any], channel: str | Path, context: dict[str, Any], say: Say
) -> None:
    """Build and test all outputs of a recipe, into a channel that also serves its own packages.

    recipe : a recipe.yaml (variants.yaml beside it is read), or its content
    context : Jinja variables

    Raises FeedstockError when a build or a test fails.
    """
    from rattler_build import (
        RattlerBuildError,
        RenderConfig,
        Stage0Recipe,
        ToolConfiguration,
        VariantConfig,
    )

    config = VariantConfig()
    if isinstance(recipe, dict):
        stage0 = Stage0Recipe.from_dict(recipe)
    else:
        stage0 = Stage0Recipe.from_file(recipe)
        if recipe.with_name("variants.yaml").exists():
            config = VariantConfig.from_file(recipe.with_name("variants.yaml"))
    channels, built = [Path(channel).as_uri()], []
    for rendered in stage0.render(config, RenderConfig(extra_context=context)):
        name, log = rendered.recipe.package.name, Log(print)
        try:
            result = rendered.run_build(
                tool_config=ToolConfiguration(test_strategy="skip"),
                output_dir=channel,
                channels=channels,
                package_format="conda:1",
                progress_callback=cast(Any, log),
            )
        except RattlerBuildError as error:
            raise FeedstockError(
                f"bootstrap package {name}: the build failed\n{_explain(error, log)}"
            ) from error
        say(f"made {name} {rendered.recipe.package.version}")
        built += result.packages
    # after the last one, because an output may need a later one
    for path in built:
        _refuse_red(path, channels)


def _refuse_red(path: str | Path, channels: list[str]) -> None:
    """Raise FeedstockError when a package of the bootstrap channel fails a test of its recipe."""
    from rattler_build import Package

    for number in range(Package.from_file(path).test_count):
        passed, output = run_test(str(path), number, channels, print)
        if not passed:
            raise FeedstockError(
                f"bootstrap package {Path(path).name}: built, but failed its test\n{output}"
            )


def build_variant(
    wanted: Variant, archive: Path, channels: list[str], work: Path, seconds: int, say: Say
) -> tuple[Path, dict[str, str]]:
    """Build one variant into rattler-build's output folder, in the canonical form.

    archive : numpy's source archive
    channels : URLs
    work : rattler-build's output folder. What an earlier, killed build left in it is removed
        first: the build folder has the same path each time, for the compiler cache
    seconds : the package's date, since 1970

    Returns the package's path, and what it was built with, as canonical.rewrite() does.
    """
    os.environ[sdist.VARIABLE] = archive.as_uri()
    (rendered,) = variant.render(wanted.platform, {key: [value] for key, value in wanted.keys})
    return _build(wanted, rendered, channels, work, seconds, say)


def build_recorded(
    recipe: Path, archive: Path, channels: list[str], work: Path, seconds: int, say: Say
) -> tuple[Path, dict[str, str]]:
    """Do the same with the recipe's folder that travelled in a package.

    No compiler cache: it may hold what the first build compiled.
    """
    for name in compiler_cache.VARIABLES:
        os.environ.pop(name, None)
    os.environ[sdist.VARIABLE] = archive.as_uri()
    rendered = variant.recorded(recipe)
    return _build(variant.describe(rendered), rendered, channels, work, seconds, say)


def _build(
    wanted: Variant, rendered: Any, channels: list[str], work: Path, seconds: int, say: Say
) -> tuple[Path, dict[str, str]]:
    from rattler_build import RattlerBuildError, ToolConfiguration

    shutil.rmtree(work / "bld", ignore_errors=True)
    log = Log(say)
    try:
        result = rendered.run_build(
            tool_config=ToolConfiguration(test_strategy="skip"),
            output_dir=work,
            channels=channels,
            no_build_id=True,
            # fast: the canonical form compresses the package well later
            package_format="conda:1",
            progress_callback=cast(Any, log),
        )
    except RattlerBuildError as error:
        raise FeedstockError(f"{wanted}: the build failed\n{_explain(error, log)}") from error
    path = Path(result.packages[0])
    return path, canonical.rewrite(path, seconds)


def run_test(path: str, number: int, channels: list[str], say: Say) -> tuple[bool, str]:
    """Run one test of a package's test section.

    Returns whether it passed, and the last lines that it printed.
    """
    from rattler_build import Package, RattlerBuildError

    log = Log(say)
    try:
        package = Package.from_file(path)
        result = package.run_test(number, channel=channels, progress_callback=cast(Any, log))
    except RattlerBuildError as error:
        return False, _explain(error, log)
    return result.success, "\n".join(log.tail)


def _explain(error: Exception, log: Log) -> str:
    """Return the builder's message and the last lines of its log. The message says little."""
    message = getattr(error, "message", None) or str(error)
    return "\n".join([f"  {message}", *(f"  | {line}" for line in log.tail)])
