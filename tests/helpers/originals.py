"""Unpatched packages as conda-forge ships them, assembled from upstream's released wheels."""

import hashlib
import importlib.util
import io
import json
import marshal
import re
import subprocess
import sys
import tarfile
import zipfile

from helpers import once
from numpy_feedstock import paths
from numpy_feedstock.packages import archive, patch
from numpy_feedstock.packages.archive import Member

# subdir: the tags of upstream's wheels
TAGS = {
    "linux-64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64"),
    "linux-aarch64": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64"),
    "osx-64": ("macosx_14_0_x86_64", "macosx_10_13_x86_64", "macosx_10_9_x86_64"),
    "osx-arm64": ("macosx_14_0_arm64", "macosx_11_0_arm64"),
    "win-64": ("win_amd64",),
}
_MTIME = 1_764_000_000
# the bundled libraries, and the file that looks for them
_ONLY_IN_WHEELS = re.compile(r"numpy\.libs/|numpy/\.dylibs/|.*/_distributor_init_local\.py$")


def wheel(release, subdir="linux-64", python="3.11", free_threaded=False):
    """The path of a released wheel; downloaded once, kept in build/."""
    tag = "cp" + python.replace(".", "")
    abi = tag + "t" * free_threaded
    folder = paths.BUILD / "originals" / f"{release}-{subdir}-{abi}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with once.alone(folder.with_name(f"{folder.name}.lock")):
        _download(release, folder, python, abi, TAGS[subdir])
    (found,) = folder.glob("*.whl")
    return found


def _download(release, folder, python, abi, tags):
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", folder]
        command += ["--python-version", python, "--implementation", "cp", "--abi", abi]
        command += [f"--platform={platform}" for platform in tags]
        subprocess.run([*command, f"numpy=={release}"], check=True)


def members(
    release, subdir="linux-64", python="3.11", build_number=0, free_threaded=False, **index
):
    """The members of such a package.

    index : entries of its index.json in another way
    """
    site = f"lib/python{python}{'t' * free_threaded}/site-packages"
    if subdir == "win-64":
        site = "Lib/site-packages"
    with zipfile.ZipFile(wheel(release, subdir, python, free_threaded)) as opened:
        found = {}
        for name in opened.namelist():
            if not name.endswith("/") and not _ONLY_IN_WHEELS.match(name):
                found[f"{site}/{name}"] = Member(opened.read(name), 0o644, _MTIME)
    minor = python.replace(".", "")
    if python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        name, code = bytecode(f"{site}/numpy/__init__.py", found[f"{site}/numpy/__init__.py"].data)
        found[name] = code
    index = {
        "arch": None,
        "build": f"py{minor}h{hashlib.sha256(subdir.encode()).hexdigest()[:7]}_{build_number}",
        "build_number": build_number,
        "constrains": ["numpy-base <0a0"],
        "depends": [
            f"python >={python},<3.{int(python[2:]) + 1}.0a0",
            f"python_abi {python}.* *_cp{minor}",
        ],
        "license": "BSD-3-Clause",
        "name": "numpy",
        "subdir": subdir,
        "timestamp": _MTIME * 1000,
        "version": release,
        **index,
    }
    return with_metadata(found, index)


def bytecode(name, source, flags=0):
    """(name, Member) of the bytecode of a source file that was built on another machine."""
    filename = f"/home/conda/feedstock_root/build_artifacts/numpy_1/_h_env_placehold/{name}"
    if flags:
        stamp = importlib.util.source_hash(source)
    else:
        stamp = _MTIME.to_bytes(4, "little") + len(source).to_bytes(4, "little")
    header = importlib.util.MAGIC_NUMBER + flags.to_bytes(4, "little") + stamp
    code = marshal.dumps(compile(source, filename, "exec", dont_inherit=True))
    folder, _, file = name.rpartition("/")
    tag = sys.implementation.cache_tag
    return f"{folder}/__pycache__/{file[:-3]}.{tag}.pyc", Member(header + code, 0o644, _MTIME)


def with_metadata(files, index):
    """The members with info/ about them."""
    entries = []
    for name, member in sorted(files.items()):
        digest = hashlib.sha256(member.data).hexdigest()
        entries.append(
            {
                "_path": name,
                "path_type": "hardlink",
                "sha256": digest,
                "size_in_bytes": len(member.data),
            }
        )
    info = {
        "index": index,
        "paths": {"paths": entries, "paths_version": 1},
        "about": {"license": "BSD-3-Clause", "extra": {"flow_run_id": "azure_1"}},
    }
    made = dict(files)
    for name, content in info.items():
        made[f"info/{name}.json"] = Member(json.dumps(content, indent=2).encode(), 0o644, _MTIME)
    made["info/files"] = Member(
        "".join(f"{name}\n" for name in sorted(files)).encode(), 0o644, _MTIME
    )
    return made


def package(folder, members, level=1):
    """The .conda file of the members, named as their index says; its path."""
    index = json.loads(members["info/index.json"].data)
    path = folder / index["subdir"] / "{name}-{version}-{build}.conda".format(**index)
    path.parent.mkdir(parents=True, exist_ok=True)
    archive.write(path, members, level)
    return path


def package_bz2(folder, members):
    """The same as a .tar.bz2 file."""
    index = json.loads(members["info/index.json"].data)
    path = folder / index["subdir"] / "{name}-{version}-{build}.tar.bz2".format(**index)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:bz2") as tar:
        for name, member in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(member.data), member.mode, member.mtime
            tar.addfile(entry, io.BytesIO(member.data))
    return path


def changed(members, changes):
    """The members with other texts, and a paths.json that fits.

    changes : {name: bytes}
    """
    files = {name: member for name, member in members.items() if not name.startswith("info/")}
    for name, data in changes.items():
        files[name] = Member(data, 0o644, _MTIME)
    return with_metadata(files, json.loads(members["info/index.json"].data))


def with_index(members, **changes):
    """The members with other entries in index.json."""
    old = members["info/index.json"]
    index = {**json.loads(old.data), **changes}
    return {**members, "info/index.json": Member(json.dumps(index).encode(), 0o644, old.mtime)}


def unpatched(path):
    """The members of one of our packages with the patch undone: the control as a package."""
    members = archive.read(path)
    name = init_name(members)
    text = members[name].data.replace(patch.hunk().after, patch.hunk().before)
    assert text != members[name].data
    code_name, code = bytecode(name, text)
    index = json.loads(members["info/index.json"].data)
    index["build_number"] -= 100
    index["build"] = index["build"].removesuffix("_100") + "_0"
    changes = {name: text, code_name: code.data}
    made = changed(
        {**members, "info/index.json": Member(json.dumps(index).encode(), 0o644, 0)}, changes
    )
    return {**members, **made}


def init_name(members):
    """The name of numpy/__init__.py among the members."""
    (found,) = [name for name in members if re.search(r"site-packages/numpy/__init__\.py$", name)]
    return found
