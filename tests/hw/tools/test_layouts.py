"""Model, hardware, docs and packers agree on every bit of every layout."""

import dataclasses
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from amaranth.lib import data

from vrex.hw.dre import commands as hw_commands
from vrex.hw.dre import hcu as hw_hcu
from vrex.hw.dre.kvmu import table as hw_table
from vrex.hw.dre.recall import recall as hw_recall
from vrex.hw.lib.layout import struct_layout
from vrex.hw.lxe import sequencer
from vrex.hw.tools.layouts import LAYOUTS, page
from vrex.model.commands import COMPLETION, DESCRIPTOR, Completion, Descriptor, Register
from vrex.model.dre.hcu import DECISION
from vrex.model.dre.kvstore import COPY_PAGES, HEADER, Header
from vrex.model.dre.registers import REGISTERS
from vrex.model.dre.token_store import STORE_HEADER, StoreHeader
from vrex.model.lib.layout import Field, Layout
from vrex.model.lxe.instructions import INSTRUCTION, Instruction, Operand

DOCS = Path(__file__).parents[3] / "docs" / "layouts.md"


def documented(heading: str) -> dict[str, tuple[int, int]]:
    """(lowest bit, width) of each field in the docs' table under a heading."""
    section = DOCS.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?:(\d+):)?(\d+) \| `([\w.]+)` \| (\d+) \|", section, re.M)
    for high, low, _, width in rows:
        assert int(high or low) - int(low) + 1 == int(width)
    return {name: (int(low), int(width)) for _, low, name, width in rows}


def hardware(layout: Any, prefix: str = "", start: int = 0) -> dict[str, tuple[int, int]]:
    """(lowest bit, width) of each field of an Amaranth struct."""
    places: dict[str, tuple[int, int]] = {}
    for name, field in layout:
        if isinstance(field.shape, data.Layout):
            places |= hardware(field.shape, f"{prefix}{name}.", start + field.offset)
        else:
            places[prefix + name] = (start + field.offset, field.width)
    return places


@pytest.mark.parametrize("heading", LAYOUTS)
def test_docs_and_hardware_agree_bit_for_bit(heading: str) -> None:
    layout = LAYOUTS[heading]
    places = hardware(struct_layout(layout))
    assert documented(heading) == places
    assert sum(width for _, width in places.values()) == layout.bits == struct_layout(layout).size


def test_the_page_is_the_one_that_the_tables_give() -> None:
    assert DOCS.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize(
    ("layout", "used"),
    [
        (DESCRIPTOR, hw_commands.DESCRIPTOR),
        (COMPLETION, hw_commands.COMPLETION),
        (DECISION, hw_hcu.DECISION),
        (HEADER, hw_table.HEADER),
        (STORE_HEADER, hw_recall.HEADER),
    ],
)
def test_the_units_use_the_tables(layout: Layout, used: data.StructLayout) -> None:
    assert hardware(used) == hardware(struct_layout(layout))


def test_the_sequencer_reads_instructions_by_their_table() -> None:
    assert sequencer.INSTRUCTION is INSTRUCTION


@pytest.mark.parametrize(
    ("layouts", "packed"),
    [
        ((DESCRIPTOR,), Descriptor(0)),
        ((COMPLETION,), Completion(0, 0)),
        ((HEADER, COPY_PAGES), Header(*[0] * 17)),
        ((STORE_HEADER,), StoreHeader(*[0] * 7)),
        ((INSTRUCTION,), Instruction(opcode=0)),
    ],
)
def test_every_field_is_packed_into_its_place(layouts: tuple[Layout, ...], packed: Any) -> None:
    names = [field.name for field in dataclasses.fields(packed)]
    assert [field.name for layout in layouts for field in layout.fields if not field.reserved] == names
    nothing = {name: Operand() if name in ("a", "b", "c", "o") else 0 for name in names}
    start = 0
    for layout in layouts:
        for low, name, field in layout.leaves():
            if field.reserved:
                continue
            ones, (outer, _, inner) = (1 << field.bits) - 1, name.partition(".")
            value = Operand(**{inner: ones}) if inner else ones
            values = type(packed)(**{**nothing, outer: value})
            assert int.from_bytes(values.pack(), "little") == ones << (start + low)
            assert type(packed).unpack(values.pack()) == values
        start += layout.bits


def test_what_does_not_fit_is_refused_with_its_name() -> None:
    layout = Layout("WORD", (Field("low", 3), Field("reserved", 4), Field("signed", 5, signed=True)))
    assert layout.pack({"low": 5, "signed": -16}) == struct.pack("<H", 5 | 16 << 7)
    assert layout.unpack(struct.pack("<H", 0x7D | 16 << 7)) == {"low": 5, "signed": -16}
    for values in ({"low": 8, "signed": 0}, {"low": -1, "signed": 0}):
        with pytest.raises(struct.error, match=r"WORD\.low: -?\d does not fit 3 unsigned bits"):
            layout.pack(values)
    for value in (16, -17):
        with pytest.raises(struct.error, match=rf"WORD\.signed: {value} does not fit 5 signed bits"):
            layout.pack({"low": 0, "signed": value})
    with pytest.raises(struct.error, match="WORD: 3 bytes instead of 2"):
        layout.unpack(bytes(3))


def test_every_register_is_in_the_table() -> None:
    assert list(REGISTERS) == list(Register)
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)` \| (\d+) \| (R[OW]) \| (\d+) \|", DOCS.read_text(encoding="utf-8"), re.M
    )
    assert [(int(number), name) for number, name, *_ in rows] == [(r.value, r.name) for r in Register]
    for _, name, bits, access, reset in rows:
        info = REGISTERS[Register[name]]
        assert (int(bits), access == "RW", int(reset)) == (info.bits, info.writable, info.reset)
        assert info.reset <= info.largest
