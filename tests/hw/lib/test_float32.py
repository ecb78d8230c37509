"""The floating-point pipelines bit for bit: FP32 against numpy, small formats exhaustively."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amaranth import EnableInserter, Module, Signal

from tests.hw.dre.test_formal import with_bug
from vrex.hw.lib import float32
from vrex.hw.lib.float32 import FP32, Adder, Format, Multiplier, Reciprocal
from vrex.hw.lib.stream import delay
from vrex.hw.tools import verilated
from vrex.model.lib import arith

SEED = 5
VECTORS = 400_000
"""Of each operation, over all classes, in CI."""

SIGN, ONE = 0x8000_0000, 0x3F80_0000
EDGES = np.array(
    [
        *(
            0,
            1,
            2,
            0x7F_FFFF,
            0x80_0000,
            0x80_0001,
            0xFF_FFFF,
            0x100_0000,
            0x1F80_0000,
            0x3380_0000,
            0x33FF_FFFF,
        ),
        *(
            0x3400_0000,
            0x3F00_0000,
            ONE - 1,
            ONE,
            ONE + 1,
            0x3FFF_FFFF,
            0x4000_0000,
            0x4B00_0000,
            0x4B7F_FFFF,
        ),
        *(0x3F80_7FFF, 0x3F80_8000, 0x3F81_8000, 0x5F80_0000, 0x7E80_0000, 0x7EFF_FFFF, 0x7F00_0000),
        *(
            0x7F7F_8000,
            0x7F7F_FFFE,
            0x7F7F_FFFF,
            0x7F80_0000,
            0x7F80_0001,
            0x7FBF_FFFF,
            0x7FC0_0000,
            0x7FFF_FFFF,
        ),
    ],
    dtype=np.uint32,
)
EDGES = np.concatenate([EDGES, EDGES | np.uint32(SIGN)])

Pair = tuple[np.ndarray, np.ndarray]


def number(sign: Any, exponent: Any, fraction: Any) -> np.ndarray:
    """FP32 bits of fields; what does not fit into the exponent is clipped."""
    exponent = np.clip(exponent, 0, 255)
    return (np.asarray(sign) << 31 | exponent << 23 | np.asarray(fraction) & 0x7F_FFFF).astype(np.uint32)


def bits(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 1 << 32, n, dtype=np.uint32)


def fractions(rng: np.random.Generator, n: int) -> np.ndarray:
    """Fractions with long runs of zeros and ones, or with few bits set."""
    run = rng.integers(0, 24, n)
    values = bits(rng, n) & 0x7F_FFFF
    shapes = [values, values >> run, values << run, ~(values >> run), 1 << run, ~(1 << run), (1 << run) - 1]
    return np.choose(rng.integers(0, len(shapes), n), shapes) & 0x7F_FFFF


def signs(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 2, n)


def anything(rng: np.random.Generator, n: int) -> Pair:
    return bits(rng, n), bits(rng, n)


def edges(rng: np.random.Generator, n: int) -> Pair:
    """All pairs of edges, then edges with anything."""
    a, b = (grid.ravel() for grid in np.meshgrid(EDGES, EDGES))
    return np.concatenate([a, rng.choice(EDGES, n)]), np.concatenate([b, bits(rng, n)])


def near(rng: np.random.Generator, n: int) -> Pair:
    """Exponents at most 30 apart."""
    exponent = rng.integers(0, 255, n)
    a = number(signs(rng, n), exponent, fractions(rng, n))
    return a, number(signs(rng, n), exponent + rng.integers(-30, 31, n), fractions(rng, n))


def cancelling(rng: np.random.Generator, n: int) -> Pair:
    """Opposite numbers that differ by a few units in the last place."""
    a = number(signs(rng, n), rng.integers(0, 255, n), fractions(rng, n))
    apart = rng.integers(-4, 5, n) << rng.integers(0, 24, n)
    return a, ((a.astype(np.int64) + apart) & 0x7FFF_FFFF | ~a & SIGN).astype(np.uint32)


def subnormal(rng: np.random.Generator, n: int) -> Pair:
    """A subnormal number and one whose product or sum with it is near the smallest normal one."""
    a = number(signs(rng, n), 0, fractions(rng, n))
    return a, number(signs(rng, n), rng.choice([0, 1, 2, 126, 127, 128, 140, 150, 254], n), fractions(rng, n))


def underflowing(rng: np.random.Generator, n: int) -> Pair:
    """Normal numbers with a product among or just below the subnormal ones."""
    exponent = rng.integers(1, 128, n)
    other = 127 - exponent + rng.integers(-27, 4, n)
    return number(signs(rng, n), exponent, fractions(rng, n)), number(signs(rng, n), other, fractions(rng, n))


def almost_normal(rng: np.random.Generator, n: int) -> Pair:
    """Products within a few units of the smallest normal number, which rounding may reach."""
    exponent = rng.integers(1, 126, n)
    a = number(signs(rng, n), exponent, rng.integers(0, 3, n))
    return a, number(signs(rng, n), 127 - exponent, 0x7F_FFFF - rng.integers(0, 4, n))


def overflowing_sums(rng: np.random.Generator, n: int) -> Pair:
    """Numbers of the three largest exponents."""
    a, b = (number(signs(rng, n), rng.integers(252, 255, n), fractions(rng, n)) for _ in range(2))
    return a, b


def overflowing_products(rng: np.random.Generator, n: int) -> Pair:
    """Products just below or beyond the largest number."""
    exponent = rng.integers(126, 255, n)
    other = 380 - exponent + rng.integers(-2, 3, n)
    return number(signs(rng, n), exponent, fractions(rng, n)), number(signs(rng, n), other, fractions(rng, n))


def halfway_sums(rng: np.random.Generator, n: int) -> Pair:
    """The second operand is half a unit of the first one's last place, or just beside that."""
    exponent = rng.integers(20, 255, n)
    fraction = rng.choice([0, 0, 0, 1, 2, 0x7F_FFFF], n)
    b = number(signs(rng, n), exponent - rng.integers(22, 27, n), fraction)
    return number(signs(rng, n), exponent, fractions(rng, n)), b


def halfway_products(rng: np.random.Generator, n: int) -> Pair:
    """Significands of 12 and 13 bits: products of 25, with the last one often set."""
    a = number(signs(rng, n), rng.integers(60, 190, n), bits(rng, n) >> 9 & 0x7F_F000)
    shift = rng.integers(10, 12, n)
    return a, number(signs(rng, n), rng.integers(1, 190, n), bits(rng, n) >> 9 >> shift << shift)


def special(rng: np.random.Generator, n: int) -> Pair:
    """Zeros, infinities and NaN of all kinds."""
    exponent = rng.choice([0, 255], (2, n))
    fraction = np.where(rng.integers(0, 2, (2, n)), bits(rng, 2 * n).reshape(2, n), 0)
    return tuple(number(signs(rng, n), exponent[i], fraction[i]) for i in range(2))  # type: ignore[return-value]


CLASSES = (
    anything,
    edges,
    near,
    cancelling,
    subnormal,
    underflowing,
    almost_normal,
    overflowing_sums,
    overflowing_products,
    halfway_sums,
    halfway_products,
    special,
)


def canonical(values: np.ndarray) -> np.ndarray:
    """FP32 bits, every NaN as the quiet one."""
    out = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).copy()
    out[(out & 0x7FFF_FFFF) > FP32.infinity] = FP32.nan
    return out


def expected(operation: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, y = a.view(np.float32), b.view(np.float32)
    with np.errstate(all="ignore"):
        return canonical({"sum": np.add, "difference": np.subtract, "product": np.multiply}[operation](x, y))


def unlike(got: np.ndarray, want: np.ndarray, *operands: np.ndarray) -> list[str]:
    """The first results that are wrong."""
    wrong = np.flatnonzero(got != want)[:5]
    return [
        " ".join(f"{int(operand[i]):08x}" for operand in operands) + f" -> {got[i]:08x}, not {want[i]:08x}"
        for i in wrong
    ]


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    """Every unit in FP32, the adder also under an enable."""
    return build_fp32(float32, tmp_path_factory.mktemp("fp32") / "library")


def build_fp32(unit: Any, folder: Any) -> verilated.Simulation:
    folder.mkdir()
    m = Module()
    inputs = {name: Signal(32, name=name) for name in ("a", "b", "count")}
    inputs |= {name: Signal(1, name=name) for name in ("subtract", "valid", "enable", "start")}
    adder, multiplier, stalled, reciprocal = unit.Adder(), unit.Multiplier(), unit.Adder(), unit.Reciprocal()
    m.submodules += [adder, multiplier, EnableInserter(inputs["enable"])(stalled), reciprocal]
    for pipeline in (adder, multiplier, stalled):
        m.d.comb += [pipeline.a.eq(inputs["a"]), pipeline.b.eq(inputs["b"])]
        m.d.comb += pipeline.i_valid.eq(inputs["valid"])
    m.d.comb += [adder.subtract.eq(inputs["subtract"]), stalled.subtract.eq(inputs["subtract"])]
    m.d.comb += [reciprocal.start.eq(inputs["start"]), reciprocal.count.eq(inputs["count"])]
    results = {
        "sum": adder.o,
        "sum_valid": adder.o_valid,
        "product": multiplier.o,
        "product_valid": multiplier.o_valid,
        "stalled": stalled.o,
        "stalled_valid": stalled.o_valid,
        "bf16": delay(m, unit.to_bf16(inputs["a"]), 1),
        "reciprocal": reciprocal.o,
        "reciprocal_valid": reciprocal.valid,
    }
    outputs = [Signal(len(value), name=name) for name, value in results.items()]
    m.d.comb += [port.eq(value) for port, value in zip(outputs, results.values(), strict=True)]
    return verilated.build(m, list(inputs.values()), outputs, folder)


def run(simulation: verilated.Simulation, **values: Any) -> dict[str, np.ndarray]:
    """The simulation with every input that is not named at 0."""
    idle = dict.fromkeys(("a", "b", "count", "subtract", "valid", "enable", "start"), 0)
    return simulation(**idle | values)


def compute(simulation: verilated.Simulation, operation: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One operation a cycle."""
    unit: Any = Multiplier if operation == "product" else Adder
    name = "product" if operation == "product" else "sum"
    a, b = (np.concatenate([x, np.zeros(unit.latency, dtype=np.uint32)]) for x in (a, b))
    return run(simulation, a=a, b=b, subtract=int(operation == "difference"))[name][unit.latency :]


def check(simulation: verilated.Simulation, operation: str, vectors: int, seed: int) -> int:
    """Compares so many vectors, in blocks of all classes; returns how many it were."""
    rng = np.random.default_rng(seed)
    block = min(200_000, -(-vectors // len(CLASSES)))
    done = 0
    while done < vectors:
        for draw in CLASSES:
            a, b = draw(rng, block)
            # Neither operand is special to the class.
            a, b = np.concatenate([a, b]), np.concatenate([b, a])
            wrong = unlike(compute(simulation, operation, a, b), expected(operation, a, b), a, b)
            assert not wrong, f"{operation}, class {draw.__name__}, seed {seed}: {wrong}"
            done += len(a)
    return done


OPERATIONS = ("sum", "difference", "product")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_numpys(operation: str, fp32: verilated.Simulation) -> None:
    assert check(fp32, operation, VECTORS, SEED) >= VECTORS


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_numpys_ten_million_times(operation: str, fp32: verilated.Simulation) -> None:
    assert check(fp32, operation, 10_000_000, SEED + 1) >= 10_000_000


def test_the_classes_reach_what_they_are_for() -> None:
    """Without this a class could miss its corner and nobody would notice."""
    rng = np.random.default_rng(SEED)
    pairs = {draw.__name__: draw(rng, 20_000) for draw in CLASSES}

    def share(name: str, operation: str, low: int, high: int) -> float:
        magnitude = expected(operation, *pairs[name]) & 0x7FFF_FFFF
        return float(np.mean((magnitude >= low) & (magnitude <= high)))

    def halves(name: str, operator: Callable[..., np.ndarray]) -> float:
        """Results exactly between two numbers: float64 holds them without rounding."""
        with np.errstate(all="ignore"):
            exact = operator(*(x.view(np.float32).astype(np.float64) for x in pairs[name]))
        return float(np.mean(exact.view(np.uint64) & (1 << 29) - 1 == 1 << 28))

    assert 0.01 < share("cancelling", "sum", 0, 0) < 0.5
    assert share("subnormal", "product", 1, 0x7F_FFFF) > 0.05
    assert share("subnormal", "sum", 1, 0x7F_FFFF) > 0.05
    assert 0.5 < share("underflowing", "product", 1, 0x7F_FFFF) < 0.95
    assert share("almost_normal", "product", 0x80_0000, 0x80_0000) > 0.1
    assert 0.1 < share("overflowing_sums", "sum", FP32.infinity, FP32.infinity) < 0.9
    assert 0.1 < share("overflowing_products", "product", FP32.infinity, FP32.infinity) < 0.9
    assert share("special", "product", FP32.nan, FP32.nan) > 0.1
    assert halves("halfway_sums", np.add) > 0.05
    assert halves("halfway_products", np.multiply) > 0.1


def test_valid_follows_through_the_pipelines(fp32: verilated.Simulation) -> None:
    rng = np.random.default_rng(SEED)
    valid = rng.integers(0, 2, 1000)
    seen = run(fp32, valid=valid)
    for name, unit in (("sum", Adder), ("product", Multiplier)):
        assert np.array_equal(seen[f"{name}_valid"][unit.latency :], valid[: -unit.latency])
        assert not seen[f"{name}_valid"][: unit.latency].any()


def test_a_pipeline_can_be_stalled(fp32: verilated.Simulation) -> None:
    rng = np.random.default_rng(SEED)
    n = 5000
    (a, b), enable, valid = near(rng, n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    seen = run(fp32, a=a, b=b, enable=enable, valid=valid)
    moved = np.flatnonzero(enable)
    valid_out, out = seen["stalled_valid"][moved], seen["stalled"][moved]
    late = Adder.latency
    assert np.array_equal(valid_out[late:], valid[moved][:-late])
    assert np.array_equal(out[late:], expected("sum", a[moved], b[moved])[:-late])


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_to_bf16(first: int, fp32: verilated.Simulation) -> None:
    """Every upper half with the lower halves that decide; slow: every 101st number of all."""
    if first:
        values = np.arange(first, 1 << 32, 101, dtype=np.uint32)
    else:
        low = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
        values = (np.arange(1 << 16)[:, None] << 16 | low).ravel().astype(np.uint32)
    for block in np.array_split(values, -(-len(values) // 1_000_000)):
        got = run(fp32, a=np.append(block, np.uint32(0)))["bf16"][1:]
        assert not unlike(got, arith.to_bf16(block.view(np.float32)), block)


def test_every_reciprocal(fp32: verilated.Simulation) -> None:
    """All counts, each started as soon as the one before is valid."""
    counts = np.arange(1, 1 << 16)
    cycle = np.arange(len(counts) * Reciprocal.cycles + 1)
    start = cycle % Reciprocal.cycles == 0
    count = np.append(np.repeat(counts, Reciprocal.cycles), 1)
    # The count matters only at the start.
    count[~start] = np.random.default_rng(SEED).integers(0, 1 << 16, (~start).sum())
    seen = run(fp32, start=start, count=count)
    at = (np.arange(len(counts)) + 1) * Reciprocal.cycles
    assert seen["reciprocal_valid"][at].all()
    assert not seen["reciprocal_valid"][at - 1].any()
    want = (np.float32(1) / counts.astype(np.float32)).view(np.uint32)
    assert not unlike(seen["reciprocal"][at], want, counts)


def test_a_reciprocal_stays_and_can_be_dropped(fp32: verilated.Simulation) -> None:
    start, count = np.zeros(200, dtype=np.uint32), np.full(200, 9)
    start[[5, 12, 100, 101]] = 1
    count[[5, 12, 100, 101]] = 3, 7, 65_535, 10
    seen = run(fp32, start=start, count=count)
    cycles = Reciprocal.cycles
    for begin, end, n in ((12, 100, 7), (101, 200, 10)):
        want = np.float32(1 / n).view(np.uint32)
        assert not seen["reciprocal_valid"][begin + 1 : begin + cycles].any()
        assert seen["reciprocal_valid"][begin + cycles : end + 1].all()
        assert (seen["reciprocal"][begin + cycles : end + 1] == want).all()


SMALL = (Format(2, 2), Format(3, 4), Format(4, 3), Format(5, 2), Format(2, 5))


def numbers(form: Format) -> np.ndarray:
    """Value of every bit pattern of a small format, by the definition of the format: float64 [2^bits]."""
    pattern = np.arange(1 << form.bits)
    fraction, exponent = pattern % (1 << form.fraction), pattern >> form.fraction & (1 << form.exponent) - 1
    significand = fraction + np.where(exponent > 0, 1 << form.fraction, 0)
    value = significand * 2.0 ** (np.maximum(exponent, 1) - form.bias - form.fraction)
    value[exponent == (1 << form.exponent) - 1] = np.inf
    value[(exponent == (1 << form.exponent) - 1) & (fraction > 0)] = np.nan
    return np.where(pattern >> form.bits - 1, -value, value)


def nearest(form: Format, exact: np.ndarray) -> np.ndarray:
    """Bits of the nearest number of a format, found in the table of them all; ties to the even pattern."""
    table = numbers(form)[: form.infinity]
    # Where the next number would be, if the range did not end there.
    table = np.append(table, 2 * table[-1] - table[-2])
    magnitude = np.minimum(np.abs(exact), table[-1])
    above = np.clip(np.searchsorted(table, magnitude), 1, len(table) - 1)
    middle = (table[above - 1] + table[above]) / 2
    up = (magnitude > middle) | ((magnitude == middle) & (above % 2 == 0))
    pattern = np.where(up, above, above - 1) | np.signbit(exact) << form.bits - 1
    return np.where(np.isnan(exact), form.nan, pattern)


def test_the_table_is_bf16_in_that_format() -> None:
    form = Format(8, 7)
    values = bits(np.random.default_rng(SEED), 100_000)
    with np.errstate(invalid="ignore"):
        exact = values.view(np.float32).astype(np.float64)
    assert np.array_equal(nearest(form, exact), arith.to_bf16(values.view(np.float32)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    """Adder and both multipliers in all the small formats; the product of two significands of BF16."""
    m = Module()
    a, b, subtract = Signal(32, name="a"), Signal(32, name="b"), Signal(name="subtract")
    outputs = []
    for i, form in enumerate(SMALL):
        adder, multiplier, normal = Adder(form), Multiplier(form), Multiplier(form, normal=True)
        narrow = Multiplier(form, normal=True, zeros=1)
        m.submodules += [adder, multiplier, normal, narrow]
        m.d.comb += adder.subtract.eq(subtract)
        for unit, name in ((adder, "sum"), (multiplier, "product"), (normal, "normal"), (narrow, "narrow")):
            port = Signal(form.bits, name=f"{name}{i}")
            outputs.append(port)
            m.d.comb += [unit.a.eq(a), unit.b.eq(b), port.eq(unit.o)]
    outputs.append(Signal(16, name="exact"))
    m.d.comb += outputs[-1].eq(float32.split_product(m, a[:8], b[:8]))
    return verilated.build(m, [a, b, subtract], outputs, tmp_path_factory.mktemp("small"))


def test_all_products_of_the_significands_of_bf16(small: verilated.Simulation) -> None:
    a, b = (grid.ravel() for grid in np.meshgrid(*[np.arange(1 << 8)] * 2))
    late = [np.append(x, [0, 0]) for x in (a, b)]
    assert np.array_equal(small(a=late[0], b=late[1], subtract=0)["exact"][2:], a * b)


OPERATORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sum": np.add,
    "difference": np.subtract,
    "product": np.multiply,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("index", range(len(SMALL)))
def test_all_pairs_of_a_small_format(index: int, operation: str, small: verilated.Simulation) -> None:
    form = SMALL[index]
    a, b = (grid.ravel() for grid in np.meshgrid(*[np.arange(1 << form.bits)] * 2))
    values = numbers(form)
    with np.errstate(invalid="ignore"):
        want = nearest(form, OPERATORS[operation](values[a], values[b]))
    unit: Any = Multiplier if operation == "product" else Adder
    name = "product" if operation == "product" else "sum"
    late = [np.append(x, np.zeros(unit.latency, dtype=x.dtype)) for x in (a, b)]
    seen = small(a=late[0], b=late[1], subtract=int(operation == "difference"))[f"{name}{index}"]
    assert len(a) == 1 << 2 * form.bits
    assert not unlike(seen[unit.latency :], want, a, b)


@pytest.mark.parametrize("index", range(len(SMALL)))
def test_all_products_with_a_factor_that_is_not_subnormal(index: int, small: verilated.Simulation) -> None:
    form = SMALL[index]
    factors = np.arange(1 << form.bits)
    magnitudes = factors & (1 << form.bits - 1) - 1
    factors = factors[(magnitudes == 0) | (magnitudes >> form.fraction != 0)]
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(1 << form.bits), factors))
    values = numbers(form)
    with np.errstate(invalid="ignore"):
        want = nearest(form, values[a] * values[b])
    late = [np.append(x, np.zeros(Multiplier.latency, dtype=x.dtype)) for x in (a, b)]
    seen = small(a=late[0], b=late[1], subtract=0)
    assert not unlike(seen[f"normal{index}"][Multiplier.latency :], want, a, b)
    even = a & 1 == 0
    assert not unlike(seen[f"narrow{index}"][Multiplier.latency :][even], want[even], a[even], b[even])


BUGS = (
    ("exponent.all(), form.infinity, rounded)", "exponent[1:].all(), form.infinity, rounded)"),
    ("sign=step.sign & ~(zero & step.subtract)", "sign=step.sign"),
    ("large.fraction.any()) | (both & subtract)", "large.fraction.any()) | both"),
    ("rest=total[:3].any()", "rest=total[1:3].any()"),
    ("left = ~top & step.positive", "left = ~top"),
    ("below | product[low - 1])", "below)"),
    ("exponent = step.exponent + (top & ~step.small)", "exponent = step.exponent + top"),
    ("nan=step.nan | (step.zero & step.infinite)", "nan=step.nan"),
    ("Cat(step.exponent == distance for", "Cat(step.exponent == distance + 1 for"),
)


@pytest.mark.slow
def test_bugs_in_the_pipelines_are_seen(tmp_path: Path) -> None:
    """Each bug changes sums or products of the format of 8 bits."""
    m = Module()
    a, b = Signal(32, name="a"), Signal(32, name="b")
    outputs = []
    for i, (good, bad) in enumerate(BUGS):
        changed = with_bug(float32, good, bad)
        for unit, name in ((changed.Adder, "sum"), (changed.Multiplier, "product")):
            pipeline, port = unit(changed.Format(3, 4)), Signal(8, name=f"{name}{i}")
            m.submodules += pipeline
            m.d.comb += [pipeline.a.eq(a), pipeline.b.eq(b), port.eq(pipeline.o)]
            outputs.append(port)
    simulation = verilated.build(m, [a, b], outputs, tmp_path)
    patterns = [grid.ravel() for grid in np.meshgrid(*[np.arange(1 << 8)] * 2)]
    x, y = (numbers(Format(3, 4))[pattern] for pattern in patterns)
    late = [np.append(pattern, [0] * Adder.latency) for pattern in patterns]
    seen = {name: values[Adder.latency :] for name, values in simulation(a=late[0], b=late[1]).items()}
    with np.errstate(invalid="ignore"):
        want = {"sum": nearest(Format(3, 4), x + y), "product": nearest(Format(3, 4), x * y)}
    for i, (_, bad) in enumerate(BUGS):
        assert any((seen[f"{name}{i}"] != values).any() for name, values in want.items()), bad
