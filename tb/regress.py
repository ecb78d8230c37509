"""``vrex regress``: builds every (unit, configuration, simulator), runs its testbench and reports.

Only the standard library is imported here, so that the command line answers at once; cocotb and the
hardware come in when a run begins. Results go to the output folder: `junit.xml`, `coverage.json`, and a log
(and waveform) per run.
"""

import argparse
import json
import os
import random
import re
import shlex
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vrex.files import keep, kept, write_file
from vrex.hw.tools.gates.toggles import FILE as TOGGLES
from vrex.hw.tools.processes import end_descendants
from vrex.hw.tools.synth.fetch import SOURCES, fetch, fetched_before

if TYPE_CHECKING:
    from vrex.model.config import Config

BENCHES = {
    "hcu": "vrex.tb.dre.hcu",
    "wtu": "vrex.tb.dre.wtu",
    "kvpu": "vrex.tb.dre.kvpu",
    "axi": "vrex.tb.lib.axi",
    "merge": "vrex.tb.lib.axi_merge",
    "sdram": "vrex.tb.lib.sdram",
    "registers": "vrex.tb.core.registers",
    "front": "vrex.tb.core.front",
    "fetch": "vrex.tb.dre.fetch",
    "mean": "vrex.tb.dre.mean",
    "quant": "vrex.tb.dre.quant",
    "codes": "vrex.tb.dre.codes",
    "voter": "vrex.tb.dre.voter",
    "recall": "vrex.tb.dre.recall",
    "dpe": "vrex.tb.lxe.dpe",
    "vpe": "vrex.tb.lxe.vpe",
    "lxe": "vrex.tb.lxe.lxe",
    "dre": "vrex.tb.dre.dre",
    "core": "vrex.tb.core.core",
}
"""The testbench of each unit."""

UNITS = tuple(BENCHES)
ECP5 = "ecp5"
"""The netlist that is in no library's cells."""

CAPTURED = "vrex.tb.dre.captured"
DEFAULT_SEED = 1
DEFAULT_PRESET = "edge"
"""What single parameters change, where neither a preset nor a file is named."""

LONG_EFFORT = 10.0
ICARUS_EFFORT = 0.05
"""Icarus is some twenty times slower than Verilator."""

QUIET = {"COCOTB_ANSI_OUTPUT": "0", "COCOTB_RESULTS_ATTACHMENTS": ""}
"""Environment that keeps colours out of cocotb's log, and paths, which may hold any bytes, out of its XML."""

ICARUS_CONFIGS = ("tiny", "lane1", "mini")
"""Default configurations under Icarus."""

KVPU_CONFIGS = ("tiny", "small", "ulx3s", "edge", "lane1")
"""Default configurations of the KVPU, whose parts all the others have tested already."""

DRE_CONFIGS = ("tiny", "small", "ulx3s", "edge", "lane1", "lane2")
"""The same of the DRE."""

DPE_CONFIGS = ("tiny", "small", "ulx3s", "lane1", "lane2", "wide")
"""The same of DPE and LXE: 4,096 lanes of `edge` take a simulator too long."""

CORE_CONFIGS = ("mini", "small")
"""The same of the core, whose parts all the others have tested already."""


class RegressError(Exception):
    """The regression cannot start; the message is one sentence for the user."""


@dataclass(frozen=True)
class Job:
    """One simulation.

    Attributes:
        unit: a key of `BENCHES`.
        config: its name.
        simulator: "verilator" or "icarus".
        seed: of all that is random.
        effort: scales the number and the size of the random cases.
        case: run only this case (with all its parameters if none is named).
        waves: record a waveform.
        verilog: text to simulate instead of the generated one (how the tests plant a bug).
        initial: simulate the Verilog with initial values.
        netlist: "ecp5" or the name of a library, to simulate the unit's mapped netlist; None for its Verilog.
        liberty: file of that library.
        captured: file of commands for the DRE that take the place of its cases (`vrex.tb.dre.captured`).
        own: the configuration, if it is none of `vrex.tb.configs.CONFIGS`.
        chosen_by: options of the command line that name an own configuration.
    """

    unit: str
    config: str
    simulator: str
    seed: int
    effort: float = 1.0
    case: str | None = None
    waves: bool = False
    verilog: str | None = None
    initial: bool = True
    netlist: str | None = None
    liberty: Path | None = None
    captured: Path | None = None
    own: "Config | None" = None
    chosen_by: tuple[str, ...] = ()

    @property
    def design(self) -> "Config":
        """The configuration."""
        from vrex.tb.configs import CONFIGS

        return self.own or CONFIGS[self.config]

    @property
    def name(self) -> str:
        """Name of its folder."""
        words = [self.unit, self.config, self.simulator]
        words += [] if self.initial else ["no-initial"]
        words += [] if self.netlist is None else [self.netlist]
        return "-".join(words)

    def replay(self, case: str) -> str:
        """Command that runs one of its cases alone."""
        chosen_by = shlex.join(self.chosen_by or ("--config", self.config))
        words = ["vrex regress --unit", self.unit, chosen_by, "--sim", self.simulator]
        words += [] if self.initial else ["--no-initial"]
        if self.netlist is not None:
            words += ["--netlist", self.netlist]
            words += [] if self.liberty is None else ["--liberty", shlex.quote(str(self.liberty))]
        words += ["--seed", str(self.seed)]
        if self.effort != 1:
            words += ["--effort", f"{self.effort:g}"]
        return " ".join([*words, "--case", case])


@dataclass
class Result:
    """What came of a job.

    Attributes:
        job: it.
        seconds: build and simulation.
        build_seconds: of these, the build.
        cases: seconds and failure message (None: passed) of each case.
        cycles: of all cases that passed.
        hits: coverage bins of all cases that passed.
        error: why there are no results at all, if so.
        waveform: file, if recorded.
    """

    job: Job
    seconds: float = 0.0
    build_seconds: float = 0.0
    cases: dict[str, tuple[float, str | None]] = field(default_factory=dict)
    cycles: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    error: str | None = None
    waveform: str | None = None

    @property
    def failures(self) -> dict[str, str]:
        """Messages of the cases that failed."""
        return {name: message for name, (_, message) in self.cases.items() if message is not None}

    @property
    def passed(self) -> bool:
        """Whether it ran and every case passed."""
        return self.error is None and not self.failures and bool(self.cases)


def add_arguments(parser: argparse.ArgumentParser, folder_type: Callable[[str], Path | str] = Path) -> None:
    """The options of ``vrex regress``, but for ``--preset``, ``--config`` and ``--param``.

    Args:
        parser: gets them.
        folder_type: of the output folder.
    """
    parser.add_argument("--unit", choices=UNITS, help="only this unit (default: all)")
    parser.add_argument("--case", metavar="NAME", help="only this test case, with all its parameters or one")
    parser.add_argument(
        "--seed",
        type=seed,
        default=DEFAULT_SEED,
        metavar="N",
        help="of the random stimuli, or `random` (default: %(default)s)",
    )
    parser.add_argument(
        "--sim",
        choices=("verilator", "icarus", "all"),
        default="all",
        help="simulator; `all` takes Icarus too if it is installed (default: %(default)s)",
    )
    parser.add_argument(
        "--no-initial",
        dest="initial",
        action="store_false",
        help="the Verilog without initial values (`vrex generate --no-initial`): registers and memories "
        "start unknown in Icarus, at random in Verilator",
    )
    parser.add_argument(
        "--netlist",
        metavar="NAME",
        help=f"the unit's netlist, mapped as `vrex synth` does it: {', '.join((ECP5, *SOURCES))}, or the "
        "library of --liberty",
    )
    parser.add_argument(
        "--effort",
        type=effort,
        default=1.0,
        metavar="X",
        help="scales number and size of the random cases (default: %(default)g)",
    )
    parser.add_argument(
        "--long", dest="effort", action="store_const", const=LONG_EFFORT, help=f"--effort {LONG_EFFORT:g}"
    )
    parser.add_argument("--waves", action="store_true", help="write a waveform of each run")
    parser.add_argument(
        "-j", "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="simulations at a time"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=folder_type,
        default=Path("build/regress"),
        metavar="DIR",
        help="folder of the results and of the built simulators (default: %(default)s)",
    )


def seed(word: str) -> int:
    """The type of a seed on the command line."""
    if word == "random":
        return random.SystemRandom().randrange(1 << 32)
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is neither a whole number nor `random`")
    return int(word)


def effort(word: str) -> float:
    """The type of an effort on the command line."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 0.01 to 1000")
    return value


def reports(output: Path) -> tuple[Path, Path]:
    """The reports on all simulations: coverage and JUnit."""
    return output / "coverage.json", output / "junit.xml"


def main(args: argparse.Namespace) -> int:
    """Runs what the command line of ``vrex regress`` asks for.

    Returns:
        0, or 1 if a case failed or a coverage bin stayed empty.

    Raises:
        RegressError: a tool is missing or a name is unknown.
        UserError: a configuration file or parameter is wrong, or a netlist can't be made.
    """
    jobs = plan(args)
    print(f"{len(jobs)} simulations, seed {args.seed}", flush=True)
    for job in jobs if args.netlist is not None else ():
        # What can't be mapped or simulated is known before anything runs.
        print(f"mapping {job.name}", flush=True)
        _verilog(job, args.output.absolute() / "verilog")
    results = run(jobs, args.output, args.jobs)
    # Holes are holes only when everything ran that could have filled them.
    every_config = args.preset is None and args.config is None and not args.param
    whole = args.case is None and every_config and args.sim != "icarus"
    return report(results, args.output, check_coverage=whole)


def plan(args: argparse.Namespace) -> list[Job]:
    """Jobs of the arguments, the longest first.

    Raises:
        RegressError, UserError: as `main`.
    """
    if find_spec("cocotb") is None:
        raise RegressError("cocotb is missing; run make setup, which installs the extra dev")
    from vrex.tb.build import installed
    from vrex.tb.configs import CONFIGS

    config = _chosen(args)
    own = None if config is None or CONFIGS.get(config.name) == config else config
    if args.jobs < 1:
        raise RegressError(f"--jobs must be at least 1, not {args.jobs}")
    if args.sim == "icarus" and not installed("icarus"):
        raise RegressError("Icarus Verilog is missing: install `iverilog` or take `--sim verilator`")
    simulators = [args.sim] if args.sim != "all" else [s for s in ("verilator", "icarus") if installed(s)]
    units = [args.unit] if args.unit else list(UNITS)
    if config is not None and "lxe" in units:
        _check_lxe(config)
    liberty = _liberty(args)
    jobs = [
        Job(
            unit,
            name,
            simulator,
            args.seed,
            args.effort,
            args.case,
            args.waves,
            initial=args.initial,
            netlist=args.netlist,
            liberty=liberty,
            own=own,
            chosen_by=() if own is None else _choosing(args),
        )
        for simulator in simulators
        for unit in units
        for name in ([config.name] if config else default_configs(unit, simulator))
    ]
    return sorted(jobs, key=lambda job: -UNITS.index(job.unit))


def _liberty(args: argparse.Namespace) -> Path | None:
    """The library's file of a netlist in standard cells.

    Raises:
        RegressError: the command line names no library that is there, or goes with no netlist.
        UserError: the library can't be fetched or read.
    """
    named: Path | None = getattr(args, "liberty", None)
    fetched: str | None = getattr(args, "fetch_liberty", None)
    if args.netlist is None:
        if named or fetched:
            raise RegressError("--liberty and --fetch-liberty are of a netlist; add --netlist NAME")
        return None
    if args.unit is None:
        raise RegressError("--netlist is of one unit; add --unit U")
    if not args.initial:
        raise RegressError("a netlist starts as its cells do; leave out --no-initial or --netlist")
    if args.netlist == ECP5:
        if named or fetched:
            raise RegressError("--netlist ecp5 takes no library; leave out --liberty and --fetch-liberty")
        return None
    from vrex.files import cache_folder
    from vrex.hw.tools.synth.liberty import load

    if named is not None:
        library = load(named).name
        if args.netlist not in (library, named.stem):
            raise RegressError(f"{named} is library {library}; give --netlist {library}, not {args.netlist}")
        return named.absolute()
    if args.netlist not in SOURCES:
        raise RegressError(
            f"unknown netlist {args.netlist!r}: choose one of {', '.join((ECP5, *SOURCES))}, or name the "
            "library's file with --liberty"
        )
    if fetched not in (None, args.netlist):
        raise RegressError(f"--fetch-liberty {fetched} is not the library of --netlist {args.netlist}")
    path = fetch(args.netlist, cache_folder()) if fetched else fetched_before(args.netlist, cache_folder())
    if path is None:
        raise RegressError(
            f"--netlist {args.netlist} needs the library, which was not fetched yet; "
            f"add --fetch-liberty {args.netlist} or --liberty FILE"
        )
    return path


def _chosen(args: argparse.Namespace) -> "Config | None":
    """The one configuration that the command line names, None for all.

    Raises:
        RegressError, UserError: as `main`.
    """
    from vrex.model.config import PRESETS
    from vrex.model.config_file import distinct, load, with_params
    from vrex.tb.configs import CONFIGS

    named = args.config
    if named is None and args.preset is None and not args.param:
        return None
    if named is None:
        name = args.preset or DEFAULT_PRESET
        config, source = load(name), f"preset {name}"
    elif named in CONFIGS:
        config, source = CONFIGS[named], f"configuration {named}"
    elif named.endswith(".toml") or Path(named).exists():
        config, source = load(Path(named)), named
    else:
        raise RegressError(
            f"unknown configuration {named!r}: choose one of {', '.join(CONFIGS)}, or give a TOML file"
        )
    return distinct(with_params(config, args.param, source), {**PRESETS, **CONFIGS})


def _choosing(args: argparse.Namespace) -> tuple[str, ...]:
    """The options of a command line that choose its configuration."""
    words = [] if args.preset is None else ["--preset", args.preset]
    words += [] if args.config is None else ["--config", args.config]
    for field_name, value in args.param:
        words += ["--param", f"{field_name}={value}"]
    return tuple(words)


def _check_lxe(config: "Config") -> None:
    try:
        config.check_lxe()
    except ValueError as error:
        raise RegressError(
            f"configuration {config.name} makes no LXE: {error}; choose another --unit"
        ) from error


def default_configs(unit: str, simulator: str) -> list[str]:
    """Configurations that a unit runs with when none is named."""
    from vrex.tb.configs import CONFIGS, SMALLEST_CORE

    chosen = {
        "kvpu": KVPU_CONFIGS,
        "dpe": DPE_CONFIGS,
        "lxe": DPE_CONFIGS,
        "dre": DRE_CONFIGS,
        "core": CORE_CONFIGS,
    }.get(unit, tuple(name for name in CONFIGS if name != SMALLEST_CORE))
    return [name for name in chosen if simulator != "icarus" or name in ICARUS_CONFIGS]


def _tell(line: str) -> None:
    print(line, flush=True)


def run(
    jobs: Sequence[Job],
    output: Path,
    processes: int,
    progress: Callable[[str], None] = _tell,
) -> list[Result]:
    """Runs jobs, each in a process of its own, and tells when one is done.

    Args:
        jobs: what to run.
        output: folder of the results.
        processes: how many at a time.
        progress: gets a line for each job that ended.

    Returns:
        Results in the order of the jobs.
    """
    output = output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    results: dict[Job, Result] = {}
    with ProcessPoolExecutor(min(processes, len(jobs)) or 1) as pool:
        futures = {pool.submit(run_job, job, output): job for job in jobs}
        try:
            for future in as_completed(futures):
                result = future.result()
                results[futures[future]] = result
                progress(
                    f"[{len(results)}/{len(jobs)}] {result.job.name}: {verdict(result)}, "
                    f"{result.seconds:.1f} s (build {result.build_seconds:.1f} s)"
                )
        except BaseException:
            # Compilers and simulators would go on, and leaving the pool waits for them.
            pool.shutdown(wait=False, cancel_futures=True)
            end_descendants()
            raise
    return [results[job] for job in jobs]


def verdict(result: Result) -> str:
    """One or two words on a result."""
    if result.error is not None:
        return "ERROR"
    return f"{len(result.failures)} FAILED" if not result.passed else f"{len(result.cases)} passed"


def run_job(job: Job, output: Path) -> Result:
    """Builds and simulates one job in this process."""
    from vrex.tb.build import build, runner, top_name

    result = Result(job)
    began = time.perf_counter()
    folder = output / job.name
    folder.mkdir(exist_ok=True)
    for stale in ("report.jsonl", "results.xml", "sim.log", TOGGLES):
        (folder / stale).unlink(missing_ok=True)
    try:
        verilog = job.verilog or _verilog(job, output / "verilog")
        simulator = build(job.unit, job.config, verilog, job.simulator, job.waves, output / "cache")
        result.build_seconds = time.perf_counter() - began
        runner(job.simulator).test(
            test_module=BENCHES[job.unit] if job.captured is None else CAPTURED,
            hdl_toplevel=top_name(job.unit),
            hdl_toplevel_lang="verilog",
            build_dir=simulator,
            test_dir=folder,
            seed=job.seed,
            results_xml=str(folder / "results.xml"),
            plusargs=_plusargs(job),
            test_filter=None if job.case is None else rf"\.{re.escape(job.case)}(/.*)?$",
            extra_env=_environment(job, folder),
            waves=job.waves,
            log_file=folder / "sim.log",
        )
        if job.waves:
            result.waveform = str(_waveform(folder))
    except (Exception, SystemExit) as error:
        result.error = f"{type(error).__name__}: {error}; see the logs in {folder}"
    _collect(result, folder)
    result.seconds = time.perf_counter() - began
    return result


def _plusargs(job: Job) -> list[str]:
    """Lets Verilator start at random what has no initial value (Icarus starts it at X)."""
    if job.simulator != "verilator":
        return []
    return ["+verilator+rand+reset+2", f"+verilator+seed+{job.seed % ((1 << 31) - 1) + 1}"]


def _environment(job: Job, folder: Path) -> dict[str, str]:
    from vrex.tb.lib.bench import ENV_SETUP

    setup = {
        "unit": job.unit,
        "config": job.design.to_dict(),
        "seed": job.seed,
        "effort": job.effort * (ICARUS_EFFORT if job.simulator == "icarus" else 1),
        "report": str(folder / "report.jsonl"),
        "captured": None if job.captured is None else str(job.captured),
    }
    return {ENV_SETUP: json.dumps(setup), **QUIET, "OPENBLAS_NUM_THREADS": "1"}


def _verilog(job: Job, folder: Path) -> str:
    """The unit's Verilog, generated anew only when a source of the hardware or the model changed."""
    import hashlib

    import vrex.hw
    import vrex.model
    from vrex.tb.configs import core

    config = job.design
    digest = hashlib.sha256(json.dumps(core(config)).encode())
    for room in (vrex.hw, vrex.model):
        for source in sorted(Path(str(room.__file__)).parent.rglob("*.py")):
            digest.update(source.read_bytes())
    digest.update(f"{job.initial} {job.netlist}".encode())
    if job.liberty is not None:
        digest.update(job.liberty.read_bytes())
    kind = "" if job.netlist is None else f"-{job.netlist}"
    path = folder / f"{job.unit}-{job.config}{kind}-{digest.hexdigest()[:16]}.v"
    if (found := kept(path)) is not None:
        return found.decode()
    text = _netlist(job) if job.netlist is not None else _generated(job)
    folder.mkdir(parents=True, exist_ok=True)
    keep(path, text.encode())
    return text


def _generated(job: Job) -> str:
    from vrex.hw.tools.generate import verilog

    return verilog(job.unit, job.design, initial=job.initial)


def _netlist(job: Job) -> str:
    from vrex.hw.tools.gates.netlists import verilog
    from vrex.hw.tools.synth.mapping import CellLibrary

    return verilog(job.unit, job.design, None if job.liberty is None else CellLibrary.load(job.liberty))


def _waveform(folder: Path) -> Path:
    """The waveform of a run."""
    return next(iter([*folder.glob("*.fst"), *folder.glob("*.vcd")]), folder)


def _collect(result: Result, folder: Path) -> None:
    """Reads cocotb's results and the bench's report into a result."""
    results, lines = folder / "results.xml", folder / "report.jsonl"
    if results.exists():
        for case in ET.parse(results).getroot().iter("testcase"):
            failure = next((child for child in case if child.tag in ("failure", "error")), None)
            message = None if failure is None else _message(failure)
            if case.find("skipped") is None:
                result.cases[case.get("name", "?")] = (float(case.get("time", 0)), message)
    if result.error is None and not result.cases:
        result.error = f"no test case ran; see {folder / 'sim.log'}"
    for line in lines.read_text().splitlines() if lines.exists() else ():
        entry = json.loads(line)
        result.cycles += entry["cycles"]
        result.hits.update(entry["bins"])


def _message(failure: ET.Element) -> str:
    return failure.get("message") or failure.get("error_msg") or (failure.text or "failed").strip()


def report(results: Sequence[Result], output: Path, check_coverage: bool) -> int:
    """Prints the table, the failures with their replay commands and the coverage; writes the files.

    Returns:
        Exit code.
    """
    print(_table(results))
    for name in sorted({result.job.netlist for result in results if result.job.netlist is not None}):
        print(f"netlist in {name}: all ports compared; no check is left out, as benches look at ports alone")
    for result in results:
        if result.error is not None:
            print(f"ERROR {result.job.name}: {result.error}")
        for case, message in result.failures.items():
            print(f"FAILED {result.job.name} {case}: {message}")
            if result.job.captured is None:
                print(f"  replay: {result.job.replay(case)}")
        if result.waveform:
            print(f"waveform of {result.job.name}: {result.waveform}")
    coverage_path, junit_path = reports(output)
    empty = _coverage(results, coverage_path, check_coverage)
    _junit(results, empty, junit_path)
    passed = all(result.passed for result in results) and not empty
    print(f"regress: {'all passed' if passed else 'FAILED'}; results in {output}")
    sys.stdout.flush()
    return 0 if passed else 1


def _table(results: Iterable[Result]) -> str:
    rows = [("unit", "config", "simulator", "tests", "seconds", "cycles", "result")]
    rows += [
        (
            r.job.unit,
            r.job.config,
            r.job.simulator,
            str(len(r.cases)),
            f"{r.seconds:.1f}",
            str(r.cycles),
            verdict(r),
        )
        for r in results
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 3 <= i <= 5 else cell.ljust(width) for i, (cell, width) in enumerate(line)
        )
        for line in (zip(row, widths, strict=True) for row in rows)
    )


def _coverage(results: Sequence[Result], path: Path, check: bool) -> list[str]:
    """Merges the bins of each unit, writes them, prints and returns the holes if they count."""
    from vrex.tb.lib.coverage import BINS, holes

    merged: dict[str, Counter[str]] = {}
    netlists = {result.job.unit: result.job.netlist for result in results}
    for result in results:
        merged.setdefault(result.job.unit, Counter()).update(result.hits)
    empty = {unit: holes(unit, hits) for unit, hits in merged.items()}
    content = {
        unit: {
            "netlist": netlists[unit],
            "bins": {name: hits[name] for name in BINS[unit]},
            "holes": empty[unit],
        }
        for unit, hits in merged.items()
    }
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())
    for unit in merged:
        print(f"coverage of {unit}: {len(BINS[unit]) - len(empty[unit])} of {len(BINS[unit])} bins")
        for name in empty[unit] if check else ():
            print(f"  HOLE {unit}: {name}")
    return [f"{unit}: {name}" for unit, names in empty.items() for name in names] if check else []


def _junit(results: Sequence[Result], empty: Sequence[str], path: Path) -> None:
    """Writes one JUnit file: a suite per job, and one for the coverage."""
    root = ET.Element("testsuites")
    for result in results:
        suite = ET.SubElement(root, "testsuite", name=result.job.name, time=f"{result.seconds:.3f}")
        for name, (seconds, message) in result.cases.items():
            _junit_case(suite, name, seconds, message)
        if result.error is not None:
            _junit_case(suite, "simulation", 0.0, result.error)
    suite = ET.SubElement(root, "testsuite", name="coverage")
    for name in empty:
        _junit_case(suite, name, 0.0, "no test covered this bin")
    for suite in root:
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
    write_file(path, ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _junit_case(suite: ET.Element, name: str, seconds: float, message: str | None) -> None:
    case = ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=name, time=f"{seconds:.3f}")
    if message is not None:
        ET.SubElement(case, "failure", message=message)
