"""What a layer does with its HC tables on a core: scores and bitmasks, deliveries, and tokens that enter."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from vrex.model.commands import LONG_PASSES
from vrex.model.commands import Opcode as DreOpcode
from vrex.model.core.instructions import Engine, Function, Port
from vrex.model.core.program import Address, CoreProgram, Register, Value
from vrex.model.dre.dre import PREDICT_ONLY
from vrex.model.dre.hashing import WORD_BITS
from vrex.model.dre.hcu import DECISION
from vrex.model.dre.kvstore import SCALE_BYTES
from vrex.model.lib.memory import PAGE
from vrex.model.lxe import vpe
from vrex.model.lxe.program import Tensor
from vrex.sw.videollm.chip_attention import Attention
from vrex.sw.videollm.chip_job import Parameters
from vrex.sw.videollm.chip_layout import ChipLayout, aligned

TILE_CLUSTERS = 64
"""Clusters whose means are in the LXE's memory at once; `CODE_ROWS` at most."""


def _log2(power: int) -> int:
    return power.bit_length() - 1


class TableSteps:
    """The instructions that a layer's tables take: `predict`, `deliver` and `retire`, in this order."""

    def __init__(self, p: CoreProgram, layout: ChipLayout, queries: Tensor) -> None:
        """Begins a layer.

        Args:
            p: to append to.
            layout: of memory.
            queries: BF16 [query heads * rows, head_dim], head by head.
        """
        self._p, self._layout, self._queries = p, layout, queries
        self._shape = layout.shape
        self._heads = self._shape.table_heads
        self._rows = queries.rows // self._shape.part.kv_heads
        self._chunk = min(self._shape.config.hcu.chunk_tokens, self._shape.config.dpe.rows)

    def _table(self, table: int, page: int = 0) -> Address:
        """A page of a table."""
        return Address(table * self._layout.table_size + page * PAGE, pages=Parameters.tables)

    def _masks(self, head: int) -> Address:
        return Address(self._layout.state["masks"] + head * self._shape.mask_pitch, pages=Parameters.state)

    def predict(self) -> None:
        """Scores of all clusters go to the DRE, whose bitmasks go to memory."""
        for table in range(self._shape.tables):
            with self._p.registers(1) as [clusters]:
                self._p.read(clusters, self._table(table))
                with self._p.unless_zero(clusters), self._p.scratch():
                    self._retrieve(table, clusters)
                    self._score(table, clusters)

    def _retrieve(self, table: int, clusters: Register) -> None:
        """The command, the move of its payload, which `_score` computes, and that of its result."""
        p, config, rows = self._p, self._shape.config, self._rows * self._heads
        with p.registers(3) as [length, size, count]:
            p.compute(Function.SHL, count, clusters, 1)
            p.round_up(size, count, config.bus_bytes)
            p.multiply(length, size, rows)
            p.set(size, rows)
            with self._if_long(clusters, count):
                for register in (length, size):
                    p.compute(Function.SHL, register, register, _log2(LONG_PASSES))
            p.compute(Function.SHL, count, clusters, 1)
            p.move(Port.LXE, Port.DRE, bytes=count, rows=size)
            p.dre(
                DreOpcode.RETRIEVE,
                self._table(table),
                kv_heads=(1 << self._heads) - 1,
                count=self._rows,
                clusters=clusters,
                length=length,
                param=PREDICT_ONLY,
            )
            self._mask_bytes(size, clusters)
            p.move(
                Port.DRE,
                Port.MEMORY,
                self._masks(table * self._heads),
                bytes=size,
                pitch=self._shape.mask_pitch,
                rows=self._heads,
            )

    def _mask_bytes(self, size: Register, clusters: Register) -> None:
        """Size of a bitmask in whole beats."""
        self._p.round_up(size, clusters, self._shape.config.bus_bits)
        self._p.compute(Function.SHR, size, size, 3)

    @contextmanager
    def _if_long(self, clusters: Register, spare: Register) -> Iterator[None]:
        """Context whose instructions are executed when a row does not fit the score memory."""
        p = self._p
        p.compute(Function.MIN, spare, clusters, self._shape.config.wtu.row_clusters)
        p.compute(Function.SUB, spare, clusters, spare)
        with p.unless_zero(spare):
            yield

    def _score(self, table: int, clusters: Register) -> None:
        """Queries times means, all rows of a KV head one after the other."""
        p, shape = self._p, self._shape
        dim = shape.text.head_dim
        tile = p.tensor(TILE_CLUSTERS, dim)
        stride = p.row_lines(aligned(shape.capacity.clusters, TILE_CLUSTERS))
        block = min(self._rows, p.free // stride)
        if block == 0:
            raise ValueError(
                f"the scores of {shape.capacity.clusters} clusters need {stride} lines, but {p.free} are free"
            )
        base = p.tensor(block, aligned(shape.capacity.clusters, TILE_CLUSTERS))
        for head in range(self._heads):
            for first in range(0, self._rows, block):
                rows = min(block, self._rows - first)
                number = (table * self._heads + head) * self._rows + first
                queries = self._queries.part(number, rows)
                self._score_rows(queries, (table, head), tile, base.part(0, rows), clusters)

    def _score_rows(
        self,
        queries: Tensor,
        place: tuple[int, int],
        tile: Tensor,
        scores: Tensor,
        clusters: Register,
    ) -> None:
        """Scores of all clusters of a table in one of its heads, tile by tile, and then to `dout`."""
        p, dim, inputs = self._p, queries.length, self._p.config.dpe.inputs
        with p.registers(3) as [first, n, lines]:
            p.set(first, 0)
            p.set(n, clusters)
            with p.while_nonzero(n):
                p.compute(Function.MIN, n, n, TILE_CLUSTERS)
                p.compute(Function.SHL, lines, n, _log2(dim // inputs))
                self._move_means(*place, n, first)
                with p.variable({"rows": n, "beats": lines}):
                    p.receive(tile)
                p.compute(Function.SHR, lines, first, _log2(inputs))
                with p.variable({"length": n, "o.base": lines}):
                    p.gemm(queries, tile, replace(scores, length=TILE_CLUSTERS))
                p.compute(Function.ADD, first, first, n)
                p.compute(Function.SUB, n, clusters, first)
            # Each row as often as the engine wants it.
            p.set(n, 1)
            with self._if_long(clusters, lines):
                p.set(n, LONG_PASSES)
            with p.variable({"length": clusters, "rows": n}):
                p.store_repeatedly(scores)

    def _move_means(self, table: int, head: int, n: Register, first: Register) -> None:
        """N means of a head to the LXE: the BF16 ones, or what their quantised copy stands for."""
        header, heads, bits = self._layout.header, self._heads, self._shape.settings.mean_bits
        size = self._shape.text.head_dim * bits // 8
        rows: dict[str, Value] = {"bytes": size, "pitch": size * heads, "rows": n, "first": first}
        if bits == 16:
            means = self._table(table, header.means_page) + head * size
            self._p.move(Port.MEMORY, Port.LXE, means, **rows)
        else:
            codes, scales = (self._table(table, page) for page in (header.codes_page, header.scales_page))
            self._p.move_codes(bits, codes + head * size, scales + head * SCALE_BYTES, step=heads, **rows)

    def deliver(self, attention: Attention) -> None:
        """Fetches what was selected, KV head by KV head, one ahead, and attends to it."""
        p, heads = self._p, self._shape.part.kv_heads
        p.wait(Engine.RESULT)
        with p.registers(2) as [clusters, spare]:
            self._read_clusters(clusters, 0)
            self._fetch(0, clusters, spare)
            for head in range(heads):
                if head + 1 < heads:
                    self._read_clusters(clusters, head + 1)
                    self._fetch(head + 1, clusters, spare)
                self._read_clusters(clusters, head)
                p.set(spare, 0)
                with p.unless_zero(clusters):
                    attention.delivered(head, spare)
                p.write(Address(self._layout.state["delivered"] + 4 * head, pages=Parameters.state), spare)

    def _read_clusters(self, clusters: Register, head: int) -> None:
        """How many clusters the table of a KV head has; one table serves all of them, or each has its own."""
        if head == 0 or self._shape.tables > 1:
            self._p.read(clusters, self._table(head // self._heads))

    def _fetch(self, head: int, clusters: Register, size: Register) -> None:
        p = self._p
        with p.unless_zero(clusters):
            self._mask_bytes(size, clusters)
            p.move(Port.MEMORY, Port.DRE, self._masks(head), bytes=size)
            p.dre(
                DreOpcode.FETCH,
                self._table(head // self._heads),
                kv_heads=1 << head % self._heads,
                clusters=clusters,
                length=size,
            )

    def retire(self) -> None:
        """Tokens that leave the window are hashed and enter the tables, a chunk at a time."""
        p, par, chunk = self._p, Parameters, self._chunk
        with p.registers(3) as [left, place, n]:
            p.set(left, par.retire)
            p.set(place, par.window_first)
            with p.unless_zero(left), p.while_nonzero(left):
                p.compute(Function.MIN, n, left, chunk)
                for table in range(self._shape.tables):
                    with p.scratch():
                        self._append(table, place, n)
                p.compute(Function.ADD, place, place, n)
                p.compute(Function.SUB, left, left, n)

    def _append(self, table: int, place: Register, n: Register) -> None:
        p, shape, config = self._p, self._shape, self._shape.config
        state, dim = self._layout.state, shape.text.head_dim
        token = config.kvmu.token_bytes
        # The keys were saved by this job or an earlier one, and the scratch of hash-bits may still be read.
        p.wait(Engine.SAVE | Engine.FEED)
        keys = p.tensor(self._chunk, self._heads * dim)
        with p.registers(2) as [size, spare]:
            p.multiply(size, n, dim // config.dpe.inputs)
            for head in range(self._heads):
                number = table * self._heads + head
                ring = Address(state["ring"] + number * token, pages=Parameters.state)
                self._move_ring(Port.LXE, ring, 2 * dim, place, n)
                with p.variable({"rows": n, "beats": size}):
                    p.receive(p.columns(keys, head * dim, dim))
            hashes = Address(state["hashes"], pages=Parameters.state)
            size_bytes = shape.hash_bytes
            p.move(Port.LXE, Port.MEMORY, hashes, bytes=size_bytes, pitch=size_bytes, rows=n)
            self._hash(table, keys, n)
            p.wait(Engine.SAVE)
            p.multiply(size, n, size_bytes)
            p.move(Port.MEMORY, Port.DRE, hashes, bytes=size)
            ring = Address(state["ring"] + table * self._heads * token, pages=Parameters.state)
            self._move_ring(Port.DRE, ring, self._heads * token, place, n)
            p.round_up(spare, size, config.bus_bytes)
            p.multiply(size, n, self._heads * token)
            p.compute(Function.ADD, size, size, spare)
            p.dre(
                DreOpcode.APPEND,
                self._table(table),
                kv_heads=(1 << self._heads) - 1,
                count=n,
                length=size,
            )
            p.multiply(size, n, DECISION.size)
            p.move(Port.DRE, Port.NONE, bytes=size)

    def _move_ring(self, sink: Port, at: Address, size: int, place: Register, n: Register) -> None:
        """Rows of the window."""
        self._p.move(
            Port.MEMORY,
            sink,
            at,
            bytes=size,
            pitch=self._shape.token_bytes,
            rows=n,
            first=place,
            mask=self._shape.ring_tokens - 1,
        )

    def _hash(self, table: int, keys: Tensor, n: Register) -> None:
        """Hash-bits of n keys, to `dout`."""
        p, shape = self._p, self._shape
        planes = shape.settings.n_hp
        projections = p.tensor(keys.rows, planes, bf16=False)
        words = p.tensor(keys.rows, -(-shape.config.hcu.hash_bits // WORD_BITS), bf16=False)
        at = Address(self._layout.weights[f"planes{table}"], pages=Parameters.weights)
        with p.variable({"rows": n}):
            p.stream_gemm(keys, at, projections)
            p.vector(vpe.Function.SIGN, words, projections)
            p.store(words)
