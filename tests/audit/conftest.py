"""A local package index and the tools that install from it."""

import functools
import http.server
import os
import shutil
import sys
import threading
import zipfile

import pytest

from helpers import trees
from helpers.numpy_init import GATED, UNGATED
from numpy_feedstock import paths
from numpy_feedstock.building import environments

LOCK = paths.ROOT / "tests" / "audit" / "remedy-tools.txt"


@pytest.fixture(scope="session")
def tools():
    """The folder with uv, poetry and pipx."""
    return environments.made(LOCK) / "bin"


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """The URL of a package index with two numpys, and an application that needs any of them."""
    simple = tmp_path_factory.mktemp("index") / "simple"
    extension = trees.link(trees.MKL, tmp_path_factory.mktemp("elf"))
    for version, source in (("2.3.5", UNGATED), ("2.4.5", GATED)):
        files = {
            "numpy/__init__.py": source,
            "numpy/version.py": f'version = "{version}"\n',
            "numpy/core/__init__.py": "",
            "numpy/_core/__init__.py": "",
            "numpy/_core/_multiarray_umath.so": extension.read_bytes(),
        }
        make_wheel(simple, "numpy", version, files)
    files = {"demoapp.py": "def main():\n    print('demo')\n"}
    entry = {"entry_points.txt": "[console_scripts]\ndemoapp = demoapp:main\n"}
    make_wheel(simple, "demoapp", "1.0", files, entry, ["numpy"])
    handler = functools.partial(Quiet, directory=simple.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        pass


def make_wheel(simple, name, version, files, info=None, requires=()):
    """Put a wheel into a package index in a folder.

    files : {path: content} of the packages; info : the same of its dist-info
    """
    folder = simple / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    info = {
        "METADATA": "\n".join(lines) + "\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **(info or {}),
    }
    dist_info = f"{name}-{version}.dist-info"
    content = {**files, **{f"{dist_info}/{file}": text for file, text in info.items()}}
    record = "".join(f"{path},,\n" for path in [*content, f"{dist_info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, data in {**content, f"{dist_info}/RECORD": record}.items():
            archive.writestr(path, data)


@pytest.fixture
def variables(index, tools, tmp_path):
    """The environment variables of a user whose tools know the local index alone."""
    programs = tmp_path / "programs"
    programs.mkdir()
    python = os.path.realpath(sys.executable)
    for name in ("python3", f"python3.{sys.version_info[1]}"):
        (programs / name).symlink_to(python)
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "PATH": f"{programs}:{tools}:{os.environ['PATH']}",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": index,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_DEFAULT_INDEX": index,
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": str(tmp_path / "home" / ".cache" / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
        "PIPX_DEFAULT_PYTHON": python,
        "POETRY_CACHE_DIR": str(tmp_path / "home" / ".cache" / "pypoetry"),
        "POETRY_KEYRING_ENABLED": "false",
        "USER": "somebody",
    }


@pytest.fixture
def home(tmp_path):
    """The home of the user whose environments are made."""
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
