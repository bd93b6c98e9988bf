"""The gate told from the source: what an import would run on Linux, without running it."""

import pytest

from audit_numpy import decide_gate, gate
from helpers.numpy_init import GATE, GATED, MODULE, PATCHED, UNGATED, called_by, gated_by, indent
from numpy_feedstock.packages.python_checks import definition

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


# ways in which people wrote the gate: (what stands in for the call, what stands before it)
PLAIN_GATES = [
    ("if 'darwin' in sys.platform: blas_fpe_check()", ""),
    ("if sys.platform.lower() == 'darwin': blas_fpe_check()", ""),
    ("if sys.platform[:6] == 'darwin': blas_fpe_check()", ""),
    ("if sys.platform in {'darwin', 'ios'}: blas_fpe_check()", ""),
    ("if sys.platform in ['darwin']: blas_fpe_check()", ""),
    ("if not sys.platform != 'darwin': blas_fpe_check()", ""),
    ("if 'darwin' == sys.platform: blas_fpe_check()", ""),
    ("if sys.platform == 'darwin' and platform.machine() == 'arm64': blas_fpe_check()", ""),
    ("if sys.platform == 'linux': pass\nelse: blas_fpe_check()", ""),
    ("if sys.platform.startswith(('linux', 'win')): pass\nelse: blas_fpe_check()", ""),
    ("if platform == 'darwin': blas_fpe_check()", "from sys import platform"),
    ("if system() == 'Darwin': blas_fpe_check()", "from platform import system"),
    ("if p.system() == 'Darwin': blas_fpe_check()", "import platform as p"),
    ("if platform.uname().system == 'Darwin': blas_fpe_check()", "import platform"),
    ("if platform.uname()[0] == 'Darwin': blas_fpe_check()", "import platform"),
    ("if platform.mac_ver()[0]: blas_fpe_check()", "import platform"),
    ("if os.uname()[0] == 'Darwin': blas_fpe_check()", ""),
    ("if os.uname().sysname == 'Darwin': blas_fpe_check()", ""),
    ("if getattr(sys, 'platform') == 'darwin': blas_fpe_check()", ""),
    (
        "if get_platform().startswith('macosx'): blas_fpe_check()",
        "from sysconfig import get_platform",
    ),
    ("if apple: blas_fpe_check()", "apple = 'darwin' in sys.platform"),
    ("if apple: blas_fpe_check()", "apple: bool = sys.platform == 'darwin'"),
    ("if not linux: blas_fpe_check()", "name = sys.platform\nlinux = name.startswith('linux')"),
    ("if apple(): blas_fpe_check()", "def apple():\n    return sys.platform == 'darwin'"),
    ("if apple(): blas_fpe_check()", "apple = lambda: sys.platform == 'darwin'"),
    ("if sys.platform in apple: blas_fpe_check()", "apple = ('darwin', 'ios')"),
    ("{'darwin': True}.get(sys.platform, False) and blas_fpe_check()", ""),
    ("sys.platform != 'darwin' or blas_fpe_check()", ""),
    ("blas_fpe_check() if sys.platform == 'darwin' else None", ""),
    ("while sys.platform == 'darwin':\n    blas_fpe_check()\n    break", ""),
    ("for _ in (): blas_fpe_check()", ""),
    (
        "try:\n    assert sys.platform == 'darwin'\n    blas_fpe_check()\n"
        "except AssertionError: pass",
        "",
    ),
    ("if __name__ == '__main__': blas_fpe_check()", ""),
    ("if False and old_glibc(): blas_fpe_check()", ""),
    ("if 0: blas_fpe_check()", ""),
    ("check = blas_fpe_check if sys.platform == 'darwin' else print\ncheck()", ""),
    ("blas_fpe_check = lambda: None\nblas_fpe_check()", ""),
    ("def blas_fpe_check():\n    pass\nblas_fpe_check()", ""),
    ("exec('pass')", ""),
]
# the text does not tell; what may be wrong with each stands beside it
UNDECIDED_GATES = [
    ("if old_glibc(): blas_fpe_check()", ""),
    ("if os.environ.get('CHECK'): blas_fpe_check()", ""),
    ("if os.uname().machine == 'arm64': blas_fpe_check()", ""),
    ("if where == 'darwin': blas_fpe_check()", "from ._utils import platform as where"),
    ("if apple: blas_fpe_check()", "if setting:\n    apple = True\nelse:\n    apple = False"),
    ("run(blas_fpe_check)", ""),
    ("{True: blas_fpe_check}[sys.platform == 'linux']()", ""),
    ("try: pass\nexcept ImportError: blas_fpe_check()", ""),
    ("exec(text)", ""),
    ("for apple in check_here(): \n    if apple: blas_fpe_check()", ""),
    # the parameter, not the module's name
    ("check(True)", "apple = False\ndef check(apple):\n    if apple: blas_fpe_check()"),
    # rebound by another function
    (
        "change()\nif apple: blas_fpe_check()",
        "apple = False\ndef change():\n    global apple\n    apple = True",
    ),
    ("if sys.platform == 'darwin': blas_fpe_check()", "sys.platform = settings.platform"),
    ("if sys.platform == 'darwin': blas_fpe_check()", "from . import sys"),
    ("with suppress(ImportError):\n    raise ImportError\nblas_fpe_check()", ""),
]
PLAIN_CALLS = [
    ("blas_fpe_check()", ""),
    ("if 'linux' in sys.platform: blas_fpe_check()", ""),
    ("if platform != 'darwin': blas_fpe_check()", "from sys import platform"),
    ("sys.platform == 'linux' and blas_fpe_check()", ""),
    ("blas_fpe_check() if sys.platform == 'linux' else None", ""),
    ("if apple: blas_fpe_check()", "apple = sys.platform == 'darwin'\napple = True"),
    ("check = blas_fpe_check\ncheck()", ""),
    ("(lambda: blas_fpe_check())()", ""),
    ("for _ in range(1): blas_fpe_check()", ""),
    ("while True:\n    blas_fpe_check()\n    break", ""),
    ("class Check:\n    blas_fpe_check()", ""),
    ("class Check:\n    def __init__(self):\n        blas_fpe_check()\nCheck()", ""),
    ("exec('blas_fpe_check()')", ""),
    ("if not False: blas_fpe_check()", ""),
    ("with errstate(all='raise'): blas_fpe_check()", ""),
    ("try:\n    raise ImportError\nexcept ImportError: blas_fpe_check()", ""),
    ("outer()", "def outer():\n    def inner():\n        blas_fpe_check()\n    inner()"),
    ("x = ones((20, 20))\nx = x @ x", ""),
    ("mm(x, x)", "from .core import matmul as mm"),
    ("if sys.version_info < (3, 11): raise ImportError\nblas_fpe_check()", ""),
    ("assert ready()\nblas_fpe_check()", ""),
]


@pytest.mark.parametrize(("call", "before"), PLAIN_GATES)
def test_plain_gates_are_understood(call, before):
    assert decide_gate(called_by(call, before)).state in ("gated", "absent")


@pytest.mark.parametrize(("call", "before"), UNDECIDED_GATES)
def test_what_the_text_does_not_decide_is_said_to_be_so(call, before):
    found = decide_gate(called_by(call, before))
    assert found.state == "undecided"
    assert found.line > MODULE.count("\n")


@pytest.mark.parametrize(("call", "before"), UNDECIDED_GATES)
def test_for_a_package_what_is_undecided_counts_as_run(call, before):
    assert gate(called_by(call, before)) == "ungated"


@pytest.mark.parametrize(("call", "before"), PLAIN_CALLS)
def test_what_linux_runs_is_found(call, before):
    assert decide_gate(called_by(call, before)).state == "ungated"


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
