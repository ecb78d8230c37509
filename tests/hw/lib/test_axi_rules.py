"""The rules that proofs use and the monitor of the simulations judge the same traffic alike."""

from random import Random
from types import SimpleNamespace
from typing import Any

from amaranth import Cat, ClockDomain, Module, Signal
from amaranth.sim import Simulator

from tests.hw.lib.axi_rules import CHANNELS, PortRules
from vrex.tb.lib.axi_monitor import PAGE, AxiMonitor
from vrex.tb.lib.streams import StreamError

BEAT_BYTES, IDS, OUTSTANDING, LONGEST = 8, 4, 8, 16
WIDTHS = {
    "addr": 48,
    "len": 8,
    "size": 3,
    "burst": 2,
    "id": 4,
    "cache": 4,
    "prot": 3,
    "data": 4,
    "strb": 8,
    "last": 1,
    "resp": 2,
}
OURS = ("cache", "prot")
"""What the rules hold our master to and the protocol does not."""

Cycle = tuple[dict[str, dict[str, int] | None], dict[str, bool]]
"""Payloads and readies of the channels in a cycle."""


def port() -> Any:
    """Signals of the five channels."""
    return SimpleNamespace(
        **{
            name: SimpleNamespace(
                **{key: Signal(WIDTHS[key], name=f"{name}{key}") for key in fields},
                valid=Signal(name=f"{name}valid"),
                ready=Signal(name=f"{name}ready"),
            )
            for name, fields in CHANNELS.items()
        }
    )


def burst(rng: Random, key: int) -> dict[str, int]:
    """A burst within a page, often up to its end."""
    beats = rng.randint(1, LONGEST)
    first = rng.choice([PAGE // BEAT_BYTES - beats, rng.randrange(PAGE // BEAT_BYTES - beats)])
    address = rng.randrange(8) * PAGE + first * BEAT_BYTES
    return {"addr": address, "len": beats - 1, "size": 3, "burst": 1, "id": key, "cache": 3, "prot": 2}


class Traffic:
    """A master and a memory that keep the rules, each with random stalls."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.ask = {
            "ar": [burst(rng, rng.randrange(IDS)) for _ in range(6)],
            "aw": [burst(rng, 0) for _ in range(5)],
        }
        self.beats = [
            [
                {"data": rng.randrange(16), "strb": 255, "last": int(k == own["len"])}
                for k in range(own["len"] + 1)
            ]
            for own in self.ask["aw"]
        ]
        self.shown: dict[str, dict[str, int]] = {}
        self.reads: dict[int, list[int]] = {}
        self.addressed = self.accepted = self.complete = self.answered = 0

    def next(self, name: str) -> dict[str, int] | None:
        """What a channel may show now."""
        if name in self.ask:
            return self.ask[name].pop(0) if self.ask[name] else None
        if name == "w":
            while self.beats and not self.beats[0]:
                self.beats.pop(0)
            written = 5 - len(self.beats)
            return self.beats[0].pop(0) if self.beats and written < self.addressed else None
        if name == "b":
            waits = min(self.accepted, self.complete) > self.answered
            return {"id": 0, "resp": 0} if waits else None
        open_ids = [key for key, owed in self.reads.items() if owed]
        if not open_ids:
            return None
        key = self.rng.choice(open_ids)
        self.reads[key][0] -= 1
        last = self.reads[key][0] == 0
        if last:
            self.reads[key].pop(0)
        return {"data": 5, "id": key, "resp": 0, "last": int(last)}

    def cycle(self) -> Cycle:
        """One cycle's signals."""
        for name in ("r", "b", "ar", "aw", "w"):
            if name not in self.shown and self.rng.random() < 0.7:
                payload = self.next(name)
                if payload is not None:
                    self.shown[name] = payload
                    self.addressed += name == "aw"
        ready = {name: self.rng.random() < 0.7 for name in CHANNELS}
        shown = {name: self.shown.get(name) for name in CHANNELS}
        for name in [name for name in CHANNELS if name in self.shown and ready[name]]:
            payload = self.shown.pop(name)
            if name == "ar":
                self.reads.setdefault(payload["id"], []).append(payload["len"] + 1)
            self.accepted += name == "aw"
            self.complete += name == "w" and payload["last"]
            self.answered += name == "b"
        return shown, ready


def traffic(rng: Random) -> list[Cycle]:
    """Some bursts of either kind, until all are answered."""
    made = Traffic(rng)
    return [made.cycle() for _ in range(400)]


def changed(cycles: list[Cycle], rng: Random) -> tuple[list[Cycle], str]:
    """The same with one payload or one valid wrong, and what it is."""
    places = [(at, name) for at, (shown, _) in enumerate(cycles) for name in shown if shown[name] is not None]
    at, name = rng.choice(places)
    shown, ready = cycles[at]
    payload = dict(shown[name] or {})
    field = rng.choice(["valid", *(key for key in CHANNELS[name] if key not in OURS)])
    if field == "valid":
        wrong: dict[str, int] | None = None
    else:
        bit = rng.randrange(3 if field == "addr" else 0, 16 if field == "addr" else WIDTHS[field])
        wrong = payload | {field: payload[field] ^ 1 << bit}
    return [*cycles[:at], ({**shown, name: wrong}, ready), *cycles[at + 1 :]], f"{name}{field}"


def monitor_says(cycles: list[Cycle]) -> bool:
    """Whether the monitor lets traffic pass."""
    monitor = AxiMonitor(BEAT_BYTES, LONGEST, early=False)
    try:
        for shown, ready in cycles:
            monitor.end(shown, ready)
    except StreamError:
        return False
    return True


def rules_say(traces: list[list[Cycle]]) -> list[list[str]]:
    """Names of the rules that each trace breaks."""
    m, pins = Module(), port()
    domain: Any = ClockDomain("sync")
    m.domains += domain
    rules = PortRules(m, pins, BEAT_BYTES, IDS, OUTSTANDING, LONGEST)
    every = rules.master | rules.memory
    kept = Signal(len(every))
    m.d.comb += kept.eq(Cat(every.values()))
    found: list[list[str]] = []

    async def play(ctx: Any) -> None:
        for cycles in traces:
            ctx.set(domain.rst, 1)
            await ctx.tick()
            ctx.set(domain.rst, 0)
            broken = 0
            for shown, ready in cycles:
                for name in CHANNELS:
                    channel, payload = getattr(pins, name), shown[name]
                    ctx.set(channel.valid, payload is not None)
                    ctx.set(channel.ready, ready[name])
                    for key, value in (payload or {}).items():
                        ctx.set(getattr(channel, key), value)
                broken |= ~ctx.get(kept) & (1 << len(every)) - 1
                await ctx.tick()
            found.append([name for i, name in enumerate(every) if broken >> i & 1])

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(play)
    simulator.run()
    return found


def test_good_traffic_passes_both() -> None:
    traces = [traffic(Random(seed)) for seed in range(3)]
    assert all(monitor_says(cycles) for cycles in traces)
    assert rules_say(traces) == [[]] * len(traces)


def test_both_see_the_same_faults() -> None:
    rng = Random(7)
    good = [traffic(Random(seed)) for seed in range(3)]
    traces, what = zip(*(changed(rng.choice(good), rng) for _ in range(60)), strict=True)
    broken = rules_say(list(traces))
    for cycles, field, names in zip(traces, what, broken, strict=True):
        assert monitor_says(cycles) == (not names), (field, names)
    assert sum(map(bool, broken)) > 30
    assert len({name for names in broken for name in names}) > 12
