"""The second way: a file that Python loads when it starts, and numpy's own files as they were."""

import os
import subprocess
import sys

import pytest

from helpers import installed
from helpers.healer import heal

# counts the products that the import makes, as the check sees them
COUNT = """
import sys
class Counted:
    calls = 0
def hook(event, arguments):
    pass
import numpy
names = [each for each in numpy.__spec__.loader.get_code('numpy').co_consts
         if getattr(each, 'co_name', '') == 'blas_fpe_check']
print(len(names), 'matmul' if len(names[0].co_names) else 'nothing')
"""


def code_of_check(env, *options):
    python = env / "bin" / "python"
    done = subprocess.run(
        [python, *options, "-B", "-c", COUNT], capture_output=True, text=True, cwd="/"
    )
    return done.stdout.split() or done.stderr


@pytest.mark.parametrize("kind", ("pip", "uv"))
def test_the_check_does_nothing_and_undo_leaves_nothing(copy, originals, kind):
    env = copy(kind)
    assert code_of_check(env) == ["1", "matmul"]
    dry = heal("--startup-file", env)
    assert (dry.code, dry.results) == (1, ["would-heal"])
    assert installed.differences(originals(kind), env) == ""
    run = heal("--apply", "--startup-file", env)
    assert (run.code, run.results) == (0, ["healed"])
    assert run.rows[0]["way"] == "start-up file"
    assert code_of_check(env) == ["1", "nothing"]
    assert heal("--apply", "--startup-file", env).results == ["unchanged"]
    # Python writes bytecode of the module
    subprocess.run([env / "bin" / "python", "-c", "0"], check=True)
    assert heal("--undo", "--startup-file", env).results == ["undone"]
    assert code_of_check(env) == ["1", "matmul"]
    assert installed.differences(originals(kind), env) == ""


def test_numpys_own_files_stay_and_it_works_where_numpy_is_a_link(copy):
    env = copy("pip")
    numpy = installed.site_packages(env) / "numpy"
    numpy.rename(numpy.with_name("elsewhere"))
    numpy.symlink_to("elsewhere")
    assert heal("--apply", env).results == ["refused"]
    assert heal("--apply", "--startup-file", env).results == ["healed"]
    assert code_of_check(env) == ["1", "nothing"]


def test_a_look_for_numpy_before_the_import_does_not_lose_it(copy):
    env = copy("pip")
    heal("--apply", "--startup-file", env)
    program = "import importlib.util; importlib.util.find_spec('numpy')\n" + COUNT
    done = subprocess.run(
        [env / "bin" / "python", "-c", program], capture_output=True, text=True, cwd="/"
    )
    assert done.stdout.split() == ["1", "nothing"]


def test_reload_and_the_source_are_as_without_it(copy):
    env = copy("pip")
    heal("--apply", "--startup-file", env)
    program = (
        "import numpy, inspect, importlib; importlib.reload(numpy);"
        "print('blas_fpe_check' in inspect.getsource(numpy), numpy.ones(2).sum())"
    )
    done = subprocess.run(
        [env / "bin" / "python", "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.stdout.split() == ["True", "2.0"], done.stderr


def test_python_without_site_skips_it(copy):
    env = copy("pip")
    heal("--apply", "--startup-file", env)
    site = installed.site_packages(env)
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n" + COUNT
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, cwd="/"
    )
    assert done.stdout.split() == ["1", "matmul"]


def test_a_newer_numpy_is_left_alone(copy):
    env = copy("pip")
    heal("--apply", env)
    assert heal("--apply", "--startup-file", env).results == ["unchanged"]
    assert not [name for name in os.listdir(installed.site_packages(env)) if "31284" in name]
