#!/usr/bin/env python3
"""Is this numpy affected by the matrix product that it makes at import (numpy#31284)?

numpy 2.3.5 and 2.4.0 to 2.4.4 multiply two 20x20 matrices in
blas_fpe_check() while they are imported. If a C++ extension imports numpy
from a static constructor, the thread that imports holds the loader's lock.
A worker thread of MKL looks up a kernel with dlsym() and waits for that
lock. The thread that holds the lock waits for the worker.

There are three checks, each in fresh processes:

hang     imports such an extension, many times: the symptom. The hang is a
         race. Under the last of the settings the race is decided, so that an
         affected numpy hangs every time.
calls    counts the calls of cblas_dgemm during "import numpy": the cause.
         No race hides it.
threads  compares the threads after an import with the check and after one
         without it. They differ if the check starts threads, or if variables
         such as MKL_NUM_THREADS=1 tamed it: MKL reads them once and keeps them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Sequence

sys.dont_write_bytecode = True  # this folder is packaged with all that lies in it
import checks
from checks import FAILED, NOT_TRIED, SKIPPED, Finding, Session, Setting

EPILOG = """\
verdicts:
  AFFECTED  an import hung, or it multiplies matrices with MKL, or it changes the threads
  LATENT    the import multiplies matrices, with another BLAS: MKL would make it hang
  FIXED     the import multiplies no matrices
  UNKNOWN   something could not be tried, or the check `calls` was left out

examples:
  python repro.py                               the numpy of this interpreter
  python repro.py --python /opt/env/bin/python  that of another one
  python repro.py --check calls                 the quick one, without a race
  python repro.py --check hang --trials 60 -v   look harder
  python repro.py --env MKL_THREADING_LAYER=GNU --env MKL_NUM_THREADS=2

It needs the standard library and, for hang and calls, a C++ compiler (CXX).

exit status: 0 nothing was found, or LATENT; 1 AFFECTED (with --strict: or LATENT);
2 wrong use, or something could not be tried: the message says why and what to do
"""
# An import inside dlopen may take so many times as long as one outside, before it counts as hung.
SLOWEST = 5
VERDICTS = AFFECTED, LATENT, FIXED, UNKNOWN = "AFFECTED", "LATENT", "FIXED", "UNKNOWN"


class WrongUse(Exception):
    """Nothing can be examined: says what is needed, what was found, and the remedy."""


# The command line


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options. Raises WrongUse."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trials", type=int, default=20, metavar="N", help="of hang, shared by its settings (20)")
    add("--timeout", type=float, default=30, metavar="SECONDS", help="of each process (30)")
    add("--check", action="append", choices=checks.CHECKS, help="repeatable (default: all)")
    add("--python", default=sys.executable, metavar="PATH", help="whose numpy is examined (this)")
    add(
        "--env",
        action="append",
        type=variable,
        metavar="NAME=VALUE",
        help=(
            "set instead of the usual thread settings, repeatable; "
            "tried with and without the late main thread"
        ),
    )
    add("--strict", action="store_true", help="exit 1 for LATENT as well")
    add("--json", action="store_true", help="one object on stdout; the text goes to stderr")
    add("-v", "--verbose", action="store_true", help="show each command and each trial")
    args = parser.parse_args(argv)
    args.settings = chosen(args.env)
    check_arguments(args)
    return args


def check_arguments(args: argparse.Namespace) -> None:
    """Raise WrongUse for values that make no sense."""
    if not 0 < args.timeout <= 3600:
        raise WrongUse(
            f"--timeout must be above 0 and at most an hour, found {args.timeout:g}; "
            "try --timeout 30"
        )
    if args.trials < len(args.settings):
        raise WrongUse(
            f"--trials must be {len(args.settings)} or more, one for each thread setting, "
            f"found {args.trials}; try --trials 20"
        )
    if not shutil.which(args.python):
        raise WrongUse(
            f"--python must be an interpreter, found no program {args.python!r}; correct the path"
        )


def variable(text: str) -> tuple[str, str]:
    """Return the name and the value of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"NAME=VALUE is needed, found {text!r}")
    return name, value


def chosen(variables: Sequence[tuple[str, str]] | None) -> list[Setting]:
    """Return the settings to try: the usual ones, or those of the given variables."""
    if not variables:
        return checks.SETTINGS
    given = Setting(" ".join("=".join(each) for each in variables), dict(variables))
    return [given, given.with_main_late("the same, generic kernels, main thread late")]


# The examination


def look_around(session: Session) -> None:
    """Learn what the summary and the checks need to know. Raises WrongUse."""
    facts, fault = checks.ask(session, "describe()")
    if fault:
        raise WrongUse(f"--python must be Python 3.9 or later, found {session.python} with {fault}")
    if not facts["numpy_path"]:
        raise WrongUse(
            f"numpy is needed, found none in {session.python}; install it there, "
            "or name another --python"
        )
    started = time.monotonic()
    blas, fault = checks.ask(session, "measure()", session.settings[0])
    needed = SLOWEST * (time.monotonic() - started)
    if fault.startswith("did not end"):
        raise WrongUse(
            f"import numpy, without any extension, did not end in {session.timeout:g} seconds, "
            "so that no trial would prove anything; try a longer --timeout"
        )
    if fault:
        remedy = checks.remedy_of(fault)
        raise WrongUse(f"numpy must be importable by {session.python}, found {fault}; {remedy}")
    if needed > session.timeout:
        session.timeout = needed
        session.say(f"numpy is imported slowly here: each process gets {needed:.0f} seconds")
    # The rest of the measurement is for check_threads, which takes its own.
    told = ("numpy", "library", "layer", "kernels")
    session.facts = {**facts, **{key: blas[key] for key in told}}


def examine(session: Session, names: Sequence[str]) -> dict[str, Any]:
    """Run the checks, tell people, and return all that was found as one object."""
    look_around(session)
    session.say(
        "python  {python}  {executable}\nnumpy   {numpy}  {numpy_path}\n"
        "BLAS    {library}, threading layer {layer}, kernels {kernels}\n"
        "host    cores: {cores}, {libc}\n".format(**session.facts)
    )
    findings: list[Finding] = []
    for name in names:
        for finding in checks.run_check(session, name):
            session.say(finding)
            findings.append(finding)
    if all(finding.status == SKIPPED for finding in findings):
        raise WrongUse(f"nothing could be checked on {sys.platform}; add --check hang")
    verdict, reason = judge(findings, session.facts["library"])
    session.say(f"{verdict}: {reason}")
    return {
        **session.facts,
        "verdict": verdict,
        "reason": reason,
        "stacks": session.stacks,
        "lock": session.lock,
        "findings": [asdict(each) for each in findings],
    }


def judge(findings: Sequence[Finding], library: str) -> tuple[str, str]:
    """Return the verdict on a numpy, and the reason in a few words.

    library : file name of its BLAS

    Only a hang, a counted product and changed threads count against a numpy. A
    trial that could not be made says nothing about it.
    """
    failed = checks_with(FAILED, findings)
    if failed:
        with_mkl = "mkl" in library
        verdict = AFFECTED if with_mkl or failed != ["calls"] else LATENT
        return verdict, f"{', '.join(failed)} failed"
    not_tried = checks_with(NOT_TRIED, findings)
    if not_tried:
        return UNKNOWN, f"{', '.join(not_tried)} could not be tried"
    passed = checks_with(checks.PASSED, findings)
    if "calls" in passed:
        return FIXED, f"{', '.join(passed)} passed"
    return UNKNOWN, f"{', '.join(passed)} passed, but only the check calls tells what is FIXED"


def checks_with(status: str, findings: Sequence[Finding]) -> list[str]:
    """Return the names of the checks that have a finding of this status."""
    return list(dict.fromkeys(each.check for each in findings if each.status == status))


def exit_status(result: dict[str, Any], strict: bool) -> int:
    """Return 0, 1 or 2, and say on stderr what could not be tried."""
    if result["verdict"] == AFFECTED:
        return 1
    if result["verdict"] == LATENT:
        return int(strict)
    for finding in result["findings"]:
        if finding["status"] == NOT_TRIED:
            message = "repro: {check} could not be tried: {text}; {remedy}"
            print(message.format(**finding), file=sys.stderr)
            return 2
    return 0


def stop(number: int, frame: Any) -> None:
    """End by an exception on SIGTERM, so that children and folder go as well."""
    raise SystemExit(128 + number)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Examine a numpy in a temporary folder."""
    names = [name for name in checks.CHECKS if name in (args.check or checks.CHECKS)]
    log = sys.stderr if args.json else sys.stdout
    with tempfile.TemporaryDirectory(prefix="repro-") as folder:
        session = Session(
            args.python, args.trials, args.timeout, Path(folder), log, args.verbose, args.settings
        )
        return examine(session, names)


def main(argv: Sequence[str] | None = None) -> int:
    """Examine a numpy; return the exit status that --help describes."""
    before = signal.signal(signal.SIGTERM, stop)
    try:
        args = parse(argv)
        result = run(args)
    except WrongUse as error:
        print(f"repro: {error}", file=sys.stderr)
        return 2
    except (OSError, MemoryError) as error:
        cause = str(error) or "MemoryError"
        print(f"repro: nothing could be tried: {cause}; {checks.remedy_of(cause)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as end:  # of argparse or of stop()
        return int(end.code or 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    if args.json:
        print(json.dumps(result, indent=2))
    return exit_status(result, args.strict)


if __name__ == "__main__":
    sys.exit(main())
