"""Where everything of a decoder lies in the memory of a core: weights, programs, and each sequence's past."""

from dataclasses import dataclass, replace
from functools import cached_property

from vrex.errors import UserError
from vrex.model.config import CHUNK, Config
from vrex.model.core.instructions import JOB, JOB_END
from vrex.model.core.program import Pool
from vrex.model.dre.kvstore import Header, Plan, plan
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.sw.driver.dre import DEVICE_BASE, HOST_BASE, Capacity
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.videollm.config import TextConfig

RING_BITS = 4
"""Log2 of the jobs, and of the ends, that fit their rings."""

POOL_BYTES, NEAR_POOL_BYTES = 8 << 20, 2 << 20
"""Room for constants and programs; the former where memory that is not touched costs nothing."""

MAX_ROWS = 512
"""Rows of the longest chunk that memory has room for."""

ALIGNMENT = 64


def aligned(size: int, unit: int = ALIGNMENT) -> int:
    """A size rounded up to a multiple of a unit."""
    return -(-size // unit) * unit


def pages_of(size: int) -> int:
    """Pages that so many bytes take."""
    return -(-size // PAGE)


class Places:
    """Named parts of an area, one behind the other.

    Attributes:
        offsets: of each part, in bytes.
        size: of all.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name, size in sizes.items():
            self.offsets[name] = self.size
            self.size += aligned(size)

    @property
    def pages(self) -> int:
        """Of the whole area."""
        return pages_of(self.size)

    def __getitem__(self, name: str) -> int:
        return self.offsets[name]


MEMBER = ("weights_end", "attended", "x", "gated", "x_lines")
"""Words of a share that its program reads: the page behind its core's weights, where in a row of each area of
`exchange` its columns begin, in bytes, and where in a row of the residual stream, in lines."""

RING_PAGES = {"jobs": pages_of(JOB.size << RING_BITS), "ends": pages_of(JOB_END.size << RING_BITS)}
"""Of the two rings of each core."""


@dataclass(frozen=True)
class ChipShape:
    """A decoder on a core, and how much it can take in.

    Attributes:
        config: accelerator, with the decoder's KV heads and hash width.
        text: the decoder.
        settings: of policy `resv`.
        step_tokens: tokens that a frame adds.
        capacity: of each table.
        tokens: most tokens of a sequence.
        sequences: video streams at once.
        team: cores that take a chunk through the layers together, all of the chip or 1. Each has its share of
            the heads and of the columns.
        is_near: the windows follow each other, for a board whose memory holds both.
    """

    config: Config
    text: TextConfig
    settings: ResvSettings
    step_tokens: int
    capacity: Capacity
    tokens: int
    sequences: int = 1
    team: int = 1
    is_near: bool = False

    @property
    def part(self) -> TextConfig:
        """The decoder with the heads, and the columns of the feed-forward network, of one core."""
        text, team = self.text, self.team
        return replace(
            text,
            heads=text.heads // team,
            kv_heads=text.kv_heads // team,
            intermediate_size=text.intermediate_size // team,
        )

    @property
    def columns(self) -> int:
        """Of the residual stream, those that one core computes."""
        return self.text.hidden_size // self.team

    @property
    def group(self) -> int:
        """Query heads of a KV head."""
        return self.text.heads // self.text.kv_heads

    @property
    def window(self) -> int:
        """Most recent tokens, always attended."""
        return self.settings.window * self.step_tokens

    @property
    def tables(self) -> int:
        """HC tables of a layer on one core."""
        return 1 if self.settings.scope == "layer" else self.part.kv_heads

    @property
    def table_heads(self) -> int:
        """KV heads of a table."""
        return self.part.kv_heads // self.tables

    @property
    def token_bytes(self) -> int:
        """K and V of one token in all KV heads of a core."""
        return self.part.kv_heads * self.config.kvmu.token_bytes

    @property
    def ring_tokens(self) -> int:
        """Places of the window, a power of two: what it holds and the chunk that comes in."""
        return 1 << (self.window + MAX_ROWS - 1).bit_length()

    @property
    def hash_bytes(self) -> int:
        """Of a token's hash-bits."""
        return self.config.hcu.hash_bits // 8

    @property
    def mask_pitch(self) -> int:
        """Bytes from a KV head's bitmask to the next one."""
        return self.config.beats(self.capacity.clusters, 1) * self.config.bus_bytes

    @property
    def row_pitch(self) -> int:
        """Bytes of a row of the residual stream in memory, FP32."""
        return aligned(4 * self.text.hidden_size)

    def shares(self, sequence: int) -> range:
        """Numbers of a sequence's shares, one of each core of its team."""
        return range(sequence * self.team, (sequence + 1) * self.team)


def weight_bytes(rows: int, inner: int, config: Config) -> int:
    """Bytes of weights [rows, inner] as `vrex.model.lxe.dpe.weight_beats` gives them."""
    return aligned(rows, config.dpe.trees) * aligned(inner, CHUNK) * 2


class ChipLayout:
    """The memory map of a core.

    Attributes:
        shape: see `ChipShape`.
        weights: parts of a layer's weights: `NORMS` are rows, the others beats.
        state: parts of a layer's past outside the tables.
        io: parts of what goes in and out of a share's jobs; `MEMBER` words are its own.
        exchange: where the cores of a team leave their columns for each other, and bytes of a row there.
        device, host: windows that hold all.
    """

    def __init__(self, shape: ChipShape) -> None:
        """Lays everything out.

        Raises:
            UserError: a size that the engine can't use.
        """
        self.shape = shape
        self.weights = Places(weight_sizes(shape))
        self.state = Places(_state_sizes(shape))
        text = shape.text
        # Both begin a page, since jobs name their pages.
        rows = aligned(MAX_ROWS * shape.row_pitch, PAGE)
        self.io = Places({"input": rows, "output": rows, "degenerate": 4, "member": 4 * len(MEMBER)})
        self.exchange_pitch = _exchange_pitches(shape)
        self.exchange = Places({name: MAX_ROWS * pitch for name, pitch in self.exchange_pitch.items()})
        self.rotary_pitch = 2 * 4 * text.head_dim
        sizes = {
            "jobs": shape.config.cores * RING_PAGES["jobs"],
            "ends": shape.config.cores * RING_PAGES["ends"],
            "pool": pages_of(self._pool_bytes),
            "weights": shape.team * text.layers * self.weights.pages,
            "exchange": self.exchange.pages,
            "rotary": pages_of((shape.tokens + MAX_ROWS) * self.rotary_pitch),
        }
        first = self._plan(0)
        self._table_pages, self._host_pages = first.device_pages, first.host_pages
        shares = shape.sequences * shape.team
        sizes["io"] = shares * self.io.pages
        sizes["state"] = shares * text.layers * self.state.pages
        sizes["tables"] = shares * text.layers * self.layer_table_pages
        self._first_page, page = {}, DEVICE_BASE
        for name, pages in sizes.items():
            self._first_page[name] = page
            page += pages
        self.device = Window(DEVICE_BASE, page - DEVICE_BASE)
        self.host = Window(
            max(0 if shape.is_near else HOST_BASE, page),
            shares * text.layers * shape.tables * self._host_pages,
        )

    @property
    def _pool_bytes(self) -> int:
        return NEAR_POOL_BYTES if self.shape.is_near else POOL_BYTES

    @property
    def layer_table_pages(self) -> int:
        """Pages of a layer's tables of a core in the device window."""
        return self.shape.tables * self._table_pages

    def page(self, area: str, share: int = 0) -> int:
        """First page of an area; of `io`, `state` and `tables` a share's part, of `weights` a core's."""
        per = {
            "io": self.io.pages,
            "state": self.shape.text.layers * self.state.pages,
            "tables": self.shape.text.layers * self.layer_table_pages,
            "weights": self.shape.text.layers * self.weights.pages,
        }
        return self._first_page[area] + share * per.get(area, 0)

    def table_address(self, share: int, layer: int, table: int) -> int:
        """First byte of an HC table."""
        pages = layer * self.layer_table_pages + table * self._table_pages
        return (self.page("tables", share) + pages) * PAGE

    def table_plan(self, share: int, layer: int, table: int) -> Plan:
        """Of an HC table, empty."""
        number = (share * self.shape.text.layers + layer) * self.shape.tables + table
        return self._plan(self.host.base + number * self._host_pages)

    def past(self, share: int) -> tuple[Window, ...]:
        """What holds the past of a share: state, tables, and segments in the host window."""
        text = self.shape.text
        pages = text.layers * self.shape.tables * self._host_pages
        return (
            Window(self.page("state", share), text.layers * self.state.pages),
            Window(self.page("tables", share), text.layers * self.layer_table_pages),
            Window(self.host.base + share * pages, pages),
        )

    def member(self, core: int) -> dict[str, int]:
        """What a core of a team has to know, by the names of `MEMBER`."""
        shape = self.shape
        dim, inputs = shape.text.head_dim, shape.config.dpe.inputs
        return {
            "weights_end": self.page("weights", core + 1),
            "attended": core * shape.part.heads * dim * 2,
            "x": core * shape.columns * 4,
            "gated": core * shape.part.intermediate_size * 2,
            "x_lines": core * shape.columns * 2 // inputs,
        }

    @cached_property
    def table_size(self) -> int:
        """Bytes from a table of a layer to the next one."""
        return self._table_pages * PAGE

    @cached_property
    def header(self) -> Header:
        """Of a table; where its arrays lie is the same for all."""
        return self._plan(self.host.base).header

    def pool(self) -> Pool:
        """The empty pool of constants and programs."""
        return Pool(self.page("pool") * PAGE, self._pool_bytes)

    def new_memory(self) -> Memory:
        """Memory for both windows, which takes up what is written to it.

        Raises:
            UserError: the system does not have as much.
        """
        try:
            return Memory(self.device, self.host)
        except MemoryError as error:
            size = (self.device.pages + self.host.pages) * PAGE / 2**30
            raise UserError(
                f"the core's memory needs {size:.1f} GiB, which this machine does not give; "
                "lower table_segments or table_clusters"
            ) from error

    def _plan(self, host_page: int) -> Plan:
        shape, capacity = self.shape, self.shape.capacity
        try:
            return plan(
                shape.config,
                shape.table_heads,
                capacity.clusters,
                capacity.segments,
                capacity.ring,
                host_page,
                shape.settings.mean_bits,
            )
        except ValueError as error:
            raise UserError(f"the tables can't be laid out: {error}") from error


def weight_sizes(shape: ChipShape) -> dict[str, int]:
    """Bytes of the parts of a layer's weights on one core."""
    text, part, config = shape.text, shape.part, shape.config
    d, dim, columns = text.hidden_size, text.head_dim, shape.columns
    sizes = {"input_layernorm": 2 * d, "post_attention_layernorm": 2 * d}
    if text.qk_norm:
        sizes |= {"q_norm": 2 * dim, "k_norm": 2 * dim}
    shapes = {
        "q_proj": (part.heads * dim, d),
        "k_proj": (part.kv_heads * dim, d),
        "v_proj": (part.kv_heads * dim, d),
        "o_proj": (columns, text.heads * dim),
        "gate_proj": (part.intermediate_size, d),
        "up_proj": (part.intermediate_size, d),
        "down_proj": (columns, text.intermediate_size),
    }
    shapes |= {
        f"planes{table}": (shape.settings.n_hp, shape.table_heads * dim) for table in range(shape.tables)
    }
    return sizes | {name: weight_bytes(*size, config) for name, size in shapes.items()}


def _state_sizes(shape: ChipShape) -> dict[str, int]:
    """Bytes of the parts of a layer's past outside the tables, and of its scratch."""
    chunk = shape.config.hcu.chunk_tokens
    return {
        "sinks": shape.settings.sinks * shape.token_bytes,
        "ring": shape.ring_tokens * shape.token_bytes,
        "masks": shape.part.kv_heads * shape.mask_pitch,
        "hashes": aligned(chunk * shape.hash_bytes, shape.config.bus_bytes),
        "delivered": 4 * shape.part.kv_heads,
    }


def _exchange_pitches(shape: ChipShape) -> dict[str, int]:
    """Bytes of a row of what the cores of a team exchange; nothing where a core is alone."""
    if shape.team == 1:
        return {}
    text = shape.text
    return {
        "attended": aligned(2 * text.heads * text.head_dim),
        "x": shape.row_pitch,
        "gated": aligned(2 * text.intermediate_size),
    }
