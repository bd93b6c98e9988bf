"""Copy the interpreter that runs this script, relocatable, into a prefix.

usage: python -I copy_python.py PREFIX [LIBRARIES]

LIBRARIES : folder with the loader, the C library and the others that the interpreter needs,
    where this machine's are too old for it

The copy has no site-packages, because each wheel becomes a package of its own. It has
no test suite, IDLE, bytecode or static libraries. Where a text file names the old prefix,
the copy names the new one, and the package builder makes that relocatable.
The script knows two layouts: CPython's own (pyenv, source builds) and Debian's.
"""

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

MINOR = f"python{sys.version_info[0]}.{sys.version_info[1]}"
LEFT_OUT = shutil.ignore_patterns(
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "turtledemo",
    "*.a",
    "*.o",
    "sitecustomize.py",
    "EXTERNALLY-MANAGED",
)
# Debian keeps what pip installs apart from its own packages. Here there is nothing to
# keep apart. A changed line in sysconfig undoes it there. The module site is frozen into
# the interpreter: a sitecustomize undoes it there.
DEBIAN_SCHEME = ("prefix_scheme = 'posix_local'", "prefix_scheme = 'posix_prefix'")
DEBIAN_SITE = f"""\
import os, site, sys
site.addsitedir(os.path.join(sys.prefix, "lib", "{MINOR}", "site-packages"))
"""


def copy_files(prefix: Path) -> None:
    """Copy the programs, the standard library, the headers and the shared library."""
    bin_dir = prefix / "bin"
    bin_dir.mkdir(parents=True, exist_ok=True)
    shutil.copy2(os.path.realpath(sys.executable), bin_dir / MINOR)
    for link in ("python", "python3"):
        (bin_dir / link).symlink_to(MINOR)
    shutil.copytree(sysconfig.get_path("stdlib"), prefix / "lib" / MINOR, ignore=LEFT_OUT)
    (prefix / "lib" / MINOR / "site-packages").mkdir()

    include = Path(sysconfig.get_path("include"))
    shutil.copytree(include, prefix / "include" / MINOR, ignore=LEFT_OUT)
    multiarch = include.parent / (sysconfig.get_config_var("MULTIARCH") or "none") / MINOR
    if multiarch.is_dir():  # Debian keeps the real pyconfig.h there, and includes it from here
        shutil.copytree(multiarch, prefix / "include" / MINOR, dirs_exist_ok=True)

    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        library = sysconfig.get_config_var("INSTSONAME")
        found = Path(sysconfig.get_config_var("LIBDIR")) / library
        if not found.exists():  # Debian's LIBDIR leaves the multiarch folder out
            found = found.parent / (sysconfig.get_config_var("MULTIARCH") or "") / library
        if found.exists():
            shutil.copy2(found, prefix / "lib" / library)
            (prefix / "lib" / sysconfig.get_config_var("LDLIBRARY")).symlink_to(library)


def write_pkg_config(prefix: Path) -> None:
    """Write python3.pc and the files like it anew: the originals may be in any folder."""
    folder = prefix / "lib" / "pkgconfig"
    folder.mkdir(parents=True)
    version = MINOR.removeprefix("python")
    for suffix, libs in (("", ""), ("-embed", f"-L${{prefix}}/lib -l{MINOR}")):
        text = (
            f"prefix={prefix}\n\nName: Python\nDescription: Build a C extension for Python\n"
            f"Version: {version}\nLibs: {libs}\nCflags: -I${{prefix}}/include/{MINOR}\n"
        )
        for stem in (f"python-{version}", "python3"):
            (folder / f"{stem}{suffix}.pc").write_text(text)


def bring_libraries(prefix: Path, libraries: Path) -> None:
    """Copy the libraries, and let the interpreter use them instead of this machine's."""
    folder = prefix / "lib" / "debian"
    folder.mkdir()
    for library in libraries.glob("*.so*"):
        if library.is_file():
            shutil.copy2(library, folder / library.name)
    # rpath, not runpath: what the interpreter loads finds its libraries there, too
    rpath = ["--force-rpath", "--set-rpath", "$ORIGIN/../lib/debian"]
    loader = ["--set-interpreter", folder / "ld-linux-x86-64.so.2"]
    # one after the other: patchelf 0.17 breaks the program when it changes both at once
    for change in (rpath, loader):
        subprocess.run(["patchelf", *change, prefix / "bin" / MINOR], check=True)


def rewrite_build_variables(prefix: Path) -> None:
    """Put the new prefix into sysconfig's variables, and drop linker flags of the old one."""
    library = prefix / "lib" / MINOR
    variables = [path for path in library.glob("_sysconfigdata_*.py") if not path.is_symlink()]
    old = re.escape(built_for(variables))
    for path in variables:
        text = path.read_text()
        # a search path of the copied machine must not end up in what is built
        text = re.sub(rf"-(?:L|Wl,-rpath,|Wl,-rpath=){old}/lib(?![\w-])\S*?(?=[\s'])", "", text)
        text = re.sub(rf"(?<![\w/.-]){old}(?=/(?:lib|include|share)\b|['\s])", str(prefix), text)
        path.write_text(text)
    for path in library.glob("config-*/Makefile"):
        path.write_text(
            re.sub(
                rf"(?<![\w/.-]){old}(?=/(?:lib|include|share)\b|\s)", str(prefix), path.read_text()
            )
        )


def built_for(variables: list[Path]) -> str:
    """Return the prefix that sysconfig names. Debian's packages may be unpacked elsewhere."""
    for path in variables:
        found = re.search(r"'prefix': '([^']+)'", path.read_text())
        if found:
            return found[1]
    return sys.base_prefix


def undo_debian_layout(prefix: Path) -> None:
    if not any("dist-packages" in path for path in site.getsitepackages()):
        return
    library = prefix / "lib" / MINOR
    (library / "sitecustomize.py").write_text(DEBIAN_SITE)
    for path in (library / "sysconfig.py", library / "sysconfig" / "__init__.py"):
        if path.exists():
            path.write_text(path.read_text().replace(*DEBIAN_SCHEME))


def main() -> None:
    prefix = Path(sys.argv[1])
    copy_files(prefix)
    if sys.argv[2:]:
        bring_libraries(prefix, Path(sys.argv[2]))
    write_pkg_config(prefix)
    rewrite_build_variables(prefix)
    undo_debian_layout(prefix)


if __name__ == "__main__":
    main()
