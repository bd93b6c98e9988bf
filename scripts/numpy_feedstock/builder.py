"""rattler-build's calls. Runs inside a child process (see child.py)."""

import collections
import os
import shutil
from pathlib import Path

from . import canonical, sdist
from . import variant as variants
from .errors import FeedstockError


class Log:
    """Hands each line of the builder's log to ``say`` and keeps the last ones.

    It has the methods of rattler-build's ProgressCallback that are of use here.
    """

    def __init__(self, say):
        self._say = say
        self.tail = collections.deque(maxlen=30)

    def on_log(self, event):
        self.tail.append(event.message)
        self._say(event.message)

    def on_build_step(self, event):
        self.on_log(event)


def build_recipe(recipe, channel, context, say):
    """Build all outputs of a recipe into a channel that also serves its own packages.

    recipe : Path of a recipe.yaml (variants.yaml beside it is read) or a dict
    context : dict of Jinja variables
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
    for variant in stage0.render(config, RenderConfig(extra_context=context)):
        name, log = variant.recipe.package.name, Log(print)
        try:
            variant.run_build(
                tool_config=ToolConfiguration(test_strategy="skip"),
                output_dir=channel,
                channels=[Path(channel).as_uri()],
                package_format="conda:1",
                progress_callback=log,
            )
        except RattlerBuildError as error:
            raise FeedstockError(
                f"bootstrap package {name}: the build failed\n{_explain(error, log)}"
            ) from error
        say(f"made {name} {variant.recipe.package.version}")


def build_variant(variant, archive, channels, work, seconds, say):
    """Build one variant into rattler-build's output folder, in the canonical form: its path, and what it was built with.

    variant : variant.Variant
    archive : Path of numpy's source archive
    channels : list of str, URLs
    work : Path; what an earlier, killed build left there is removed first,
        because the build folder is the same each time (the compiler cache wants it)
    seconds : the package's date, since 1970
    """
    os.environ[sdist.VARIABLE] = archive.as_uri()
    (rendered,) = variants.render(variant.platform, {key: [value] for key, value in variant.keys})
    return _build(variant, rendered, channels, work, seconds, say)


def build_recorded(recipe, archive, channels, work, seconds, say):
    """The same, of the recipe's folder that travelled in a package."""
    os.environ[sdist.VARIABLE] = archive.as_uri()
    rendered = variants.recorded(recipe)
    return _build(variants.describe(rendered), rendered, channels, work, seconds, say)


def _build(variant, rendered, channels, work, seconds, say):
    from rattler_build import RattlerBuildError, ToolConfiguration

    shutil.rmtree(work / "bld", ignore_errors=True)
    log = Log(say)
    try:
        result = rendered.run_build(
            tool_config=ToolConfiguration(test_strategy="skip"),
            output_dir=work,
            channels=channels,
            no_build_id=True,
            # compressed in earnest in the canonical form
            package_format="conda:1",
            progress_callback=log,
        )
    except RattlerBuildError as error:
        raise FeedstockError(f"{variant}: the build failed\n{_explain(error, log)}") from error
    package = Path(result.packages[0])
    return package, canonical.rewrite(package, seconds)


def run_test(package, index, channels, say):
    """Run one test of a package's test section. Returns (passed, the last lines it printed)."""
    from rattler_build import Package, RattlerBuildError

    log = Log(say)
    try:
        passed = (
            Package.from_file(package)
            .run_test(index, channel=channels, progress_callback=log)
            .success
        )
    except RattlerBuildError as error:
        return False, _explain(error, log)
    return passed, "\n".join(log.tail)


def _explain(error, log):
    """What went wrong and what was logged last: the builder's own message says little."""
    message = getattr(error, "message", None) or str(error)
    return "\n".join([f"  {message}", *(f"  | {line}" for line in log.tail)])
