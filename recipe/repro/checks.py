"""The three checks of repro.py: each yields its findings."""

from __future__ import annotations

import json
import mmap
import os
import re
import resource
import shlex
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, TextIO

import processes
import stacks

HERE = Path(__file__).resolve().parent

# Only there is MKL, which late_main.cpp is about.
LATE_MAIN_WORKS = sys.platform == "linux" and os.uname().machine == "x86_64"

# An inherited value of these would decide what a trial shows.
THREAD_VARIABLES = ("MKL_", "OMP_", "KMP_", "GOMP_", "OPENBLAS_", "GOTO_")
ENOUGH = 3  # hangs or crashes under one setting that prove it

PASSED, FAILED, NOT_TRIED, SKIPPED = "passed", "failed", "not tried", "skipped"

OTHER_FOLDER = "set TMPDIR to another folder, for example TMPDIR=$HOME"
MORE_SPACE = f"free some space, or {OTHER_FOLDER}"
COMPILER_NEEDS = 8 << 20  # bytes of temporary files
NO_SPACE = r"No space left on device|Disk quota exceeded"
NO_MEMORY = (
    r"MemoryError|annot allocate|bad_alloc|temporarily unavailable|[Uu]nable to allocate"
    r"|[Oo]ut of memory"
)


@dataclass(frozen=True)
class Setting:
    """Variables under which processes run, and whether late_main.cpp decides the race."""

    name: str
    variables: Mapping[str, str]
    main_late: bool = False

    def with_main_late(self, name: str) -> Setting:
        """Return the same setting with nothing left to chance.

        Some of MKL's AVX-512 kernels keep a 20x20 product on one thread. The
        generic kernels share it out on any CPU.
        """
        return Setting(name, {**self.variables, "MKL_CBWR": "COMPATIBLE"}, main_late=True)


DEFAULT = Setting("default", {})
EIGHT_THREADS = Setting(
    "8 threads", {"MKL_NUM_THREADS": "8", "OMP_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE"}
)
SETTINGS = [
    DEFAULT,
    EIGHT_THREADS,
    EIGHT_THREADS.with_main_late("8 threads, generic kernels, main thread late"),
]


class CannotTry(Exception):
    """A check needs something that is not here: ``cause`` and ``remedy`` say what."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}; {remedy}")
        self.cause = cause
        self.remedy = remedy


@dataclass(frozen=True)
class Finding:
    """The outcome of one check, under one setting where it has several."""

    check: str
    setting: str
    status: str  # PASSED, FAILED, NOT_TRIED or SKIPPED
    text: str
    main_late: bool = False  # late_main.cpp decided the race
    remedy: str = ""  # of NOT_TRIED
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        where = ", ".join(filter(None, [self.check, self.setting]))
        if self.status == PASSED:
            return f"{where}: {self.text}"
        return f"{where}: {self.status.upper()}, {self.text}"


@dataclass
class Session:
    """What the checks share."""

    python: str
    trials: int
    timeout: float  # seconds, of each process
    folder: Path  # temporary
    log: TextIO  # what people read: stdout, or stderr beside --json
    verbose: bool
    settings: list[Setting]
    facts: Mapping[str, Any] = field(default_factory=dict)
    stacks: str = ""  # of the first hang
    lock: str = ""  # what they say

    def say(self, text: object) -> None:
        print(text, file=self.log, flush=True)

    def detail(self, text: str) -> None:
        if self.verbose:
            self.say(text)


# Processes


def run_python(
    session: Session,
    code: str,
    setting: Setting = DEFAULT,
    preload: str = "",
    on_timeout: Callable[[int], None] | None = None,
) -> processes.Outcome:
    """Run code in a fresh interpreter of the examined Python."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(THREAD_VARIABLES)}
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
    outcome = processes.run(command, session.timeout, environment, on_timeout)
    if preload and f"'{preload}'" in outcome.stderr and "cannot be preloaded" in outcome.stderr:
        return replace(outcome, code=1)  # the loader goes on without it: it proves nothing
    return outcome


def ask(session: Session, question: str, setting: Setting = DEFAULT) -> tuple[dict[str, Any], str]:
    """Put a question of probe.py to the examined Python; return (answer, fault)."""
    outcome = run_python(session, f"import probe; probe.{question}", setting)
    if outcome.fault():
        return {}, outcome.fault()
    try:
        return json.loads(outcome.stdout.splitlines()[-1]), ""
    except (IndexError, ValueError):
        return {}, f"no answer but {outcome.stdout[-200:]!r}"


def remedy_of(fault: str) -> str:
    """Return what a user can do about a process that failed for this reason."""
    if re.search(NO_SPACE, fault):
        return MORE_SPACE
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        return f"raise the limit of memory (ulimit -v is {limit // 1024})"
    if re.search(NO_MEMORY, fault):
        return "raise the limits of memory and of processes (ulimit -a shows them)"
    if "failed to map segment" in fault:
        return "look whether the file system of that file is mounted noexec"
    return "mend what the output says; --verbose shows each trial"


# Libraries that the checks compile


def compiler() -> list[str]:
    """Return the command of the C++ compiler. Raises CannotTry."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    for command in [wanted] if wanted else (["c++"], ["g++"], ["clang++"]):
        if shutil.which(command[0]):
            return command
    found = f"CXX={shlex.join(wanted)}" if wanted else "neither CXX nor c++, g++ or clang++"
    raise CannotTry(
        f"a C++ compiler is needed, found {found} on PATH",
        "install one, set CXX to it, or choose --check threads",
    )


def build(session: Session, source: str, target: str, *options: str) -> str:
    """Compile a C++ file that lies beside this one into a library.

    Returns its path. Raises CannotTry where no library can be made or loaded.
    """
    check_folder(session.folder)
    # --as-needed: a preloaded library that needs libstdc++ would bring in the
    # host's, ahead of the one that a conda environment was built for.
    shape = ["-shared", "-fPIC", "-Wl,--as-needed"]
    if sys.platform == "darwin":
        shape = ["-bundle", "-undefined", "dynamic_lookup"]
    library = str(session.folder / target)
    command = [*compiler(), *shape, "-o", library, str(HERE / source), *options]
    session.detail(shlex.join(command))
    environment = {**os.environ, "TMPDIR": str(session.folder)}
    fault = processes.run(command, 300, environment).fault()
    if fault:
        raise CannotTry(
            f"{source} must compile, found {fault}", compiler_remedy(fault, session.folder)
        )
    return library


def compiler_remedy(fault: str, folder: Path) -> str:
    """Return what a user can do about a compiler that failed."""
    # A linker that finds the disk full may die without a word.
    free = shutil.disk_usage(folder).free
    if free < COMPILER_NEEDS:
        return f"{folder} has {free // 1024} kB free: {MORE_SPACE}"
    if re.search(NO_MEMORY, fault):
        return remedy_of(fault)
    return "install the Python headers and a complete compiler"


def check_folder(folder: Path) -> None:
    """Raise CannotTry where a library in the temporary folder could not be loaded."""
    if sys.platform != "linux":
        return
    if re.search(r"[\s:]", str(folder)):
        raise CannotTry(
            f"LD_PRELOAD cannot name a file in {folder}, because of the space or colon",
            OTHER_FOLDER,
        )
    sample = folder / "sample"
    sample.write_bytes(bytes(mmap.PAGESIZE))
    with open(sample, "rb") as file:
        try:
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        except OSError as error:
            raise CannotTry(
                f"no library can be loaded from {folder} ({error.strerror}): "
                "the file system is mounted noexec, or a policy of the host forbids it",
                OTHER_FOLDER,
            ) from None


# The check `hang`


def check_hang(session: Session) -> Iterator[Finding]:
    """Import numpy from a static constructor, many times, under each setting."""
    check_start(session)
    target = "static_import" + session.facts["suffix"]
    build(session, "static_import.cpp", target, "-I", session.facts["include"])
    for position, setting in enumerate(session.settings):
        # What does not divide goes to the last ones, the likeliest to hang.
        share = (session.trials + position) // len(session.settings)
        yield try_setting(session, setting, share)


def check_start(session: Session) -> None:
    """Raise CannotTry where numpy is imported before any code of ours runs."""
    importers = session.facts["imported_at_start"]
    if importers is None:
        return
    raise CannotTry(
        f"numpy is imported when this Python starts, by {importers}: "
        "an import that comes later does nothing",
        f"move {importers} away while this runs",
    )


def try_setting(session: Session, setting: Setting, share: int) -> Finding:
    """Return what so many imports inside dlopen did under a setting."""
    preload = ""
    if setting.main_late and LATE_MAIN_WORKS:
        preload = build(session, "late_main.cpp", "late_main.so", "-O2", "-ldl")
        fault = run_python(session, "import numpy", setting, preload).fault()
        if fault:
            text = f"with late_main.so alone the import {fault}"
            return Finding(
                "hang", setting.name, NOT_TRIED, text, setting.main_late, remedy_of(fault)
            )
    trials, hangs, crashes = run_trials(session, setting, preload, share)
    text = f"{trials} trials, {hangs} hangs"
    if crashes:
        text += f", {len(crashes)} crashes, the first: {crashes[0]}"
    if trials < share:
        text += f" (stopped before {share}: enough)"
    status, remedy = PASSED, ""
    if hangs:
        status = FAILED
    elif crashes:
        status, remedy = NOT_TRIED, remedy_of(crashes[0])
    facts = {"trials": trials, "hangs": hangs, "crashes": crashes}
    return Finding("hang", setting.name, status, text, setting.main_late, remedy, facts)


def run_trials(
    session: Session, setting: Setting, preload: str, share: int
) -> tuple[int, int, list[str]]:
    """Return how many imports were tried, how many hung, and how the others failed."""
    code = "import static_import; assert 'numpy' in sys.modules"
    trials, hangs = 0, 0
    crashes: list[str] = []
    while trials < share and hangs + len(crashes) < ENOUGH:
        trials += 1
        outcome = run_python(
            session, code, setting, preload, on_timeout=lambda pid: show_stacks(session, pid)
        )
        session.detail(f"hang, {setting.name}, trial {trials}: {outcome.fault() or 'ok'}")
        if outcome.hung:
            hangs += 1
        elif outcome.fault():
            crashes.append(outcome.fault())
    return trials, hangs, crashes


def show_stacks(session: Session, pid: int) -> None:
    """Keep and print the stacks of the first process that hung."""
    if session.stacks:
        return
    threads = stacks.of_process(pid)
    session.stacks, session.lock = stacks.fold(threads), stacks.explain(threads)
    session.say(f"the first hang:\n{session.stacks}\n{session.lock}\n")


# The check `calls`


def check_calls(session: Session) -> Iterator[Finding]:
    """Count the gemm calls of an import. A call that is made on purpose must be seen."""
    if sys.platform != "linux":
        yield Finding("calls", "", SKIPPED, f"there is no LD_PRELOAD on {sys.platform}")
        return
    preload = build(session, "count_gemm.cpp", "count_gemm.so", "-ldl")
    at_import, fault = count_calls(session, "import numpy", preload)
    with_known, known_fault = count_calls(
        session, "import numpy; numpy.ones((20, 20)) @ numpy.ones((20, 20))", preload
    )
    text = f"{len(at_import)} gemm at import"
    facts = {"at_import": at_import, "with_known": with_known}
    if at_import:
        yield Finding("calls", "", FAILED, f"{text}: {', '.join(at_import)}", facts=facts)
    elif fault or known_fault:
        text = f"under the detector the import {fault or known_fault}"
        yield Finding("calls", "", NOT_TRIED, text, remedy=remedy_of(text))
    elif len(with_known) != 1:
        text = (
            f"detector blind: 0 lines from an import, {len(with_known)} from an "
            "import and one matmul, where 1 was to come"
        )
        remedy = "this numpy calls its BLAS in a way that count_gemm.cpp does not know"
        yield Finding("calls", "", NOT_TRIED, text, remedy=remedy)
    else:
        yield Finding("calls", "", PASSED, f"{text}, 1 from a known matmul", facts=facts)


def count_calls(session: Session, code: str, preload: str) -> tuple[list[str], str]:
    """Return a line for each gemm call of some code, and how the code failed."""
    outcome = run_python(session, code, preload=preload)
    lines = re.findall(r"^\w*cblas_dgemm\w* \d+x\d+x\d+$", outcome.stderr, re.MULTILINE)
    return lines, outcome.fault()


# The check `threads`


def check_threads(session: Session) -> Iterator[Finding]:
    """Compare the threads after an import with the check and after one without it."""
    if sys.platform != "linux":
        yield Finding("threads", "", SKIPPED, f"{sys.platform} has no /proc to count them in")
        return
    check_start(session)
    for setting in session.settings:
        yield compare_threads(session, setting)


def compare_threads(session: Session, setting: Setting) -> Finding:
    """Return whether blas_fpe_check() changes the threads under a setting."""
    checked, fault = ask(session, "measure()", setting)
    unchecked, other_fault = ask(session, "measure(checked=False)", setting)
    fault = fault or other_fault
    if fault:
        text = f"the import {fault}"
        return Finding(
            "threads", setting.name, NOT_TRIED, text, setting.main_late, remedy_of(fault)
        )
    with_check, without_check = describe_threads(checked), describe_threads(unchecked)
    status, text = PASSED, with_check
    if with_check != without_check:
        status = FAILED
        text = f"with the check {with_check}; without it {without_check}"
    if not unchecked["removed"]:
        text += " (it has no blas_fpe_check() call: trivially the same)"
    facts = {"checked": checked, "unchecked": unchecked}
    return Finding("threads", setting.name, status, text, setting.main_late, facts=facts)


def describe_threads(answer: Mapping[str, Any]) -> str:
    return (
        f"{answer['library']}, max threads {answer['max_threads']}, "
        f"OS threads {answer['os_threads']}"
    )


CHECKS = {"hang": check_hang, "calls": check_calls, "threads": check_threads}


def run_check(session: Session, name: str) -> Iterator[Finding]:
    """Yield the findings of a check. What it lacks is a finding as well."""
    try:
        yield from CHECKS[name](session)
    except CannotTry as error:
        yield Finding(name, "", NOT_TRIED, error.cause, remedy=error.remedy)
    except OSError as error:
        yield Finding(name, "", NOT_TRIED, str(error), remedy=remedy_of(str(error)))
