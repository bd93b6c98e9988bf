"""Packages of numpy with metadata only, for tests of many packages and of channels."""

import json
import shutil
import zipfile

from helpers import repack
from numpy_feedstock import files
from numpy_feedstock.packages.record import Record


def make(folder, number, **index):
    """The .conda package of a number, named as ours are, in a folder; its path.

    index : entries of its index.json in another way
    """
    index = {
        "name": "numpy",
        "version": "2.3.5",
        "build": f"mkl_py311h{number:07x}_100",
        "build_number": 100,
        "subdir": "linux-64",
        "arch": "x86_64",
        "platform": "linux",
        "depends": [],
        "timestamp": 1764000000000 + number,
        **index,
    }
    name = "{name}-{version}-{build}".format(**index)
    info = folder / name / "info"
    info.mkdir(parents=True)
    (info / "index.json").write_text(json.dumps(index))
    (info / "paths.json").write_text(json.dumps({"paths": [], "paths_version": 1}))
    return repack.pack(folder / name, folder / f"{name}.conda")


def write_record(path, **fields):
    """Put a record beside a package, as if `build` had made it and all tests had passed.

    fields : of Record, in another way
    """
    record = {
        "filename": path.name,
        "sha256": files.sha256(path),
        "size": path.stat().st_size,
        "blas": "mkl",
        "glibc_floor": "2.28",
        "channels": [],
        "inputs": "",
        "label": "fast",
        "tests": {"imports": True, "repro": True},
        "numpy_tests": {"passed": 48_000, "failed": 0, "skipped": 1_000},
        "build_minutes": 4.6,
        "test_minutes": 2.5,
        "cache_hits": 218,
        "cache_misses": 37,
        "commit": "c" * 40,
        **fields,
    }
    Record(**record).write(path)


def put(wanted, folder, **fields):
    """Put a small package with the name of a variant, and its record, into folder/output.

    fields : of the record
    """
    made = make(folder, 1)
    target = folder / "output" / wanted.platform / wanted.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, target)
    shutil.rmtree(made.with_suffix(""))
    write_record(target, **fields)
    return target


def put_whole(wanted, folder, members, depends=(), **fields):
    """Put a package with these files and its record into the indexed channel folder/output.

    members : {name: text}
    fields : of the record
    """
    made = make(folder, 1, depends=list(depends))
    unpacked = made.with_suffix("")
    for name, text in members.items():
        repack.replace(unpacked / name, text)
    (unpacked / "bin").mkdir(exist_ok=True)
    for program in (unpacked / "bin").iterdir():
        program.chmod(0o755)
    name, version, build = wanted.filename.removesuffix(".conda").split("-")
    index = unpacked / "info/index.json"
    repack.edit_json(index, lambda content: content.update(version=version, build=build))
    repack.settle(unpacked)
    subdir = folder / "output" / wanted.platform
    subdir.mkdir(parents=True, exist_ok=True)
    path = repack.pack(unpacked, subdir / wanted.filename)
    entry = {**json.loads(index.read_text()), "sha256": files.sha256(path)}
    shutil.rmtree(unpacked)
    write_record(path, **fields)
    add_to_index(subdir, {path.name: {**entry, "size": path.stat().st_size}})
    return path


def add_to_index(subdir, entries):
    """Add {filename: entry} to what the solver reads, without the indexer, which takes seconds."""
    index = subdir / "repodata.json"
    known = json.loads(index.read_text())["packages.conda"] if index.exists() else {}
    for folder, found in ((subdir, {**known, **entries}), (subdir.parent / "noarch", {})):
        folder.mkdir(exist_ok=True)
        content = {"info": {"subdir": folder.name}, "packages": {}, "packages.conda": found}
        (folder / "repodata.json").write_text(json.dumps(content))


def requirement(folder):
    """A line for pip that names a wheel in a folder, with the hash. It installs tiny.py."""
    wheel = folder / "tiny-1-py3-none-any.whl"
    metadata = {
        "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        for name, text in metadata.items():
            archive.writestr(f"tiny-1.dist-info/{name}", text)
    return f"tiny @ {wheel.as_uri()} --hash=sha256:{files.sha256(wheel)}\n"
