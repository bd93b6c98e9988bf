"""The repro's own behaviour: what it says of wrong use, of a hang, of a crash; on fakes, without numpy."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
import venv
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipe" / "repro"))
sys.dont_write_bytecode = True  # the recipe's folder is packaged with all that lies in it

import checks
import processes
import stacks

import audit_numpy
import repro

# Recorded with gdb 13.1: glibc 2.36, MKL 2025.3.1, generic kernels. Frames left out, folders cut.
HANG = """\
Thread 2 (Thread 0x7f93c9afd740 (LWP 13552) "openmp_worker"):
#0  futex_wait (private=..., expected=..., futex_word=...) at ../sysdeps/nptl/futex-internal.h:146
#1  __GI___lll_lock_wait (futex=..., private=...) at ./nptl/lowlevellock.c:49
#2  0x00007f93d78524da in lll_mutex_lock_optimized (mutex=...) at ./nptl/pthread_mutex_lock.c:48
#3  ___pthread_mutex_lock (mutex=...) at ./nptl/pthread_mutex_lock.c:128
#4  0x00007f93d784b626 in dlsym_implementation (dl_caller=..., name=..., handle=...) at ./dlfcn/dlsym.c:52
#5  ___dlsym (handle=..., name=...) at ./dlfcn/dlsym.c:68
#6  0x00007f93d100cac7 in mkl_serv_load_lapack_fun () from libmkl_core.so.2
#9  0x00007f93d094fdc9 in __kmp_invoke_microtask () from libiomp5.so
#12 0x00007f93d0951322 in __kmp_launch_worker (thr=...) at ../../src/z_Linux_util.cpp:743
#14 0x00007f93d78cf8ec in clone3 () at ../sysdeps/unix/sysv/linux/x86_64/clone3.S:81
Thread 1 (Thread 0x7f93d77c4b80 (LWP 13551) "python"):
#0  __futex_abstimed_wait_common64 (private=..., cancel=..., abstime=..., op=..., expected=..., futex_word=...) at ./nptl/futex-internal.c:57
#4  ___pthread_cond_wait (cond=..., mutex=...) at ./nptl/pthread_cond_wait.c:618
#9  kmp_flag_64<false, true>::wait (this=..., this_thr=..., final_spin=..., itt_sync_obj=...) at ../../src/kmp_wait_release.h:967
#10 0x00007f93d08814aa in __kmp_hyper_barrier_gather (bt=..., this_thr=..., gtid=..., tid=..., reduce=..., itt_sync_obj=...) at ../../src/kmp_barrier.cpp:1136
#11 0x00007f93d087d3d4 in __kmp_barrier_template<false> (bt=..., gtid=..., is_split=..., reduce_data=..., reduce=..., reduce_size=...) at ../../src/kmp_barrier.cpp:1954
#13 0x00007f93d088cb23 in __kmpc_barrier (loc=..., global_tid=...) at ../../src/kmp_csupport.cpp:938
#14 0x00007f93ce3e1148 in mkl_blas_dgemm_1D_col () from libmkl_intel_thread.so.2
#22 0x00007f93cd2ee536 in cblas_dgemm () from libmkl_intel_lp64.so.2
#33 PyNumber_MatrixMultiply (v=..., w=...) at Objects/abstract.c:1130
#58 0x00007f93d77bc211 in NumpyImport::NumpyImport() () from static_import.so
#62 call_init (l=..., argc=..., argv=..., env=...) at ./elf/dl-init.c:26
#65 0x00007f93d79c626e in dl_open_worker (a=...) at ./elf/dl-open.c:808
#67 0x00007f93d79c6608 in _dl_open (file=..., mode=..., caller_dlopen=..., nsid=..., argc=..., argv=..., env=...) at ./elf/dl-open.c:884
#73 ___dlopen (file=..., mode=...) at ./dlfcn/dlopen.c:81
#101 Py_BytesMain (argc=..., argv=...) at Modules/main.c:734
"""


# for fakes that misbehave in a trial alone
INSIDE_DLOPEN = """
def inside_dlopen():
    import sys
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != "create_module":
        frame = frame.f_back
    return frame is not None
"""


@pytest.fixture
def fake_numpy(tmp_path, monkeypatch):
    """Return a function that puts a numpy made of the given source first on the path."""

    def make(source):
        package = tmp_path / "fake" / "numpy"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(INSIDE_DLOPEN + textwrap.dedent(source))
        monkeypatch.setenv("PYTHONPATH", str(package.parent))

    return make


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--timeout", "0"], "--timeout must be above 0 and at most an hour, found 0; try"),
        (["--timeout", "nan"], "found nan; try --timeout 30"),
        (["--trials", "2"], "--trials must be 3 or more, one for each thread setting, found 2"),
        (["--python", "/no/such/python"], "found no program '/no/such/python'; correct the path"),
        (["--python", "true"], "--python must be Python 3.9 or later, found true with no answer"),
        (["--env", "MKL_NUM_THREADS"], "NAME=VALUE is needed, found 'MKL_NUM_THREADS'"),
        (["--check", "speed"], "invalid choice: 'speed'"),
    ],
)
def test_wrong_use_names_what_was_found_and_the_remedy(arguments, told, capsys):
    assert repro.main(arguments) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


def test_a_missing_compiler_is_wrong_use(fake_numpy, monkeypatch, tmp_path, capsys):
    fake_numpy("")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert repro.main(["--check", "hang"]) == 2
    assert (
        "found neither CXX nor c++, g++ or clang++ on PATH; install one" in capsys.readouterr().err
    )


def test_a_compiler_in_cxx_that_is_not_there_is_wrong_use(fake_numpy, monkeypatch, capsys):
    fake_numpy("")
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    assert repro.main(["--check", "hang"]) == 2
    assert "found CXX=no-such-compiler -m64 on PATH" in capsys.readouterr().err


def test_a_numpy_that_cannot_be_imported_is_wrong_use(fake_numpy, capsys):
    fake_numpy("raise ImportError('libmkl_rt.so.2 is missing')")
    assert repro.main(["--check", "hang"]) == 2
    said = capsys.readouterr().err
    assert "numpy must be importable by" in said
    assert "libmkl_rt.so.2 is missing" in said


def test_the_sentence_names_lock_waiter_holder_and_barrier():
    assert stacks.explain(stacks.parse(HANG)) == (
        "thread 2 waits in dlsym for the loader's lock _dl_load_lock, which thread 1 holds inside "
        "dlopen while it waits for thread 2 in __kmpc_barrier"
    )


def test_several_waiters_are_named_once():
    waiter, holder = stacks.parse(HANG).values()
    assert stacks.explain({1: holder, **dict.fromkeys((3, 4, 5, 9), waiter)}) == (
        "threads 3-5, 9 wait in dlsym for the loader's lock _dl_load_lock, which thread 1 holds inside "
        "dlopen while it waits for them in __kmpc_barrier"
    )


def test_the_sentence_claims_no_more_than_the_stacks_show():
    waiter, holder = HANG.split("Thread 1 ")
    assert stacks.explain(stacks.parse("Thread 1 " + holder)).endswith(
        "no thread is seen to wait for that lock"
    )
    assert stacks.explain(stacks.parse(waiter)) == (
        "the stacks do not show which lock is waited for; thread 2 is in futex_wait"
    )
    assert stacks.explain({}) == "the stacks do not show which lock is waited for"


def test_without_gdb_the_loaders_lock_is_still_recognised():
    threads = {
        7: ["comm: python"],
        8: ["comm: worker", "waits for a lock in: ld-linux-x86-64.so.2"],
    }
    assert stacks.explain(threads).startswith("thread 8 waits for a lock of the loader")


def test_threads_that_do_the_same_are_shown_once():
    idle = {number: [f"#0  idle (a={number})"] for number in (2, 3, 4, 7)}
    text = stacks.fold({1: ["#0  main ()"], **idle})
    assert text == "thread 1:\n  #0  main ()\nthreads 2-4, 7:\n  #0  idle (a=2)"


@pytest.mark.parametrize("gdb", [shutil.which("gdb") is not None, False], ids=["gdb", "proc"])
def test_a_hang_is_found_shown_and_killed(gdb, fake_numpy, monkeypatch, tmp_path, capsys):
    pids = tmp_path / "pids"
    fake_numpy(f"""\
        import os, subprocess, sys, time
        if inside_dlopen():
            child = subprocess.Popen(["sleep", "1000"])
            with open({str(pids)!r}, "a") as file:
                print(os.getpid(), child.pid, file=file)
            time.sleep(1000)
    """)
    if not gdb:
        monkeypatch.setattr(stacks.shutil, "which", lambda name: None if name == "gdb" else name)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(processes.tempfile, "tempdir", str(scratch))

    assert repro.main(["--check", "hang", "--trials", "3", "--timeout", "4"]) == 1

    said = capsys.readouterr().out
    for setting in checks.SETTINGS:
        assert f"hang, {setting.name}: FAILED, 1 trials, 1 hangs" in said
    assert said.count("the first hang:\nthread") == 1
    if gdb:  # it sees the sleep inside dlopen, and nobody who minds
        assert "inside dlopen, and so holds the loader's lock _dl_load_lock; no thread is" in said
    else:
        assert "\n  comm: python" in said
        assert "the stacks do not show which lock is waited for" in said
    assert said.endswith("AFFECTED: hang failed\n")
    started = [int(pid) for pid in pids.read_text().split()]
    assert started
    assert [pid for pid in started if alive(pid)] == []
    assert list(scratch.iterdir()) == []


def test_a_grandchild_that_takes_time_to_die_is_waited_for(tmp_path):
    """The kernel takes some tenths of a second to free a large process."""
    pid, ready = tmp_path / "pid", tmp_path / "ready"
    large = f"import time; memory = b'x' * 800_000_000; open({str(ready)!r}, 'w'); time.sleep(99)"
    parent = f"""\
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {large!r}])
pathlib.Path({str(pid)!r}).write_text(str(child.pid))
time.sleep(99)
"""

    def until_it_is_large(parent_pid):
        deadline = time.monotonic() + 300
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    outcome = processes.run([sys.executable, "-c", parent], 0.5, os.environ, until_it_is_large)
    assert outcome.hung
    assert not alive(int(pid.read_text()))


def alive(pid):
    """Is this a process that is more than an entry which init has yet to reap?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_an_import_that_works_passes(fake_numpy, capsys):
    fake_numpy("__version__ = '2.3.5+fake'")
    assert repro.main(["--check", "hang", "--trials", "3"]) == 0
    said = capsys.readouterr().out
    assert "numpy   2.3.5+fake" in said
    assert "hang, default: 1 trials, 0 hangs\n" in said
    assert said.endswith("UNKNOWN: hang passed, but only the check calls tells what is FIXED\n")


def test_given_variables_replace_the_usual_settings(fake_numpy, capsys):
    fake_numpy("""\
        import os
        assert os.environ.get("MKL_NUM_THREADS") == "2" and "MKL_DYNAMIC" not in os.environ
    """)
    assert (
        repro.main(["--check", "hang", "--trials", "4", "--env", "MKL_NUM_THREADS=2", "--json"])
        == 0
    )
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [(each["setting"], each["main_late"]) for each in findings] == [
        ("MKL_NUM_THREADS=2", False),
        ("the same, generic kernels, main thread late", True),
    ]


# What could not be tried says nothing about a numpy: exit 2, with the cause and the remedy.


def test_a_crash_is_no_verdict(fake_numpy, capsys):
    fake_numpy("""\
        import os, signal, sys
        if "probe" not in sys.modules:
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert repro.main(["--check", "hang", "--trials", "3", "--json"]) == 2
    said = capsys.readouterr()
    assert "NOT TRIED, 1 trials, 0 hangs, 1 crashes, the first: killed by SIGKILL: last" in said.err
    assert "repro: hang could not be tried: 1 trials" in said.err
    assert json.loads(said.out)["verdict"] == "UNKNOWN"


def test_a_hang_counts_beside_crashes(fake_numpy, capsys):
    fake_numpy("""\
        import os, time
        if inside_dlopen():
            if "MKL_CBWR" in os.environ:
                time.sleep(1000)
            raise ImportError("libmkl_rt.so.2 is missing")
    """)
    assert repro.main(["--check", "hang", "--trials", "3", "--timeout", "4"]) == 1
    assert capsys.readouterr().out.endswith("AFFECTED: hang failed\n")


def test_an_import_that_is_only_slow_is_no_hang(fake_numpy, capsys):
    fake_numpy("import time; time.sleep(3)")
    assert repro.main(["--check", "hang", "--trials", "3", "--timeout", "1"]) == 2
    assert "without any extension, did not end in 1 seconds" in capsys.readouterr().err


def test_an_import_that_is_slower_in_a_trial_is_no_hang(fake_numpy, capsys):
    # the timeout is shorter than the import in a trial. A busy machine may take 3 seconds more
    fake_numpy("import time; time.sleep(5.5 if inside_dlopen() else 1.5)")
    command = ["--check", "hang", "--trials", "2", "--env", "A=B", "--timeout", "5"]
    assert repro.main(command) == 0
    assert "numpy is imported slowly here: each process gets" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["sitecustomize.py", "workaround.pth"])
@pytest.mark.parametrize("check", ["hang", "threads"])
def test_a_numpy_that_is_imported_at_start_is_no_verdict(how, check, fake_numpy, tmp_path, capsys):
    fake_numpy("")
    python = tmp_path / "environment" / "bin" / "python"
    venv.create(python.parents[1], with_pip=False)
    (site_packages,) = python.parents[1].glob("lib/python3*/site-packages")
    (site_packages / "another.pth").write_text("import sys\n")
    (site_packages / how).write_text("import numpy\n")
    assert repro.main(["--python", str(python), "--check", check, "--trials", "3"]) == 2
    said = capsys.readouterr().err
    assert f"numpy is imported when this Python starts, by {site_packages / how}" in said
    assert f"; move {site_packages / how} away while this runs" in said


@pytest.fixture
def mounted(tmp_path):
    """Returns a function that mounts a small file system in memory; its folder."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True)


def run_limited(folder, *arguments, limit=""):
    """The repro as a program, with its temporary files in a folder and under a limit of the shell."""
    command = shlex.join([sys.executable, str(Path(repro.__file__)), *arguments])
    return subprocess.run(
        ["bash", "-c", f"{limit or ':'}; exec {command}"],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("check", ["hang", "calls"])
def test_a_temporary_folder_mounted_noexec_is_no_verdict(check, fake_numpy, mounted):
    fake_numpy("")
    done = run_limited(mounted("noexec"), "--check", check, "--trials", "3")
    assert (done.returncode, "AFFECTED" in done.stdout) == (2, False)
    assert f"repro: {check} could not be tried: no library can be loaded from" in done.stderr
    assert "mounted noexec" in done.stderr and "set TMPDIR to another folder" in done.stderr


@pytest.mark.parametrize("name", ["a space", "a:colon"])
def test_a_temporary_folder_that_ld_preload_cannot_name_is_no_verdict(name, fake_numpy, tmp_path):
    fake_numpy("")
    (tmp_path / name).mkdir()
    done = run_limited(tmp_path / name, "--check", "calls")
    assert done.returncode == 2
    assert "because of the space or colon; set TMPDIR to another folder" in done.stderr


def test_a_full_temporary_folder_is_no_verdict(fake_numpy, mounted):
    fake_numpy("")
    done = run_limited(mounted("size=16k"), "--check", "hang", "--trials", "3")
    assert (done.returncode, "AFFECTED" in done.stdout, "Traceback" in done.stderr) == (
        2,
        False,
        False,
    )
    assert "free some space, or set TMPDIR to another folder" in done.stderr


def test_a_small_limit_of_memory_is_no_verdict(fake_numpy, tmp_path):
    fake_numpy("""\
        if inside_dlopen():
            taken = bytearray(400_000_000)
    """)
    limited = run_limited(tmp_path, "--check", "hang", "--trials", "3", limit="ulimit -v 400000")
    assert (limited.returncode, "AFFECTED" in limited.stdout) == (2, False)
    assert "MemoryError" in limited.stderr
    assert "raise the limit of memory (ulimit -v is 400000)" in limited.stderr


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "free some space, or set TMPDIR"),
        ("OpenBLAS: pthread_create failed: Resource temporarily unavailable", "raise the limits"),
        ("libmkl_def.so.2: failed to map segment from shared object", "is mounted noexec"),
        ("killed by SIGSEGV: no output", "mend what the output says"),
    ],
)
def test_the_remedy_fits_the_cause(fault, remedy):
    assert remedy in checks.remedy_of(fault)


@pytest.mark.skipif(sys.platform != "linux", reason="the detector is an LD_PRELOAD library")
def test_a_detector_that_sees_nothing_is_no_verdict(fake_numpy, capsys):
    fake_numpy("""\
        class ones(tuple):
            def __new__(cls, shape): return super().__new__(cls, shape)
            def __matmul__(self, other): return self
    """)
    assert repro.main(["--check", "calls"]) == 2
    said = capsys.readouterr()
    assert "calls: NOT TRIED, detector blind: 0 lines from an import, 0 from" in said.out
    assert "does not know" in said.err


# One set of verdicts.


def finding(check, status, **more):
    return checks.Finding(check, "", status, "text", **more)


@pytest.mark.parametrize(
    ("statuses", "library", "verdict", "code"),
    [
        ({"hang": "passed", "calls": "passed", "threads": "passed"}, "libmkl_rt.so.2", "FIXED", 0),
        ({"hang": "passed", "calls": "failed"}, "libopenblas.so.0", "LATENT", 0),
        ({"hang": "not tried", "calls": "failed"}, "libopenblas.so.0", "LATENT", 0),
        ({"hang": "passed", "calls": "failed"}, "libmkl_rt.so.3", "AFFECTED", 1),
        ({"hang": "failed", "calls": "passed"}, "libopenblas.so.0", "AFFECTED", 1),
        ({"hang": "not tried", "threads": "failed"}, "other", "AFFECTED", 1),
        ({"hang": "not tried", "calls": "passed"}, "libmkl_rt.so.2", "UNKNOWN", 2),
        ({"hang": "passed", "calls": "not tried"}, "libmkl_rt.so.2", "UNKNOWN", 2),
        ({"hang": "passed"}, "libmkl_rt.so.2", "UNKNOWN", 0),
    ],
)
def test_the_verdict_and_the_exit_status(statuses, library, verdict, code):
    findings = [finding(check, status) for check, status in statuses.items()]
    found, _ = repro.judge(findings, library)
    result = {"verdict": found, "findings": [vars(each) for each in findings]}
    assert (found, repro.exit_status(result, strict=False)) == (verdict, code)


def test_strict_counts_latent_as_a_failure():
    assert repro.exit_status({"verdict": "LATENT"}, strict=True) == 1


def test_the_audit_and_the_repro_have_the_same_verdicts():
    assert set(repro.VERDICTS) == set(audit_numpy.VERDICTS)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_check_that_leaves_a_thread_behind_is_a_difference(fake_numpy, capsys):
    fake_numpy("""\
        if True:
            def blas_fpe_check():
                import threading, time
                threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
            try:
                blas_fpe_check()
            finally:
                del blas_fpe_check
    """)
    assert repro.main(["--check", "threads", "--json"]) == 1
    said = capsys.readouterr()
    result = json.loads(said.out)  # nothing else on stdout
    assert "with the check other, max threads None, OS threads 2; without it" in said.err
    assert result["verdict"] == "AFFECTED"
    assert [each["status"] for each in result["findings"]] == ["failed"] * len(checks.SETTINGS)
    assert result["findings"][0]["facts"]["unchecked"]["removed"] == 1


@pytest.mark.parametrize("check", [checks.check_calls, checks.check_threads])
def test_what_cannot_run_on_macos_is_skipped_with_the_reason(check, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    (finding,) = check(None)
    assert finding.status == "skipped"
    assert "darwin" in finding.text


def test_inherited_thread_variables_do_not_reach_a_trial(fake_numpy, monkeypatch):
    fake_numpy("""\
        import os
        found = [name for name in os.environ if name.startswith(("MKL_", "OMP_", "KMP_", "OPENBLAS_"))]
        wanted = {"MKL_NUM_THREADS", "OMP_NUM_THREADS", "MKL_DYNAMIC", "MKL_CBWR"}
        assert not set(found) - wanted, found
        assert os.environ.get("MKL_NUM_THREADS") != "1"
    """)
    for name in ("MKL_NUM_THREADS", "MKL_THREADING_LAYER", "KMP_BLOCKTIME", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    assert repro.main(["--check", "hang", "--trials", "3"]) == 0
    assert os.environ["MKL_NUM_THREADS"] == "1"
