"""Environments with a released numpy, as pip, uv and py-rattler install them."""

import asyncio
import compileall
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import rattler

from helpers import repack
from numpy_feedstock import paths
from numpy_feedstock.building import environments, wheel
from numpy_feedstock.channels import channel, channel_folder, prefix
from numpy_feedstock.measuring import released

UV_LOCK = paths.ROOT / "tests" / "heal" / "uv.txt"
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
SITE_PACKAGES = f"lib/{PYTHON}/site-packages"


def wheel_file(release, folder):
    """The path of numpy's released wheel for the running Python, in a folder."""
    unpacked = released.unpack_release(release)
    path = folder / f"numpy-{release}-{wheel.TAG}-{wheel.TAG}-manylinux_2_28_x86_64.whl"
    if not path.exists():
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(unpacked.rglob("*")):
                archive.write(file, file.relative_to(unpacked))
    return path


def with_pip(wheel_path, folder, *options):
    """An environment that pip installed a wheel into; its folder."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip(folder, "install", "--no-index", *options, wheel_path)
    return folder


def pip(folder, *args):
    """Run pip on an environment. Returns the CompletedProcess; an error is an exception."""
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "-q", *args]
    return _run(command)


def uv(*args):
    """Run uv. Returns the CompletedProcess; an error is an exception."""
    return _run([environments.made(UV_LOCK) / "bin" / "uv", "-q", *args])


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def with_uv(wheel_path, folder, cache, *options):
    """An environment that uv installed a wheel into, linked to its cache; its folder."""
    uv("venv", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    uv(
        "pip",
        "install",
        "--no-index",
        "--cache-dir",
        cache,
        "--python",
        python,
        *options,
        wheel_path,
    )
    return folder


def conda_package(release, folder, build="py311h0000000_0"):
    """A channel in a folder with a package of a released wheel's files, bytecode included."""
    unpacked = released.unpack_release(release)
    name = f"numpy-{release}-{build}"
    tree = folder / name
    site = tree / SITE_PACKAGES
    shutil.copytree(unpacked, site, copy_function=_link_or_copy)
    (dist_info,) = site.glob("*.dist-info")
    repack.replace(dist_info / "INSTALLER", "conda\n")
    with contextlib.chdir(tree), open(os.devnull, "w") as silence:
        with contextlib.redirect_stdout(silence):
            compileall.compile_dir(f"{SITE_PACKAGES}/numpy", quiet=2, maxlevels=0)
    _write_info(tree, release, build)
    subdir = folder / "channel" / "linux-64"
    subdir.mkdir(parents=True)
    repack.pack(tree, subdir / f"{name}.conda")
    channel_folder.index(folder / "channel")
    return folder / "channel"


def _write_info(tree, release, build):
    entries = []
    for file in sorted(tree.rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            entries.append(
                {
                    "_path": str(file.relative_to(tree)),
                    "path_type": "hardlink",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size_in_bytes": len(data),
                }
            )
    index = {
        "name": "numpy",
        "version": release,
        "build": build,
        "build_number": 0,
        "subdir": "linux-64",
        "arch": "x86_64",
        "platform": "linux",
        "depends": [],
        "timestamp": 1764000000000,
    }
    repack.replace(tree / "info" / "index.json", json.dumps(index))
    paths_json = {"paths": entries, "paths_version": 1}
    repack.replace(tree / "info" / "paths.json", json.dumps(paths_json))


def with_rattler(channel_folder, folder, cache):
    """An environment that pixi's engine installed numpy into, linked to its cache; its folder."""
    records = prefix.solve([channel.url(channel_folder)], ["numpy"])
    asyncio.run(rattler.install(records, folder, cache_dir=cache, show_progress=False))
    return folder


def clone(folder, to):
    """A copy of an environment that shares every file by a hard link."""
    return shutil.copytree(folder, to, symlinks=True, copy_function=_link)


def _link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _link(source, target):
    os.link(source, target, follow_symlinks=False)


def site_packages(folder):
    """The folder of packages of an environment."""
    (site,) = Path(folder).glob("lib/python3*/site-packages")
    return site


def differences(one, other):
    """What `diff -r` prints about two folders: nothing when each file has the same bytes."""
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", one, other], capture_output=True, text=True
    )
    return done.stdout + done.stderr


def source_of(folder):
    """The numpy/__init__.py of an environment."""
    return site_packages(folder) / "numpy" / "__init__.py"


def bytecode_of(folder):
    """Its bytecode for the running Python."""
    source = source_of(folder)
    return source.parent / "__pycache__" / f"__init__.{sys.implementation.cache_tag}.pyc"


def import_numpy(folder, code="print(numpy.__version__)", *options):
    """Import an environment's numpy in a new process that cannot write bytecode."""
    site = site_packages(folder)
    program = f"import sys; sys.path.insert(0, {str(site)!r}); import numpy; {code}"
    done = subprocess.run(
        [sys.executable, "-I", "-B", *options, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
