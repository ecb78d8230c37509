"""Every dimension of the hardware, once: RTL, model, testbenches and generated files derive from here."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

CHUNK = 64
"""Terms of one dot-product chunk: part of the numerics, not the number of lanes."""

MAX_CLUSTERS = 65_535
"""Clusters one HC table can hold: indices are 16 bits wide and the count must be too."""

MAX_COUNT = 65_535
"""Tokens one cluster can hold; a cluster that reaches it is closed."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def is_power_of_two(value: int) -> bool:
    """True for 1, 2, 4, ..."""
    return isinstance(value, int) and value > 0 and value & (value - 1) == 0


def _check_power_of_two(owner: str, name: str, value: int, low: int, high: int) -> None:
    _check(
        is_power_of_two(value) and low <= value <= high,
        f"{owner}.{name} must be a power of two from {low} to {high}, not {value!r}",
    )


@dataclass(frozen=True, kw_only=True)
class HcuConfig:
    """Hash-bit clustering unit (paper Section V-B).

    Attributes:
        lanes: XOR accumulators, that is cluster hash-bits compared in one cycle.
        hash_bits: width of one token's hash; N_hp may be smaller (unused bits stay 0).
        chunk_tokens: entries of the current hash-bits memory: tokens one CLUSTER command can take.
        tile_clusters: entries of the cluster hash-bits memory; longer tables stream through it.
    """

    lanes: int = 16
    hash_bits: int = 32
    chunk_tokens: int = 32
    tile_clusters: int = 1024

    def __post_init__(self) -> None:
        _check_power_of_two("hcu", "lanes", self.lanes, 1, 64)
        _check_power_of_two("hcu", "hash_bits", self.hash_bits, 8, 128)
        _check_power_of_two("hcu", "chunk_tokens", self.chunk_tokens, 2, 256)
        _check_power_of_two("hcu", "tile_clusters", self.tile_clusters, 4 * self.lanes, 65536)

    @property
    def memory_bytes(self) -> int:
        """Current and cluster hash-bits memories together."""
        return (self.chunk_tokens + self.tile_clusters) * self.hash_bits // 8


@dataclass(frozen=True, kw_only=True)
class WtuConfig:
    """WiCSum threshold unit (paper Section V-B).

    Attributes:
        lanes: scores handled in one cycle.
        row_clusters: entries of the score and of the token count memory: the longest row that is sent once.
        mask_clusters: entries of the bitmask memory: the longest row, sent in tiles of `row_clusters`.
        buckets: score ranges of selection `bucket`.
    """

    lanes: int = 16
    row_clusters: int = 4096
    mask_clusters: int = 65536
    buckets: int = 16

    def __post_init__(self) -> None:
        _check_power_of_two("wtu", "lanes", self.lanes, 1, 64)
        _check_power_of_two("wtu", "row_clusters", self.row_clusters, 4 * self.lanes, 65536)
        _check_power_of_two("wtu", "mask_clusters", self.mask_clusters, self.row_clusters, 65536)
        _check_power_of_two("wtu", "buckets", self.buckets, 2, 64)

    @property
    def memory_bytes(self) -> int:
        """Score and token count memories together."""
        return 2 * self.row_clusters * 2


@dataclass(frozen=True, kw_only=True)
class KvmuConfig:
    """KV management unit (paper Section V-C).

    Attributes:
        head_dim: dimensions of one KV head's key.
        kv_heads: KV heads that one HC table of scope `layer` holds.
        segment_tokens: tokens of one cluster at contiguous addresses.
        outstanding: read bursts in flight.
        burst_beats: bus beats of the longest AXI burst.
    """

    head_dim: int = 128
    kv_heads: int = 8
    segment_tokens: int = 8
    outstanding: int = 8
    burst_beats: int = 16

    def __post_init__(self) -> None:
        _check_power_of_two("kvmu", "head_dim", self.head_dim, 16, 256)
        whole = isinstance(self.kv_heads, int)
        _check(
            whole and 1 <= self.kv_heads <= 32, f"kvmu.kv_heads must be from 1 to 32, not {self.kv_heads!r}"
        )
        _check_power_of_two("kvmu", "segment_tokens", self.segment_tokens, 1, 64)
        _check_power_of_two("kvmu", "outstanding", self.outstanding, 1, 32)
        _check_power_of_two("kvmu", "burst_beats", self.burst_beats, 1, 64)

    @property
    def token_bytes(self) -> int:
        """K and V of one token in one KV head, BF16."""
        return 4 * self.head_dim

    @property
    def segment_bytes(self) -> int:
        """A segment of one KV head."""
        return self.segment_tokens * self.token_bytes


@dataclass(frozen=True, kw_only=True)
class MeanConfig:
    """Unit of the running mean (Key_cluster, paper Section IV-B).

    Attributes:
        lanes: values handled in one cycle.
    """

    lanes: int = 2

    def __post_init__(self) -> None:
        _check_power_of_two("mean", "lanes", self.lanes, 1, 32)


DOT_SCHEMES = ("fused", "tree")
"""How a dot product's chunk is added up (numeric contract)."""


@dataclass(frozen=True, kw_only=True)
class DpeConfig:
    """Dot-product engine of the LXE (paper Section V-A, Table III).

    Attributes:
        trees: MAC trees, that is columns of a weight tile.
        inputs: of one tree; a chunk of 64 terms takes 64 / inputs beats.
        rows: dot products in work at once in one tree, that is rows of activations that meet one tile.
        scheme: `fused` or `tree`.
        fraction_bits: W of scheme `fused`.
    """

    trees: int = 64
    inputs: int = 64
    rows: int = 32
    scheme: str = "fused"
    fraction_bits: int = 26

    def __post_init__(self) -> None:
        _check_power_of_two("dpe", "trees", self.trees, 1, 256)
        _check_power_of_two("dpe", "inputs", self.inputs, 2, 64)
        _check_power_of_two("dpe", "rows", self.rows, 2, 256)
        _check(self.scheme in DOT_SCHEMES, f"dpe.scheme must be fused or tree, not {self.scheme!r}")
        whole = isinstance(self.fraction_bits, int)
        _check(
            whole and 18 <= self.fraction_bits <= 40,
            f"dpe.fraction_bits must be from 18 to 40, not {self.fraction_bits!r}",
        )

    @property
    def beats(self) -> int:
        """Beats of one chunk of a dot product."""
        return CHUNK // self.inputs

    @property
    def beat_bytes(self) -> int:
        """Bytes of a beat: one BF16 value for each input of a tree."""
        return 2 * self.inputs


@dataclass(frozen=True, kw_only=True)
class VpeConfig:
    """Vector engine of the LXE (paper Section V-A).

    Attributes:
        lanes: elements handled in one cycle.
    """

    lanes: int = 64

    def __post_init__(self) -> None:
        _check_power_of_two("vpe", "lanes", self.lanes, 1, 64)


@dataclass(frozen=True, kw_only=True)
class LxeConfig:
    """LLM execution engine around DPE and VPE (paper Section V-A, Table III).

    Attributes:
        memory_kib: on-chip memory in KiB; a line holds `dpe.inputs` BF16 values.
        banks: of the memory, lines dealt out to them in turn.
    """

    memory_kib: int = 384
    banks: int = 4

    def __post_init__(self) -> None:
        whole = isinstance(self.memory_kib, int)
        _check(
            whole and 1 <= self.memory_kib <= 8192,
            f"lxe.memory_kib must be from 1 to 8192, not {self.memory_kib!r}",
        )
        _check_power_of_two("lxe", "banks", self.banks, 1, 32)

    def lines(self, dpe: DpeConfig) -> int:
        """Lines of the memory, each as wide as a beat of the DPE."""
        return self.memory_kib * 1024 // dpe.beat_bytes

    def check(self, dpe: DpeConfig, vpe: VpeConfig) -> None:
        """Checks that memory, DPE and VPE fit together; each may be built by itself in other shapes.

        Raises:
            ValueError: they don't.
        """
        _check(
            max(dpe.trees, vpe.lanes) <= dpe.inputs,
            "dpe.trees and vpe.lanes must not exceed dpe.inputs, the values of a line of the LXE's memory",
        )
        whole = self.memory_kib * 1024 % (dpe.beat_bytes * self.banks) == 0
        _check(
            whole and self.lines(dpe) <= 65536,
            f"lxe.memory_kib must be whole lines of {dpe.beat_bytes} bytes in all banks, 65536 at most",
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """One accelerator.

    Attributes:
        name: preset it came from.
        cores: identical cores; each has one KVPU.
        bus_bits: width of the data streams and of the AXI port.
        hcu, wtu, kvmu, mean, dpe, vpe, lxe: the units of one core.
    """

    name: str = "edge"
    cores: int = 1
    bus_bits: int = 256
    hcu: HcuConfig = field(default_factory=HcuConfig)
    wtu: WtuConfig = field(default_factory=WtuConfig)
    kvmu: KvmuConfig = field(default_factory=KvmuConfig)
    mean: MeanConfig = field(default_factory=MeanConfig)
    dpe: DpeConfig = field(default_factory=DpeConfig)
    vpe: VpeConfig = field(default_factory=VpeConfig)
    lxe: LxeConfig = field(default_factory=LxeConfig)

    def __post_init__(self) -> None:
        whole = isinstance(self.cores, int)
        _check(whole and 1 <= self.cores <= 1024, f"cores must be from 1 to 1024, not {self.cores!r}")
        _check_power_of_two("config", "bus_bits", self.bus_bits, 64, 512)
        _check(
            self.hcu.tile_clusters * self.hcu.hash_bits >= 4 * self.bus_bits,
            "hcu.tile_clusters x hash_bits must hold at least four bus beats",
        )
        _check(
            16 * self.kvmu.head_dim >= self.bus_bits,
            f"kvmu.head_dim must fill a bus beat, so be at least {self.bus_bits // 16} here",
        )
        _check(
            self.wtu.row_clusters * 16 >= self.bus_bits,
            "wtu.row_clusters x 16 bits must hold at least one bus beat",
        )
        _check(16 * self.mean.lanes <= self.bus_bits, "mean.lanes x 16 bits must fit into a bus beat")

    @property
    def bus_bytes(self) -> int:
        """Bytes in one beat of the data streams."""
        return self.bus_bits // 8

    def check_lxe(self) -> None:
        """Checks that the parts of the LXE fit together: see `LxeConfig.check`."""
        self.lxe.check(self.dpe, self.vpe)

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
        _check(1 <= n_hp <= 128, f"N_hp must be from 1 to 128, not {n_hp!r}")
        width = max(self.hcu.hash_bits, 1 << (n_hp - 1).bit_length())
        return dataclasses.replace(self, hcu=dataclasses.replace(self.hcu, hash_bits=width))

    def with_heads(self, kv_heads: int, head_dim: int) -> "Config":
        """This configuration for a decoder with such KV heads.

        Raises:
            ValueError: see `KvmuConfig`.
        """
        kvmu = dataclasses.replace(self.kvmu, kv_heads=kv_heads, head_dim=head_dim)
        return dataclasses.replace(self, kvmu=kvmu)


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
            dpe=DpeConfig(trees=16, inputs=16),
            vpe=VpeConfig(lanes=4),
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
