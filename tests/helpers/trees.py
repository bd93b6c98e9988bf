"""Folders with the layouts of conda and pip, and a numpy that nobody can import: for the audit."""

import json
import shutil
import subprocess

MKL, WHEEL, INTERFACE = "libmkl_rt.so.2", "libscipy_openblas64_-fdde5778.so", "libcblas.so.3"
CONDA_BUILD = "py311h1234567_0"
SITE_PACKAGES = "lib/python3.11/site-packages"


def link(soname, folder):
    """The path of a library in a folder that needs one of a name; linked once."""
    linker, library = (
        ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-x", "none"],
        folder / f"needs-{soname}",
    )
    if not library.exists():
        subprocess.run([*linker, f"-Wl,-soname,{soname}", "-o", folder / soname], check=True)
        subprocess.run([*linker, "-Wl,--no-as-needed", folder / soname, "-o", library], check=True)
    return library


def put_numpy(site, extension, source, version="2.3.5"):
    """Put a numpy into a folder of packages.

    extension : Path of what is its extension
    source : of its __init__.py
    """
    core = site / "numpy" / "_core"
    core.mkdir(parents=True, exist_ok=True)
    (site / "numpy" / "core").mkdir(exist_ok=True)
    (site / f"numpy-{version}.dist-info").mkdir()
    (site / "numpy" / "__init__.py").write_text(source)
    (site / "numpy" / "version.py").write_text(f'"""Version"""\nversion = "{version}"\n')
    shutil.copy(extension, core / "_multiarray_umath.cpython-311-x86_64-linux-gnu.so")


def make_prefix(
    prefix,
    extension,
    source,
    libblas=None,
    channel="https://conda.example.com/forge/linux-64",
    build=CONDA_BUILD,
    version="2.3.5",
    files=("a",),
):
    """Make a prefix of conda with a numpy in it.

    extension, source : as for put_numpy
    libblas : build string of the record of libblas
    files : the paths in the record of numpy
    """
    meta = prefix / "conda-meta"
    meta.mkdir(parents=True)
    (meta / "history").write_text("")
    (meta / f"numpy-{version}-{build}.json").write_text(
        json.dumps({"build": build, "channel": channel, "files": files})
    )
    if libblas:
        (meta / f"libblas-3.11.0-{libblas}.json").write_text("{}")
    put_numpy(prefix / SITE_PACKAGES, extension, source, version)
    # as conda's python has it
    (prefix / "lib" / "python3.1").symlink_to("python3.11")


def put_cached_package(pkgs, put):
    """Put a numpy into a package cache of conda's, unpacked as conda does it.

    put : the function that puts a numpy into a folder of packages
    """
    package = pkgs / "numpy-2.3.5-py311h1234567_0"
    put(package / SITE_PACKAGES)
    (package / "info").mkdir()
    (package / "info" / "index.json").write_text(
        '{"name": "numpy", "version": "2.3.5", "build": "py311h1234567_0"}'
    )


def make_venv(prefix, put, installer="", settings="", pip=False):
    """Make a venv with a numpy in it.

    put : the function that puts a numpy into a folder of packages
    installer : what is in the INSTALLER of numpy's dist-info
    settings : what is in pyvenv.cfg
    pip : whether pip is installed
    """
    site = prefix / SITE_PACKAGES
    put(site)
    (site / "numpy-2.3.5.dist-info" / "INSTALLER").write_text(installer + "\n")
    if pip:
        (site / "pip").mkdir()
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").touch()
    (prefix / "pyvenv.cfg").write_text(settings)
    return prefix
