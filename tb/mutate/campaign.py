"""A campaign: a unit's mutants, each run through the unit's bench until a case sees it.

What no case sees is shown to the unit's proofs and to Yosys, unless the list of equivalent ones has it.
Results are kept in the output folder by everything that they depend on, so the same command goes on where it
was stopped, and an edit elsewhere costs nothing.
"""

import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.model.config import Config
from vrex.tb import build
from vrex.tb.mutate import design, equivalence, kept, proofs
from vrex.tb.mutate.points import Mutant
from vrex.tb.mutate.results import (
    Results,
    Sources,
    bench_digest,
    bench_files,
    design_digest,
    design_files,
    digest,
    proofs_digest,
)
from vrex.tb.mutate.simulate import Outcome, Run, end, simulate
from vrex.tb.regress import default_configs

DEFAULT_CONFIGS = ("tiny", "lane1", "lane2", "wide")
"""Configurations: the smallest, and those that build other circuits of the same sources, the widest last."""

MORE_CONFIGS = {"vpe": ("edge",), "core": ("mini",)}
"""Beside these: only as many lanes as accumulators have a single slot of them; and the one of the core."""

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
        judge: whether survivors are shown to the unit's proofs, and to Yosys.
        only: names, long or short (`identity`), of the only mutants; none for those that are drawn.
        listed: the list of equivalent ones.
    """

    unit: str
    configs: tuple[Config, ...]
    count: int
    seed: int = 1
    effort: float = 1.0
    output: Path = Path("build/mutate")
    jobs: int = 2
    judge: bool = True
    only: tuple[str, ...] = ()
    listed: Path = field(default_factory=lambda: kept.PATH)


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        mutant: it.
        verdict: `KILLED`, `SURVIVED` or `EQUIVALENT`.
        config: where it was seen, or all that it was run on.
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


class Campaign:
    """A campaign in work.

    Attributes:
        plan: what to run.
        reached: of each configuration by name, the mutants that change its hardware.
        chosen: names of the mutants that are run.
        verdicts: of those that are decided.
    """

    def __init__(
        self, plan: Plan, progress: Callable[[int, int, str], None] = lambda done, total, what: None
    ) -> None:
        """Makes nothing yet.

        Args:
            plan: what to run.
            progress: gets the number of mutants decided, of all (0: not known yet), and what is done now.
        """
        self.plan = plan
        self.reached: dict[str, list[str]] = {}
        self.chosen: list[str] = []
        self.verdicts: dict[str, Verdict] = {}
        self._progress = progress
        self._results = Results(plan.output / "results")
        self._sources = Sources([])
        self._known: dict[str, Mutant] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._guard = threading.Lock()
        self._stopped = False

    def run(self) -> list[Verdict]:
        """Decides every mutant.

        Returns:
            Verdicts in the order of the sources.

        Raises:
            UserError: a tool is missing, the bench fails without a mutant, `only` names none, the list of
                equivalent ones names one that is gone, or a source changed meanwhile.
        """
        unit = self.plan.unit
        self._sources = Sources([*design_files(), *bench_files(unit), *proofs.files(unit)])
        try:
            return self._verdicts()
        except Exception:
            # Whatever went wrong: of a source that changed, that is why.
            self._sources.check()
            raise

    def _verdicts(self) -> list[Verdict]:
        plan = self.plan
        self._known = design.mutants(plan.unit)
        listed = kept.of(plan.unit, self._known, plan.listed)
        for config in plan.configs:
            self._tell(f"elaborating {config.name}")
            self.reached[config.name] = self._reached(config)
        self.chosen = choose({name for names in self.reached.values() for name in names}, plan)
        for name in self.chosen:
            if name in listed:
                mutant = self._known[name]
                self.verdicts[name] = Verdict(mutant, EQUIVALENT, by="kept list", message=listed[name])
        for config in plan.configs:
            left = [name for name in self._undecided() if name in self.reached[config.name]]
            for start in range(0, len(left), AT_ONCE):
                self._simulate(config, left[start : start + AT_ONCE])
        self._tell("judging survivors")
        self._judge(self._undecided())
        return self.ordered()

    def ordered(self) -> list[Verdict]:
        """The verdicts so far in the order of the sources."""
        return sorted(
            self.verdicts.values(),
            key=lambda verdict: (verdict.mutant.file, verdict.mutant.line, verdict.mutant.name),
        )

    def _undecided(self) -> list[str]:
        return [name for name in self.chosen if name not in self.verdicts]

    def _keep(self, key: str, result: dict[str, Any]) -> dict[str, Any]:
        """Keeps a result, unless it may be of other sources than its key says."""
        self._sources.check()
        return self._results.put(key, result)

    def _tell(self, what: str) -> None:
        self._progress(len(self.verdicts), len(self.chosen), what)

    def _reached(self, config: Config) -> list[str]:
        """Mutants that change the hardware of a configuration."""
        key = digest("reached", self.plan.unit, config.to_dict(), design_digest())
        found = self._results.get(key)
        if found is None:
            found = self._keep(key, {"names": design.make(self.plan.unit, config, form="none").reached})
        return [str(name) for name in found["names"]]

    def _design(self, config: Config) -> str:
        """Digest of the design without mutants."""
        key = digest("design", self.plan.unit, config.to_dict(), design_digest())
        found = self._results.get(key)
        if found is None:
            found = self._keep(key, {"digest": digest(design.make(self.plan.unit, config).text)})
        return str(found["digest"])

    def _simulate(self, config: Config, names: Sequence[str]) -> None:
        """Runs some mutants on one configuration; those that a case sees get their verdict."""
        plan = self.plan
        base = digest(self._design(config), bench_digest(plan.unit), plan.seed, plan.effort)
        keys = {name: digest("run", base, name) for name in names}
        missing = []
        for name in names:
            found = self._results.get(keys[name])
            if found is None:
                missing.append(name)
            else:
                self._decide(name, config, Outcome(**found))
        if not missing:
            return
        self._tell(f"building {config.name}")
        numbers = {name: number for number, name in enumerate(names, 1)}
        text = design.make(plan.unit, config, numbers).text
        cache = plan.output.absolute() / "cache"
        simulator = build.build(plan.unit, config.name, text, "verilator", False, cache)
        self._tell(f"running {config.name}")
        run = Run(plan.unit, config, simulator, 0, plan.seed, plan.effort, None)
        run = replace(run, cycles=self._cycles(digest("cycles", base), run))

        def one(name: str) -> Outcome:
            outcome = self._run(replace(run, number=numbers[name]))
            self._keep(keys[name], asdict(outcome))
            return outcome

        with self._pool() as pool:
            futures = {pool.submit(one, name): name for name in missing}
            for future in as_completed(futures):
                self._decide(futures[future], config, future.result())

    def _cycles(self, key: str, run: Run) -> dict[str, int]:
        """Cycles of each case without a mutant, in which all must pass."""
        found = self._results.get(key)
        if found is None:
            with self._pool() as pool:
                found = self._keep(key, asdict(pool.submit(self._run, run).result()))
        outcome = Outcome(**found)
        if outcome.case:
            raise UserError(
                f"the bench of unit {run.unit} fails without any mutant (configuration {run.config.name}, "
                f"case {outcome.case}: {outcome.message}); make `vrex regress --unit {run.unit}` pass first"
            )
        return outcome.cycles

    def _decide(self, name: str, config: Config, outcome: Outcome) -> None:
        if outcome.case:
            self.verdicts[name] = Verdict(
                self._known[name], KILLED, config.name, outcome.case, outcome.message
            )
        self._tell(f"running {config.name}")

    def _judge(self, names: Sequence[str]) -> None:
        """Gives the mutants that no case saw their verdicts."""
        if not self.plan.judge:
            for name in names:
                self.verdicts[name] = self._survivor(name)
            return
        with self._pool() as pool:
            for future in as_completed([pool.submit(self._judged, name) for name in names]):
                verdict = future.result()
                self.verdicts[verdict.mutant.name] = verdict
                self._tell("judging survivors")

    def _judged(self, name: str) -> Verdict:
        """What proofs and Yosys say of a mutant."""
        mutant, configs = self._known[name], self._configs(name)
        proof = self._failed_proof(name)
        if proof:
            return Verdict(mutant, KILLED, "", proof, "the proof fails")
        if all(self._is_equivalent(name, config) for config in configs):
            where = ", ".join(config.name for config in configs)
            return Verdict(mutant, EQUIVALENT, where, "Yosys", "every register and port stays equal")
        return self._survivor(name)

    def _survivor(self, name: str) -> Verdict:
        where = ", ".join(config.name for config in self._configs(name))
        return Verdict(self._known[name], SURVIVED, where)

    def _configs(self, name: str) -> list[Config]:
        return [config for config in self.plan.configs if name in self.reached[config.name]]

    def _failed_proof(self, name: str) -> str:
        """The first proof that fails with a mutant."""
        unit, files = self.plan.unit, proofs.files(self.plan.unit)
        if not files:
            return ""
        base = digest("proofs", unit, design_digest(), proofs_digest(files))
        by_itself, mutated = (self._proved(digest(base, mutant), mutant) for mutant in (None, name))
        if by_itself:
            raise UserError(f"the proof {by_itself} of unit {unit} fails without any mutant; repair it first")
        return mutated

    def _proved(self, key: str, mutant: str | None) -> str:
        found = self._results.get(key)
        if found is None:
            found = {"failed": proofs.failed(self.plan.unit, mutant, self._began)}
            self._check_not_stopped()
            self._keep(key, found)
        return str(found["failed"])

    def _is_equivalent(self, name: str, config: Config) -> bool:
        """Whether Yosys shows it."""
        key = digest("equivalence", self._design(config), name, equivalence.PREPARE, equivalence.PROVE)
        found = self._results.get(key)
        if found is None:
            found = {"shown": equivalence.is_equivalent(self.plan.unit, config, name, self._began)}
            self._check_not_stopped()
            self._keep(key, found)
        return bool(found["shown"])

    def _run(self, run: Run) -> Outcome:
        outcome = simulate(run, self._began)
        self._check_not_stopped()
        return outcome

    def _began(self, process: subprocess.Popen[str]) -> None:
        """Remembers a process group, so that it can be ended."""
        with self._guard:
            self._processes = [other for other in self._processes if other.poll() is None]
            self._processes.append(process)
            if self._stopped:
                end(process)

    def _check_not_stopped(self) -> None:
        """Keeps what a process said after it was ended from being taken for a result."""
        if self._stopped:
            raise UserError("the campaign was stopped")

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that each wait for a process; an error or Ctrl-C ends the processes at once."""
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


def identity(name: str) -> str:
    """Short name of a mutant for the command line."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def choose(names: Iterable[str], plan: Plan) -> list[str]:
    """The mutants of a plan: those whose digests with the seed are smallest, so that an edit changes few.

    Raises:
        UserError: one that the plan asks for is not there.
    """
    if not plan.only:
        return sorted(names, key=lambda name: digest(plan.seed, name))[: plan.count]
    by_name = {alias: name for name in names for alias in (name, identity(name))}
    for alias in plan.only:
        if alias not in by_name:
            raise UserError(
                f"unit {plan.unit} has no mutant {alias!r}; take the `id` of one in a new results file"
            )
    return [by_name[alias] for alias in plan.only]


def default_names(unit: str) -> list[str]:
    """Names of a unit's configurations."""
    allowed = default_configs(unit, "verilator")
    return [name for name in (*DEFAULT_CONFIGS, *MORE_CONFIGS.get(unit, ())) if name in allowed]
