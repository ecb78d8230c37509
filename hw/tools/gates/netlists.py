"""Units as flat netlists, mapped as `vrex synth` measures them, and the Verilog that simulates these."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from vrex.errors import UserError
from vrex.files import cache_folder
from vrex.hw.tools import generate
from vrex.hw.tools.gates import ecp5_models
from vrex.hw.tools.gates.verilog import NetlistModule, of_ecp5, of_standard_cells
from vrex.hw.tools.synth import cells, ecp5
from vrex.hw.tools.synth.mapping import CellLibrary, Mapper
from vrex.model.config import Config


def _silent(_: str) -> None:
    """Tells nobody what is mapped next."""


def standard_cells(
    unit: str, config: Config, library: CellLibrary, tell: Callable[[str], None] = _silent
) -> NetlistModule:
    """A unit in a library's cells, as one module of Yosys's JSON; memories are cells `$mem_v2`.

    Modules that were mapped before come from the cache.

    Args:
        unit: of `vrex.hw.tools.generate.UNITS`.
        config: of the unit.
        library: its cells.
        tell: called with what is mapped next.

    Raises:
        UserError: a tool failed, the cache can't be written, or the netlist is too large.
    """
    top, design = f"vrex_{unit}", generate.netlist(unit, config)
    mapper = Mapper(library, cache_folder())
    with tempfile.TemporaryDirectory() as name:
        mapped = mapper.map(design, top, Path(name), tell)
        count = cells.total(mapped, top)
        if count > cells.TIMED_CELLS:
            raise UserError(
                f"the netlist of {unit} has {count:,} cells, and more than {cells.TIMED_CELLS:,} can't be "
                "simulated; choose a smaller configuration"
            )
        return cells.flat(mapper, library, design, top, Path(name))


def verilog(unit: str, config: Config, library: CellLibrary | None) -> str:
    """Verilog of a unit's netlist with models of its cells, top module and ports as the unit's own.

    Args:
        unit: of `vrex.hw.tools.generate.UNITS`.
        config: of the unit.
        library: of standard cells; None for an ECP5.

    Raises:
        UserError: a tool failed, the netlist is too large, or a cell can't be simulated.
    """
    top = f"vrex_{unit}"
    if library is not None:
        return of_standard_cells(top, standard_cells(unit, config, library), library.library)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "unit.v").write_text(generate.verilog(unit, config), encoding="utf-8")
        design = ecp5.mapped(top, "read_verilog unit.v", Path(name))
    return of_ecp5(top, design["modules"][top], ecp5_models.MODELS)
