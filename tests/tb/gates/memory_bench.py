"""Testbench of the ECP5's block RAM in several modes at once: every read against the memory as bits.

`test_simulation` starts it, with the modes in the environment.
"""

import json
import os
from random import Random
from typing import Any

import cocotb
from cocotb.triggers import Timer

ENV_MODES = "VREX_TEST_MODES"
CYCLES = 3000
BITS = 9 * 2048


class Memory:
    """One block RAM: its bits, and what is on its outputs, of which some bits may be unknown."""

    def __init__(self, mode: dict[str, Any]) -> None:
        self.mode = mode
        content = int(mode["init"], 16)
        self.bits = [content >> bit & 1 for bit in range(BITS)]
        self.out = {"A": [0] * 36, "B": [0] * 36}
        self.known = {"A": [True] * 36, "B": [True] * 36}

    def place(self, port: str, address: int, k: int) -> int:
        """Where bit k of a port's word is; of words of 1, 2 and 4 bits a byte holds 8 bits."""
        width = self.mode[f"width_{port}"]
        per_byte = max(width // 9, 1) if width >= 9 else 0
        if per_byte:
            return (address >> 3) // per_byte * per_byte * 9 + k
        word = address // width
        return 9 * (word * width // 8) + word * width % 8 + k

    def step(self, pins: dict[str, dict[str, int]]) -> None:
        """One clock edge of both ports."""
        before, writes = list(self.bits), {"A": set[int](), "B": set[int]()}
        for port, pin in pins.items():
            width = self.mode[f"width_{port}"]
            if pin["CE"] and pin["WE"]:
                for k in range(width):
                    if width < 18 or pin["AD"] >> k // 9 & 1:
                        at = self.place(port, pin["AD"], k)
                        self.bits[at] = pin["DI"] >> k & 1
                        writes[port].add(at)
        for port, other in (("A", "B"), ("B", "A")):
            pin, write = pins[port], self.mode[f"write_{port}"]
            if pin["RST"]:
                self.out[port], self.known[port] = [0] * 36, [True] * 36
            elif pin["CE"] and not (pin["WE"] and write == "NORMAL"):
                for k in range(self.mode[f"width_{port}"]):
                    at = self.place(port, pin["AD"], k)
                    source = self.bits if write == "WRITETHROUGH" and at in writes[port] else before
                    self.out[port][k] = source[at]
                    self.known[port][k] = at not in writes[other]


def _check(memory: Memory, index: int, port: str, seen: int, cycle: int) -> None:
    for k in range(memory.mode[f"width_{port}"]):
        if memory.known[port][k] and (seen >> k & 1) != memory.out[port][k]:
            raise AssertionError(f"cycle {cycle}, mode {index}, port {port}: bit {k} is {seen >> k & 1}")


@cocotb.test()
async def reads_and_writes(dut: Any) -> None:
    """Random reads and writes of a few addresses, one port writing at a time."""
    random = Random(1)
    memories = [Memory(mode) for mode in json.loads(os.environ[ENV_MODES])]
    half = Timer(5, "ns")
    for cycle in range(CYCLES):
        dut.clk.value = 0
        writer = random.choice("AB")
        pins = {
            port: {
                "AD": random.randrange(128) + 128 * random.choice((0, 0, 127)),
                "CE": int(random.random() < 0.9),
                "WE": int(port == writer and random.random() < 0.6),
                "RST": int(random.random() < 0.03),
                "DI": random.getrandbits(36),
            }
            for port in "AB"
        }
        # Port B of 18 bits has no more data; a wide word is written through port A alone.
        pins["B"]["DI"] = pins["A"]["DI"] >> 18
        for port, values in pins.items():
            for name, value in values.items():
                if name != "DI":
                    getattr(dut, f"{name}{port}").value = value
        dut.DI.value = pins["A"]["DI"]
        await half
        dut.clk.value = 1
        await half
        for index, memory in enumerate(memories):
            wide = 36 in (memory.mode["width_A"], memory.mode["width_B"])
            given = {port: dict(values) for port, values in pins.items()}
            if wide:
                given["B"]["WE"] = 0
            memory.step(given)
            halves = {port: int(getattr(dut, f"DO{port}{index}").value) for port in "AB"}
            if memory.mode["width_B"] == 36:
                _check(memory, index, "B", halves["B"] << 18 | halves["A"], cycle)
            else:
                _check(memory, index, "B", halves["B"], cycle)
            if not wide:
                _check(memory, index, "A", halves["A"], cycle)
