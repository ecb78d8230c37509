"""Compiles the program that takes a chunk through all layers of a decoder on a core.

One program serves all sequences and all layers: it goes round once for each layer, with the pages of the
layer's weights, past and tables in registers. What differs from chunk to chunk comes in the job's registers;
only the number of rows is fixed, so that there is a program for every length of a chunk.
"""

import numpy as np

from vrex.model.commands import Opcode as DreOpcode
from vrex.model.commands import Register as DreRegister
from vrex.model.config import CHUNK
from vrex.model.core.instructions import Condition, Engine, Function, Instruction, Port
from vrex.model.core.program import Address, CoreProgram, Pool, Register
from vrex.model.dre.registers import scale_to_register
from vrex.model.lib import arith
from vrex.model.lib.memory import PAGE
from vrex.model.lxe import program as lxe_program
from vrex.model.lxe import vpe
from vrex.model.lxe.program import Tensor
from vrex.sw.driver.link import TIMEOUT
from vrex.sw.videollm.chip_attention import Attention, Tiles
from vrex.sw.videollm.chip_job import RESERVED, Parameters
from vrex.sw.videollm.chip_layout import MEMBER, ChipLayout, aligned
from vrex.sw.videollm.chip_tables import TableSteps

Code = vpe.Function

FFN_COLUMNS = 192
"""Most columns of the feed-forward network's hidden row that are computed at a time."""


def set_up_dre(p: CoreProgram, layout: ChipLayout) -> None:
    """The DRE's registers, which it loses with a job that fails."""
    shape, device, host = layout.shape, layout.device, layout.host
    rule = shape.settings.wtu_rule(shape.text.head_dim)
    values = {
        DreRegister.TH_HD: shape.settings.th_hd,
        DreRegister.TH_R: rule.th_r,
        DreRegister.TRANSFORM: int(rule.transform),
        DreRegister.SELECTION: int(rule.selection),
        DreRegister.SCALE: scale_to_register(rule.scale),
        DreRegister.DEVICE_BASE: device.base,
        DreRegister.DEVICE_PAGES: device.pages,
        DreRegister.HOST_BASE: host.base,
        DreRegister.HOST_PAGES: host.pages,
        DreRegister.TIMEOUT: TIMEOUT,
    }
    for register, value in values.items():
        p.dre(DreOpcode.SETREG, count=int(register), param=value)


class ChipProgram:
    """The program of one chunk length."""

    def __init__(self, layout: ChipLayout, pool: Pool, rows: int, predict: bool = True) -> None:
        """Starts with an empty program.

        Args:
            layout: of memory.
            pool: for constants.
            rows: of a chunk.
            predict: select clusters; else those are fetched that the job before selected, so that what
                prediction costs can be measured.
        """
        self._layout, self._rows, self._predict = layout, rows, predict
        self._text, self._part, self._team = layout.shape.text, layout.shape.part, layout.shape.team
        self._p = CoreProgram(layout.shape.config, pool, RESERVED)

    def compile(self) -> list[Instruction]:
        """The instructions.

        Raises:
            ValueError: the LXE's memory can't hold so many rows.
        """
        p, par = self._p, Parameters
        set_up_dre(p, self._layout)
        x = self._start()
        begin = p.label()
        with p.scratch():
            self._layer(x)
        for register, pages in (
            (par.weights, self._layout.weights.pages),
            (par.state, self._layout.state.pages),
            (par.tables, self._layout.layer_table_pages),
        ):
            p.compute(Function.ADD, register, register, pages)
        with p.registers(1) as [left]:
            self._member(left, "weights_end")
            p.compute(Function.SUB, left, left, par.weights)
            p.branch(begin, Condition.NONZERO, left)
        self._finish(x)
        return p.assemble()

    def _start(self) -> Tensor:
        """Loads what stays in the LXE's memory, and the chunk; returns the residual stream, FP32."""
        p, text, rows = self._p, self._text, self._rows
        scale = np.float32(text.head_dim**-0.5)
        for value in (1 / text.hidden_size, text.eps, -1, 1, scale, -scale):
            p.keep(np.array([[value]], dtype=np.float32))
        if text.qk_norm:
            p.keep(np.array([[1 / text.head_dim]], dtype=np.float32))
        half = np.eye(text.head_dim // 2, dtype=np.float32)
        # Row i of the product with it is element i of a head with its halves exchanged, the first negated.
        self._turn = p.keep(arith.to_bf16(np.block([[0 * half, -half], [half, 0 * half]])))
        x = p.tensor(rows, text.hidden_size, bf16=False)
        p.load_from(Address(pages=Parameters.input), self._layout.shape.row_pitch, x)
        p.release(Parameters.input)
        self._cos, self._sin = (p.tensor(rows, text.head_dim, bf16=False) for _ in range(2))
        pitch = self._layout.rotary_pitch
        with p.registers(1) as [place]:
            p.multiply(place, Parameters.position, pitch)
            table = Address(self._layout.page("rotary") * PAGE, bytes=place)
            p.load_from(table, pitch, self._cos)
            p.load_from(table + pitch // 2, pitch, self._sin)
        self._tiles = Tiles.allocate(p, self._layout, rows)
        return x

    def _layer(self, x: Tensor) -> None:
        p, part, rows = self._p, self._part, self._rows
        dim = part.head_dim
        # Queries head by head, and the chunk's keys and values as a token lies in memory.
        queries = p.tensor(part.heads * rows, dim)
        kv = p.tensor(rows, part.kv_heads * 2 * dim)
        with p.scratch():
            self._project(x, queries, kv)
        self._save(kv)
        tables = TableSteps(p, self._layout, queries)
        if self._predict:
            tables.predict()
        attended = p.tensor(rows, part.heads * dim)
        with p.scratch():
            attention = Attention(p, self._layout, queries, kv, self._tiles)
            attention.resident()
            tables.deliver(attention)
            attention.finish([p.columns(attended, head * dim, dim) for head in range(part.heads)])
        with p.scratch():
            tables.retire()
        with p.scratch():
            self._add(x, self._whole(attended, "attended"), "o_proj")
        with p.scratch():
            self._feed_forward(x)

    def _member(self, target: Register, name: str) -> None:
        """A word that is the core's own (see `MEMBER`)."""
        place = self._layout.io["member"] - self._layout.io["output"] + 4 * MEMBER.index(name)
        self._p.read(target, Address(place, pages=Parameters.output))

    def _whole(self, part: Tensor, area: str) -> Tensor:
        """The columns of all cores of the team, of which `part` are this one's."""
        if self._team == 1:
            return part
        p = self._p
        whole = p.tensor(part.rows, part.length * self._team, bf16=part.bf16)
        return self._exchange(part, area, whole)

    def _exchange(self, part: Tensor, area: str, whole: Tensor) -> Tensor:
        """Leaves the core's columns for the others, and fetches those of all of them."""
        p, layout = self._p, self._layout
        at, pitch = layout.page("exchange") * PAGE + layout.exchange[area], layout.exchange_pitch[area]
        size = part.length * (2 if part.bf16 else 4)
        with p.registers(1) as [offset]:
            self._member(offset, area)
            p.move(Port.LXE, Port.MEMORY, Address(at, bytes=offset), bytes=size, pitch=pitch, rows=part.rows)
        p.store(part)
        p.wait(Engine.SAVE)
        p.barrier(self._team)
        return p.load_from(Address(at), pitch, whole)

    def _weights(self, name: str, row: int = 0, inner: int = 0) -> Address:
        """A layer's weights; those from a row on, which begins a tile, of rows of `inner` terms."""
        return Address(self._layout.weights[name] + row * inner * 2, pages=Parameters.weights)

    def _normed(self, x: Tensor, name: str, target: Tensor) -> Tensor:
        """RMSNorm with a layer's gain."""
        p = self._p
        with p.scratch():
            gain = p.load_from(self._weights(name), 0, p.tensor(1, x.length))
            return lxe_program.rms_norm(p, x, gain, self._text.eps, target)

    def _project(self, x: Tensor, queries: Tensor, kv: Tensor) -> None:
        """Queries, keys and values, RoPE applied."""
        p, part, dim, rows = self._p, self._part, self._part.head_dim, self._rows
        h = self._normed(x, "input_layernorm", p.tensor(rows, x.length))
        inner = aligned(x.length, CHUNK)
        for head in range(part.kv_heads):
            key, value = (p.columns(kv, (2 * head + part) * dim, dim) for part in range(2))
            p.stream_gemm(h, self._weights("k_proj", head * dim, inner), key)
            p.stream_gemm(h, self._weights("v_proj", head * dim, inner), value)
            self._rotate(key, "k_norm")
        for head in range(part.heads):
            query = queries.part(head * rows, rows)
            p.stream_gemm(h, self._weights("q_proj", head * dim, inner), query)
            self._rotate(query, "q_norm")

    def _rotate(self, x: Tensor, norm: str) -> None:
        """RoPE in place: x cos + x' sin, where x' has its halves exchanged and the first negated."""
        p = self._p
        if self._text.qk_norm:
            self._normed(x, norm, x)
        with p.scratch():
            turned = p.gemm(x, self._turn, p.tensor(x.rows, x.length))
            product = p.vector(Code.MUL, p.tensor(x.rows, x.length, bf16=False), turned, b=self._sin)
            p.vector(Code.FMA, x, x, b=self._cos, c=product)

    def _save(self, kv: Tensor) -> None:
        """Keys and values to sinks and window."""
        p, par, shape = self._p, Parameters, self._layout.shape
        size, state = shape.token_bytes, self._layout.state
        with p.registers(2) as [rest, first]:
            p.set(rest, self._rows)
            p.compute(Function.SUB, rest, rest, par.sink_rows)
            p.set(first, par.position)
            p.compute(Function.ADD, first, first, par.sink_rows)
            sinks, ring = (Address(state[name], pages=par.state) for name in ("sinks", "ring"))
            rows = {"bytes": size, "pitch": size}
            p.move(Port.LXE, Port.MEMORY, sinks, rows=par.sink_rows, first=par.position, **rows)
            p.move(Port.LXE, Port.MEMORY, ring, rows=rest, first=first, mask=shape.ring_tokens - 1, **rows)
        p.store(kv)

    def _add(self, residual: Tensor, x: Tensor, name: str) -> None:
        """Adds a projection to the residual stream; each core of a team does its columns."""
        p, columns = self._p, self._layout.shape.columns
        product = p.stream_gemm(x, self._weights(name), p.tensor(x.rows, columns, bf16=False))
        if self._team == 1:
            p.vector(Code.ADD, residual, residual, c=product)
            return
        with p.registers(1) as [lines]:
            self._member(lines, "x_lines")
            with p.variable({"a.base": lines}):
                p.vector(Code.ADD, product, p.columns(residual, 0, columns), c=product)
        self._exchange(product, "x", residual)

    def _feed_forward(self, residual: Tensor) -> None:
        """SwiGLU, some columns at a time."""
        p, ffn, rows = self._p, self._part.intermediate_size, self._rows
        h = self._normed(residual, "post_attention_layernorm", p.tensor(rows, residual.length))
        inner = aligned(residual.length, CHUNK)
        gated = p.tensor(rows, ffn)
        parts = -(-ffn // FFN_COLUMNS)
        line = p.config.dpe.inputs
        width = -(-ffn // (parts * line)) * line
        for first in range(0, ffn, width):
            columns = min(width, ffn - first)
            with p.scratch():
                gate, up = (
                    p.stream_gemm(h, self._weights(name, first, inner), p.tensor(rows, columns, bf16=False))
                    for name in ("gate_proj", "up_proj")
                )
                lxe_program.silu(p, gate, gate)
                p.vector(Code.MUL, p.columns(gated, first, columns), gate, b=up)
        self._add(residual, self._whole(gated, "gated"), "down_proj")

    def _finish(self, x: Tensor) -> None:
        """The result, and how many rows of scores were degenerate since the DRE's reset."""
        p, pitch = self._p, self._layout.shape.row_pitch
        output = Address(pages=Parameters.output)
        p.move(Port.LXE, Port.MEMORY, output, bytes=4 * x.length, pitch=pitch, rows=x.rows)
        p.store(x)
        p.dre(DreOpcode.GETREG, count=int(DreRegister.DEGENERATE_ROWS))
        with p.registers(1) as [rows]:
            p.detail(rows)
            p.write(output + (self._layout.io["degenerate"] - self._layout.io["output"]), rows)
        p.end()
