"""The unit of codes by value against the model, and what it publishes; the streams are in the testbench."""

from pathlib import Path

import numpy as np
import pytest
from amaranth import Module, Signal

from vrex.hw.dre.codes.codes import CodeSelect
from vrex.hw.dre.codes.scorer import Lane, sum_bits
from vrex.hw.dre.codes.votes import passes
from vrex.hw.dre.codes.weigher import QUOTIENT_BITS, RowDivider
from vrex.hw.lib.stream import delay
from vrex.hw.tools import verilated
from vrex.model.commands import VOTE_ROWS
from vrex.model.config import PRESETS, CodesConfig
from vrex.model.dre import codes, hashing
from vrex.model.dre.codes import Codes
from vrex.model.lib import arith

SEED = 9
BITS = 32


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    """A lane whose query changes with every token: 32 components out of four that are repeated."""
    m = Module()
    m.submodules.lane = lane = Lane(BITS)
    some, code, total = Signal(32, name="some"), Signal(32, name="code"), Signal(16, name="total")
    scale, factor, score = (Signal(16, name=name) for name in ("scale", "factor", "score"))
    late = lane.factor_delay
    m.d.comb += [
        # With the code behind its register.
        lane.components.eq(delay(m, some, 1, "some").replicate(BITS // 4)),
        # One cycle before the sum's register, and with the product that the sum goes into.
        lane.total.eq(delay(m, total, late - 6 - 3, "total")),
        lane.scale.eq(delay(m, scale, late - 6, "scale")),
        lane.factor.eq(delay(m, factor, late, "factor")),
        lane.code.eq(code),
        score.eq(lane.score),
    ]
    return verilated.build(
        m, [some, code, total, scale, factor], [score], tmp_path_factory.mktemp("scorer"), parts=""
    )


def scores_of_lane(
    lane: verilated.Simulation, some: np.ndarray, words: np.ndarray, scales: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """Scores of one token each, BF16 bits; `some` are the four components, int8 [n, 4]."""
    latency = Lane.delays(BITS)[1]
    total = some.sum(axis=1, dtype=np.int64) * (BITS // 4)

    def padded(values: np.ndarray) -> np.ndarray:
        return np.append(values, np.zeros(latency, dtype=values.dtype))

    out = lane(
        some=padded(np.ascontiguousarray(some).view(np.uint32)[:, 0]),
        code=padded(words),
        total=padded((total & 0xFFFF).astype(np.uint16)),
        scale=padded(scales),
        factor=padded(factors),
    )
    return out["score"][latency:].astype(np.uint16)


def scores_of_model(
    some: np.ndarray, words: np.ndarray, scales: np.ndarray, factors: np.ndarray
) -> np.ndarray:
    """The same by the model, a row and a token at a time."""
    components = np.tile(some, (1, BITS // 4))
    signs = np.where(np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little"), 1, -1)
    sums = (components.astype(np.int64) * signs).sum(axis=1).astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return arith.to_bf16(arith.from_bf16(factors) * (arith.from_bf16(scales) * sums))


def quantised_scales(rng: np.random.Generator, n: int) -> np.ndarray:
    """What the quantiser gives: +0, normal numbers, NaN."""
    normal = rng.integers(0x0080, 0x7F80, n).astype(np.uint16)
    special = rng.choice(np.array([0, arith.NAN], dtype=np.uint16), n)
    return np.where(rng.random(n) < 0.02, special, normal)


def test_a_lane_scores_as_the_model(lane: verilated.Simulation) -> None:
    """A million tokens with factors of every class, subnormal, infinite and NaN among them."""
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    n = 1_000_000
    some = rng.integers(-127, 128, (n, 4)).astype(np.int8)
    some[rng.random(n) < 0.05] = 0
    words = rng.integers(0, 1 << 32, n, dtype=np.uint32)
    words[rng.random(n) < 0.1] = 0xFFFFFFFF
    scales, factors = quantised_scales(rng, n), rng.integers(0, 1 << 16, n).astype(np.uint16)
    wanted = scores_of_model(some, words, scales, factors)
    np.testing.assert_array_equal(scores_of_lane(lane, some, words, scales, factors), wanted)
    classes = {arith.NAN: wanted == arith.NAN, "infinite": wanted & 0x7FFF == 0x7F80}
    assert all(hits.any() for hits in classes.values())
    # The transcription above is the model's own.
    k = 300
    past = Codes(words[:k, None], factors[:k])
    own = codes.score(np.tile(some[:k], (1, BITS // 4)), scales[:k], past)
    np.testing.assert_array_equal(own.diagonal(), wanted[:k])


def test_reciprocals_of_sums(tmp_path: Path) -> None:
    """floor(2^40 / sum) for sums at both ends and in between; the divider is started anew every time."""
    bits = 24
    m = Module()
    m.submodules.divider = divider = RowDivider(bits)
    start, total, quotient = Signal(name="start"), Signal(bits, name="total"), Signal(32, name="quotient")
    m.d.comb += [divider.start.eq(start), divider.sum.eq(total), quotient.eq(divider.quotient)]
    run = verilated.build(m, [start, total], [quotient], tmp_path)
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    ends = [1 << 15, (1 << 15) + 1, (1 << 16) - 1, 1 << 16, (1 << bits) - 1, 3 << 20]
    sums = np.concatenate([ends, rng.integers(1 << 15, 1 << bits, 4000)])
    cycles = RowDivider.cycles
    starts = np.zeros(len(sums) * cycles, dtype=np.uint32)
    starts[::cycles] = 1
    got = run(start=starts, total=np.repeat(sums, cycles).astype(np.uint32))["quotient"][cycles::cycles]
    np.testing.assert_array_equal(got, ((1 << codes.RECIPROCAL_BITS) // sums)[:-1])
    assert int(got.max()).bit_length() <= QUOTIENT_BITS


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 44, 255, 256, VOTE_ROWS])
def test_passes_reach_the_largest_vote(rows: int) -> None:
    largest = rows << codes.SHARE_BITS
    assert largest < 4 ** passes(rows) <= 4 * 2 * largest


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("tokens", "rows"), [(1000, 12), (1024, 44)])
def test_a_row_costs_its_words_and_little_more(name: str, tokens: int, rows: int) -> None:
    """The testbench holds the unit to what this function says."""
    config = PRESETS[name]
    unit = config.codes

    def cycles(rows: int) -> int:
        return CodeSelect.cycles(unit, tokens, rows, 64, bus_bits=config.bus_bits)

    words = -(-tokens // unit.lanes) + 64 // unit.lanes
    assert words < (cycles(rows + 3) - cycles(rows)) / 3 < words + 75


def test_words_by_hash_words() -> None:
    """Codes are packed as hashes are: bit i of a token is bit i of its words."""
    raw = np.zeros((1, 64), dtype=bool)
    raw[0, 33] = True
    assert hashing.pack_bits(raw, 64).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lanes": 3}, "codes.lanes must be a power of two from 1 to 64, not 3"),
        ({"tokens": 16}, "codes.tokens must be a power of two from 32 to 32768, not 16"),
        ({"bits": 0}, "codes.bits must be a power of two from 8 to 128, not 0"),
    ],
)
def test_what_is_no_unit(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodesConfig(**fields)


def test_width_of_a_sum() -> None:
    assert [sum_bits(bits) for bits in (8, 64, 128)] == [11, 14, 15]
    assert 1 << sum_bits(128) - 1 > 127 * 128
