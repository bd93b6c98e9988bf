"""The gate: whether importing numpy multiplies matrices, read from the source of numpy/__init__.py.

Standard library and the syntax of Python 3.6, so that it can be carried to a bare host.
"""

import ast
import operator

CHECK = "blas_fpe_check"
# what calls a BLAS by name, as the operator @ does; the check itself, where its definition is not to be seen
_PRODUCTS = {"matmul", "dot", CHECK}
# two elements, in every release: starts no thread
_HARMLESS = "_sanity_check"
_COMPARE = {ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b}


def gate(source):
    """Whether the import runs a matrix product: "ungated" (on Linux), "gated" (on macOS alone) or "absent".

    What the text does not decide counts as run. Raises SyntaxError.
    """
    tree = ast.parse(source)
    for state, name, system in (("ungated", "linux", "Linux"), ("gated", "darwin", "Darwin")):
        walk = _Import({"sys.platform": name, "platform.system()": system, "os.uname().sysname": system, "os.name": "posix"})
        walk.run(tree.body)
        if walk.product:
            return state
    return "absent"


class _Import(ast.NodeVisitor):
    """Follows the statements that are run where the facts hold; a visit returns True when nothing after it is."""

    def __init__(self, facts):
        self.facts = facts
        self.functions = {}  # name: the bodies that were defined under it and not run yet
        self.product = False

    def run(self, body):
        return any(self.visit(statement) for statement in body)

    def visit_If(self, node):
        self.visit(node.test)
        truth = self.truth(node.test)
        bodies = [node.body] * (truth is not False) + [node.orelse] * (truth is not True)
        return all([self.run(body) for body in bodies])

    def visit_Try(self, node):
        ends = [self.run(body) for body in [node.body + node.orelse] + [handler.body for handler in node.handlers]]
        return self.run(node.finalbody) or all(ends)

    def visit_Return(self, node):
        self.generic_visit(node)
        return True

    visit_Raise = visit_Return

    def visit_FunctionDef(self, node):
        self.functions.setdefault(node.name, []).append([] if node.name == _HARMLESS else node.body)

    def visit_ImportFrom(self, node):
        # under another name it would not be known again
        self.product = self.product or any(alias.asname and alias.name in _PRODUCTS for alias in node.names)

    def visit_Name(self, node):
        """What is named may be called: at once, under another name, or by what it is handed to."""
        if isinstance(node.ctx, ast.Load) and node.id in self.functions:
            bodies, self.functions[node.id] = self.functions[node.id], []
            for body in bodies:
                self.run(body)
        elif isinstance(node.ctx, ast.Load):
            self.product = self.product or node.id in _PRODUCTS

    def visit_Attribute(self, node):
        self.generic_visit(node)
        self.product = self.product or node.attr in _PRODUCTS

    def visit_BinOp(self, node):
        self.generic_visit(node)
        self.product = self.product or isinstance(node.op, ast.MatMult)

    visit_AugAssign = visit_BinOp

    def truth(self, node):
        """Of a condition where the facts hold: True, False, or None for what is not known."""
        try:
            if isinstance(node, ast.BoolOp):
                decisive, truths = isinstance(node.op, ast.Or), [self.truth(value) for value in node.values]
                return decisive if decisive in truths else None if None in truths else not decisive
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                return {True: False, False: True}.get(self.truth(node.operand))
            if isinstance(node, ast.Compare):
                (compare,), (right,) = node.ops, node.comparators
                return _COMPARE[type(compare)](self.facts[_dotted(node.left)], ast.literal_eval(right))
            if isinstance(node, ast.Call) and node.func.attr == "startswith":
                return self.facts[_dotted(node.func.value)].startswith(*map(ast.literal_eval, node.args))
            return bool(ast.literal_eval(node))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


def _dotted(node):
    """The source text of a name, an attribute or a call without arguments."""
    if isinstance(node, ast.Attribute):
        return "%s.%s" % (_dotted(node.value), node.attr)
    return _dotted(node.func) + "()" if isinstance(node, ast.Call) and not node.args else getattr(node, "id", "?")
