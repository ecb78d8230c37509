"""Runs a unit's testbench on its netlist with counters in it: what the unit takes (`vrex power`)."""

from dataclasses import dataclass
from pathlib import Path

from vrex.errors import UserError
from vrex.hw.tools.gates import toggles
from vrex.hw.tools.gates.netlists import standard_cells
from vrex.hw.tools.gates.power import Power, check, of_netlist
from vrex.hw.tools.gates.verilog import counted, of_standard_cells
from vrex.hw.tools.synth.mapping import CellLibrary
from vrex.model.config import Config
from vrex.tb.regress import Job, Result, run_job


@dataclass(frozen=True)
class Measurement:
    """What came of it.

    Attributes:
        power: a cycle's energy.
        cycles: counted, with those of the resets before each case.
        result: of the bench, whose cases all passed.
    """

    power: Power
    cycles: int
    result: Result


def measure(
    unit: str,
    config: Config,
    library: CellLibrary,
    output: Path,
    *,
    case: str | None,
    seed: int,
    effort: float,
) -> Measurement:
    """Maps a unit, simulates its bench on the netlist, every word compared with the model, and adds up.

    Args:
        unit: a key of `vrex.tb.regress.BENCHES`.
        config: of the unit.
        library: standard cells.
        output: folder of the built simulators and logs.
        case: run only this one.
        seed: of all that is random.
        effort: scales number and size of the random cases.

    Raises:
        UserError: a tool failed, the unit can't be simulated, the bench did not pass, or the library says
            nothing of power.
    """
    check(library.library)
    module = standard_cells(unit, config, library)
    text = of_standard_cells(f"vrex_{unit}", module, library.library, count=True)
    job = Job(
        unit,
        config.name,
        "verilator",
        seed,
        effort,
        case,
        verilog=text,
        netlist=f"{library.library.name}-power",
        liberty=library.path,
        own=config,
    )
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    result = run_job(job, output)
    if not result.passed:
        reason = result.error or f"failed: {', '.join(result.failures)}"
        raise UserError(f"the bench of {unit} did not pass on its netlist ({reason})")
    activity = toggles.read(output / job.name, *counted(module))
    return Measurement(of_netlist(module, library.library, activity), activity.cycles, result)
