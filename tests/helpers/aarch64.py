"""The recipe's package for linux-aarch64: cross-compiled on x86_64, and run by qemu there.

The channel for it stands in for conda-forge, as the bootstrap channel does for linux-64.
packages/aarch64/ has its recipes, and the list of what they are made of.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml

from helpers import once
from numpy_feedstock import child, paths, variant
from numpy_feedstock.building import apt, bootstrap, builder, sdist, workspace
from numpy_feedstock.building.bootstrap import wheels
from numpy_feedstock.channels import channel, channel_folder
from numpy_feedstock.channels import prefix as prefixes
from numpy_feedstock.packages import canonical

PLATFORM, MACHINE = "linux-aarch64", "linux-64"
FLAVOUR = "openblas"
QEMU = "qemu-aarch64"
HERE = Path(__file__).parents[1] / "packages" / "aarch64"
SOURCES = yaml.safe_load((HERE / "sources.yaml").read_text())
PYTHON = SOURCES["python"]
# in the order in which they are built: the later ones use the earlier
RECIPES = (("compiler", MACHINE), ("toolchain", MACHINE), ("host", PLATFORM))
# the wheels of aarch64 that pip may take
TAGS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_28_aarch64")
PIP = [sys.executable, "-m", "pip"]
NEWER = bootstrap.HERE / "recipes" / "sysroot" / "newer.c"


def folder():
    """The folder of all that is made here, named after what it is made from."""
    digest = hashlib.sha256()
    inputs = [*HERE.rglob("*"), *paths.RECIPE.parent.rglob("*"), paths.BUILD_CONFIG, Path(__file__)]
    for path in sorted(inputs):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return paths.BUILD / "aarch64" / digest.hexdigest()[:12]


def make(release, log):
    """Build the channel and numpy, unless they are there. Returns the path of numpy's package.

    log : receives what the builds print
    """
    base = folder()
    base.parent.mkdir(parents=True, exist_ok=True)
    native = _native()
    with once.alone(base.with_suffix(".lock")), workspace.build_lock():
        if not (base / "channel").exists():
            # of older recipes, or not finished
            for left in filter(Path.is_dir, base.parent.iterdir()):
                shutil.rmtree(left)
            _download(base)
            partial = base / "channel.partial"
            child.run(build_channel, str(partial), native, _context(base), log=log)
            partial.rename(base / "channel")
        known = variant.known_releases()[release]
        output = base / "output"
        found = list(output.glob(f"{PLATFORM}/numpy-{release}-*.conda"))
        if not found:
            archive = sdist.provide(_url(release), release, known, print)
            channels = [channel.url(base / "channel"), native]
            # what a killed build left there would be used
            shutil.rmtree(base / "work", ignore_errors=True)
            path = child.run(
                build_numpy, f"{release} {known}", archive, channels, base / "work", log=log
            )
            found = [channel_folder.add(path, output, PLATFORM)]
            shutil.rmtree(base / "work")
    return found[0]


def _url(release):
    (wanted,) = variant.select([release], [PYTHON], [FLAVOUR], PLATFORM)
    return wanted.source_url


def _download(base):
    with _two_architectures(base):
        for part in ("compiler", "host", "qemu"):
            apt.download(SOURCES[part]["packages"], SOURCES[part]["suite"], base / part)
    for deb in (base / "host").glob("*.deb"):
        subprocess.run(["dpkg", "-x", deb, base / "root"], check=True)
    _extract_qemu(base)
    wanted = base / "wheels.txt"
    wanted.write_text(_pinned() + (HERE / "crossenv.txt").read_text())
    strict = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    platforms = [f"--platform={tag}" for tag in TAGS]
    subprocess.run(
        [*PIP, "download", "-qq", *strict, *platforms, f"--python-version={PYTHON}"]
        + ["--dest", base / "wheels", "-r", wanted],
        check=True,
    )


def _extract_qemu(base):
    """Take the one program out of a package that is 400 MB of them."""
    (deb,) = (base / "qemu").glob("*.deb")
    with subprocess.Popen(["dpkg", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as files:
        with tarfile.open(fileobj=files.stdout, mode="r|") as archive:
            for member in archive:
                if member.name.endswith("/qemu-aarch64-static"):
                    (base / QEMU).write_bytes(archive.extractfile(member).read())
    (base / QEMU).chmod(0o755)


@contextlib.contextmanager
def _two_architectures(base):
    """Let apt-get know the packages for arm64. dpkg's own list stays as it is."""
    base.mkdir(parents=True, exist_ok=True)
    config = base / "apt.conf"
    config.write_text('APT::Architectures { "amd64"; "arm64"; };\n')
    os.environ["APT_CONFIG"] = str(config)
    try:
        yield
    finally:
        del os.environ["APT_CONFIG"]


def _pinned():
    """The lines of the bootstrap channel's lists for the projects of sources.yaml."""
    lists = [*bootstrap.SHARED_WHEELS[:1], *bootstrap.PYTHON_WHEELS]
    text = "".join((bootstrap.HERE / name).read_text() for name in lists)
    entries = re.split(r"\n(?=\S)", text)
    return "".join(f"{entry}\n" for entry in entries if entry.split("==")[0] in SOURCES["wheels"])


def _version(debs, name):
    """The upstream version of a package of Debian's."""
    (deb,) = debs.glob(f"{name}_*.deb")
    return re.match(r"[\d.]+", deb.name.split("_")[1]).group().rstrip(".")


def _context(base):
    """Variables for the recipes."""
    native = bootstrap.download_wheels(bootstrap.SHARED_WHEELS, sys.executable, PYTHON, print)
    versions = wheels.versions(base / "wheels")
    return {
        "interpreter": sys.executable,
        "python_minor": PYTHON,
        "python_abi": f"cp{PYTHON.replace('.', '')}",
        "python_version": _version(base / "host", "python3.11-minimal"),
        "openblas_version": _version(base / "host", "libopenblas0-pthread"),
        "gfortran_version": _version(base / "host", "libgfortran5"),
        "gcc_version": _version(base / "compiler", "gcc-14-aarch64-linux-gnu"),
        "crossenv_version": versions["crossenv_version"],
        "ziglang_version": wheels.versions(native)["ziglang_version"],
        "compiler_debs": str(base / "compiler"),
        "host_debs": str(base / "host"),
        "wheels": str(base / "wheels"),
        "native_wheels": str(native),
        "newer": str(NEWER),
    }


def build_channel(target, native, context, say):
    """Build the packages of the channel. Runs in a child process.

    native : URL of the bootstrap channel, whose Python is that of the build environment
    """
    channels = [Path(target).as_uri(), native]
    for name, platform in RECIPES:
        _build(HERE / name / "recipe.yaml", platform, channels, target, context=context)
    for wheel in sorted(Path(context["wheels"]).glob("*.whl")):
        if not wheel.name.startswith("crossenv-"):
            _build(_wheel_recipe(wheel), PLATFORM, channels, target, context=context)


def _wheel_recipe(wheel):
    """The bootstrap channel's recipe of a wheel, installed without running the host's Python."""
    recipe = wheels.recipe(wheel, PYTHON)
    del recipe["requirements"]["host"]
    site = f"$PREFIX/lib/python{PYTHON}/site-packages"
    platforms = " ".join(f"--platform={tag}" for tag in TAGS)
    recipe["build"]["script"] = [
        f"{sys.executable} {wheels.INSTALL} --no-compile --only-binary=:all: {platforms} "
        f'--python-version={PYTHON} --target="{site}" {wheel}',
        f'if [ -d "{site}/bin" ]; then mv "{site}/bin" "$PREFIX"; '
        'sed -i "1s,^#!.*,#!$PREFIX/bin/python," "$PREFIX"/bin/*; fi',
    ]
    return recipe


def build_numpy(release, archive, channels, target, say):
    """Build numpy by the real recipe, in the canonical form; its path. Runs in a child process."""
    from rattler_build import JinjaConfig, VariantConfig

    os.environ[sdist.VARIABLE] = archive.as_uri()
    config = VariantConfig.from_file_with_context(
        paths.BUILD_CONFIG, JinjaConfig(platform=_platforms(PLATFORM))
    )
    (python,) = [spec for spec in config.get("python") if spec.startswith(f"{PYTHON}.")]
    config = config.merge(VariantConfig({"numpy_release": [release], "python": [python]}))
    path = _build(paths.RECIPE, PLATFORM, channels, target, config)
    canonical.rewrite(path, canonical.source_date())
    return path


def _platforms(target):
    from rattler_build import PlatformConfig

    return PlatformConfig(target_platform=target, host_platform=target, build_platform=MACHINE)


def _build(recipe, platform, channels, target, config=None, context=None):
    """Build all outputs of a recipe, its path or its content. Returns the path of the last."""
    from rattler_build import RenderConfig, Stage0Recipe, ToolConfiguration, VariantConfig

    # rattler-build's Python interface solves for the host platform that is named here only
    platforms = VariantConfig({"host_platform": [platform]})
    config = config.merge(platforms) if config else platforms
    read = Stage0Recipe.from_dict if isinstance(recipe, dict) else Stage0Recipe.from_file
    render = RenderConfig(platform=_platforms(platform), extra_context=context)
    for rendered in read(recipe).render(config, render):
        result = rendered.run_build(
            tool_config=ToolConfiguration(test_strategy="skip"),
            output_dir=target,
            channels=channels,
            no_build_id=isinstance(recipe, Path),
            package_format="conda:1",
            progress_callback=builder.Log(print),
        )
    return Path(result.packages[0])


def install(package, specs, prefix):
    """Install numpy's package and more into a new prefix, whose Python qemu runs."""
    import asyncio

    import rattler

    base = folder()
    own = [channel.url(package.parents[1]), channel.url(base / "channel")]
    virtual = [each.into_generic() for each in rattler.VirtualPackage.detect()]
    name, version, build = package.name.removesuffix(".conda").rsplit("-", 2)
    wanted = [f"{name} =={version} {build}", *specs]

    async def put():
        records = await rattler.solve(
            sources=[*own, _native()],
            specs=[rattler.MatchSpec(spec, strict=False) for spec in wanted],
            platforms=[PLATFORM, "noarch"],
            virtual_packages=virtual,
        )
        await rattler.install(
            records,
            prefix,
            cache_dir=paths.PACKAGE_CACHE,
            platform=rattler.Subdir(PLATFORM),
            show_progress=False,
        )

    asyncio.run(put())
    real = (prefix / "bin" / f"python{PYTHON}").rename(prefix / "bin" / "python-aarch64")
    names = {
        "QEMU": base / QEMU,
        "ROOT": base / "root",
        "PROGRAM": real,
    }
    values = [f'-D{name}="{path}"' for name, path in names.items()]
    wrapper = prefix / "bin" / f"python{PYTHON}"
    subprocess.run(["gcc", "-static", *values, HERE / "python.c", "-o", wrapper], check=True)
    return prefix


def compiler(prefix):
    """Install the cross compiler into a new prefix of this machine. Returns the path of g++."""
    channels = [channel.url(folder() / "channel"), _native()]
    prefixes.install(channels, ["gxx_linux-aarch64"], prefix)
    return prefix / "bin" / "aarch64-conda-linux-gnu-g++"


def _native():
    """URL of the bootstrap channel, which has what is of pure Python, and the build's Python."""
    return channel.url(bootstrap.ensure(PYTHON, print))
