"""Units of the LXE as Verilator libraries, for measurements and comparisons."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth import Module, Signal

from vrex.hw.lxe.dpe import Dpe
from vrex.hw.lxe.mac_tree import MacTree
from vrex.hw.tools import verilated
from vrex.hw.tools.export import to_rtlil
from vrex.model.config import DpeConfig

_START = 50
"""Cycles before a command, in which the buffer of rows fills."""


@dataclass(frozen=True)
class SimulatedTree:
    """A simulated tree and its latencies."""

    config: DpeConfig
    run: verilated.Simulation
    total_latency: int
    latency: int


def simulate_tree(config: DpeConfig, folder: Path, tree: MacTree | None = None) -> SimulatedTree:
    """Simulator of a MAC tree.

    Args:
        config: of the DPE it belongs to.
        folder: for the files, empty.
        tree: another one than that of `vrex.hw`.

    Raises:
        UserError: the simulator can't be built.
    """
    m = Module()
    m.submodules.tree = tree = tree or MacTree(config)
    width = 16 * config.inputs
    a, b, total = Signal(width, name="a"), Signal(width, name="b"), Signal(32, name="total")
    i_valid, o, o_valid = Signal(name="i_valid"), Signal(32, name="o"), Signal(name="o_valid")
    m.d.comb += [
        *(tree.a.eq(a), tree.b.eq(b), tree.i_valid.eq(i_valid), tree.total.eq(total)),
        *(o.eq(tree.o), o_valid.eq(tree.o_valid)),
    ]
    run = verilated.build(m, [a, b, i_valid, total], [o, o_valid], folder)
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
