"""Prefixes that py-rattler installs, and controls: prefixes whose numpy is unpatched again."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit_numpy import gate

from .. import child, files, paths, redact
from ..errors import FeedstockError, UsageError
from ..packages import patch
from ..packages.record import RECORD, beside, usable_record
from ..packages.specs import exactly
from ..progress import Say
from . import channel

if TYPE_CHECKING:
    import rattler

# an inherited value of these variables would change what a prefix does
_INHERITED_VARIABLES = (
    *("PYTHON", "CONDA", "LD_", "BASH_ENV", "NPY_"),
    *("MKL_", "OMP_", "KMP_", "GOMP_", "OPENBLAS_"),
)

# The rootfs has its own of these. The solver is told that they are there, in any version.
_PROVIDED_BY_ROOTFS = ("libgcc", "libgcc-ng", "libstdcxx", "libstdcxx-ng")
_ANY_VERSION = "999"

# conda's state holds this for a variable that `conda env config vars unset` removed
_UNSET = "***unset***"


def solve(
    channels: Sequence[str],
    specs: Sequence[str],
    virtual_packages: "Sequence[rattler.GenericVirtualPackage] | None" = None,
    **options: Any,
) -> "list[rattler.RepoDataRecord]":
    """Return what a solver picks.

    channels : URLs, the first has priority
    specs : match specs, as on a command line
    virtual_packages : of the host, this machine's by default
    options : more of rattler.solve's

    Raises py-rattler's own errors: the caller knows what it wanted of the solver.
    """
    import asyncio

    import rattler

    if virtual_packages is None:
        virtual_packages = [package.into_generic() for package in rattler.VirtualPackage.detect()]
    return asyncio.run(
        rattler.solve(
            sources=channels,
            specs=[rattler.MatchSpec(spec, strict=False) for spec in specs],
            platforms=[rattler.Subdir.current(), "noarch"],
            virtual_packages=virtual_packages,
            gateway=rattler.Gateway(client=channel.client()),
            **options,
        )
    )


def sources(path: Path) -> list[str]:
    """Return the URLs of the channel that a package is in, and of those it was built with.

    Raises UsageError when one does not answer, NotTested when the package has no record.
    """
    return [channel.url(path.parents[1]), *built_with(path)]


def built_with(path: Path) -> list[str]:
    """Return the URLs of the channels that a package was built with.

    Raises UsageError when one does not answer, NotTested when the package has no record.
    """
    record = usable_record(path)
    for url in record.channels:
        try:
            channel.check(url)
        except UsageError:
            raise
        except FeedstockError as error:
            raise UsageError(
                f"the channel that {path.name} was built from does not answer: {url}",
                found=error.details.get("found", str(error)),
                remedy="build it again. The record keeps no password and no token of --channel: "
                "if the channel wants one, put it into the file that RATTLER_AUTH_FILE names",
            ) from None
    return record.channels


def install(channels: Sequence[str], specs: Sequence[str], prefix: Path) -> Path:
    """Solve, and install into a new prefix. Returns the prefix. Raises FeedstockError."""
    _in_a_process(_install, channels, specs, prefix)
    return prefix


def install_package(path: Path, more: Sequence[str], prefix: Path) -> Path:
    """Install a package of an output channel, and what it needs, into a new prefix.

    path : of the package; its record is beside it
    more : match specs of what else is wanted

    Returns the prefix. Raises FeedstockError, also when the channel's index is of other bytes
    than the package has. Those would be installed without a word.
    """
    _in_a_process(_install_package, path, sources(path), more, prefix)
    return prefix


def assemble(path: Path, channels: Sequence[str], more: Sequence[str], prefix: Path) -> None:
    """Put a package and what it needs into a new prefix, for a rootfs that has its own Python.

    path : of the package
    channels : URLs
    more : match specs of what else is wanted

    Raises FeedstockError.
    """
    _in_a_process(_assemble, path, channels, more, prefix)


def _in_a_process(function: Callable[..., None], *args: Any) -> None:
    """Run a function that installs: ``function(*args, cache, say)``.

    After an error, py-rattler's threads go on writing into the prefix. They end with the
    process, so that the prefix can be removed. Raises FeedstockError.
    """
    child.run(function, *args, paths.PACKAGE_CACHE, log=paths.LOGS / "install.log")


def _install(
    channels: Sequence[str], specs: Sequence[str], prefix: Path, cache: Path, say: Say
) -> None:
    with _explained(f"cannot be installed: {', '.join(specs)}"):
        _link(solve(channels, specs), prefix, cache)


def _install_package(
    path: Path, channels: Sequence[str], more: Sequence[str], prefix: Path, cache: Path, say: Say
) -> None:
    specs = [exactly(path), *more]
    with _explained(f"cannot be installed: {', '.join(specs)}"):
        records = solve(channels, specs)
        _refuse_other_bytes(path, records)
        _link(records, prefix, cache)


def _assemble(
    path: Path, channels: Sequence[str], more: Sequence[str], prefix: Path, cache: Path, say: Say
) -> None:
    from rattler.package_streaming import extract
    from rattler_build import Package

    with (
        _explained(f"cannot be installed: {path.name}"),
        tempfile.TemporaryDirectory(prefix="rootfs-channel-") as stand_ins,
    ):
        package = Package.from_file(path)
        needs = [spec for spec in package.depends if not spec.startswith("__")]
        _write_stand_ins(Path(stand_ins), package.build_string)
        _link(solve([channel.url(stand_ins), *channels], [*needs, *more]), prefix, cache)
        extract(path, prefix)


def _refuse_other_bytes(path: Path, records: "Sequence[rattler.RepoDataRecord]") -> None:
    listed = [record.sha256 for record in records if record.file_name == path.name]
    expected = files.sha256(path)
    found = [sha256.hex() if sha256 else "none" for sha256 in listed]
    if found != [expected]:
        raise FeedstockError(
            f"the index of {path.parents[1]} is of another {path.name}",
            expected=f"sha256 {expected}",
            found=f"sha256 {', '.join(found) or 'none'}",
            remedy=f"remove {beside(path, RECORD).name} there, and build it again",
        )


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise a FeedstockError, which says what failed, for an error of py-rattler or the system."""
    from rattler import exceptions
    from rattler_build import RattlerBuildError

    # its errors have no base class of their own
    every = vars(exceptions).values()
    kinds = [each for each in every if isinstance(each, type) and issubclass(each, Exception)]
    try:
        yield
    except (OSError, RattlerBuildError, *kinds) as error:
        raise FeedstockError(what, found=redact.urls_in(str(error).strip())) from None


def _link(records: "Sequence[rattler.RepoDataRecord]", prefix: Path, cache: Path) -> None:
    import asyncio

    import rattler

    asyncio.run(
        rattler.install(
            list(records),
            prefix,
            cache_dir=cache,
            show_progress=False,
            client=channel.client(),
        )
    )


def _write_stand_ins(folder: Path, build_string: str) -> None:
    """Write a channel of empty packages that stand for what a rootfs provides.

    build_string : of a numpy package, "mkl_py311h..._100": its Python is the rootfs's
    """
    minor = build_string.split("_py3")[1].split("h")[0]
    stand_ins = {name: (_ANY_VERSION, "0") for name in _PROVIDED_BY_ROOTFS}
    # its version tells where packages of pure Python go
    stand_ins["python"] = (f"3.{minor}.{_ANY_VERSION}", "0_cpython")
    stand_ins["python_abi"] = (f"3.{minor}", f"0_cp3{minor}")
    subdir = channel.this_platform()
    for name in (subdir, "noarch"):
        (folder / name).mkdir()
    index = {}
    for name, (version, build) in stand_ins.items():
        filename = f"{name}-{version}-{build}.tar.bz2"
        record = {"name": name, "version": version, "build": build, "build_number": 0}
        record |= {"depends": [], "subdir": subdir}
        index[filename] = record
        _write_empty_package(folder / subdir / filename, record)
    for name, packages in ((subdir, index), ("noarch", {})):
        repodata = {"info": {"subdir": name}, "packages": packages, "packages.conda": {}}
        (folder / name / "repodata.json").write_text(json.dumps(repodata))


def _write_empty_package(path: Path, record: dict[str, Any]) -> None:
    members = {"info/index.json": record, "info/paths.json": {"paths": [], "paths_version": 1}}
    with tarfile.open(path, "w:bz2") as archive:
        for name, content in members.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def activated(prefix: Path) -> dict[str, str]:
    """Return the variables of a shell in which the prefix is active, as conda activates it.

    They include those of compilers, and those that `conda env config vars set` keeps in
    conda-meta/state. Raises FeedstockError when a script of the activation fails.
    """
    from rattler.shell import ActivationVariables, Shell, activate

    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_INHERITED_VARIABLES)
    }
    before = ActivationVariables(None, clean["PATH"].split(os.pathsep))
    with _explained(f"cannot be activated: {prefix}"):
        script = activate(prefix, before, Shell.bash).script
    done = subprocess.run(
        ["bash", "-e"],
        input=f"{script}\nenv -0\n",
        env=clean,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise FeedstockError(
            f"cannot be activated: {prefix}",
            found=done.stderr.strip() or f"exit code {done.returncode}",
        )
    return _variables(done.stdout)


def _variables(shown: str) -> dict[str, str]:
    """Return the variables that `env -0` printed, without those that conda has unset."""
    pairs = (line.split("=", 1) for line in shown.split("\0") if "=" in line)
    return {name: value for name, value in pairs if value != _UNSET}


def undo_patch(prefix: Path) -> None:
    """Make the installed numpy the unpatched one again: the control. Raises FeedstockError."""
    inits = list(prefix.glob("lib/python3.*/site-packages/numpy/__init__.py"))
    if len(inits) != 1:
        raise FeedstockError(f"one numpy is needed to undo the patch in {prefix}", found=len(inits))
    init = inits[0]
    site_packages = init.parents[1]
    # a copy first: the package cache holds the same file by a hard link
    text = init.read_bytes()
    init.unlink()
    init.write_bytes(text)
    # git takes the patch's paths from here, and not from a repository around the prefix
    no_repository: Mapping[str, str] = {**os.environ, "GIT_CEILING_DIRECTORIES": str(prefix)}
    done = subprocess.run(
        ["git", "apply", "--reverse", patch.file()],
        cwd=site_packages,
        env=no_repository,
        capture_output=True,
        text=True,
    )
    shutil.rmtree(init.parent / "__pycache__", ignore_errors=True)
    if done.returncode or gate(init.read_text()) != "ungated":
        raise FeedstockError(
            f"the patch could not be undone: {init}",
            expected=f"the numpy that {patch.file().name} leaves",
            found=done.stderr.strip() or "the check is gated all the same",
            remedy="build the package again, if it is of an older patch",
        )
