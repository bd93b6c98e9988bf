"""Packages of numpy with metadata only, for tests of many packages and of channels."""

import json

from helpers import repack


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
