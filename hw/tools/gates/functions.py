"""Boolean functions as Liberty files write them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vrex.hw.tools.synth.liberty_syntax import LibertyError

TOKEN = re.compile(r"\s*([A-Za-z_][\w\[\]]*|[01]|[()!'^&*|+])")
OPERATORS = (("|", "|+"), ("&", "&*"), ("^", "^"))
"""Of two operands in Verilog and in Liberty, the weakest first: there XOR binds more than AND."""

BEGINS = re.compile(r"[\w(!]")
"""The first character of an operand; two operands side by side are an AND."""


@dataclass(frozen=True)
class Function:
    """A function, or an operand of one.

    Attributes:
        operator: "&", "|", "^" or "~" of its operands; "" of a pin or constant.
        operands: none of a pin or constant.
        name: of the pin, or "0" or "1".
    """

    operator: str
    operands: tuple["Function", ...] = ()
    name: str = ""

    def verilog(self) -> str:
        """As an expression of one bit."""
        if not self.operator:
            return f"1'b{self.name}" if self.name in ("0", "1") else identifier(self.name)
        if self.operator == "~":
            return f"~{self.operands[0].verilog()}"
        return f"({f' {self.operator} '.join(part.verilog() for part in self.operands)})"

    def value(self, pins: Mapping[str, bool]) -> bool:
        """What it gives.

        Args:
            pins: of each, whether it is high.
        """
        if not self.operator:
            return self.name == "1" if self.name in ("0", "1") else pins[self.name]
        first, *others = (part.value(pins) for part in self.operands)
        if self.operator == "~":
            return not first
        (second,) = others
        return {"&": first and second, "|": first or second, "^": first != second}[self.operator]

    @property
    def pins(self) -> set[str]:
        """Those that it names."""
        own = {self.name} - {"", "0", "1"}
        return own.union(*(part.pins for part in self.operands))


def identifier(name: str) -> str:
    """A name in Verilog."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else f"\\{name} "


def parse(text: str) -> Function:
    """The function that a text holds.

    Raises:
        LibertyError: it is none.
    """
    tokens, at = [], 0
    while at < len(text.rstrip()):
        found = TOKEN.match(text, at)
        if found is None:
            raise LibertyError(f"{text!r} is no function")
        tokens.append(found[1])
        at = found.end()
    function, rest = _binary(tokens, 0, text)
    if rest:
        raise LibertyError(f"{text!r} is no function")
    return function


def _binary(tokens: list[str], level: int, text: str) -> tuple[Function, list[str]]:
    """A chain of operands of one level, and the tokens after it."""
    if level == len(OPERATORS):
        return _operand(tokens, text)
    operator, signs = OPERATORS[level]
    function, tokens = _binary(tokens, level + 1, text)
    while tokens:
        if tokens[0] in signs:
            tokens = tokens[1:]
        elif operator != "&" or not BEGINS.match(tokens[0]):
            break
        right, tokens = _binary(tokens, level + 1, text)
        function = Function(operator, (function, right))
    return function, tokens


def _operand(tokens: list[str], text: str) -> tuple[Function, list[str]]:
    if not tokens or tokens[0] in "'^&*|+)":
        raise LibertyError(f"{text!r} is no function")
    token, tokens = tokens[0], tokens[1:]
    if token == "!":
        function, tokens = _operand(tokens, text)
        return Function("~", (function,)), tokens
    if token == "(":
        function, tokens = _binary(tokens, 0, text)
        if tokens[:1] != [")"]:
            raise LibertyError(f"{text!r} is no function")
        tokens = tokens[1:]
    else:
        function = Function("", name=token)
    while tokens[:1] == ["'"]:
        function, tokens = Function("~", (function,)), tokens[1:]
    return function, tokens
