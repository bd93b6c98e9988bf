"""The gate told from the source: what an import would run on Linux, without running it."""

import pytest

from audit_numpy import gate
from helpers.numpy_init import GATE, GATED, MODULE, PATCHED, UNGATED, called_by, gated_by, indent
from numpy_feedstock.checks import definition

ABSENT_CASES = {
    "2.3.4 and older": MODULE,
    "not called": called_by(""),
    "called never": called_by("if False: blas_fpe_check()"),
    "called by what nobody calls": called_by("def later():\n    blas_fpe_check()"),
}
GATED_CASES = {
    "2.4.5 and later": GATED,
    "ours": PATCHED,
    "if": called_by("if sys.platform == 'darwin': blas_fpe_check()"),
    "else": called_by("if sys.platform != 'darwin': pass\nelse: blas_fpe_check()"),
    "in": called_by("if sys.platform in ('darwin', 'ios'): blas_fpe_check()"),
    "startswith": called_by("if not sys.platform.startswith('linux'): blas_fpe_check()"),
    "unknown and known": called_by(
        "if os.uname().machine == 'arm64' and sys.platform == 'darwin': blas_fpe_check()"
    ),
    "platform.system": called_by(
        "if platform.system() == 'Darwin': blas_fpe_check()", "import platform"
    ),
    "and": called_by("sys.platform == 'darwin' and blas_fpe_check()"),
    "if in an expression": called_by("blas_fpe_check() if sys.platform == 'darwin' else None"),
    "sys.platform renamed": called_by(
        "if where == 'darwin': blas_fpe_check()", "from sys import platform as where"
    ),
    "sys renamed": called_by("if s.platform == 'darwin': blas_fpe_check()", "import sys as s"),
    "condition named": called_by("if apple: blas_fpe_check()", "apple = sys.platform == 'darwin'"),
}
UNGATED_CASES = {
    "2.3.5, 2.4.0 to 2.4.4": UNGATED,
    "check renamed": called_by("check = blas_fpe_check\ncheck()"),
    "another name": UNGATED.replace("blas_fpe_check", "look_for_spurious_errors"),
    "matmul": UNGATED.replace("x @ x", "matmul(x, x)"),
    "in place": UNGATED.replace("x @ x", "x @= x"),
    "dot of matrices": UNGATED.replace("x @ x", "x.dot(x)"),
    "check imported": MODULE + indent("from ._checks import blas_fpe_check\nblas_fpe_check()"),
    "handed over": called_by("run(blas_fpe_check)"),
    "finally": called_by("try: pass\nfinally: blas_fpe_check()"),
    "the wrong way round": gated_by("if sys.platform == 'darwin': return"),
    "Linux let in": gated_by("if sys.platform != 'linux': return"),
    "by what the text does not tell": gated_by("if old_glibc(): return"),
    "by the processor alone": called_by("if os.uname().machine == 'arm64': blas_fpe_check()"),
    "no return": gated_by(GATE.replace("return", "pass")),
    "a product before the gate": gated_by("ones(3) @ ones(3)\n        " + GATE),
    "a second product": GATED + "\n    ones(20) @ ones(20)",
    "one of two values": called_by(
        "if apple: blas_fpe_check()", "if setting:\n    apple = True\nelse:\n    apple = False\n"
    ),
}


@pytest.mark.parametrize("source", ABSENT_CASES.values(), ids=ABSENT_CASES)
def test_absent_when_nothing_runs_the_product(source):
    assert gate(source) == "absent"


@pytest.mark.parametrize("source", GATED_CASES.values(), ids=GATED_CASES)
def test_gated_when_macos_alone_runs_the_product(source):
    assert gate(source) == "gated"


@pytest.mark.parametrize("source", UNGATED_CASES.values(), ids=UNGATED_CASES)
def test_ungated_when_linux_may_run_the_product(source):
    assert gate(source) == "ungated"


def test_a_file_that_is_not_python_is_no_answer():
    with pytest.raises(SyntaxError):
        gate("def blas_fpe_check(:")


def test_the_check_is_compared_without_layout_and_comments():
    assert definition(MODULE) is None
    assert definition(UNGATED) == definition(UNGATED.replace("x @ x", "x  @  x  # a comment"))
    assert definition(UNGATED) != definition(UNGATED.replace("x @ x", "x @ x.T"))
