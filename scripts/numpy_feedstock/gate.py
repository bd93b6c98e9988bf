"""The gate: whether importing numpy multiplies matrices, read from the source of numpy/__init__.py.

Standard library and the syntax of Python 3.6, so that it can be carried to a bare host.
"""

import ast
import operator
import textwrap

CHECK = "blas_fpe_check"
# what calls a BLAS by name, as the operator @ does; the check itself, where its definition is not to be seen
_PRODUCTS = {"matmul", "dot", CHECK}
# two elements, in every release: starts no thread
_HARMLESS = "_sanity_check"
_COMPARE = {ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b}


def state(source):
    """Whether the import runs a matrix product: "ungated" (on Linux), "gated" (on macOS alone) or "absent".

    What the text does not decide counts as run. Raises SyntaxError.
    """
    if _runs_product(source, "linux", "Linux"):
        return "ungated"
    return "gated" if _runs_product(source, "darwin", "Darwin") else "absent"


def check(source):
    """The check's definition, without layout and comments, to compare; None where there is none."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == CHECK]
    return ast.dump(found[0]) if found else None


def patched(patch):
    """The lines that a patch of one hunk leaves behind, as source text of their own."""
    hunk = patch.partition("\n@@")[2].splitlines()[1:]
    return textwrap.dedent("\n".join(line[1:] for line in hunk if line[:1] in (" ", "+")))


def _runs_product(source, platform, system):
    facts = {"sys.platform": platform, "platform.system()": system, "os.uname().sysname": system, "os.name": "posix"}
    walk = _Import(facts)
    walk.run(ast.parse(source).body)
    return walk.product


class _Unknown(str):
    """A value that is not known, by the name it goes by: "os.uname()"."""


class _Import(ast.NodeVisitor):
    """Follows the statements that are run where the facts hold; a visit returns True when nothing after it is."""

    def __init__(self, facts):
        self.facts = facts
        self.names = {}  # name: its value, the tree of a function, or an _Unknown
        self.product = False
        self.inside = []

    def run(self, body):
        return any(self.visit(statement) for statement in body)

    def run_one_of(self, bodies):
        """Each as if alone; what those that go on disagree about is not known afterwards."""
        before, ends, after = self.names, [], {}
        for body in bodies:
            self.names = dict(before)
            ends.append(self.run(body))
            for name, value in self.names.items() if not ends[-1] else ():
                after[name] = value if after.get(name, value) == value else _Unknown(name)
        self.names = after or before
        return all(ends)

    def visit_If(self, node):
        self.visit(node.test)
        truth = self.truth(node.test)
        bodies = [body if isinstance(body, list) else [body] for body in (node.body, node.orelse)]
        return self.run_one_of(bodies if truth is None else bodies[:1] if truth else bodies[1:])

    visit_IfExp = visit_If

    def visit_Try(self, node):
        ends = self.run_one_of([node.body + node.orelse] + [handler.body for handler in node.handlers])
        return self.run(node.finalbody) or ends

    def visit_Return(self, node):
        self.generic_visit(node)
        return True

    visit_Raise = visit_Return

    def visit_FunctionDef(self, node):
        self.names[node.name] = node

    def visit_Assign(self, node):
        self.generic_visit(node)
        value = self.value(node.value)
        for name in (part for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)):
            self.names[name.id] = value if name in node.targets else _Unknown(name.id)

    def visit_Import(self, node, package=""):
        for alias in node.names:
            if alias.asname or package:
                self.names[alias.asname or alias.name] = self.fact(package + alias.name)

    def visit_ImportFrom(self, node):
        self.visit_Import(node, (node.module or "") + ".")

    def visit_BoolOp(self, node):
        for value in node.values:
            self.visit(value)
            if self.truth(value) is isinstance(node.op, ast.Or):
                break

    def visit_BinOp(self, node):
        self.generic_visit(node)
        self.product = self.product or isinstance(node.op, ast.MatMult)

    visit_AugAssign = visit_BinOp

    def visit_Call(self, node):
        self.generic_visit(node)
        # a function that is handed over may be called
        for part in [node.func] + node.args:
            if isinstance(self.value(part), ast.FunctionDef):
                self.call(self.value(part))
        called = self.value(node.func)
        written = getattr(node.func, "attr", "")
        if not isinstance(called, ast.FunctionDef) and _PRODUCTS & {written, str(called).split(".")[-1]}:
            self.product = True

    def call(self, function):
        if function in self.inside or function.name == _HARMLESS:
            return
        outer, self.names = self.names, dict(self.names)
        self.names.update((part.arg, _Unknown(part.arg)) for part in ast.walk(function.args) if isinstance(part, ast.arg))
        self.inside.append(function)
        self.run(function.body)
        self.inside.pop()
        self.names = outer

    def fact(self, name):
        return self.facts.get(name, _Unknown(name))

    def truth(self, node):
        """True, False, or None for what is not known."""
        value = self.value(node)
        return None if isinstance(value, (_Unknown, ast.AST)) else bool(value)

    def value(self, node):
        """What an expression is where the facts hold: a constant, the tree of a function, or an _Unknown."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, _Unknown(node.id))
        if isinstance(node, ast.Attribute):
            base = self.value(node.value)
            return self.fact(base + "." + node.attr) if isinstance(base, _Unknown) else _Unknown(node.attr)
        if isinstance(node, ast.Call) and not node.args:
            return self.fact(str(self.value(node.func)) + "()")
        truth = None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            truth = self.truth(node.operand)
            truth = truth if truth is None else not truth
        elif isinstance(node, ast.BoolOp):
            decisive, truths = isinstance(node.op, ast.Or), [self.truth(value) for value in node.values]
            truth = decisive if decisive in truths else None if None in truths else not decisive
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "startswith":
            truth = self.compare(str.startswith, node.func.value, node.args[0])
        elif isinstance(node, ast.Compare):
            truth = self.compare(_COMPARE.get(type(node.ops[0])), node.left, *node.comparators)
        else:
            try:
                return ast.literal_eval(node)
            except (ValueError, TypeError):
                pass
        return _Unknown() if truth is None else truth

    def compare(self, compare, left, right, *more):
        left, right = self.value(left), self.value(right)
        known = type(left) is str and type(right) in (str, tuple, list, set)
        try:
            return compare(left, right) if known and compare and not more else None
        except TypeError:
            return None
