"""Runs a unit's bench with one mutant on; a process of its own, which can be ended with all its children."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.model.config import Config
from vrex.tb.mutate.cases import ENV_CASES, PERIOD_NS
from vrex.tb.regress import BENCHES, QUIET


@dataclass(frozen=True)
class Run:
    """One simulation.

    Attributes:
        unit: a key of `vrex.tb.regress.BENCHES`.
        config: of the design.
        simulator: folder of the built simulator.
        number: of the mutant, 0 for none.
        seed, effort: of the bench.
        cycles: of each case without a mutant; None to measure them.
    """

    unit: str
    config: Config
    simulator: Path
    number: int
    seed: int
    effort: float
    cycles: dict[str, int] | None

    def to_json(self, folder: str) -> str:
        """What `main` reads."""
        fields = asdict(self) | {"config": self.config.to_dict(), "simulator": str(self.simulator)}
        return json.dumps({"run": fields, "folder": folder})


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        cycles: of each case that ran.
        case: the first that failed; empty if none did.
        message: what it said.
    """

    cycles: dict[str, int]
    case: str
    message: str


def simulate(run: Run, began: Callable[[subprocess.Popen[str]], None] = lambda process: None) -> Outcome:
    """Runs it in a process group of its own, until a case fails.

    Args:
        run: the simulation.
        began: gets the process, the leader of that group.

    Raises:
        UserError: the simulator gave no results.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "vrex.tb.mutate.simulate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    began(process)
    # Ours, so that it goes when the process is ended, too.
    with tempfile.TemporaryDirectory(prefix="vrex-mutant-", ignore_cleanup_errors=True) as folder:
        out, err = process.communicate(run.to_json(folder))
    if process.returncode != 0:
        last = (err.strip().splitlines() or [f"code {process.returncode}"])[-1]
        raise UserError(f"the simulation of unit {run.unit} with mutant {run.number} failed ({last})")
    return Outcome(**json.loads(out.splitlines()[-1]))


def end(process: subprocess.Popen[str]) -> None:
    """Ends a process that `simulate` began, and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _environment(run: Run, folder: Path) -> dict[str, str]:
    from vrex.tb.lib.bench import ENV_SETUP

    setup = {
        "unit": run.unit,
        "config": run.config.to_dict(),
        "seed": run.seed,
        "effort": run.effort,
        "report": str(folder / "report.jsonl"),
        "captured": None,
    }
    return {
        ENV_SETUP: json.dumps(setup),
        ENV_CASES: json.dumps({"module": BENCHES[run.unit], "cycles": run.cycles}),
        **QUIET,
        "COCOTB_MAX_FAILURES": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _test(run: Run, folder: Path) -> None:
    from vrex.tb.build import runner, top_name

    runner("verilator").test(
        test_module="vrex.tb.mutate.cases",
        hdl_toplevel=top_name(run.unit),
        hdl_toplevel_lang="verilog",
        build_dir=run.simulator,
        test_dir=folder,
        seed=run.seed,
        results_xml=str(folder / "results.xml"),
        plusargs=[
            f"+mutant={run.number}",
            "+verilator+rand+reset+2",
            f"+verilator+seed+{run.seed % ((1 << 31) - 1) + 1}",
        ],
        extra_env=_environment(run, folder),
        log_file=folder / "sim.log",
    )


def _cycles(case: ET.Element) -> int:
    """Clock cycles of a case, from cocotb's properties."""
    for entry in case.iter("property"):
        if entry.get("name") == "sim_time_duration":
            return round(float(entry.get("value", 0))) // PERIOD_NS
    raise UserError("cocotb's results lack sim_time_duration; install the pinned cocotb")


def _outcome(folder: Path) -> Outcome:
    """Reads cocotb's results, or what Verilator said last."""
    results, cycles = folder / "results.xml", dict[str, int]()
    cases = ET.parse(results).getroot().iter("testcase") if results.exists() else ()
    for case in cases:
        name = case.get("name", "?")
        failure = next((child for child in case if child.tag in ("failure", "error")), None)
        if failure is not None:
            message = failure.get("message") or failure.get("error_msg") or (failure.text or "").strip()
            return Outcome(cycles, name, message or "failed")
        if case.find("skipped") is None:
            cycles[name] = _cycles(case)
    log = (folder / "sim.log").read_text() if (folder / "sim.log").exists() else ""
    if not cycles and "converge" in log:
        return Outcome({}, "(start)", "combinational logic does not settle")
    if not cycles:
        last = (log.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"no case ran: {last}")
    return Outcome(cycles, "", "")


def main() -> None:
    """Reads a `Run` and a folder from stdin and writes the `Outcome` as the last line of stdout."""
    ask: dict[str, Any] = json.load(sys.stdin)
    fields, folder = ask["run"], Path(ask["folder"])
    config, simulator = Config.from_dict(fields.pop("config")), Path(fields.pop("simulator"))
    try:
        _test(Run(config=config, simulator=simulator, **fields), folder)
    except (Exception, SystemExit) as error:
        # A case that fails may end the simulator with an error; the results say which.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    print(json.dumps(asdict(_outcome(folder))))


if __name__ == "__main__":
    main()
