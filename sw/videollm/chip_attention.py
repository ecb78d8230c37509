"""Attention on a core: tile by tile with an online softmax, so that no number of tokens is too large.

Of each row the program keeps the largest score so far, the sum of the powers relative to it, and their sum
weighted by the values. A tile that raises the largest score scales both sums down.
"""

from dataclasses import dataclass, replace

import numpy as np

from vrex.model.core.instructions import Condition, Function, Port
from vrex.model.core.program import Address, CoreProgram, Label, Register
from vrex.model.lib import arith
from vrex.model.lxe import vpe
from vrex.model.lxe.program import Tensor
from vrex.sw.videollm.chip_job import Parameters
from vrex.sw.videollm.chip_layout import ChipLayout

Code = vpe.Function

RESIDENT_TOKENS = 128
"""Most tokens of sinks and window in a tile."""

MEMORY_SHARE = 3
"""A tile takes at most so much of the LXE's memory, as a divisor."""


@dataclass(frozen=True)
class Tile:
    """Space for a tile of tokens that no other tensor shares.

    Attributes:
        tokens: a power of two.
        scores: FP32 [query heads of a KV head * rows, tokens]. Behind a tile that is not full it holds the
            scores of
            earlier ones, so that powers of all of it can be taken at once.
    """

    tokens: int
    scores: Tensor


def make_tile(p: CoreProgram, layout: ChipLayout, rows: int, most: int) -> Tile:
    """Allocates a tile, nothing but zeros.

    Args:
        p: to append to.
        layout: of memory.
        rows: of a chunk.
        most: tokens, if the LXE's memory allows.

    Raises:
        ValueError: the LXE's memory is too small.
    """
    dim, count = layout.shape.text.head_dim, layout.shape.group * rows
    tokens = 1 << (most.bit_length() - 1)

    def lines() -> int:
        scores = p.row_lines(tokens, bf16=False) + p.row_lines(tokens)
        each = scores + 3 * p.row_lines(1, bf16=False) + p.row_lines(dim, bf16=False)
        return tokens * p.row_lines(2 * dim) + count * each

    while tokens > 1 and lines() > p.free // MEMORY_SHARE:
        tokens //= 2
    scores = p.tensor(count, tokens, bf16=False)
    # All of its lines: the memory starts with anything.
    padded = replace(scores, length=scores.stride * p.config.dpe.inputs // 2)
    p.load(np.zeros((count, padded.length), dtype=np.float32), padded)
    return Tile(tokens, scores)


@dataclass(frozen=True)
class _Sums:
    """What is kept of a KV head's rows, all FP32.

    Attributes:
        top: largest score [rows, 1].
        total: sum of e^(scale * (score - top)) [rows, 1].
        values: the same, weighted by the tokens' values [rows, head_dim].
    """

    top: Tensor
    total: Tensor
    values: Tensor


def ones(tiles: tuple[Tile, Tile], rows: int) -> np.ndarray:
    """BF16 bits of as many ones as the largest tile, or a chunk, has tokens, uint16 [n, 1]."""
    return arith.to_bf16(np.ones((max(rows, *(tile.tokens for tile in tiles)), 1), dtype=np.float32))


class Attention:
    """A layer's attention: `own`, then `resident` and `delivered` of each KV head, and `finish`."""

    def __init__(
        self,
        p: CoreProgram,
        layout: ChipLayout,
        queries: Tensor,
        kv: Tensor,
        causal: Tensor | None,
        tiles: tuple[Tile, Tile],
    ) -> None:
        """Allocates what is kept.

        Args:
            p: to append to.
            layout: of memory.
            queries: BF16 [query heads * rows, head_dim], head by head.
            kv: the chunk's keys and values, BF16 [rows, KV heads * (key, value)].
            causal: BF16 [rows, rows], -inf where a row must not see a token of the chunk; None for one row.
            tiles: for sinks and window, and for what is delivered.

        Raises:
            ValueError: the LXE's memory is too small.
        """
        self._p, self._layout, self._kv, self._causal = p, layout, kv, causal
        text, shape = layout.shape.text, layout.shape
        self._dim, self._rows, self._group = text.head_dim, kv.rows, shape.group
        count = self._group * self._rows
        self._queries = [queries.part(head * count, count) for head in range(text.kv_heads)]
        self._sums = [
            _Sums(p.tensor(count, 1, False), p.tensor(count, 1, False), p.tensor(count, self._dim, False))
            for _ in range(text.kv_heads)
        ]
        self._resident, self._delivered = tiles
        # Sums of rows are products with ones: the trees take a fraction of the time of the vector engine.
        self._ones = p.load(ones(tiles, self._rows))
        scale = np.array([[np.float32(self._dim**-0.5)]], dtype=np.float32)
        self._scale, self._minus_scale = p.load(scale), p.load(-scale)

    def own(self) -> None:
        """The chunk itself, in all KV heads."""
        for head in range(len(self._queries)):
            key, value = (
                self._p.columns(self._kv, (2 * head + part) * self._dim, self._dim) for part in range(2)
            )
            self._first(head, key, value)

    def resident(self, head: int) -> None:
        """Sinks and window."""
        p, par, shape, state = self._p, Parameters, self._layout.shape, self._layout.state
        size = self._layout.shape.config.kvmu.token_bytes
        rows = {"bytes": size, "pitch": shape.token_bytes}
        sinks, ring = (Address(state[name] + head * size, pages=par.state) for name in ("sinks", "ring"))
        tile = self._resident
        tokens = tile.tokens
        with p.registers(5) as [sinks_left, left, n, some, place]:
            p.set(sinks_left, par.sinks)
            p.set(left, par.window)
            p.compute(Function.ADD, n, sinks_left, left)
            with p.unless_zero(n), p.while_nonzero(n):
                p.compute(Function.MIN, n, sinks_left, tokens)
                p.compute(Function.SUB, place, par.sinks, sinks_left)
                p.move(Port.MEMORY, Port.LXE, sinks, rows=n, first=place, **rows)
                p.compute(Function.SUB, sinks_left, sinks_left, n)
                p.set(some, tokens)
                p.compute(Function.SUB, some, some, n)
                p.compute(Function.MIN, some, some, left)
                p.compute(Function.ADD, place, par.window_first, par.window)
                p.compute(Function.SUB, place, place, left)
                p.move(
                    Port.MEMORY, Port.LXE, ring, rows=some, first=place, mask=shape.ring_tokens - 1, **rows
                )
                p.compute(Function.SUB, left, left, some)
                p.compute(Function.ADD, n, n, some)
                self._tile(head, tile, n, some)
                p.compute(Function.ADD, n, sinks_left, left)

    def delivered(self, head: int, counted: Register) -> None:
        """What the oldest FETCH delivers; `counted` is the number of tokens then."""
        p, tile = self._p, self._delivered
        size = p.config.kvmu.token_bytes
        p.set(counted, 0)
        with p.registers(2) as [n, lines]:
            begin, behind = p.label(), Label()
            p.tokens(n, tile.tokens)
            p.branch(behind, Condition.ZERO, n)
            p.compute(Function.ADD, counted, counted, n)
            p.move(Port.KV, Port.LXE, bytes=size, rows=n)
            self._tile(head, tile, n, lines)
            p.branch(begin)
            p.place(behind)

    def finish(self, head: int, targets: list[Tensor]) -> None:
        """Divides by the sums: one BF16 tensor [rows, head_dim] for each query head."""
        p, sums = self._p, self._sums[head]
        p.vector(Code.RECIP, sums.total, sums.total, whole=True)
        for g, target in enumerate(targets):
            first = g * self._rows
            factor = sums.total.part(first, self._rows)
            p.vector(Code.MUL, target, sums.values.part(first, self._rows), b=factor)

    def _tile(self, head: int, tile: Tile, n: Register, lines: Register) -> None:
        """Takes n tokens of a tile, whose move is under way, and attends to them."""
        p, row = self._p, 2 * self._dim // self._p.config.dpe.inputs
        p.multiply(lines, n, row)
        with p.scratch():
            both = p.tensor(tile.tokens, 2 * self._dim)
            with p.variable({"rows": n, "beats": lines}):
                p.receive(both)
            key, value = (p.columns(both, part * self._dim, self._dim) for part in range(2))
            self._next(head, tile.scores, key, value, n)

    def _powers(self, scores: Tensor, top: Tensor, shift: Tensor, n: Register | None) -> Tensor:
        """E^(scale * (score - top)), BF16; `shift` becomes -scale * top."""
        p = self._p
        p.vector(Code.MUL, shift, top, b=self._minus_scale, whole=True)
        with p.variable({} if n is None else {"length": n}):
            p.vector(Code.FMA, scores, scores, b=self._scale, c=shift)
        return p.vector(Code.EXP, p.tensor(scores.rows, scores.length), scores, whole=True)

    def _first(self, head: int, key: Tensor, value: Tensor) -> None:
        """The first tile: the chunk itself, of which no row sees those behind it."""
        p, queries, sums = self._p, self._queries[head], self._sums[head]
        with p.scratch():
            scores = p.gemm(queries, key, p.tensor(queries.rows, key.rows, bf16=False))
            if self._causal is not None:
                for first in range(0, queries.rows, self._rows):
                    part = scores.part(first, self._rows)
                    p.vector(Code.ADD, part, part, c=self._causal)
            p.vector(Code.RMAX, sums.top, scores)
            powers = self._powers(scores, sums.top, p.tensor(queries.rows, 1, bf16=False), None)
            p.gemm(powers, self._ones.part(0, key.rows), sums.total, columns=True)
            p.gemm(powers, value, sums.values, columns=True)

    def _next(self, head: int, scores: Tensor, key: Tensor, value: Tensor, n: Register) -> None:
        """Another tile of n tokens."""
        p, queries, sums = self._p, self._queries[head], self._sums[head]
        top, shift, total = (p.tensor(queries.rows, 1, bf16=False) for _ in range(3))
        with p.variable({"length": n}):
            p.gemm(queries, key, scores)
            p.vector(Code.RMAX, top, scores)
        p.vector(Code.MAX, top, top, c=sums.top, whole=True)
        powers = self._powers(scores, top, shift, n)
        with p.variable({"inner": n}):
            p.gemm(powers, self._ones.part(0, key.rows), total, columns=True)
        # What the earlier sums are worth relative to the new largest score.
        p.vector(Code.FMA, sums.top, sums.top, b=self._scale, c=shift, whole=True)
        p.vector(Code.EXP, sums.top, sums.top, whole=True)
        p.vector(Code.FMA, sums.total, sums.total, b=sums.top, c=total, whole=True)
        values = p.tensor(queries.rows, self._dim, bf16=False)
        with p.variable({"inner": n}):
            p.gemm(powers, value, values, columns=True)
        p.vector(Code.FMA, sums.values, sums.values, b=sums.top, c=values)
        p.vector(Code.COPY, sums.top, top, whole=True)
