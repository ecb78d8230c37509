"""Testbench that gives a netlist with counters a known number of clock edges; `test_simulation` starts it."""

from typing import Any

import cocotb
from cocotb.triggers import Timer

CYCLES = 41
HIGH = 7


@cocotb.test()
async def edges(dut: Any) -> None:
    """Input `e` is high for `HIGH` edges in a row; within each cycle it changes twice more."""
    half = Timer(5, "ns")
    for cycle in range(CYCLES):
        dut.clk.value = 0
        wanted = int(10 <= cycle < 10 + HIGH)
        dut.e.value = 1 - wanted
        await half
        dut.e.value = wanted
        await half
        dut.clk.value = 1
        await half
