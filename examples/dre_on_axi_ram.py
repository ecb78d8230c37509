"""DRE on an AXI RAM in cocotb: one APPEND, one RETRIEVE, compared with the golden model.

The RAM is cocotbext-axi's `AxiRam`, an AXI4 slave that knows nothing of vrex: the host lays out an empty
table in it, sends eight tokens with their keys and values, and gets back K and V of the clusters that a row
of scores selects. Put your own memory, interconnect or simulator in its place.

    python examples/dre_on_axi_ram.py [--output DIR]

It takes extra `sim` and g++. The first run builds a simulator, which takes minutes; later runs take seconds.
It ends with exit code 1 if a result is wrong.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import preset
from vrex.model.dre.dre import Dre
from vrex.model.dre.hashing import hash_keys, hyperplanes
from vrex.model.dre.kvstore import plan
from vrex.model.lib import arith
from vrex.model.lib.memory import Memory, Window

CONFIG = preset("tiny")
DEVICE, HOST = Window(1, 63), Window(64, 64)
"""Accelerator memory and host memory, in pages of 4 KiB: 512 KiB of one RAM."""
TABLE = DEVICE.start
TOKENS = 8


def set_windows() -> list[tuple[Descriptor, bytes]]:
    """SETREG of both windows: the DRE issues no burst outside them."""
    values = {
        Register.DEVICE_BASE: DEVICE.base,
        Register.DEVICE_PAGES: DEVICE.pages,
        Register.HOST_BASE: HOST.base,
        Register.HOST_PAGES: HOST.pages,
    }
    return [
        (Descriptor(Opcode.SETREG, count=register, param=value), b"") for register, value in values.items()
    ]


def append(keys: np.ndarray, values: np.ndarray) -> tuple[Descriptor, bytes]:
    """APPEND of tokens: their hash-bits, then K and V of each.

    Args:
        keys, values: BF16 bits, uint16 [tokens, KV heads, head_dim].
    """
    tokens, heads, head_dim = keys.shape
    planes = hyperplanes(0, 0, 0, CONFIG.hcu.hash_bits, heads * head_dim)
    hashes = hash_keys(keys.reshape(tokens, -1), planes, CONFIG.hcu.hash_bits)
    payload = commands.to_beats(CONFIG, commands.hashes_to_bytes(CONFIG, hashes))
    payload += np.stack([keys, values], axis=2).astype("<u2").tobytes()
    fields = {"kv_heads": (1 << heads) - 1, "count": tokens, "address": TABLE, "length": len(payload)}
    return Descriptor(Opcode.APPEND, tag=1, **fields), payload


def retrieve(scores: np.ndarray) -> tuple[Descriptor, bytes]:
    """RETRIEVE by a row of scores for each KV head, BF16 bits uint16 [KV heads, clusters]."""
    heads, clusters = scores.shape
    payload = commands.retrieve_payload(CONFIG, scores)
    fields = {"kv_heads": (1 << heads) - 1, "count": 1, "clusters": clusters}
    return Descriptor(Opcode.RETRIEVE, tag=2, address=TABLE, length=len(payload), **fields), payload


def batch() -> list[tuple[Descriptor, bytes]]:
    """Registers, eight tokens of three kinds, and a row of scores that prefers the first kind."""
    rng = np.random.default_rng(1)
    heads, head_dim = CONFIG.kvmu.kv_heads, CONFIG.kvmu.head_dim
    kinds = rng.standard_normal((3, heads, head_dim))
    noise = rng.standard_normal((2, TOKENS, heads, head_dim))
    keys = arith.to_bf16((kinds[np.arange(TOKENS) % 3] + 0.02 * noise[0]).astype(np.float32))
    values = arith.to_bf16(noise[1].astype(np.float32))
    scores = arith.to_bf16(np.tile(np.array([9, 1, 2], dtype=np.float32), (heads, 1)))
    return [*set_windows(), append(keys, values), retrieve(scores)]


class Host:
    """The four streams on the host's side: words go in by `put`, what comes out is collected."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.words: dict[str, list[int]] = {name: [] for name in ("dout", "kv", "cpl")}
        for name in ("cmd", "din"):
            getattr(dut, f"{name}__valid").value = 0
        for name in self.words:
            getattr(dut, f"{name}__ready").value = 1
            cocotb.start_soon(self._collect(name))

    async def put(self, name: str, data: bytes) -> None:
        """Sends bytes, a whole number of words of the stream."""
        valid, ready, payload = (
            getattr(self.dut, f"{name}__{part}") for part in ("valid", "ready", "payload")
        )
        size = len(payload) // 8
        for start in range(0, len(data), size):
            await FallingEdge(self.dut.clk)
            payload.value = int.from_bytes(data[start : start + size], "little")
            valid.value = 1
            await ReadOnly()
            while not ready.value:
                await FallingEdge(self.dut.clk)
                await ReadOnly()
            await RisingEdge(self.dut.clk)
            await FallingEdge(self.dut.clk)
            valid.value = 0

    async def completion(self, index: int) -> Completion:
        """Waits for a completion."""
        while len(self.words["cpl"]) <= index:
            await RisingEdge(self.dut.clk)
        return Completion.unpack(self.words["cpl"][index].to_bytes(16, "little"))

    def take(self, name: str) -> bytes:
        """What has come out of a stream since the last call."""
        size = CONFIG.bus_bytes
        data = b"".join(word.to_bytes(size, "little") for word in self.words[name])
        self.words[name].clear()
        return data

    async def _collect(self, name: str) -> None:
        """Samples the stream just before each rising edge, as the design's registers do."""
        valid, payload = (getattr(self.dut, f"{name}__{part}") for part in ("valid", "payload"))
        while True:
            await FallingEdge(self.dut.clk)
            await ReadOnly()
            if not self.dut.rst.value and valid.value:
                self.words[name].append(int(payload.value))


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def append_and_retrieve(dut: Any) -> None:
    """Design and golden model execute the same commands, each on a memory of its own."""
    dut.rst.value = 1
    host = Host(dut)
    Clock(dut.clk, 10, "ns").start()
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=HOST.stop)
    # It logs every burst otherwise.
    for port in (ram.write_if, ram.read_if):
        assert port is not None
        port.log.setLevel("WARNING")
    for _ in range(4):
        await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0

    heads = CONFIG.kvmu.kv_heads
    header = plan(
        CONFIG, heads, cap_clusters=64, cap_segments=64, ring_segments=32, host_page=0
    ).header.pack()
    ram.write(TABLE, header)
    model = Dre(CONFIG, Memory(DEVICE, HOST))
    model.memory.write(TABLE, header)

    for index, (descriptor, payload) in enumerate(batch()):
        await host.put("cmd", descriptor.pack())
        await host.put("din", payload)
        ended = await host.completion(index)
        completion, result, kv = model.execute(descriptor, payload)
        assert ended.status == completion.status == Status.OK, Status(ended.status).name
        assert (host.take("dout"), host.take("kv")) == (result, kv)
        name = Opcode(descriptor.opcode).name
        if name == "APPEND":
            print(f"APPEND: {TOKENS} tokens, {ended.detail} clusters opened, {ended.cycles} cycles")
        if name == "RETRIEVE":
            (mask, *_) = commands.unpack_masks(CONFIG, result, descriptor.clusters, heads)
            chosen = ", ".join(map(str, np.flatnonzero(mask)))
            print(
                f"RETRIEVE: KV head 0 chose cluster {chosen}; {len(kv)} bytes of K and V,"
                f" {ended.cycles} cycles"
            )
    for window in (DEVICE, HOST):
        size = window.stop - window.start
        held = ram.read(window.start, size)
        assert held is not None
        assert bytes(held) == model.memory.read(window.start, size)
    print("decisions, bitmasks, K and V and every byte of the tables equal the golden model's")


def main() -> int:
    """Generates the DRE, builds the simulator unless it is there, and runs the test above in it."""
    from cocotb_tools.check_results import get_results

    from vrex.hw.tools.generate import verilog
    from vrex.tb.build import build, runner, top_name

    parser = argparse.ArgumentParser(description="One APPEND and one RETRIEVE of a DRE on an AXI RAM.")
    parser.add_argument("--output", type=Path, default=Path("build/examples"), help="default: %(default)s")
    output = parser.parse_args().output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    simulators = output / "cache"
    folder = build("dre", CONFIG.name, verilog("dre", CONFIG), "verilator", False, simulators)
    results = runner("verilator").test(
        test_module=Path(__file__).stem,
        hdl_toplevel=top_name("dre"),
        hdl_toplevel_lang="verilog",
        build_dir=folder,
        test_dir=output,
        results_xml=str(output / "results.xml"),
        extra_env={"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    tests, failed = get_results(results)
    return 0 if tests and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
