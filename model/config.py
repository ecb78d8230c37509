"""Every dimension of the hardware, once: RTL, model, testbenches and generated files derive from here."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from vrex.model.config_rules import (
    FileName,
    InRange,
    Multiple,
    OneOf,
    PowerOfTwo,
    Relation,
    Section,
    documented,
    spec,
)

CHUNK = 64
"""Terms of one dot-product chunk: part of the numerics, not the number of lanes."""

MAX_CLUSTERS = 65_535
"""Clusters one HC table can hold: indices are 16 bits wide and the count must be too."""

MAX_COUNT = 65_535
"""Tokens one cluster can hold; a cluster that reaches it is closed."""


DOT_SCHEMES = ("fused", "tree")
"""How a dot product's chunk is added up (numeric contract)."""

MEAN_ROUNDINGS = ("nearest", "dithered")
"""How a running mean is rounded to BF16 (numeric contract)."""


@documented
@dataclass(frozen=True, kw_only=True)
class HcuConfig(Section):
    """Hash-bit clustering unit (paper Section V-B)."""

    lanes: int = field(
        default=16,
        metadata=spec("XOR accumulators, that is cluster hash-bits compared in one cycle", PowerOfTwo(1, 64)),
    )
    hash_bits: int = field(
        default=32,
        metadata=spec(
            "width of one token's hash; N_hp may be smaller (unused bits stay 0)", PowerOfTwo(8, 128)
        ),
    )
    chunk_tokens: int = field(
        default=32,
        metadata=spec(
            "entries of the current hash-bits memory: tokens one CLUSTER command can take",
            PowerOfTwo(2, 256),
        ),
    )
    tile_clusters: int = field(
        default=1024,
        metadata=spec(
            "entries of the cluster hash-bits memory; longer tables stream through it",
            PowerOfTwo(Multiple(4, "lanes"), 65536),
        ),
    )

    @property
    def memory_bytes(self) -> int:
        """Current and cluster hash-bits memories together."""
        return (self.chunk_tokens + self.tile_clusters) * self.hash_bits // 8


@documented
@dataclass(frozen=True, kw_only=True)
class WtuConfig(Section):
    """WiCSum threshold unit (paper Section V-B)."""

    lanes: int = field(default=16, metadata=spec("scores handled in one cycle", PowerOfTwo(1, 64)))
    row_clusters: int = field(
        default=4096,
        metadata=spec(
            "entries of the score and of the token count memory: the longest row that is sent once",
            PowerOfTwo(Multiple(4, "lanes"), 65536),
        ),
    )
    mask_clusters: int = field(
        default=65536,
        metadata=spec(
            "entries of the bitmask memory: the longest row, sent in tiles of `row_clusters`",
            PowerOfTwo(Multiple(1, "row_clusters"), 65536),
        ),
    )
    buckets: int = field(default=16, metadata=spec("score ranges of selection `bucket`", PowerOfTwo(2, 64)))

    @property
    def memory_bytes(self) -> int:
        """Score and token count memories together."""
        return 2 * self.row_clusters * 2


@documented
@dataclass(frozen=True, kw_only=True)
class KvmuConfig(Section):
    """KV management unit (paper Section V-C)."""

    head_dim: int = field(default=128, metadata=spec("dimensions of one KV head's key", PowerOfTwo(16, 256)))
    kv_heads: int = field(
        default=8, metadata=spec("KV heads that one HC table of scope `layer` holds", InRange(1, 32))
    )
    segment_tokens: int = field(
        default=8, metadata=spec("tokens of one cluster at contiguous addresses", PowerOfTwo(1, 64))
    )
    outstanding: int = field(default=8, metadata=spec("read bursts in flight", PowerOfTwo(1, 32)))
    burst_beats: int = field(
        default=16, metadata=spec("bus beats of the longest AXI burst", PowerOfTwo(1, 64))
    )

    @property
    def token_bytes(self) -> int:
        """K and V of one token in one KV head, BF16."""
        return 4 * self.head_dim

    @property
    def segment_bytes(self) -> int:
        """A segment of one KV head."""
        return self.segment_tokens * self.token_bytes


@documented
@dataclass(frozen=True, kw_only=True)
class MeanConfig(Section):
    """Unit of the running mean (Key_cluster, paper Section IV-B)."""

    lanes: int = field(default=2, metadata=spec("values handled in one cycle", PowerOfTwo(1, 32)))
    rounding: str = field(default="nearest", metadata=spec("of the mean to BF16", OneOf(MEAN_ROUNDINGS)))

    @property
    def dithered(self) -> bool:
        """Whether the mean is rounded by its count."""
        return self.rounding == "dithered"


@documented
@dataclass(frozen=True, kw_only=True)
class CodesConfig(Section):
    """Unit that selects tokens by the binary codes of their keys (policy `resv-bits`; not in the paper)."""

    lanes: int = field(default=8, metadata=spec("tokens scored in one cycle", PowerOfTwo(1, 64)))
    bits: int = field(default=64, metadata=spec("sign bits of a token's code", PowerOfTwo(8, 128)))
    tokens: int = field(
        default=4096,
        metadata=spec(
            "coded tokens of one KV head that a command can choose from",
            PowerOfTwo(Multiple(4, "lanes"), 32768),
        ),
    )
    residents: int = field(
        default=512,
        metadata=spec(
            "scores of resident tokens that a row can bring, at most `tokens`",
            PowerOfTwo(Multiple(1, "lanes"), 32768),
        ),
    )


@documented
@dataclass(frozen=True, kw_only=True)
class DpeConfig(Section):
    """Dot-product engine of the LXE (paper Section V-A, Table III)."""

    trees: int = field(
        default=64, metadata=spec("MAC trees, that is columns of a weight tile", PowerOfTwo(1, 256))
    )
    inputs: int = field(
        default=64,
        metadata=spec(
            f"inputs of one tree; a chunk of {CHUNK} terms takes {CHUNK} / inputs beats", PowerOfTwo(2, 64)
        ),
    )
    rows: int = field(
        default=32,
        metadata=spec(
            "dot products in work at once in one tree, that is rows of activations that meet one tile",
            PowerOfTwo(2, 256),
        ),
    )
    scheme: str = field(
        default="fused", metadata=spec("how a chunk's terms are added up", OneOf(DOT_SCHEMES))
    )
    fraction_bits: int = field(default=26, metadata=spec("W of scheme `fused`", InRange(18, 40)))

    @property
    def beats(self) -> int:
        """Beats of one chunk of a dot product."""
        return CHUNK // self.inputs

    @property
    def beat_bytes(self) -> int:
        """Bytes of a beat: one BF16 value for each input of a tree."""
        return 2 * self.inputs


@documented
@dataclass(frozen=True, kw_only=True)
class VpeConfig(Section):
    """Vector engine of the LXE (paper Section V-A)."""

    lanes: int = field(default=64, metadata=spec("elements handled in one cycle", PowerOfTwo(1, 64)))


@documented
@dataclass(frozen=True, kw_only=True)
class LxeConfig(Section):
    """LLM execution engine around DPE and VPE (paper Section V-A, Table III)."""

    memory_kib: int = field(
        default=384,
        metadata=spec("on-chip memory in KiB; a line holds `dpe.inputs` BF16 values", InRange(1, 8192)),
    )
    banks: int = field(
        default=4,
        metadata=spec("banks of the memory; lines are dealt out to them in turn", PowerOfTwo(1, 32)),
    )

    def lines(self, dpe: DpeConfig) -> int:
        """Lines of the memory, each as wide as a beat of the DPE."""
        return self.memory_kib * 1024 // dpe.beat_bytes


@documented
@dataclass(frozen=True, kw_only=True)
class CoreConfig(Section):
    """LXE and DRE as one core behind one AXI4 port (paper Figure 10)."""

    stream_lines: int = field(
        default=64,
        metadata=spec(
            "lines for the LXE that are read ahead of it, each of `dpe.inputs` values", PowerOfTwo(4, 4096)
        ),
    )
    kv_tokens: int = field(
        default=32,
        metadata=spec(
            "tokens, K and V of one KV head each, kept between the DRE and the LXE", PowerOfTwo(2, 1024)
        ),
    )
    queue: int = field(
        default=8, metadata=spec("instructions that wait in front of each engine", PowerOfTwo(2, 64))
    )


@documented
@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """One accelerator."""

    name: str = field(default="edge", metadata=spec("name of this configuration", FileName(64)))
    cores: int = field(default=1, metadata=spec("identical cores; each has one KVPU", InRange(1, 1024)))
    ports: int = field(
        default=1,
        metadata=spec("AXI4 ports to memory that the cores share, as many cores each", InRange(1, 64)),
    )
    bus_bits: int = field(
        default=256, metadata=spec("width of the data streams and of the AXI port", PowerOfTwo(64, 512))
    )
    hcu: HcuConfig = field(default_factory=HcuConfig)
    wtu: WtuConfig = field(default_factory=WtuConfig)
    kvmu: KvmuConfig = field(default_factory=KvmuConfig)
    mean: MeanConfig = field(default_factory=MeanConfig)
    codes: CodesConfig = field(default_factory=CodesConfig)
    dpe: DpeConfig = field(default_factory=DpeConfig)
    vpe: VpeConfig = field(default_factory=VpeConfig)
    lxe: LxeConfig = field(default_factory=LxeConfig)
    core: CoreConfig = field(default_factory=CoreConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for relation in RELATIONS:
            relation.check(self)

    @property
    def bus_bytes(self) -> int:
        """Bytes in one beat of the data streams."""
        return self.bus_bits // 8

    def check_lxe(self) -> None:
        """Checks that DPE, VPE and memory make an LXE; each may be built by itself in other shapes.

        Raises:
            ValueError: they don't.
        """
        for relation in LXE_RELATIONS:
            relation.check(self)

    def check_core(self) -> None:
        """Checks that all parts make a core; each may be built by itself in other shapes.

        Raises:
            ValueError: they don't.
        """
        self.check_lxe()
        for relation in CORE_RELATIONS:
            relation.check(self)

    def check_top(self) -> None:
        """Checks that the cores make a chip; a core by itself may be built whatever their number.

        Raises:
            ValueError: they don't.
        """
        self.check_core()
        for relation in TOP_RELATIONS:
            relation.check(self)

    @property
    def lines(self) -> int:
        """Lines of the LXE's memory."""
        return self.lxe.lines(self.dpe)

    @property
    def kvpu_memory_bytes(self) -> int:
        """On-chip memory of one KVPU, as the paper counts it (20.125 KB in preset `edge`)."""
        return self.hcu.memory_bytes + self.wtu.memory_bytes

    def beats(self, items: int, bits: int) -> int:
        """Bus beats that `items` values of `bits` bits take; every field starts on a new beat."""
        return -(-items * bits // self.bus_bits)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Config":
        """Inverse of `to_dict`."""
        units: dict[str, Any] = {unit.name: unit.default_factory for unit in dataclasses.fields(cls)}
        return cls(
            **{k: units[k](**value) if isinstance(value, dict) else value for k, value in plain.items()}
        )

    def with_hash_bits(self, n_hp: int) -> "Config":
        """This configuration, with the hash widened to the next power of two if N_hp needs it.

        Raises:
            ValueError: N_hp is not in 1..128.
        """
        if not 1 <= n_hp <= 128:
            raise ValueError(f"N_hp must be from 1 to 128, not {n_hp!r}")
        width = max(self.hcu.hash_bits, 1 << (n_hp - 1).bit_length())
        return dataclasses.replace(self, hcu=dataclasses.replace(self.hcu, hash_bits=width))

    def with_code_bits(self, bits: int) -> "Config":
        """This configuration with codes of so many bits.

        Raises:
            ValueError: see `CodesConfig`.
        """
        return dataclasses.replace(self, codes=dataclasses.replace(self.codes, bits=bits))

    def with_heads(self, kv_heads: int, head_dim: int) -> "Config":
        """This configuration for a decoder with such KV heads.

        Raises:
            ValueError: see `KvmuConfig`.
        """
        kvmu = dataclasses.replace(self.kvmu, kv_heads=kv_heads, head_dim=head_dim)
        return dataclasses.replace(self, kvmu=kvmu)


RELATIONS: tuple[Relation[Config], ...] = (
    Relation(
        "hcu.hash_bits must fit into a bus beat, so be at most bus_bits",
        ("hcu.hash_bits", "bus_bits"),
        lambda config: config.hcu.hash_bits <= config.bus_bits,
    ),
    Relation(
        "hcu.tile_clusters x hash_bits must hold at least four bus beats",
        ("hcu.tile_clusters", "hcu.hash_bits", "bus_bits"),
        lambda config: config.hcu.tile_clusters * config.hcu.hash_bits >= 4 * config.bus_bits,
    ),
    Relation(
        "kvmu.head_dim must fill a bus beat, so be at least bus_bits / 16",
        ("kvmu.head_dim", "bus_bits"),
        lambda config: 16 * config.kvmu.head_dim >= config.bus_bits,
    ),
    Relation(
        "wtu.row_clusters x 16 bits must hold at least one bus beat",
        ("wtu.row_clusters", "bus_bits"),
        lambda config: config.wtu.row_clusters * 16 >= config.bus_bits,
    ),
    Relation(
        "mean.lanes x 16 bits must fit into a bus beat",
        ("mean.lanes", "bus_bits"),
        lambda config: 16 * config.mean.lanes <= config.bus_bits,
    ),
    Relation(
        "codes.residents must not exceed codes.tokens, and 16 bits of each must fill a bus beat",
        ("codes.residents", "codes.tokens", "bus_bits"),
        lambda config: config.bus_bits <= 16 * config.codes.residents <= 16 * config.codes.tokens,
    ),
)
"""What must hold between the sections of every configuration."""

LXE_RELATIONS: tuple[Relation[Config], ...] = (
    Relation(
        "dpe.trees and vpe.lanes must not exceed dpe.inputs, the values of a line of the LXE's memory",
        ("dpe.trees", "vpe.lanes", "dpe.inputs"),
        lambda config: max(config.dpe.trees, config.vpe.lanes) <= config.dpe.inputs,
    ),
    Relation(
        "lxe.memory_kib must be whole lines of 2 x dpe.inputs bytes in all banks, 65536 at most",
        ("lxe.memory_kib", "lxe.banks", "dpe.inputs"),
        lambda config: (
            config.lxe.memory_kib * 1024 % (config.dpe.beat_bytes * config.lxe.banks) == 0
            and config.lines <= 65536
        ),
    ),
)
"""What must hold for DPE, VPE and memory to make an LXE (`Config.check_lxe`)."""

CORE_RELATIONS: tuple[Relation[Config], ...] = (
    Relation(
        "2 x dpe.inputs bytes, a line of the LXE's memory, must be whole bus beats",
        ("dpe.inputs", "bus_bits"),
        lambda config: config.dpe.beat_bytes >= config.bus_bytes,
    ),
    Relation(
        "kvmu.head_dim, the values of a key, must be whole lines of dpe.inputs values",
        ("kvmu.head_dim", "dpe.inputs"),
        lambda config: config.kvmu.head_dim >= config.dpe.inputs,
    ),
)
"""What must hold for LXE and DRE to make a core (`Config.check_core`)."""

MOST_CORES = 64
"""Cores of a chip: as many as its registers have bits for."""

TOP_RELATIONS: tuple[Relation[Config], ...] = (
    Relation(
        f"cores must be a multiple of ports, at most {MOST_CORES}, since every port serves as many",
        ("cores", "ports"),
        lambda config: config.cores <= MOST_CORES and config.cores % config.ports == 0,
    ),
)
"""What must hold for cores to make a chip (`Config.check_top`)."""


def _presets() -> dict[str, Config]:
    edge = Config()
    small = {"lanes": 4}
    return {
        "tiny": Config(
            name="tiny",
            bus_bits=64,
            hcu=HcuConfig(**small, chunk_tokens=16, tile_clusters=64),
            wtu=WtuConfig(**small, row_clusters=2048, mask_clusters=16384),
            kvmu=KvmuConfig(head_dim=64, kv_heads=2),
            codes=CodesConfig(**small, tokens=1024, residents=256),
            dpe=DpeConfig(trees=16, inputs=16),
            vpe=VpeConfig(lanes=4),
        ),
        # As `tiny`, with a ratio of vector lanes to MAC trees nearer to `edge`: the core that simulates fast.
        "small": Config(
            name="small",
            bus_bits=64,
            hcu=HcuConfig(lanes=8, chunk_tokens=16, tile_clusters=64),
            wtu=WtuConfig(row_clusters=4096, mask_clusters=16384),
            kvmu=KvmuConfig(head_dim=64, kv_heads=2),
            dpe=DpeConfig(trees=16, inputs=16),
            vpe=VpeConfig(lanes=16),
            core=CoreConfig(stream_lines=4096, kv_tokens=64, queue=32),
        ),
        "ulx3s": Config(
            name="ulx3s",
            bus_bits=128,
            hcu=HcuConfig(lanes=8),
            wtu=WtuConfig(lanes=8),
            dpe=DpeConfig(trees=4, inputs=16),
            vpe=VpeConfig(lanes=8),
            lxe=LxeConfig(memory_kib=128),
        ),
        "edge": edge,
        "edge8": dataclasses.replace(edge, name="edge8", cores=8),
        "server48": dataclasses.replace(edge, name="server48", cores=48),
    }


def check_unit(**parts: Any) -> None:
    """Applies the rules that span parts to a unit that is built without a whole `Config`.

    Args:
        parts: what the unit takes, as the fields of `Config` that they are; the others are the defaults.

    Raises:
        ValueError: the parts do not go together.
    """
    Config(**parts)


PRESETS = _presets()
"""Named configurations; `edge` is the paper's core, `edge8` and `server48` its two chips (Table I)."""


def preset(name: str) -> Config:
    """The named configuration.

    Raises:
        ValueError: there is no such preset; the message lists those there are.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
