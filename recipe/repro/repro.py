#!/usr/bin/env python3
"""Is this numpy affected by the matmul that it runs at import (numpy#31284)?

numpy 2.3.5 and 2.4.0 to 2.4.4 multiply two 20x20 matrices in
blas_fpe_check() while they are imported. If a C++ extension imports numpy
from a static constructor, the loader's lock is held meanwhile: a worker thread
of MKL that looks up a kernel with dlsym() waits for that lock, and the thread
that holds it waits for the worker.

Three checks, each in fresh processes:

hang     import such an extension, many times: the symptom. It is a race, which
         under the last of the settings is decided for the worst.
calls    count the calls of cblas_dgemm during "import numpy": the cause, which
         no race hides. A detector that misses a known call is a failure.
threads  compare the threads after an import with the check and without it: they
         differ if the check starts some, or if it was tamed by variables such
         as MKL_NUM_THREADS=1, which MKL reads once and keeps for good.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True  # this folder is packaged with all that lies in it
import stacks

HERE = Path(__file__).resolve().parent
EXAMPLES = """\
examples:
  python repro.py                               the numpy of this interpreter
  python repro.py --python /opt/env/bin/python  that of another one
  python repro.py --check calls                 the quick one, without a race
  python repro.py --check hang --trials 60 -v   look harder
  python repro.py --env MKL_THREADING_LAYER=GNU --env MKL_NUM_THREADS=2

It needs the standard library and, for hang and calls, a C++ compiler (CXX).
exit status: 0 not affected, 1 affected, 2 wrong use or nothing to examine
"""

# An inherited value of these would decide what a trial shows.
STEERING = ("MKL_", "OMP_", "KMP_", "GOMP_", "OPENBLAS_", "GOTO_")


@dataclass(frozen=True)
class Setting:
    """Variables under which processes run, and whether late_main.cpp decides the race."""

    name: str
    variables: dict
    late: bool = False

    def decided(self, name):
        """The same, with nothing left to chance.

        Some of MKL's AVX-512 kernels keep a 20x20 product on one thread: the
        generic ones share it out on any CPU.
        """
        return Setting(name, {**self.variables, "MKL_CBWR": "COMPATIBLE"}, late=True)


DEFAULT = Setting("default", {})
EIGHT = Setting(
    "8 threads", {"MKL_NUM_THREADS": "8", "OMP_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE"}
)
SETTINGS = [DEFAULT, EIGHT, EIGHT.decided("8 threads, generic kernels, main thread late")]
MKL_IS_POSSIBLE = sys.platform == "linux" and os.uname().machine == "x86_64"
ENOUGH = 3  # hangs or crashes under one setting that prove it


class WrongUse(Exception):
    """Nothing can be examined: says what is needed, what was found, and the remedy."""


@dataclass
class Finding:
    """The outcome of one check, under one thread setting where it has several."""

    check: str
    setting: str
    status: str  # passed, failed or skipped
    text: str
    facts: dict = field(default_factory=dict)

    def __str__(self):
        where = ", ".join(filter(None, [self.check, self.setting]))
        return (
            f"{where}: {'' if self.status == 'passed' else self.status.upper() + ', '}{self.text}"
        )


@dataclass
class Session:
    """What the checks share."""

    python: str
    trials: int
    timeout: float
    folder: Path  # temporary
    log: object  # what people read: stdout, or stderr beside --json
    verbose: bool
    settings: list
    facts: dict = field(default_factory=dict)
    stacks: str = ""  # of the first hang
    lock: str = ""  # what they say

    def say(self, text):
        print(text, file=self.log, flush=True)

    def detail(self, text):
        if self.verbose:
            self.say(text)


# Processes


@dataclass
class Outcome:
    code: int | None  # None: did not end in time
    stdout: str
    stderr: str

    def fault(self):
        """Say how the process failed and what it said last; empty if it did not."""
        if self.code == 0:
            return ""
        how = f"exit status {self.code}"
        if self.code is None:
            how = "did not end in time"
        elif self.code < 0:
            how = f"killed by {signal.Signals(-self.code).name}"
        return f"{how}: {(self.stdout + self.stderr).strip()[-2000:] or 'no output'}"


def run(command, timeout, environment, on_timeout=None):
    """Run a command in a session of its own; nothing of it outlives this call."""
    # Files rather than pipes: a pipe that a grandchild holds open would block us.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
            if on_timeout:
                on_timeout(process.pid)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                # libiomp5 removes this at exit, which a kill denies it.
                for left in glob.glob(f"/dev/shm/__KMP_REGISTERED_LIB_{process.pid}_*"):
                    os.unlink(left)
        stdout.seek(0), stderr.seek(0)
        return Outcome(code, *(each.read().decode(errors="replace") for each in (stdout, stderr)))


def run_python(session, code, setting=DEFAULT, preload="", on_timeout=None):
    """Run code in a fresh interpreter of the examined Python."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(STEERING)}
    environment.update(setting.variables)
    if preload:
        inherited = environment.get("LD_PRELOAD", "")
        environment["LD_PRELOAD"] = f"{preload} {inherited}".strip()
    # The alarm ends a hung child even if this process was killed before it. The
    # working folder ('') is no place to import from: it may hold a numpy source.
    prelude = (
        f"import signal, sys; signal.alarm({int(session.timeout) + 180}); "
        f"sys.path[:] = [{str(HERE)!r}, {str(session.folder)!r}, *filter(None, sys.path)]; "
    )
    # -B: the examined environment is left as it was found.
    command = [session.python, "-B", "-c", prelude + code]
    return run(command, session.timeout, environment, on_timeout)


def ask(session, question, setting=DEFAULT):
    """Put a question of probe.py to the examined Python; return (answer, fault)."""
    outcome = run_python(session, f"import probe; probe.{question}", setting)
    try:
        return (
            ({}, outcome.fault())
            if outcome.fault()
            else (json.loads(outcome.stdout.splitlines()[-1]), "")
        )
    except (IndexError, ValueError):
        return {}, f"no answer but {outcome.stdout[-200:]!r}"


def compiler():
    """Return the command of the C++ compiler, as a list."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    for command in [wanted] if wanted else (["c++"], ["g++"], ["clang++"]):
        if shutil.which(command[0]):
            return command
    found = f"CXX={shlex.join(wanted)}" if wanted else "neither CXX nor c++, g++ or clang++"
    raise WrongUse(
        f"a C++ compiler is needed, found {found} on PATH; install one, "
        "set CXX to it, or choose --check threads"
    )


def build(session, source, target, *options):
    """Compile a C++ file that lies beside this one into a library; return its path."""
    # --as-needed: a preloaded library that needs libstdc++ would bring in the
    # host's, ahead of the one that a conda environment was built for.
    shape = ["-shared", "-fPIC", "-Wl,--as-needed"]
    if sys.platform == "darwin":
        shape = ["-bundle", "-undefined", "dynamic_lookup"]
    library = str(session.folder / target)
    command = [*compiler(), *shape, "-o", library, str(HERE / source), *options]
    session.detail(shlex.join(command))
    outcome = run(command, 300, {**os.environ, "TMPDIR": str(session.folder)})
    if outcome.fault():
        raise WrongUse(
            f"{source} must compile, found {outcome.fault()}\n"
            "install the Python headers and a complete compiler"
        )
    return library


# The checks: each yields its findings


def check_hang(session):
    """Import numpy from a static constructor, many times, under each setting."""
    target = "static_import" + session.facts["suffix"]
    build(session, "static_import.cpp", target, "-I", session.facts["include"])
    # A numpy that is there already (sitecustomize, a .pth file) would hide all.
    code = (
        "assert 'numpy' not in sys.modules, 'numpy is imported at startup'; "
        "import static_import; assert 'numpy' in sys.modules"
    )

    def show(pid):
        if not session.stacks:
            threads = stacks.of_process(pid)
            session.stacks, session.lock = stacks.fold(threads), stacks.explain(threads)
            session.say(f"the first hang:\n{session.stacks}\n{session.lock}\n")

    for position, setting in enumerate(session.settings):
        preload = ""
        if setting.late and MKL_IS_POSSIBLE:
            preload = build(session, "late_main.cpp", "late_main.so", "-O2", "-ldl")
            fault = run_python(session, "import numpy", setting, preload).fault()
            if fault:
                yield Finding(
                    "hang", setting.name, "failed", f"with late_main.so alone the import {fault}"
                )
                continue
        # What does not divide goes to the last ones, the likeliest to hang.
        share, trials, hangs, crashes = (
            (session.trials + position) // len(session.settings),
            0,
            0,
            [],
        )
        while trials < share and hangs + len(crashes) < ENOUGH:
            trials += 1
            outcome = run_python(session, code, setting, preload, on_timeout=show)
            session.detail(f"hang, {setting.name}, trial {trials}: {outcome.fault() or 'ok'}")
            if outcome.code is None:
                hangs += 1
            elif outcome.fault():
                crashes.append(outcome.fault())
        text = f"{trials} trials, {hangs} hangs"
        text += f", {len(crashes)} crashes, the first: {crashes[0]}" if crashes else ""
        text += f" (stopped before {share}: enough)" if trials < share else ""
        status = "failed" if hangs or crashes else "passed"
        facts = {"trials": trials, "hangs": hangs, "crashes": crashes}
        yield Finding("hang", setting.name, status, text, facts)


def check_calls(session):
    """Count the gemm calls of an import; one that is made on purpose must be seen."""
    if sys.platform != "linux":
        yield Finding("calls", "", "skipped", f"LD_PRELOAD is not to be had on {sys.platform}")
        return
    preload = build(session, "count_gemm.cpp", "count_gemm.so", "-ldl")
    known = "import numpy; numpy.ones((20, 20)) @ numpy.ones((20, 20))"
    outcomes = [run_python(session, code, preload=preload) for code in ("import numpy", known)]
    lines = [
        re.findall(r"^\w*cblas_dgemm\w* \d+x\d+x\d+$", outcome.stderr, re.MULTILINE)
        for outcome in outcomes
    ]
    fault = outcomes[0].fault() or outcomes[1].fault()
    text = f"{len(lines[0])} gemm at import"
    if fault:
        text = f"under the detector the import {fault}"
    elif len(lines[1]) != len(lines[0]) + 1:
        text = (
            f"detector blind: {len(lines[0])} lines from an import, {len(lines[1])} from an "
            "import and one matmul, where one more was to come"
        )
    elif lines[0]:
        text += f": {', '.join(lines[0])}"
    else:
        yield Finding("calls", "", "passed", f"{text}, 1 from a known matmul", {"at_import": []})
        return
    yield Finding("calls", "", "failed", text, {"at_import": lines[0], "with_known": lines[1]})


def check_threads(session):
    """Compare the threads after an import with the check and after one without it."""
    if sys.platform != "linux":
        yield Finding("threads", "", "skipped", f"{sys.platform} has no /proc to count them in")
        return
    for setting in session.settings:
        checked, fault = ask(session, "measure()", setting)
        unchecked, other_fault = ask(session, "measure(checked=False)", setting)
        if fault or other_fault:
            yield Finding("threads", setting.name, "failed", f"the import {fault or other_fault}")
            continue
        told = [
            f"{each['library']}, max threads {each['max_threads']}, OS threads {each['os_threads']}"
            for each in (checked, unchecked)
        ]
        same = told[0] == told[1]
        text = told[0] if same else f"with the check {told[0]}; without it {told[1]}"
        if not unchecked["removed"]:
            text += " (it has no blas_fpe_check() call: trivially the same)"
        facts = {"checked": checked, "unchecked": unchecked}
        yield Finding("threads", setting.name, "passed" if same else "failed", text, facts)


CHECKS = {"hang": check_hang, "calls": check_calls, "threads": check_threads}


# The command line


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trials", type=int, default=20, metavar="N", help="of hang, shared by its settings (20)")
    add("--timeout", type=float, default=30, metavar="SECONDS", help="of each process (30)")
    add("--check", action="append", choices=CHECKS, help="repeatable (default: all)")
    add("--python", default=sys.executable, metavar="PATH", help="whose numpy is examined (this)")
    add(
        "--env",
        action="append",
        type=variable,
        metavar="NAME=VALUE",
        help=(
            "set instead of the usual thread settings, repeatable; with and without the late main thread"
        ),
    )
    add("--json", action="store_true", help="one object on stdout; the text goes to stderr")
    add("-v", "--verbose", action="store_true", help="tell each command and each trial")
    args = parser.parse_args(argv)
    if not 0 < args.timeout <= 3600:
        raise WrongUse(
            f"--timeout must be above 0 and at most an hour, found {args.timeout:g}; "
            "try --timeout 30"
        )
    args.settings = chosen(args.env)
    if args.trials < len(args.settings):
        raise WrongUse(
            f"--trials must be {len(args.settings)} or more, one for each thread setting, "
            f"found {args.trials}; try --trials 20"
        )
    if not shutil.which(args.python):
        raise WrongUse(
            f"--python must be an interpreter, found no program {args.python!r}; correct the path"
        )
    return args


def variable(text):
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"NAME=VALUE is needed, found {text!r}")
    return name, value


def chosen(variables):
    """The settings to go through: the usual ones, or those of the given variables."""
    if not variables:
        return SETTINGS
    given = Setting(" ".join("=".join(each) for each in variables), dict(variables))
    return [given, given.decided("the same, generic kernels, main thread late")]


def look_around(session):
    """Learn what the summary and the checks need to know of Python, numpy and BLAS."""
    facts, fault = ask(session, "describe()")
    if fault:
        raise WrongUse(f"--python must be Python 3.9 or later, found {session.python} with {fault}")
    if not facts["numpy_path"]:
        raise WrongUse(
            f"numpy is needed, found none in {session.python}; install it there, "
            "or name another --python"
        )
    blas, fault = ask(session, "measure()", session.settings[0])
    if fault.startswith("did not end"):
        blas = dict.fromkeys(("numpy", "layer", "kernels"), "unknown")
        blas["library"] = "unknown (import numpy, without any extension, did not end in time)"
    elif fault:
        raise WrongUse(f"numpy must be importable, found {fault}; repair {session.python}")
    # The rest of the measurement is for check_threads, which takes its own.
    told = ("numpy", "library", "layer", "kernels")
    session.facts = {**facts, **{key: blas[key] for key in told}}


def examine(session, checks):
    """Run the checks, tell people, and return all that was found as one object."""
    look_around(session)
    session.say(
        "python  {python}  {executable}\nnumpy   {numpy}  {numpy_path}\n"
        "BLAS    {library}, threading layer {layer}, kernels {kernels}\n"
        "host    cores: {cores}, {libc}\n".format(**session.facts)
    )
    findings = []
    for check in checks:
        for finding in CHECKS[check](session):
            session.say(finding)
            findings.append(finding)
    if all(finding.status == "skipped" for finding in findings):
        raise WrongUse(f"nothing could be checked on {sys.platform}; add --check hang")
    failed = dict.fromkeys(each.check for each in findings if each.status == "failed")
    skipped = dict.fromkeys(each.check for each in findings if each.status == "skipped")
    session.say(
        (f"AFFECTED: {', '.join(failed)} failed" if failed else "not affected")
        + (f" ({', '.join(skipped)} skipped)" if skipped else "")
    )
    return {
        **session.facts,
        "affected": bool(failed),
        "stacks": session.stacks,
        "lock": session.lock,
        "findings": [asdict(each) for each in findings],
    }


def stop(number, frame):
    """End by an exception on SIGTERM, so that children and folder go as well."""
    raise SystemExit(128 + number)


def main(argv=None):
    """Examine a numpy; return 0 (not affected), 1 (affected) or 2 (wrong use)."""
    before = signal.signal(signal.SIGTERM, stop)
    try:
        args = parse(argv)
        checks = [check for check in CHECKS if check in (args.check or CHECKS)]
        log = sys.stderr if args.json else sys.stdout
        with tempfile.TemporaryDirectory(prefix="repro-") as folder:
            session = Session(
                args.python,
                args.trials,
                args.timeout,
                Path(folder),
                log,
                args.verbose,
                args.settings,
            )
            result = examine(session, checks)
    except WrongUse as error:
        print(f"repro: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as end:  # of argparse or of stop()
        return end.code
    finally:
        signal.signal(signal.SIGTERM, before)
    if args.json:
        print(json.dumps(result, indent=2))
    return 1 if result["affected"] else 0


if __name__ == "__main__":
    sys.exit(main())
