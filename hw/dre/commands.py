"""What KVPU and DRE share: structs of commands and completions, the registers' counters, sizes in beats."""

from typing import Any

from amaranth.hdl import ValueLike

from vrex.hw.dre.hcu import Hcu
from vrex.hw.dre.wtu.wtu import Wtu
from vrex.hw.lib.layout import struct_layout
from vrex.model import commands
from vrex.model.commands import Register

DESCRIPTOR = struct_layout(commands.DESCRIPTOR)
COMPLETION = struct_layout(commands.COMPLETION)


def unit_counters(hcu: Hcu, wtu: Wtu) -> dict[Register, ValueLike]:
    """What the counters of the two units add in every cycle."""
    return {
        Register.HCU_BUSY: hcu.busy,
        Register.HCU_WAIT_IN: hcu.wait_in,
        Register.HCU_WAIT_OUT: hcu.wait_out,
        **wtu.counters,
    }


def count_beats(items: Any, bits: int, *, bus_bits: int) -> Any:
    """Bus beats of so many values of `bits` bits; combinational (model `vrex.model.config.Config.beats`)."""
    return (items * bits + bus_bits - 1)[bus_bits.bit_length() - 1 :]
