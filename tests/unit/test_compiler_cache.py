"""The compiler cache: who uses it, what a hit costs, and the stores that others share."""

import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.compiling import calls, compile_once, compile_source, prepare, servers
from numpy_feedstock import paths
from numpy_feedstock.building import bootstrap, builder, compiler_cache, sdist


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return prepare(tmp_path, monkeypatch)


def test_a_hit_does_not_even_preprocess(folder):
    assert compile_once(folder) == ((0, 1), [])
    assert any(" -E " in f" {call} " for call in calls(folder))
    (folder / "builddir" / "answer.o").unlink()
    assert compile_once(folder) == ((1, 0), [])
    assert calls(folder) == []
    assert (folder / "builddir" / "answer.o").exists()


def test_only_what_is_built_meanwhile_is_told_of_the_cache(folder, monkeypatch):
    mine, socket = compiler_cache.VARIABLES
    monkeypatch.setenv(mine, "ccache")
    monkeypatch.delenv(socket, raising=False)
    with compiler_cache.serve(print):
        assert os.environ[mine] == str(compiler_cache.program())
        place = Path(os.environ[socket])
        assert place.is_socket()
    assert os.environ[mine] == "ccache" and socket not in os.environ
    assert not place.parent.exists()


def test_no_package_of_the_bootstrap_channel_knows_the_cache():
    recipes = (bootstrap.HERE / "recipes").rglob("*")
    texts = {path: path.read_bytes() for path in recipes if path.is_file()}
    assert [path for path, text in texts.items() if b"ccache" in text.lower()] == []


# stands in for Python where the recipe's script starts the build
MESON = """\
#!/bin/sh
echo "CC=$CC CXX=$CXX"
for argument; do case $argument in -Cbuilddir=*) cd "${argument#*=}";; esac; done
ls ../source/answer.h source/answer.h
exit 1
"""


def run_recipe(folder, **variables):
    """Run the recipe's script up to the place where it starts the build. Returns its output."""
    (folder / "source").mkdir()
    (folder / "source" / "answer.h").touch()
    python = folder / "python"
    python.write_text(MESON)
    python.chmod(0o755)
    variables |= {
        "PATH": os.defpath,
        "PREFIX": str(folder),
        "SRC_DIR": str(folder / "source"),
        "PYTHON": str(python),
        "CC": "x86_64-conda-linux-gnu-cc",
        "CXX": "x86_64-conda-linux-gnu-c++",
        "CPU_COUNT": "1",
        "blas_impl": "mkl 2025.3",
        "build_platform": "linux-64",
        "host_platform": "linux-64",
    }
    script = ["bash", paths.ROOT / "recipe" / "build.sh"]
    source = folder / "source"
    return subprocess.run(script, cwd=source, env=variables, capture_output=True, text=True).stdout


def test_the_recipe_puts_the_cache_before_any_compiler(tmp_path):
    """A source has to be found without the "../" of its name, too: see the script."""
    assert run_recipe(tmp_path, NUMPY_COMPILER_CACHE="/bin/sccache").splitlines() == [
        "CC=/bin/sccache x86_64-conda-linux-gnu-cc CXX=/bin/sccache x86_64-conda-linux-gnu-c++",
        "../source/answer.h",
        "source/answer.h",
    ]


def test_without_a_cache_the_recipe_calls_the_compilers_alone(tmp_path):
    assert run_recipe(tmp_path).splitlines() == [
        "CC=x86_64-conda-linux-gnu-cc CXX=x86_64-conda-linux-gnu-c++",
        "../source/answer.h",
    ]


def test_a_rebuild_uses_no_cache(tmp_path, monkeypatch):
    """There is no recipe in the folder, so that it ends before it builds."""
    monkeypatch.setenv(sdist.VARIABLE, "restored afterwards")
    for name in compiler_cache.VARIABLES:
        monkeypatch.setenv(name, "a cache")
    archive = tmp_path / "numpy.tar.gz"
    with pytest.raises(OSError, match="variant_config"):
        builder.build_recorded(tmp_path, archive, [], tmp_path, 0, print)
    assert not set(compiler_cache.VARIABLES) & set(os.environ)


@pytest.mark.parametrize(
    ("variables", "kinds"),
    [
        ({}, {}),
        ({"SCCACHE_BUCKET": "b", "SCCACHE_REGION": "r"}, {"s3": "SCCACHE_BUCKET"}),
        ({"SCCACHE_GHA_ENABLED": "on"}, {"gha": "SCCACHE_GHA_ENABLED"}),
        ({"SCCACHE_GHA_ENABLED": "false", "SCCACHE_BUCKET": ""}, {}),
        ({"SCCACHE_DIR": "/elsewhere", "SCCACHE_RECACHE": "1"}, {}),
        (
            {"SCCACHE_REDIS_ENDPOINT": "redis://a", "SCCACHE_GCS_BUCKET": "b"},
            {"redis": "SCCACHE_REDIS_ENDPOINT", "gcs": "SCCACHE_GCS_BUCKET"},
        ),
    ],
)
def test_the_stores_that_an_environment_names(variables, kinds):
    assert compiler_cache.stores(variables) == kinds


def test_a_store_that_does_not_answer_is_named_once_and_the_build_goes_on(folder, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    monkeypatch.setenv("SCCACHE_BUCKET", "bucket")
    monkeypatch.setenv("SCCACHE_ENDPOINT", "http://127.0.0.1:9/hidden-path")
    monkeypatch.setenv("SCCACHE_REGION", "us-east-1")
    monkeypatch.setenv("SCCACHE_LOG", "trace")
    counts, said = compile_once(folder)
    assert counts == (0, 1)
    (line,) = said
    log = paths.LOGS / "compiler-cache.log"
    assert line == (
        "building without the shared compiler cache, which does not answer: "
        f"s3 (SCCACHE_BUCKET); {log}"
    )
    text = log.read_text()
    assert "cache storage failed to read" in text
    assert "hidden-secret" not in text and "TRACE" not in text
    assert compile_once(folder) == ((1, 0), [])


def test_what_the_user_set_for_another_cache_changes_nothing(folder, monkeypatch, tmp_path):
    """Variables and a file of sccache's own that name no shared store of this build."""
    monkeypatch.setenv("SCCACHE_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("SCCACHE_LOCAL_RW_MODE", "READ_ONLY")
    config = tmp_path / "home" / ".config" / "sccache" / "config"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[cache.disk]\ndir = "{tmp_path / "elsewhere"}"\n[cache.redis]\nurl = "no"\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert compile_once(folder) == ((0, 1), [])
    assert compile_once(folder) == ((1, 0), [])
    assert not (tmp_path / "elsewhere").exists()


def test_a_build_whose_server_was_killed_goes_on_and_leaves_no_other(folder):
    """The compilers that run next each find no server, and start one."""
    said, objects = [], [f"{number}.o" for number in range(4)]
    with compiler_cache.serve(said.append) as counts:
        compile_source(folder)
        (server,) = servers(folder)
        os.kill(server, signal.SIGKILL)
        while servers(folder):
            time.sleep(0.01)
        with ThreadPoolExecutor(len(objects)) as pool:
            list(pool.map(lambda output: compile_source(folder, output), objects))
        assert servers(folder)
        assert counts() == (0, 0)
    assert all((folder / "builddir" / each).exists() for each in objects)
    assert said == ["the compiler cache ended before the build did: how much it had is not known"]
    assert servers(folder) == []


def test_an_interrupt_while_the_server_starts_leaves_no_server(folder, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as store:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("SCCACHE_BUCKET", "bucket")
        monkeypatch.setenv("SCCACHE_ENDPOINT", f"http://127.0.0.1:{store.getsockname()[1]}")
        monkeypatch.setenv("SCCACHE_REGION", "us-east-1")
        with ThreadPoolExecutor() as pool:
            call = pool.submit(interrupt_when_called, store)
            with pytest.raises(KeyboardInterrupt):
                compile_once(folder)
            call.result().close()
    assert servers(folder) == []


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_an_interrupt_before_the_server_is_known_leaves_no_server(folder, monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.extend(servers(folder))
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_once(folder)
    assert started and servers(folder) == []


def interrupt_when_called(store):
    """Interrupt this process, as Ctrl-C does. Returns the call, which nobody answers."""
    call = store.accept()[0]
    os.kill(os.getpid(), signal.SIGINT)
    return call


def test_a_server_that_does_not_tell_its_hits_fails_no_build(folder, monkeypatch):
    said = []
    with compiler_cache.serve(said.append) as counts:
        compile_source(folder)
        (server,) = servers(folder)
        os.kill(server, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(compiler_cache, "_STATS_SECONDS", 1)
            assert counts() == (0, 0)
        os.kill(server, signal.SIGCONT)
        assert counts() == (0, 1)
    (line,) = said
    assert line.startswith("the compiler cache does not tell how much it had: ")
