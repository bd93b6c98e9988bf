"""A small program, compiled through the compiler cache as the recipe does it."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from numpy_feedstock import paths
from numpy_feedstock.building import compiler_cache

# notes what it was asked to do, then does it
GCC = """\
#!/bin/sh
echo "$@" >> "{calls}"
exec {gcc} "$@"
"""


def prepare(folder, monkeypatch):
    """A folder with a source and a compiler. The cache is empty, and no store is named."""
    monkeypatch.setattr(paths, "COMPILER_CACHE", folder / "cache")
    monkeypatch.setattr(paths, "LOGS", folder / "logs")
    for name in list(os.environ):
        if name.startswith("SCCACHE_"):
            monkeypatch.delenv(name)
    source, build = folder / "source", folder / "builddir"
    for each in (source, build):
        each.mkdir()
    (source / "answer.h").write_text("#define ANSWER 42\n")
    (source / "answer.c").write_text('#include "answer.h"\nint answer = ANSWER;\n')
    # as recipe/build.sh does, which says why
    (build / "source").symlink_to(source)
    compiler = folder / "gcc"
    compiler.write_text(GCC.format(calls=folder / "calls", gcc=shutil.which("gcc")))
    compiler.chmod(0o755)
    return folder


def compile_once(folder):
    """Compile the source. Returns (hits, misses), and what was said."""
    said = []
    (folder / "calls").write_text("")
    with compiler_cache.serve(said.append) as counts:
        compile_source(folder)
        return counts(), said


def compile_source(folder, output="answer.o"):
    """Compile the source, while the cache is served."""
    # as the builder isolates its script: nothing else goes through, and it has a home of its own
    passed = {name: os.environ[name] for name in compiler_cache.VARIABLES}
    environment = {"PATH": os.defpath, "HOME": str(folder / "source"), **passed}
    command = [passed["NUMPY_COMPILER_CACHE"], folder / "gcc", "-c", "../source/answer.c"]
    command += ["-MD", "-MQ", output, "-MF", f"{output}.d", "-o", output]
    subprocess.run(command, cwd=folder / "builddir", env=environment, check=True)


def servers(folder):
    """The process ids of the servers that were started for a folder of prepare()."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in environ.read_bytes():
                if (environ.parent / "exe").resolve() == compiler_cache.program().resolve():
                    found.append(int(environ.parent.name))
    return found


def calls(folder):
    """The calls of the compiler that had to do with the source."""
    return [line for line in (folder / "calls").read_text().splitlines() if "answer.c" in line]
