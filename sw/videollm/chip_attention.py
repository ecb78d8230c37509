"""Attention on a core: tile by tile with an online softmax, so that no number of tokens is too large.

Of each row the program keeps the largest score so far, the sum of the powers relative to it, and their sum
weighted by the values. A tile that raises the largest score scales both sums down. The chunk itself, sinks
and window are one tile, if the window fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vrex.model.core.instructions import Condition, Function, Port
from vrex.model.core.program import Address, CoreProgram, Label, Register
from vrex.model.lib import arith
from vrex.model.lxe import vpe
from vrex.model.lxe.program import Tensor
from vrex.sw.videollm.chip_job import Parameters
from vrex.sw.videollm.chip_layout import ChipLayout, aligned

Code = vpe.Function

RESIDENT_TOKENS = 256
"""Most tokens of sinks and window in a tile."""

DELIVERED_TOKENS = 128
"""Most tokens of a delivery in a tile."""

SHARE = 2
"""One part in so many of the LXE's free memory is for the scores of a tile and what they come from."""


@dataclass(frozen=True)
class Tiles:
    """What the attention of all layers works with.

    Attributes:
        own: columns of the chunk itself in a row of scores, whole lines.
        resident, delivered: most tokens of a tile of sinks and window, and of a delivery.
        heads: KV heads that are worked on at once.
        scores: FP32, room for the scores of a tile; never NaN or above 0 where a tile has none.
        causal: BF16 [rows, own], -inf where a row must not see a column.
        ones: BF16, a line that begins with 1, as many times as a row has tokens.
    """

    own: int
    resident: int
    delivered: int
    heads: int
    scores: Tensor
    causal: Tensor
    ones: Tensor

    @classmethod
    def allocate(cls, p: CoreProgram, layout: ChipLayout, rows: int) -> "Tiles":
        """Chooses sizes that fit and loads what stays the same for chunks of so many rows.

        Raises:
            ValueError: the LXE's memory is too small.
        """
        shape, line = layout.shape, p.config.dpe.inputs
        own = aligned(rows, line)
        mask = np.full((rows, own), -np.inf, dtype=np.float32)
        mask[np.tril_indices(rows, 0, own)] = 0
        causal = p.keep(arith.to_bf16(mask))
        first = np.zeros((1, line), dtype=np.float32)
        first[0, 0] = 1
        ones = replace(p.keep(arith.to_bf16(first)), stride=0)
        kept = min(shape.settings.sinks + shape.window, RESIDENT_TOKENS)
        resident, heads = aligned(kept, line), shape.part.kv_heads
        delivered = max(DELIVERED_TOKENS, p.config.core.kv_tokens)
        count = shape.group * rows

        def lines() -> int:
            width = max(own + resident, delivered)
            tile = (
                p.row_lines(width, bf16=False) + p.row_lines(width) + p.row_lines(shape.text.head_dim, False)
            )
            tokens = max(heads * resident, delivered)
            return heads * count * tile + tokens * p.row_lines(2 * shape.text.head_dim)

        while lines() > p.free // SHARE and max(resident, delivered, heads) > line:
            if heads > 1:
                heads //= 2
            elif delivered > max(line, resident):
                delivered //= 2
            else:
                resident = max(line, aligned(resident // 2, line))
        width = max(heads * count * p.row_lines(own + resident, False), count * p.row_lines(delivered, False))
        scores = _zeros(p, width)
        return cls(own, resident, delivered, heads, scores, causal, ones)

    def of(self, rows: int, width: int) -> Tensor:
        """The scores as a tensor of rows without gaps."""
        lines = self.scores.stride * width // self.scores.length
        return Tensor(self.scores.base, lines, rows, width, bf16=False)


def _zeros(p: CoreProgram, lines: int) -> Tensor:
    """So many lines of zeros, as FP32 rows of a line: one is loaded, the others are copies."""
    zeros = p.tensor(-(-lines // 2), p.config.dpe.inputs, bf16=False)
    p.load(np.zeros((1, zeros.length), dtype=np.float32), zeros.part(0, 1))
    filled = 1
    while filled < zeros.rows:
        rows = min(filled, zeros.rows - filled)
        p.vector(Code.COPY, zeros.part(filled, rows), zeros.part(0, rows))
        filled += rows
    return zeros


@dataclass(frozen=True)
class _Tile:
    """Keys and values of a KV head, BF16 [tokens, head_dim]."""

    head: int
    key: Tensor
    value: Tensor


class Attention:
    """A layer's attention: `resident`, then `delivered` of each KV head, and `finish`."""

    def __init__(self, p: CoreProgram, layout: ChipLayout, queries: Tensor, kv: Tensor, tiles: Tiles) -> None:
        """Allocates what is kept.

        Args:
            p: to append to.
            layout: of memory.
            queries: BF16 [query heads * rows, head_dim], head by head.
            kv: the chunk's keys and values, BF16 [rows, KV heads * (key, value)].
            tiles: for chunks of so many rows.

        Raises:
            ValueError: the LXE's memory is too small.
        """
        self._p, self._layout, self._kv, self._tiles = p, layout, kv, tiles
        self._dim, self._rows = layout.shape.text.head_dim, kv.rows
        self._heads, self._count = layout.shape.part.kv_heads, layout.shape.group * kv.rows
        self._queries = queries
        # By row: the largest score, the sum of e^(scale * (score - largest)), that weighted by the values.
        self._top, self._total = (p.tensor(queries.rows, 1, bf16=False) for _ in range(2))
        self._values = p.tensor(queries.rows, self._dim, bf16=False)
        scale = np.array([[np.float32(self._dim**-0.5)]], dtype=np.float32)
        self._scale, self._minus_scale = p.load(scale), p.load(-scale)

    def resident(self) -> None:
        """The chunk itself, sinks and window, in all KV heads."""
        for first in range(0, self._heads, self._tiles.heads):
            with self._p.scratch():
                self._resident(range(first, min(first + self._tiles.heads, self._heads)))

    def delivered(self, head: int, counted: Register) -> None:
        """What the oldest FETCH delivers; `counted` is the number of tokens then."""
        p, most = self._p, self._tiles.delivered
        size, grant = p.config.kvmu.token_bytes, min(most, p.config.core.kv_tokens)
        p.set(counted, 0)
        with p.scratch(), p.registers(4) as [n, some, lines, rest]:
            tile = p.tensor(most, 2 * self._dim)
            begin, attend, behind = p.label(), Label(), Label()
            p.set(n, 0)
            fill = p.label()
            p.tokens(some, grant)
            p.branch(attend, Condition.ZERO, some)
            p.move(Port.KV, Port.LXE, bytes=size, rows=some)
            p.multiply(lines, some, tile.stride)
            p.multiply(rest, n, tile.stride)
            with p.variable({"rows": some, "beats": lines, "o.base": rest}):
                p.receive(tile)
            p.compute(Function.ADD, counted, counted, some)
            p.compute(Function.ADD, n, n, some)
            p.set(rest, most)
            p.compute(Function.SUB, rest, rest, n)
            p.branch(fill, Condition.NONZERO, rest)
            p.place(attend)
            p.branch(behind, Condition.ZERO, n)
            self._next([self._split(head, tile)], n)
            # Not 0 if the tile is full, and there may be more.
            p.branch(begin, Condition.NONZERO, some)
            p.place(behind)

    def finish(self, targets: Sequence[Tensor]) -> None:
        """Divides by the sums: one BF16 tensor [rows, head_dim] for each query head."""
        p = self._p
        p.vector(Code.RECIP, self._total, self._total)
        for number, target in enumerate(targets):
            first = number * self._rows
            values, factor = (x.part(first, self._rows) for x in (self._values, self._total))
            p.vector(Code.MUL, target, values, b=factor)

    def _split(self, head: int, both: Tensor) -> _Tile:
        """Keys and values of rows that hold both."""
        key, value = (self._p.columns(both, part * self._dim, self._dim) for part in range(2))
        return _Tile(head, key, value)

    def _of(self, tensor: Tensor, head: int, heads: int = 1) -> Tensor:
        """Rows of KV heads."""
        return tensor.part(head * self._count, heads * self._count)

    def _resident(self, heads: range) -> None:
        """`resident` of some KV heads."""
        p, most = self._p, self._tiles.resident
        tiles = [self._split(head, p.tensor(most, 2 * self._dim)) for head in heads] if most else []
        everything = self._layout.shape.settings.sinks + self._layout.shape.window
        with p.registers(6) as registers:
            sinks, left, n, *_ = registers
            p.set(sinks, Parameters.sinks)
            p.set(left, Parameters.window)
            if most == 0:
                p.set(n, 0)
            else:
                self._take(registers)
            with p.scratch():
                self._first(heads, tiles, registers)
            if everything > most:
                p.compute(Function.ADD, n, sinks, left)
                with p.unless_zero(n), p.while_nonzero(n), p.scratch():
                    self._take(registers)
                    self._load(tiles, registers)
                    self._next(tiles, n)
                    p.compute(Function.ADD, n, sinks, left)

    def _take(self, registers: list[Register]) -> None:
        """How many sinks and tokens of the window come next, and both; those that are left then."""
        p, (sinks, left, n, some_sinks, some, _) = self._p, registers
        p.compute(Function.MIN, some_sinks, sinks, self._tiles.resident)
        p.set(some, self._tiles.resident)
        p.compute(Function.SUB, some, some, some_sinks)
        p.compute(Function.MIN, some, some, left)
        p.compute(Function.ADD, n, some_sinks, some)
        p.compute(Function.SUB, sinks, sinks, some_sinks)
        p.compute(Function.SUB, left, left, some)

    def _load(self, tiles: list[_Tile], registers: list[Register]) -> None:
        """Moves what `_take` has counted to the LXE's memory."""
        p, (sinks, left, n, some_sinks, some, place) = self._p, registers
        par, shape, state = Parameters, self._layout.shape, self._layout.state
        size = p.config.kvmu.token_bytes
        rows = {"bytes": size, "pitch": shape.token_bytes}
        for tile in tiles:
            at, ring = (
                Address(state[name] + tile.head * size, pages=par.state) for name in ("sinks", "ring")
            )
            p.compute(Function.SUB, place, par.sinks, sinks)
            p.compute(Function.SUB, place, place, some_sinks)
            p.move(Port.MEMORY, Port.LXE, at, rows=some_sinks, first=place, **rows)
            p.compute(Function.ADD, place, par.window_first, par.window)
            p.compute(Function.SUB, place, place, left)
            p.compute(Function.SUB, place, place, some)
            mask = shape.ring_tokens - 1
            p.move(Port.MEMORY, Port.LXE, ring, rows=some, first=place, mask=mask, **rows)
            both = replace(tile.key, length=2 * self._dim)
            p.multiply(place, n, both.stride)
            with p.variable({"rows": n, "beats": place}):
                p.receive(both)

    def _first(self, heads: range, tiles: list[_Tile], registers: list[Register]) -> None:
        """The first tile: the chunk itself, of which no row sees those behind it, then n resident tokens."""
        p, own, n, rows = self._p, self._tiles.own, registers[2], self._rows
        scores = self._tiles.of(len(heads) * self._count, own + self._tiles.resident)
        chunk = [
            self._split(head, p.columns(self._kv, 2 * head * self._dim, 2 * self._dim)) for head in heads
        ]
        for number, tile in enumerate(chunk):
            target = p.columns(self._of(scores, number), 0, rows)
            p.gemm(self._of(self._queries, tile.head), tile.key, target)
        masked = p.columns(scores, 0, own)
        for first in range(0, scores.rows, rows):
            part = masked.part(first, rows)
            p.vector(Code.ADD, part, part, c=self._tiles.causal)
        if tiles:
            with p.unless_zero(n):
                self._load(tiles, registers)
                self._score(tiles, p.columns(scores, own, self._tiles.resident), n)
        top, total, values = (
            self._of(x, heads[0], len(heads)) for x in (self._top, self._total, self._values)
        )
        with p.variable({"length": n + own}):
            p.vector(Code.RMAX, top, scores)
        powers = self._powers(scores, top, p.tensor(scores.rows, 1, bf16=False), n + own)
        self._sum(powers, total, n + own)
        for number, tile in enumerate(chunk):
            part = p.columns(self._of(powers, number), 0, rows)
            p.gemm(part, tile.value, self._of(values, number), columns=True)
        if tiles:
            with p.unless_zero(n):
                more = self._weigh(tiles, p.columns(powers, own, self._tiles.resident), n)
                p.vector(Code.ADD, values, values, c=more)

    def _next(self, tiles: list[_Tile], n: Register) -> None:
        """Another tile of n tokens for some KV heads in a row."""
        p, heads, most = self._p, len(tiles), tiles[0].key.rows
        scores = self._tiles.of(heads * self._count, most)
        top, total, values = (
            self._of(x, tiles[0].head, heads) for x in (self._top, self._total, self._values)
        )
        self._score(tiles, scores, n)
        new, shift, more = (p.tensor(scores.rows, 1, bf16=False) for _ in range(3))
        with p.variable({"length": n}):
            p.vector(Code.RMAX, new, scores)
        p.vector(Code.MAX, new, new, c=top)
        powers = self._powers(scores, new, shift, n)
        # What the earlier sums are worth relative to the new largest score.
        p.vector(Code.FMA, top, top, b=self._scale, c=shift)
        p.vector(Code.EXP, top, top)
        self._sum(powers, more, n)
        p.vector(Code.FMA, total, total, b=top, c=more)
        p.vector(Code.FMA, values, values, b=top, c=self._weigh(tiles, powers, n))
        p.vector(Code.COPY, top, new)

    def _score(self, tiles: list[_Tile], scores: Tensor, n: Register) -> None:
        """Queries times n keys."""
        with self._p.variable({"length": n}):
            for number, tile in enumerate(tiles):
                self._p.gemm(self._of(self._queries, tile.head), tile.key, self._of(scores, number))

    def _powers(self, scores: Tensor, top: Tensor, shift: Tensor, n: Register) -> Tensor:
        """E^(scale * (score - top)) of n scores a row, BF16; `shift` becomes -scale * top."""
        p = self._p
        p.vector(Code.MUL, shift, top, b=self._minus_scale)
        with p.variable({"length": n}):
            p.vector(Code.FMA, scores, scores, b=self._scale, c=shift)
        # All that there is, as one row: the other scores are none, but never NaN.
        return p.vector(Code.EXP, p.tensor(scores.rows, scores.length), scores, whole=True)

    def _sum(self, powers: Tensor, total: Tensor, n: Register) -> None:
        """Sums of n powers a row, by the DPE, which is far faster at it than the VPE."""
        p = self._p
        # All of a row of the result is written, so that it holds nothing but numbers.
        width = total.stride * p.config.dpe.inputs // 2
        ones = replace(self._tiles.ones, rows=powers.length, length=width)
        with p.variable({"inner": n}):
            p.gemm(powers, ones, replace(total, length=width), columns=True)

    def _weigh(self, tiles: list[_Tile], powers: Tensor, n: Register) -> Tensor:
        """N powers a row times the values."""
        p = self._p
        result = p.tensor(powers.rows, self._dim, bf16=False)
        with p.variable({"inner": n}):
            for number, tile in enumerate(tiles):
                p.gemm(self._of(powers, number), tile.value, self._of(result, number), columns=True)
        return result
