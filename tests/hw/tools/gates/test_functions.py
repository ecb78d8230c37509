"""Functions in Liberty's syntax: what they mean, and as Verilog."""

from itertools import product

import pytest

from vrex.hw.tools.gates.functions import parse
from vrex.hw.tools.synth.liberty_syntax import LibertyError


@pytest.mark.parametrize(
    ("text", "table"),
    # Bit i of the table is for C B A = i in binary.
    [
        ("A", 0b10101010),
        ("!A", 0b01010101),
        ("A'", 0b01010101),
        ("(A B)'", 0b01110111),
        ("A B", 0b10001000),
        ("A*B + C", 0b11111000),
        ("A & B | C", 0b11111000),
        # XOR binds more than AND, AND more than OR.
        ("A ^ B C", 0b01100000),
        ("C A ^ B", 0b01100000),
        ("A + B ^ C", 0b10111110),
        ("!A ^ B", 0b10011001),
        ("!(A+B) C", 0b00010000),
        ("A !B", 0b00100010),
        ("A(B+C)", 0b10101000),
        ("1", 0b11111111),
        ("A 0", 0b00000000),
        ("!!A", 0b10101010),
    ],
)
def test_truth_tables(text: str, table: int) -> None:
    function = parse(text)
    for i, (c, b, a) in enumerate(product((False, True), repeat=3)):
        assert function.value({"A": a, "B": b, "C": c}) == bool(table >> i & 1), (text, i)


def test_verilog_keeps_the_order_and_escapes_names() -> None:
    assert parse("!(A B + D[0] ^ C)").verilog() == "~((A & B) | (\\D[0]  ^ C))"
    assert parse("1").verilog() == "1'b1"
    assert parse("A + B'").pins == {"A", "B"}


@pytest.mark.parametrize("text", ["", "A +", "(A", "A)", "A @ B", "+ A", "!", "()"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(LibertyError, match="is no function"):
        parse(text)
