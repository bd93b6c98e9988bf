"""The sysroot: compilers that target glibc 2.28 on any machine, and packages that hold to it."""

import os
import re
import subprocess
import sysconfig

import pytest
import yaml
from rattler.package_streaming import extract

from helpers.shipped import PYTHON
from numpy_feedstock import paths
from numpy_feedstock.channels.prefix import activated, install
from numpy_feedstock.packages.specs import oldest_glibc

pytestmark = pytest.mark.packages

# RHEL 8's: the newest versions of symbols that its glibc and its libgcc_s have
FLOOR = {"GLIBC": (2, 28), "GCC": (7, 0, 0)}
# of glibc 2.28, and libgcc
SYSTEM = {
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "ld-linux-x86-64.so.2",
    "libgcc_s.so.1",
}
BLAS = {"mkl": {"libmkl_rt.so.2"}, "openblas": {"libopenblas.so.0"}}


def readelf(option, path):
    return subprocess.check_output(
        ["readelf", "--wide", option, path], text=True, env={**os.environ, "LC_ALL": "C"}
    )


def newer_than_the_floor(path):
    """The versions of symbols, ("GLIBC", "2.34"), that a library asks for and RHEL 8 has not."""
    needed = set(re.findall(r"Name: (\w+)_([\d.]+) ", readelf("--version-info", path)))
    return {
        (name, version)
        for name, version in needed
        if tuple(map(int, version.split("."))) > FLOOR.get(name, ())
    }


def libraries_needed(path):
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("--dynamic", path)))


@pytest.mark.parametrize("blas", ["mkl", "openblas"])
def test_no_file_of_the_package_needs_a_newer_glibc_or_a_shared_libstdcpp(packages, blas, tmp_path):
    extract(packages[blas], tmp_path)
    libraries = list(tmp_path.rglob("*.so"))
    assert len(libraries) > 15
    assert {
        path.name: newer_than_the_floor(path) for path in libraries if newer_than_the_floor(path)
    } == {}
    assert set().union(*map(libraries_needed, libraries)) <= SYSTEM | BLAS[blas]
    assert oldest_glibc(packages[blas]) == "2.28"


@pytest.fixture(scope="module")
def compilers(channels, tmp_path_factory):
    """The variables of an environment with the compilers."""
    prefix = tmp_path_factory.mktemp("compilers") / "prefix"
    install(channels, ["gxx_linux-64", f"python={PYTHON}"], prefix)
    return activated(prefix)


def link(variables, source, *options):
    """Compile and link as build tools do; (the file, beside the source; the warnings)."""
    made = source.with_suffix(".so" if "-shared" in options else "")
    compiler, flags = ("$CXX", "$CXXFLAGS") if source.suffix == ".cpp" else ("$CC", "$CFLAGS")
    command = f'{compiler} {flags} -O2 -fPIC -I"$INCLUDE" "$@" $LDFLAGS'
    done = subprocess.run(
        ["bash", "-c", command, "bash", "-o", made, source, *options],
        env={**variables, "INCLUDE": sysconfig.get_path("include")},
        capture_output=True,
        text=True,
    )
    return made, done.stderr


def test_the_compilers_are_those_that_the_build_config_pins(compilers):
    pinned = yaml.safe_load(paths.BUILD_CONFIG.read_text())["fortran_compiler_version"]
    command = ["bash", "-c", "$CC -dumpversion; $CXX -dumpversion"]
    versions = subprocess.check_output(command, env=compilers, text=True).split()
    assert [version.split(".")[0] for version in versions] == pinned * 2


def test_a_probe_without_flags_links(compilers, tmp_path):
    """As numpy's for SIMD features, which are left out where theirs do not."""
    source = tmp_path / "probe.c"
    source.write_text(
        "#include <immintrin.h>\n"
        "int main(void) { return _mm_cvtsi128_si32(_mm_setzero_si128()); }\n"
    )
    command = ["bash", "-c", f"$CC -mavx2 {source} -o {tmp_path}/probe"]
    assert subprocess.run(command, env=compilers, capture_output=True, text=True).stderr == ""
    subprocess.run([tmp_path / "probe"], check=True)


# each newer than 2.28, and in the glibc of the machine that runs this test
@pytest.mark.parametrize("function", ["gettid", "pthread_cond_clockwait", "close_range"])
def test_what_glibc_2_28_has_not_does_not_link(compilers, tmp_path, function):
    source = tmp_path / "newer.c"
    source.write_text(f"void {function}(void); void call(void) {{ {function}(); }}\n")
    # the machine's own gcc, on its own glibc, links it
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", tmp_path / "machine.so"], check=True)
    assert f"undefined reference to `{function}'" in link(compilers, source, "-shared")[1]


def test_an_extension_that_does_not_name_libm_links_to_it(compilers, tmp_path):
    """As numpy's example does, which its slow tests compile. Python has loaded libm anyway."""
    source = tmp_path / "example.c"
    source.write_text("double exp(double); double call(double x) { return exp(x); }\n")
    made, warnings = link(compilers, source, "-shared")
    assert warnings == ""
    assert "libm.so.6" in libraries_needed(made)


def test_the_headers_are_those_of_glibc_2_28(compilers, tmp_path):
    source = tmp_path / "headers.cpp"
    source.write_text(
        "#include <features.h>\n"
        "static_assert(__GLIBC__ == 2 && __GLIBC_MINOR__ == 28);\n"
        "#if __has_include(<sys/single_threaded.h>)\n"
        "#error of 2.32\n"
        "#endif\n"
        "#include <bits/stdc++.h>\n"
    )
    for standard in ("17", "20", "23"):
        assert link(compilers, source, "-shared", f"-std=c++{standard}")[1] == ""


def test_a_program_in_cpp_runs(compilers, tmp_path):
    """As the probes of build tools do."""
    source = tmp_path / "program.cpp"
    source.write_text(
        "#include <iostream>\n"
        'static std::string constructed = "constructed";\n'
        "int main() { try { throw constructed; }"
        " catch (const std::string &caught) { std::cout << caught; } }\n"
    )
    program, complaints = link(compilers, source)
    assert complaints == "" and not newer_than_the_floor(program)
    assert subprocess.check_output([program], text=True) == "constructed"


THROWER = """
#include <stdexcept>
#include <string>
void thrower(int number) { throw std::runtime_error(std::to_string(number)); }
"""
# what leans on libstdc++'s and libgcc's own state, and on what they take from glibc
EXTENSION = """
#include <Python.h>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

void thrower(int number);
static thread_local std::string local = "untouched";
static std::once_flag flag;

static PyObject *run(PyObject *, PyObject *)
{
    int caught = 0, calls = 0;
    std::mutex mutex;
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++)
        threads.emplace_back([&, i] {
            local = std::to_string(i);
            std::call_once(flag, [&] { calls++; });
            try { thrower(i); } catch (const std::runtime_error &error) {
                std::lock_guard<std::mutex> lock(mutex);
                caught += error.what() == local;
            }
            try { (void)std::vector<int>().at(1); } catch (const std::out_of_range &) {
                std::lock_guard<std::mutex> lock(mutex);
                caught++;
            }
        });
    for (auto &thread : threads)
        thread.join();
    std::random_device words, of_system("/dev/urandom");
    bool random = words() != words() || words() != words();
    random &= of_system() != of_system() || of_system() != of_system();
    return Py_BuildValue("iisi", caught, calls, local.c_str(), random);
}

static PyMethodDef methods[] = {{"run", run, METH_NOARGS, ""}, {}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "extension", "", -1, methods};
PyMODINIT_FUNC PyInit_extension() { return PyModule_Create(&module); }
"""


def test_an_extension_in_cpp_needs_no_shared_libstdcpp_and_works(compilers, tmp_path):
    """Exceptions from another library, threads, thread_local, call_once, random_device."""
    (tmp_path / "libthrower.cpp").write_text(THROWER)
    (tmp_path / "extension.cpp").write_text(EXTENSION)
    thrower, complaints = link(compilers, tmp_path / "libthrower.cpp", "-shared")
    assert complaints == ""
    extension, complaints = link(
        compilers, tmp_path / "extension.cpp", "-shared", "-Wl,-rpath,$ORIGIN", thrower
    )
    assert complaints == ""
    for library in (thrower, extension):
        assert not newer_than_the_floor(library)
        assert libraries_needed(library) <= SYSTEM | {str(thrower)}
        assert not re.search(
            r"(GLOBAL|WEAK) +DEFAULT +\d+ (_ZNSt13runtime_errorC|stat$)",
            readelf("--dyn-syms", library),
        )
    code = "import extension; print(extension.run())"
    shown = subprocess.check_output(["python", "-c", code], cwd=tmp_path, env=compilers, text=True)
    assert shown == "(16, 1, 'untouched', 1)\n"
