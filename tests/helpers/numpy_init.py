"""Stubs of numpy/__init__.py, and the check as the patch leaves it."""

import textwrap

from numpy_feedstock.packages import patch, python_checks

# modelled on numpy/__init__.py
MODULE = """
import sys
import os
try:
    __NUMPY_SETUP__
except NameError:
    __NUMPY_SETUP__ = False
if __NUMPY_SETUP__:
    sys.stderr.write("from the source tree")
else:
    try:
        from numpy.__config__ import show_config
    except ImportError as e:
        raise ImportError("no numpy here") from e

    def _sanity_check():
        x = ones(2)
        if not abs(x.dot(x) - 2.0) < 1e-5:
            raise AssertionError
    _sanity_check()

    def hugepage_setup():
        if sys.platform == "linux":
            return 1
    hugepage_setup()
"""
PRODUCT = """
    def blas_fpe_check():
        {first}
        with errstate(all='raise'):
            x = ones((20, 20))
            try:
                x @ x
            except FloatingPointError:
                warnings.warn("spurious")
"""
# what comes after the check, a text without it was cut off
END = """
    def _pyinstaller_hooks_dir():
        pass
"""
CALL = (
    """
    blas_fpe_check()
    del blas_fpe_check
"""
    + END
)
GATE = "if sys.platform != 'darwin': return"
PATCH = patch.file()


def indent(text):
    return textwrap.indent(text, "    ")


def gated_by(first):
    """The module with a check that begins with a statement."""
    return MODULE + PRODUCT.format(first=first) + CALL


def called_by(call, before=""):
    """The module with an ungated check and another way to call it."""
    return MODULE + indent(before) + PRODUCT.format(first="pass") + indent(call) + END


UNGATED = gated_by("pass")
GATED = gated_by(GATE)
PATCHED = MODULE + indent(python_checks.left_by(PATCH.read_text())) + END


def patched_function():
    """The text of blas_fpe_check() after the patch: the hunk's context and its added lines."""
    hunk = PATCH.read_text().split("\n@@", 1)[1].splitlines()[1:]
    after = [line[1:] for line in hunk if line[:1] in (" ", "+")]
    start = after.index("    def blas_fpe_check():")
    end = after.index("    blas_fpe_check()")
    return textwrap.dedent("\n".join(after[start:end]))
