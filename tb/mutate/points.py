"""Where and how a source of the hardware may be mutated, and the source that holds all its mutants at once.

A mutant is a small fault in a statement or an expression of Amaranth: a dropped assignment, a condition that
always holds, a missing operand. `instrument` rewrites a source so that each of these places calls
`vrex.tb.mutate.inject`, which knows whether hardware is made there and which mutants are wanted.
"""

import ast
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

HELPER = "_vrex_mutate"
"""Name under which an instrumented module finds `vrex.tb.mutate.inject`."""

KINDS = {
    "drop": "an assignment is left out",
    "stay": "a state machine does not go on",
    "constant": "the lowest bit of an assigned constant is turned over",
    "always": "a condition always holds",
    "never": "a condition never holds",
    "first": "a multiplexer always takes its first input",
    "second": "a multiplexer always takes its second input",
    "left": "the right operand is left out",
    "right": "the left operand is left out",
    "swap": "& becomes |, + becomes -, == becomes !=, < becomes <=, any becomes all, and the reverse",
    "more": "what is compared for equality is one more",
    "invert": "a negation is left out",
}
"""Kinds of mutants."""

BINARY = {
    ast.BitAnd: ("&", ("left", "right", "swap")),
    ast.BitOr: ("|", ("left", "right", "swap")),
    ast.BitXor: ("^", ("left", "right")),
    ast.Add: ("+", ("left", "swap")),
    ast.Sub: ("-", ("left", "swap")),
    ast.LShift: ("<<", ("left",)),
    ast.RShift: (">>", ("left",)),
}
COMPARE = {
    ast.Eq: ("==", ("swap", "more")),
    ast.NotEq: ("!=", ("swap", "more")),
    ast.Lt: ("<", ("swap",)),
    ast.LtE: ("<=", ("swap",)),
    ast.Gt: (">", ("swap",)),
    ast.GtE: (">=", ("swap",)),
}


@dataclass(frozen=True, order=True)
class Mutant:
    """One small fault.

    Attributes:
        file: source, as `dre/hcu.py` below `hw`.
        function: qualified name of the function that holds it.
        kind: key of `KINDS`.
        text: the mutated statement or expression.
        copy: 1, or more where the same text stands several times in the function.
        line: first line of it today; not part of what it is known by.
    """

    file: str
    function: str
    kind: str
    text: str
    copy: int = 1
    line: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """What it is known by in results and in the list of equivalent ones; survives moves of lines."""
        copy = f" #{self.copy}" if self.copy > 1 else ""
        return f"{self.file} {self.function} {self.kind}: {self.text}{copy}"


class _Instrumenter(ast.NodeTransformer):
    """Rewrites the functions of one source, and lists its mutants in the order of the text."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.mutants: list[Mutant] = []
        self._scope: list[str] = []
        self._in_function = 0
        self._seen: Counter[tuple[str, str, str]] = Counter()

    def _names(self, kinds: Iterable[str], node: ast.AST) -> ast.expr:
        """Adds mutants of a place; the tuple of their names as an expression."""
        text, names = " ".join(ast.unparse(node).split()), []
        for kind in kinds:
            function = ".".join(self._scope)
            self._seen[function, kind, text] += 1
            copy = self._seen[function, kind, text]
            mutant = Mutant(self.file, function, kind, text, copy, getattr(node, "lineno", 0))
            self.mutants.append(mutant)
            names.append(ast.Constant(mutant.name))
        return ast.Tuple(list(names), ast.Load())

    @staticmethod
    def _call(function: str, *arguments: ast.expr) -> ast.expr:
        helper = ast.Attribute(ast.Name(HELPER, ast.Load()), function, ast.Load())
        return ast.Call(helper, list(arguments), [])

    def _visit_scope(self, node: ast.ClassDef | ast.FunctionDef, is_function: bool) -> ast.AST:
        self._scope.append(node.name)
        self._in_function += is_function
        # Neither defaults nor decorators nor annotations describe hardware.
        node.body = [part for statement in node.body for part in self._parts(statement)]
        self._in_function -= is_function
        self._scope.pop()
        return node

    def _parts(self, statement: ast.stmt) -> list[ast.stmt]:
        changed = self.visit(statement)
        return changed if isinstance(changed, list) else [changed]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Mutates the methods."""
        return self._visit_scope(node, is_function=False)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Mutates the body."""
        return self._visit_scope(node, is_function=True)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        """`m.d.sync += [a, b]`: each assignment may be left out."""
        domain = _domain(node.target)
        if domain is None or not isinstance(node.op, ast.Add) or not self._in_function:
            return self.generic_visit(node)
        parts = node.value.elts if isinstance(node.value, ast.List) else [node.value]
        pairs = []
        for part in parts:
            names = self._names(["drop"], part)
            value = self.visit(part)
            value = ast.List([value], ast.Load()) if isinstance(part, ast.Starred) else value
            pairs.append(ast.Tuple([names, value], ast.Load()))
        return ast.Expr(self._call("add", *domain, *pairs))

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """`m.next = "STATE"` may be left out."""
        target = node.targets[0]
        if not (isinstance(target, ast.Attribute) and target.attr == "next" and self._in_function):
            return self.generic_visit(node)
        return ast.Expr(self._call("go", self._names(["stay"], node), target.value, node.value))

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """`a & b` becomes `a`, `b` or `a | b`, and so on."""
        if type(node.op) not in BINARY or not self._in_function:
            return self.generic_visit(node)
        symbol, kinds = BINARY[type(node.op)]
        names = self._names(kinds, node)
        return self._call(
            "binary", names, ast.Constant(symbol), self.visit(node.left), self.visit(node.right)
        )

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """`a == b` becomes `a != b` or `a == b + 1`, `a < b` becomes `a <= b`."""
        if len(node.ops) > 1 or type(node.ops[0]) not in COMPARE or not self._in_function:
            return self.generic_visit(node)
        symbol, kinds = COMPARE[type(node.ops[0])]
        names = self._names(kinds, node)
        left, right = self.visit(node.left), self.visit(node.comparators[0])
        return self._call("binary", names, ast.Constant(symbol), left, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        """`~a` becomes `a`."""
        if not isinstance(node.op, ast.Invert) or not self._in_function:
            return self.generic_visit(node)
        return self._call("invert", self._names(["invert"], node), self.visit(node.operand))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Conditions, multiplexers, assigned constants, and reductions."""
        if not self._in_function:
            return node
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        plain = not node.keywords and not any(isinstance(part, ast.Starred) for part in node.args)
        if name in ("If", "Elif") and plain:
            names = self._names(["always", "never"], node.args[0])
            node.args = [self._call("condition", names, self.visit(node.args[0]))]
        elif isinstance(node.func, ast.Name) and node.func.id == "Mux" and plain:
            names = self._names(["first", "second"], node)
            return self._call("mux", names, *(self.visit(part) for part in node.args))
        elif name == "eq" and plain and _is_whole_number(node.args[0]):
            node.args = [self._call("constant", self._names(["constant"], node), node.args[0])]
        elif name in ("any", "all") and not node.args and isinstance(node.func, ast.Attribute):
            names = self._names(["swap"], node)
            return self._call("reduce", names, ast.Constant(name), self.visit(node.func.value))
        elif name == "eq":
            # What is assigned to stays what it is.
            node.args = [self.visit(part) for part in node.args]
        else:
            return self.generic_visit(node)
        return node


def _domain(target: ast.expr) -> list[ast.expr] | None:
    """Module and domain of `m.d.sync` or `m.d["sync"]`."""
    if isinstance(target, ast.Attribute):
        domain: ast.expr = ast.Constant(target.attr)
    elif isinstance(target, ast.Subscript):
        domain = target.slice
    else:
        return None
    holder = target.value
    if not (isinstance(holder, ast.Attribute) and holder.attr == "d"):
        return None
    return [holder.value, domain]


def _is_whole_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def instrument(text: str, file: str) -> tuple[ast.Module, list[Mutant]]:
    """A source with a call to `HELPER` at every place that can be mutated.

    Args:
        text: the source.
        file: its path for the mutants' names.

    Returns:
        The changed source, and its mutants in the order of the text.
    """
    instrumenter = _Instrumenter(file)
    tree = instrumenter.visit(ast.parse(text))
    return ast.fix_missing_locations(tree), instrumenter.mutants
