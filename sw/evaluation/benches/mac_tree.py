"""The MAC tree in the simulated Verilog against the model: dot products by class of number."""

from collections.abc import Iterator

import numpy as np

from vrex.hw.tools.lxe_parts import SimulatedTree
from vrex.model.config import CHUNK, DpeConfig
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree

MINUS_ZERO = 0x8000_0000
"""FP32 bits: what a dot product has come to before its first chunk."""

BATCH = 50_000
"""Dot products of a class in one run of the simulator."""


def classes(rng: np.random.Generator, n: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Pairs of chunks by class: uint16 [n, CHUNK] each."""

    def bf16(values: np.ndarray) -> np.ndarray:
        return arith.to_bf16(values.astype(np.float32))

    def draw(low: int, high: int) -> np.ndarray:
        sign, low_bits = rng.integers(0, 2, (n, CHUNK)) << 15, rng.integers(0, 128, (n, CHUNK))
        return (sign | rng.integers(low, high, (n, CHUNK)) << 7 | low_bits).astype(np.uint16)

    yield "normal", bf16(rng.standard_normal((n, CHUNK))), bf16(rng.standard_normal((n, CHUNK)))
    yield (
        "heavy",
        bf16(rng.standard_t(2, (n, CHUNK)) * np.exp(3 * rng.standard_normal((n, CHUNK)))),
        draw(110, 140),
    )
    a, b = rng.integers(0, 1 << 16, (2, n, CHUNK)).astype(np.uint16)
    yield "any bits", a, b
    yield "finite", draw(0, 255), draw(0, 255)
    yield "overflow", draw(185, 200), draw(180, 192)
    yield "underflow", draw(0, 70), draw(0, 60)
    yield "subnormal", draw(0, 2), draw(100, 254)
    a, b = draw(120, 130), draw(120, 130)
    swap = rng.permuted(np.arange(CHUNK // 2))
    a[:, CHUNK // 2 :], b[:, CHUNK // 2 :] = a[:, swap] ^ 0x8000, b[:, swap]
    yield "cancellation", a, b
    b = b.copy()
    b[np.arange(n), rng.integers(0, CHUNK, n)] ^= 1
    yield "near cancellation", a, b
    specials = np.array(
        [0, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0x3F80, 0xBF80, 1, 0x7F7F], dtype=np.uint16
    )
    a, b = draw(120, 130), draw(120, 130)
    for x in (a, b):
        where = rng.random((n, CHUNK)) < 0.01
        x[where] = rng.choice(specials, where.sum())
    yield "specials", a, b
    sparse = rng.random((n, CHUNK)) < 0.05
    yield "sparse", np.where(sparse, draw(0, 255), 0).astype(np.uint16), draw(1, 255)


def expected(config: DpeConfig, a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """FP32 bits of the chunks' sums added to the totals."""
    with np.errstate(all="ignore"):
        if config.scheme == "fused":
            chunk = mac_tree.chunk_fused(a.T, b.T, config.fraction_bits)
        else:
            chunk = arith.tree_sum((arith.from_bf16(a) * arith.from_bf16(b)).T.copy())
        result = total.view(np.float32) + chunk
    return np.where(np.isnan(result), np.uint32(0x7FC00000), result.view(np.uint32))


def totals(rng: np.random.Generator, n: int) -> np.ndarray:
    """FP32 bits: none yet, or what came before."""
    values = (rng.standard_normal(n) * 8).astype(np.float32).view(np.uint32)
    return np.where(rng.random(n) < 0.5, np.uint32(MINUS_ZERO), values)


def mismatches(
    tree: SimulatedTree, rng: np.random.Generator, case: tuple[np.ndarray, np.ndarray], *, gaps: bool
) -> int:
    """Dot products that differ, with random cycles between the chunks."""
    (a, b), config = case, tree.config
    n, beats = len(a), CHUNK // config.inputs
    idle = rng.integers(0, 3, n) * rng.integers(0, 2, n) if gaps else np.zeros(n, dtype=np.int64)
    start = np.cumsum(idle) + np.arange(n) * beats
    cycles = int(start[-1]) + beats + tree.latency + 1
    words = config.inputs // 2
    at = (start[:, None] + np.arange(beats)).ravel()
    given = {
        "i_valid": np.zeros(cycles, dtype=np.uint32),
        "total": rng.integers(0, 1 << 32, cycles, dtype=np.uint32),
    }
    given["i_valid"][at] = 1
    for name, x in (("a", a), ("b", b)):
        given[name] = rng.integers(0, 1 << 32, (cycles, words), dtype=np.uint32)
        given[name][at] = np.ascontiguousarray(x).view(np.uint32).reshape(-1, words)
        if words == 1:
            given[name] = given[name][:, 0]
    total = totals(rng, n)
    end = start + beats - 1
    given["total"][end + tree.total_latency] = total
    seen = tree.run(**given)
    np.testing.assert_array_equal(np.flatnonzero(seen["o_valid"]), end + tree.latency)
    return int((seen["o"][end + tree.latency] != expected(config, a, b, total)).sum())


def check(tree: SimulatedTree, dots: int, seed: int) -> dict[str, tuple[int, int]]:
    """Simulates so many dot products of every class, fresh ones in every run of the simulator.

    Returns:
        By class, how many dot products were compared, and how many differ.
    """
    results: dict[str, tuple[int, int]] = {}
    for batch in range(-(-dots // BATCH)):
        rng = np.random.default_rng([seed, batch])
        for name, a, b in classes(rng, min(dots, BATCH)):
            compared, wrong = results.get(name, (0, 0))
            wrong += mismatches(tree, rng, (a, b), gaps=batch % 2 == 0)
            results[name] = compared + len(a), wrong
    return results
