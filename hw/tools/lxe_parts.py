"""Units of the LXE as Verilator libraries, for measurements and comparisons."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth import ClockSignal, Instance, Module, ResetSignal, Signal

from vrex.hw.lxe.dpe import Dpe
from vrex.hw.lxe.mac_tree import MacTree
from vrex.hw.tools import verilated
from vrex.hw.tools.export import to_rtlil
from vrex.model.config import Config, DpeConfig

_START = 50
"""Cycles before a command, in which the buffer of rows fills."""


@dataclass(frozen=True)
class SimulatedTree:
    """A simulated tree and its latencies."""

    config: DpeConfig
    run: verilated.Simulation
    total_latency: int
    latency: int


def simulate_tree(
    config: DpeConfig, folder: Path, tree: MacTree | None = None, *, functions: bool = False
) -> SimulatedTree:
    """Simulator of a MAC tree.

    Args:
        config: of the DPE it belongs to.
        folder: for the files, empty.
        tree: another one than that of `vrex.hw`.
        functions: the one made of C++ functions (`vrex.hw.tools.arithmetic`) instead.

    Raises:
        UserError: the simulator can't be built.
    """
    m = Module()
    width = 16 * config.inputs
    inputs = [
        Signal(width, name="a"),
        Signal(width, name="b"),
        Signal(name="i_valid"),
        Signal(32, name="total"),
    ]
    outputs = [Signal(32, name="o"), Signal(name="o_valid")]
    ports = {f"i_{port.name}": port for port in inputs} | {f"o_{port.name}": port for port in outputs}
    m.submodules.tree = Instance("vrex_mac_tree", i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)
    tree = tree or MacTree(config)
    whole = Config(dpe=config) if functions else None
    run = verilated.build(m, inputs, outputs, folder, to_rtlil(tree, "vrex_mac_tree"), whole)
    return SimulatedTree(config, run, tree.total_latency, tree.latency)


@dataclass(frozen=True)
class SimulatedDpe:
    """A simulated DPE whose streams of numbers are always valid and whose results are always taken.

    Attributes:
        config: DPE.
        tiles: tiles times chunks of a product.
        run: the simulation.
    """

    config: DpeConfig
    tiles: int
    run: verilated.Simulation

    def multiply(self, rows: int) -> tuple[int, int]:
        """Cycles of a product of so many rows, from command to status, and those in which it multiplied."""
        start = np.zeros(2 * self.tiles * Dpe.tile_cycles(self.config, rows) + 1000, dtype=np.uint32)
        start[_START] = 1
        seen = self.run(rows=rows, start=start)
        return int(np.flatnonzero(seen["done"])[0]) - _START, int(seen["busy"][-1])


def simulate_dpe(config: DpeConfig, chunks: int, tiles: int, folder: Path) -> SimulatedDpe:
    """Simulator of a DPE for products of one shape.

    Args:
        config: DPE.
        chunks: of a row.
        tiles: of weights.
        folder: for the files, empty.

    Raises:
        UserError: the simulator can't be built.
    """
    m = Module()
    m.submodules.dpe = dpe = Dpe(config)
    rows, start = Signal(16, name="rows"), Signal(name="start")
    done, busy = Signal(name="done"), Signal(32, name="busy")
    command = dpe.cmd.payload
    m.d.comb += [
        *(command.rows.eq(rows), command.chunks.eq(chunks), command.tiles.eq(tiles), command.bf16.eq(0)),
        *(dpe.cmd.valid.eq(start), dpe.x.valid.eq(1), dpe.w.valid.eq(1), dpe.o.ready.eq(1)),
        *(dpe.done.ready.eq(1), done.eq(dpe.done.valid), busy.eq(dpe.busy)),
    ]
    tree = to_rtlil(MacTree(config), "vrex_mac_tree")
    run = verilated.build(m, [rows, start], [done, busy], folder, tree)
    return SimulatedDpe(config, chunks * tiles, run)
