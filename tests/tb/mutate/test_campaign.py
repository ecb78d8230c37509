"""A campaign: a few real mutants, what is kept when it is stopped, and the list of equivalent ones."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.tb.configs import CONFIGS
from vrex.tb.mutate import campaign, design, kept, proofs
from vrex.tb.mutate.campaign import Campaign, Plan, identity
from vrex.tb.mutate.simulate import Outcome, Run
from vrex.tb.regress import UNITS

ROOT = Path(__file__).parents[3]
TINY = (CONFIGS["tiny"],)

FIXED = {
    "hcu": (
        "dre/hcu.py Hcu._registers drop: self.opened.eq(0)",
        "dre/hcu.py _nearer swap: right.distance < left.distance",
        "dre/hcu.py FounderQueue.elaborate left: ~same_word | ~space",
        "dre/hcu.py FounderQueue.elaborate drop: beat.eq(0)",
    ),
    "registers": (
        "core/registers.py CoreRegisters._access left: closed & works",
        "core/registers.py CoreRegisters._write invert: ~cleared",
        "core/registers.py CoreRegisters._control drop: self.enable.eq(0)",
        "core/registers.py CoreRegisters._count drop: cycles.eq(cycles + 1)",
    ),
    "front": (
        "core/front.py Front.elaborate invert: ~self.full",
        "core/front.py Front._rings right: self.job_head & mask",
        "core/front.py Front._take drop: self.entry.status.eq(status)",
        "core/front.py Front._write swap: self.sent == self.end_beats - 1",
    ),
    "mean": (
        "dre/mean.py Lane.elaborate constant: total.subtract.eq(0)",
        "dre/mean.py Mean.elaborate more: self.left == 1",
        "dre/mean.py Mean._room drop: self.due.eq(self.due - 1)",
        "dre/mean.py Mean._take right: self.copying & self.room",
    ),
    "quant": (
        "dre/quant.py Lane.elaborate left: rest | kept[:point - 1].any() | kept[point]",
        "dre/quant.py Quant._take drop: self.largest.eq(largest)",
        "dre/quant.py Quant._scale left: bad | ~normal",
        "dre/quant.py Quant._control stay: m.next = 'FLUSH'",
    ),
}
"""Mutants that every change of a unit's bench has to see."""


SLOW = ("mean", "registers")
"""Units left to the slow tests: each costs half a minute, most of it for its simulator."""


@pytest.mark.parametrize(
    "unit", [pytest.param(unit, marks=pytest.mark.slow if unit in SLOW else ()) for unit in FIXED]
)
def test_the_benches_see_a_fixed_set_of_mutants(unit: str, tmp_path: Path) -> None:
    plan = Plan(unit, TINY, 1, effort=0.1, output=tmp_path, judge=False, only=FIXED[unit])
    (tmp_path / "cache").symlink_to(_cache())
    verdicts = Campaign(plan).run()
    assert {verdict.mutant.name: verdict.verdict for verdict in verdicts} == dict.fromkeys(
        FIXED[unit], "killed"
    )
    assert all(verdict.message for verdict in verdicts)


def _cache() -> Path:
    """Where the benches' simulators stay from one run to the next."""
    folder = ROOT / "build" / "regress" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- with a bench that is only pretended -----------------------------------------------------------------


@dataclass
class Bench:
    """Answers in place of simulator, proofs and Yosys."""

    reached: list[str]
    runs: list[int] = field(default_factory=list)
    stop_at: int | None = None
    broken: bool = False
    proof: Callable[[str | None], str] = lambda mutant: ""

    def simulate(self, run: Run, began: Any) -> Outcome:
        if self.stop_at is not None and len(self.runs) == self.stop_at:
            raise KeyboardInterrupt
        self.runs.append(run.number)
        if run.number == 0:
            return Outcome({"sizes": 100}, "sizes" if self.broken else "", "no")
        # Every third survives.
        return Outcome({}, "", "") if run.number % 3 == 0 else Outcome({}, "sizes", "word 0 is wrong")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    pretended = Bench(list(design.mutants("mean"))[:9])
    monkeypatch.setattr(design, "make", lambda *_, **__: design.Design("module", pretended.reached))
    monkeypatch.setattr(campaign.build, "build", lambda *_: Path("simulator"))
    monkeypatch.setattr(campaign, "simulate", pretended.simulate)
    monkeypatch.setattr(campaign.proofs, "failed", lambda unit, mutant, began: pretended.proof(mutant))
    monkeypatch.setattr(campaign.equivalence, "is_equivalent", lambda *_: False)
    return pretended


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    empty = tmp_path / "kept.toml"
    empty.write_text("")
    return Plan("mean", TINY, 9, output=tmp_path / "out", jobs=1, listed=empty)


def test_every_mutant_gets_a_verdict_and_nothing_runs_twice(bench: Bench, plan: Plan) -> None:
    told: list[tuple[int, int, str]] = []
    runner = Campaign(plan, lambda *news: told.append(news))
    verdicts = runner.run()
    assert len(verdicts) == 9
    assert [verdict.verdict for verdict in verdicts].count("survived") == 3
    assert told[-1] == (9, 9, "judging survivors")
    assert sorted(bench.runs) == list(range(10))
    bench.runs.clear()
    assert Campaign(plan).run() == verdicts
    assert bench.runs == []


def test_a_stopped_campaign_goes_on_where_it_was(bench: Bench, plan: Plan) -> None:
    bench.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        Campaign(plan).run()
    assert bench.runs == [0, 1, 2, 3, 4]
    bench.stop_at = None
    stopped, bench.runs = bench.runs, []
    verdicts = Campaign(plan).run()
    assert len(verdicts) == 9
    assert set(stopped).isdisjoint(bench.runs)
    assert len(stopped) + len(bench.runs) == 10


def test_a_damaged_result_is_made_again(bench: Bench, plan: Plan) -> None:
    verdicts = Campaign(plan).run()
    files = sorted((plan.output / "results").iterdir())
    files[0].write_text(files[0].read_text()[:10])
    files[1].write_bytes(b"\xff\xfe")
    files[2].write_text(files[3].read_text())
    assert Campaign(plan).run() == verdicts


def test_another_bench_runs_everything_anew(
    bench: Bench, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    Campaign(plan).run()
    bench.runs.clear()
    monkeypatch.setattr(campaign, "bench_digest", lambda unit: "another")
    Campaign(plan).run()
    assert sorted(bench.runs) == list(range(10))


CHANGED = "hcu.py changed while the campaign ran; what was decided before is kept, so run the same command"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of every bench."""
    path = tmp_path / "hcu.py"
    path.write_text("a = 1\n")
    monkeypatch.setattr(campaign, "bench_files", lambda unit: [path])
    return path


@pytest.mark.parametrize("gone", [False, True])
def test_a_source_that_changes_ends_the_campaign(
    bench: Bench, plan: Plan, source: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    def simulate(run: Run, began: Any) -> Outcome:
        if run.number == 4:
            source.unlink() if gone else source.write_text("a = 11\n")
        return bench.simulate(run, began)

    with monkeypatch.context() as patch:
        patch.setattr(campaign, "simulate", simulate)
        with pytest.raises(UserError, match=CHANGED):
            Campaign(plan).run()
    source.write_text("a = 1\n")
    bench.runs = []
    Campaign(plan).run()
    # What ran when the source changed is of no one design, so it runs again.
    assert sorted(bench.runs) == [4, 5, 6, 7, 8, 9]


def test_a_mutant_that_a_change_brings_is_no_key_error(
    bench: Bench, plan: Plan, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: Any, **__: Any) -> design.Design:
        source.write_text("a = 11\n")
        return design.Design("module", ["dre/mean.py Mean.elaborate drop: new"])

    monkeypatch.setattr(design, "make", make)
    with pytest.raises(UserError, match=CHANGED):
        Campaign(plan).run()
    assert bench.runs == []


def test_a_bench_whose_cases_change_says_so(
    bench: Bench, plan: Plan, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate(run: Run, began: Any) -> Outcome:
        source.write_text("a = 11\n")
        raise UserError("the simulation of unit mean with mutant 1 failed (KeyError: 'new')")

    monkeypatch.setattr(campaign, "simulate", simulate)
    with pytest.raises(UserError, match=CHANGED):
        Campaign(plan).run()


def test_a_bench_that_fails_without_a_mutant_is_said_so(bench: Bench, plan: Plan) -> None:
    bench.broken = True
    with pytest.raises(UserError, match=r"the bench of unit mean fails without any mutant .*case sizes: no"):
        Campaign(plan).run()


def test_proofs_and_yosys_judge_what_survives(
    bench: Bench, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    survivors = [v.mutant.name for v in Campaign(replace(plan, judge=False)).run() if v.verdict == "survived"]
    bench.proof = lambda mutant: "test_mean" if mutant == survivors[0] else ""
    monkeypatch.setattr(
        campaign.equivalence, "is_equivalent", lambda unit, config, name, began: name == survivors[1]
    )
    verdicts = {verdict.mutant.name: verdict for verdict in Campaign(plan).run()}
    assert [verdicts[name].verdict for name in survivors] == ["killed", "equivalent", "survived"]
    assert verdicts[survivors[0]].by == "test_mean"


def test_a_mutant_alone(bench: Bench, plan: Plan) -> None:
    name = bench.reached[4]
    (verdict,) = Campaign(replace(plan, only=(identity(name),))).run()
    assert verdict.mutant.name == name
    with pytest.raises(UserError, match="unit mean has no mutant 'ffffffff'; take the `id` of one"):
        Campaign(replace(plan, only=("ffffffff",))).run()


def test_the_same_seed_draws_nearly_the_same_after_an_edit(plan: Plan) -> None:
    names = [f"mutant {i}" for i in range(500)]
    some = replace(plan, count=40)
    before, after = campaign.choose(names, some), campaign.choose(names[:250] + names[260:], some)
    assert len(set(before) & set(after)) >= 36
    assert len(set(before) & set(campaign.choose(names, replace(some, seed=2)))) < 20


# -- the list of equivalent ones -------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_every_kept_mutant_is_there(unit: str) -> None:
    kept.of(unit, design.mutants(unit), kept.PATH)


def test_a_kept_mutant_is_not_run(bench: Bench, plan: Plan) -> None:
    _keep(plan.listed, "mean", bench.reached[0], "Nobody reads it.")
    verdicts = {verdict.mutant.name: verdict for verdict in Campaign(plan).run()}
    assert verdicts[bench.reached[0]].verdict == "equivalent"
    assert verdicts[bench.reached[0]].message == "Nobody reads it."
    assert len(bench.runs) == 9


def _keep(path: Path, unit: str, mutant: str, why: str) -> None:
    path.write_text(f'[[equivalent]]\nunit = "{unit}"\nmutant = "{mutant}"\nwhy = "{why}"\n')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "kept.toml keeps a mutant of unit mean that no longer exists, 'gone'; take the entry out"),
        ("[[equivalent]\n", "kept.toml can't be read"),
        ("\xff", "kept.toml can't be read"),
        ('[[equivalent]]\nunit = "mean"\n', "an entry needs unit, mutant and why"),
        ('[[equivalent]]\nunit = "mean"\nmutant = "m"\nwhy = " "\n', "an entry needs unit, mutant and why"),
        ('[[equivalent]]\nunit = "x"\nmutant = "m"\nwhy = "w"\n', "unknown unit 'x'; choose one of hcu, "),
        ('equivalent = "all"\n', "an entry needs unit, mutant and why"),
    ],
)
def test_a_wrong_list_is_said_so(bench: Bench, plan: Plan, content: str | None, says: str) -> None:
    if content is None:
        _keep(plan.listed, "mean", "gone", "Nobody reads it.")
    else:
        plan.listed.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=says):
        Campaign(plan).run()
    assert bench.runs == []


# -- which configurations and sources are whose ---------------------------------------------------------


def test_every_unit_has_sources_and_every_source_a_unit() -> None:
    assert set(design.OWN) == set(UNITS)
    owned = {file for unit in UNITS for file in design.sources(unit)}
    hardware = {
        source.relative_to(ROOT / "hw").as_posix()
        for folder in ("core", "dre", "lib", "lxe")
        for source in (ROOT / "hw" / folder).rglob("*.py")
        if source.name != "__init__.py"
    }
    # tests/hw/core/test_top.py, and the proofs of tests/hw/lib/test_formal_top.py, hold these to the model.
    shared = ("layout", "instance", "axi/decoder", "axi/slice")
    assert hardware - owned == {*(f"lib/{part}.py" for part in shared), "core/top.py"}


def test_every_unit_has_configurations() -> None:
    names = {unit: campaign.default_names(unit) for unit in UNITS}
    assert names.pop("core") == ["mini"]
    assert all(found[:2] == ["tiny", "lane1"] for found in names.values())
    assert names["kvpu"] == ["tiny", "lane1"]
    assert names["vpe"] == ["tiny", "lane1", "lane2", "wide", "edge"]


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_has_enough_mutants(unit: str) -> None:
    assert len(design.mutants(unit)) >= 40


def test_the_proofs_are_there() -> None:
    for tests in proofs.PROOFS.values():
        for test in tests:
            file, _, name = test.partition("::")
            assert f"\ndef {name}(" in (ROOT / file).read_text()
