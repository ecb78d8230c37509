"""Instructions of the LXE: encoding, sizes, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrex.model.commands import Status
from vrex.model.config import PRESETS, preset
from vrex.model.lib.layout import Layout
from vrex.model.lxe import dpe, instructions, vpe
from vrex.model.lxe.instructions import COMPLETION, INSTRUCTION, Completion, Instruction, Opcode, Operand

PAGE = Path(__file__).parents[3] / "docs" / "lxe.md"
TINY = preset("tiny")
half = st.integers(0, 0xFFFF)
operands = st.builds(Operand, half, half, half)
any_instruction = st.builds(
    Instruction,
    opcode=st.integers(0, 255),
    function=st.integers(0, 255),
    bf16=st.integers(0, 15),
    scalar=st.integers(0, 3),
    resident=st.booleans(),
    columns=st.booleans(),
    last=st.booleans(),
    rows=half,
    groups=half,
    inner=half,
    length=st.integers(0, (1 << 24) - 1),
    beats=st.integers(0, (1 << 32) - 1),
    a=operands,
    b=operands,
    c=operands,
    o=operands,
)


@given(instruction=any_instruction)
def test_packing_is_undone(instruction: Instruction) -> None:
    data = instruction.pack()
    assert len(data) == INSTRUCTION.size == 44
    assert Instruction.unpack(data) == instruction


def test_fields_lie_where_the_page_says() -> None:
    data = Instruction(
        opcode=3,
        function=0x21,
        bf16=0b0101,
        scalar=0b10,
        columns=True,
        last=True,
        rows=0x0403,
        groups=0x0605,
        inner=0x0807,
        length=0x0D0C0B,
        beats=0x14131211,
        a=Operand(0x2221, 0x2423, 0x2625),
        o=Operand(0x3231, 0x3433, 0x3635),
    ).pack()
    assert data[:16].hex() == "0321a501030405060708" + "0000" + "0b0c0d00"
    assert data[16:26].hex() == "11121314" + "212223242526"
    assert data[26:38] == bytes(12)
    assert data[38:].hex() == "313233343536"


def test_completion_is_read() -> None:
    assert Completion.unpack(bytes.fromhex("080102000300000078563412")) == Completion(
        8, 2, True, 3, 0x12345678
    )


@pytest.mark.parametrize(
    "layout", [dpe.COMMAND, vpe.COMMAND, vpe.DONE, INSTRUCTION, COMPLETION], ids=lambda layout: layout.name
)
def test_the_page_holds_the_fields(layout: Layout) -> None:
    assert f"\n\n{layout.table()}\n\n" in PAGE.read_text()


def lines(config_inputs: int, elements: int, word: int, bf16: bool) -> int:
    """Lines of a row, counted one value at a time."""
    values = [0] * elements
    while len(values) % word:
        values.append(0)
    halves = len(values) * (1 if bf16 else 2)
    return int(np.ceil(halves / config_inputs))


@given(elements=st.integers(1, 300), bf16=st.booleans(), name=st.sampled_from(["tiny", "ulx3s", "edge"]))
def test_lines_of_a_row(elements: int, bf16: bool, name: str) -> None:
    config = PRESETS[name]
    for word in (1, config.dpe.trees, config.vpe.lanes):
        assert instructions.lines_of(elements, word, bf16, config) == lines(
            config.dpe.inputs, elements, word, bf16
        )


STORE = Instruction(opcode=Opcode.STORE, length=16)
GEMM = Instruction(opcode=Opcode.GEMM, resident=True, inner=16, length=1, o=Operand(9))
ADD = Instruction(opcode=Opcode.VECTOR, function=vpe.Function.ADD, length=16)


@pytest.mark.parametrize(
    ("base", "change", "status"),
    [
        (STORE, {}, Status.OK),
        (STORE, {"opcode": 0}, Status.BAD_OPCODE),
        (STORE, {"opcode": 5, "rows": 0}, Status.BAD_OPCODE),
        (ADD, {"function": 13}, Status.BAD_OPCODE),
        (STORE, {"function": 13}, Status.OK),
        (STORE, {"rows": 0, "beats": 1}, Status.BAD_COUNT),
        (STORE, {"groups": 0}, Status.BAD_COUNT),
        (STORE, {"length": 0}, Status.BAD_COUNT),
        (STORE, {"rows": 256, "groups": 256}, Status.BAD_COUNT),
        (STORE, {"rows": 255, "groups": 257}, Status.OK),
        (GEMM, {"rows": 4, "groups": 8}, Status.OK),
        (GEMM, {"rows": 3, "groups": 11}, Status.BAD_COUNT),
        (GEMM, {"inner": 0}, Status.BAD_COUNT),
        (GEMM, {"length": 65535 * 16 + 1}, Status.BAD_COUNT),
        (STORE, {"beats": 1, "a": Operand(TINY.lines)}, Status.BAD_LENGTH),
        (GEMM, {"beats": 1}, Status.BAD_LENGTH),
        (GEMM, {"resident": False, "beats": 64}, Status.OK),
        (GEMM, {"resident": False, "beats": 63}, Status.BAD_LENGTH),
        (GEMM, {"resident": False, "columns": True, "inner": 65, "length": 17, "beats": 256}, Status.OK),
        (STORE, {"opcode": Opcode.LOAD, "rows": 2, "length": 17, "beats": 4}, Status.OK),
        (STORE, {"opcode": Opcode.LOAD, "rows": 2, "length": 17, "beats": 2}, Status.BAD_LENGTH),
        (STORE, {"a": Operand(TINY.lines - 1)}, Status.OK),
        (STORE, {"a": Operand(TINY.lines)}, Status.BAD_ADDRESS),
        (STORE, {"length": 17, "a": Operand(TINY.lines - 1)}, Status.BAD_ADDRESS),
        (STORE, {"rows": 2, "a": Operand(TINY.lines - 2, 1)}, Status.OK),
        (STORE, {"rows": 2, "a": Operand(TINY.lines - 2, 2)}, Status.BAD_ADDRESS),
        (STORE, {"groups": 2, "a": Operand(TINY.lines - 2, 0, 2)}, Status.BAD_ADDRESS),
        (STORE, {"o": Operand(0xFFFF), "b": Operand(0xFFFF)}, Status.OK),
        (ADD, {"b": Operand(0xFFFF)}, Status.OK),
        (ADD, {"c": Operand(0xFFFF)}, Status.BAD_ADDRESS),
        (ADD, {"o": Operand(0xFFFF)}, Status.BAD_ADDRESS),
        (ADD, {"bf16": 0b0111, "o": Operand(TINY.lines - 1)}, Status.BAD_ADDRESS),
        (ADD, {"bf16": 0b1011, "scalar": 2, "c": Operand(TINY.lines - 1)}, Status.OK),
        (ADD, {"bf16": 0b1011, "c": Operand(TINY.lines - 1)}, Status.BAD_ADDRESS),
        (GEMM, {"b": Operand(TINY.lines - 1)}, Status.OK),
        (GEMM, {"length": 2, "b": Operand(TINY.lines - 1, 1)}, Status.BAD_ADDRESS),
        (GEMM, {"columns": True, "b": Operand(TINY.lines - 16, 1)}, Status.OK),
        (GEMM, {"columns": True, "b": Operand(TINY.lines - 15, 1)}, Status.BAD_ADDRESS),
    ],
)
def test_checks(base: Instruction, change: dict[str, Any], status: Status) -> None:
    instruction = dataclasses.replace(base, **change)
    assert instructions.check(instruction, TINY) == status
