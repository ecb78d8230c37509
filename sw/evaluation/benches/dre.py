"""The retrieval engine in figures: cycles of its units from the RTL's counters, and bytes of its tables."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from vrex.model.commands import Register
from vrex.model.config import Config, KvmuConfig
from vrex.model.dre import hashing
from vrex.model.dre.kvstore import COPIES, COUNT_BYTES, MAP_BYTES, TAIL_BYTES, Table, copy_bytes
from vrex.model.dre.wtu import Rule, Selection, Transform
from vrex.model.lxe import mac_tree
from vrex.sw.driver.command_interface import CommandInterface
from vrex.sw.driver.dre import AppendRequest, Capacity, DreEngine, FetchRequest, MemoryLayout, RetrieveRequest
from vrex.sw.driver.kvpu import KvpuEngine, SelectRequest
from vrex.sw.driver.rtl import RtlTransport
from vrex.sw.evaluation.benches.traces import Trace, capture
from vrex.sw.evaluation.benches.wtu import captured_rows, search
from vrex.sw.videollm.videollm import VideoLLM

SYNTHETIC = (1250, 4096, 31250)
"""Clusters of the synthetic tables; 1 250 is 40 K tokens at 32 a cluster."""

CHUNK_TOKENS = 10
ROW_LENGTHS = (1024, 4096)
TRACE_TOKENS = 1024
TH_R = 19661
TH_HD = 5
OCCUPANCY = 32
"""Tokens per cluster that the paper's 1.67 % is said for."""

MEAN_BITS = 8
"""Of a mean as scores read it in `prediction`; policy `resv` reads BF16 means unless it is told otherwise."""

LATENCY = 64
"""Cycles of the memory that FETCH is measured against."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Layer:
    """A decoder layer of Llama-3 8B on the edge system (paper Section VI, Table I).

    Attributes:
        weight_bytes: q, k, v, o, gate, up and down in BF16.
        bandwidth: of DRAM, bytes/s.
        clock: of the accelerator, Hz.
        kv_heads, queries: KV heads, and query heads of each.
    """

    weight_bytes: int = 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    bandwidth: float = 204.8e9
    clock: float = 800e6
    kv_heads: int = 8
    queries: int = 4

    @property
    def cycles(self) -> float:
        """Clock cycles until the weights have come: the layer cannot be faster."""
        return self.weight_bytes / self.bandwidth * self.clock


def bench_dre(config: Config, progress: Progress = lambda step: None) -> dict[str, Any]:
    """Measures HCU, WTU and KVMU in the simulated Verilog.

    Args:
        config: accelerator.
        progress: gets the name of each step before it begins; `STEPS` lists them.

    Returns:
        Nested figures: `hcu`, `wtu`, `prediction`, `kvmu`, `hc_table`, `conditions`; cycles are the RTL's.

    Raises:
        UserError: the simulator can't be built.
    """
    progress("hcu")
    figures: dict[str, Any] = {"hcu": _hcu(config)}
    progress("wtu")
    figures["wtu"] = _wtu(config)
    progress("prediction")
    figures["prediction"] = _prediction(config, figures["hcu"]["cycles"])
    progress("kvmu")
    figures["kvmu"] = _segments(config)
    progress("captured")
    traces = capture(TRACE_TOKENS)
    captured = _captured(config, traces)
    figures["kvmu"] |= captured.pop("kvmu")
    figures["hc_table"] = {"share": table_share(KvmuConfig(), config, OCCUPANCY), **captured}
    figures["conditions"] = {"config": config.to_dict(), "memory_latency": LATENCY}
    return figures


STEPS = ("hcu", "wtu", "prediction", "kvmu", "captured")
"""What `bench_dre` does, in order."""


def table(figures: dict[str, Any]) -> str:
    """The figures that matter most, a line each."""
    exact, kvmu, prediction = figures["wtu"]["exact"], figures["kvmu"], figures["prediction"]
    hcu, share = figures["hcu"], figures["hc_table"]
    lines = [
        ("HCU, 10 tokens x 1 250 clusters", f"{hcu['cycles']} cycles ({hcu['ideal_cycles']:.0f} ideal)"),
        *(
            (f"WTU, {name[1:]} scores", f"{found['mean']:.0f} cycles mean, {found['worst']} worst")
            for name, found in exact.items()
        ),
        ("WTU, bucket, of a row examined", f"{figures['wtu']['bucket']['examined_share']:.1%}"),
        *(
            (f"prediction, of a layer, {bits[1:]}-bit means", f"{found:.2%}")
            for bits, found in prediction["share_by_mean_bits"].items()
        ),
        ("FETCH, bus busy on 16 KB segments", f"{kvmu['bus_busy']:.1%}"),
        ("FETCH, bus busy on single tokens", f"{kvmu['bus_busy_scattered']:.1%}"),
        ("FETCH, bus busy on captured keys", f"{kvmu['bus_busy_captured']:.1%}"),
        ("HC table, of the KV cache's bytes", f"{share['share']:.2%}"),
    ]
    return "\n".join(f"{name:36} {value}" for name, value in lines)


def table_share(kvmu: KvmuConfig, config: Config, tokens_per_cluster: float) -> float:
    """Bytes of an HC table of scope `layer` over those of its keys and values (paper Section V-C).

    Args:
        kvmu: the decoder's KV heads.
        config: accelerator; its hash width and segment length matter.
        tokens_per_cluster: mean.
    """
    hash_bytes = config.hcu.hash_bits // 8
    segments = -(-tokens_per_cluster // kvmu.segment_tokens)
    mean_bytes = 2 * kvmu.kv_heads * kvmu.head_dim
    cluster = hash_bytes + COUNT_BYTES + TAIL_BYTES + mean_bytes + segments * MAP_BYTES
    return cluster / (tokens_per_cluster * kvmu.kv_heads * kvmu.token_bytes)


def _count(engine: KvpuEngine, register: Register, work: Callable[[], object]) -> int:
    """By how much a counter grows over some work."""
    before = engine.read_register(register)
    work()
    return (engine.read_register(register) - before) % (1 << 32)


def _hcu(config: Config) -> dict[str, Any]:
    """Cycles of one frame against synthetic tables; `ideal_cycles` is every lane busy in every cycle."""
    engine = KvpuEngine(RtlTransport(CommandInterface(config)))
    engine.set_rule(Rule(th_r=TH_R), TH_HD)
    rng = np.random.default_rng(0)
    words = -(-config.hcu.hash_bits // 32)
    rows = {}
    for clusters in SYNTHETIC:
        hashes = rng.integers(0, 1 << 32, (CHUNK_TOKENS + clusters, words), dtype=np.uint32)
        tokens, table = hashes[:CHUNK_TOKENS], hashes[CHUNK_TOKENS:]
        cycles = _count(engine, Register.HCU_BUSY, partial(engine.cluster, tokens, table))
        rows[f"c{clusters}"] = {
            "cycles": cycles,
            "ideal_cycles": CHUNK_TOKENS * clusters / config.hcu.lanes,
        }
    return {**rows[f"c{SYNTHETIC[0]}"], **rows, "tokens": CHUNK_TOKENS, "lanes": config.hcu.lanes}


def _wtu(config: Config) -> dict[str, Any]:
    """Cycles from a row's last score to its bits in the bitmask, and the share of a row looked at."""
    transport = RtlTransport(CommandInterface(config))
    real = captured_rows(VideoLLM.load(), ROW_LENGTHS)
    exact = {}
    for length in ROW_LENGTHS:
        hard = _row_figures(transport, hard_rows(length, config.wtu.lanes), Rule(th_r=TH_R))
        figures = _row_figures(transport, real[length], Rule(th_r=TH_R))
        others = {
            rule.name.lower(): _row_figures(transport, real[length][::8], Rule(TH_R, transform=rule))
            for rule in (Transform.SHIFT, Transform.EXP)
        }
        exact[f"n{length}"] = {
            **figures,
            "worst": max(figures["worst"], hard["worst"]),
            "worst_of_real_rows": figures["worst"],
            "load": length * 16 // config.bus_bits,
            **others,
        }
    bucket = _row_figures(transport, real[ROW_LENGTHS[0]], Rule(TH_R, selection=Selection.BUCKET))
    return {
        "exact": exact,
        "bucket": {"examined_share": bucket["examined_share"], f"n{ROW_LENGTHS[0]}": bucket},
        "lanes": config.wtu.lanes,
    }


def _row_figures(transport: RtlTransport, rows: np.ndarray, rule: Rule) -> dict[str, float]:
    """Mean and worst cycles over rows of single tokens."""
    found = search(transport, rows, np.ones(rows.shape[1], dtype=np.int64), rule)
    return {
        "mean": float(found.cycles.mean()),
        "worst": int(found.cycles.max()),
        "rows": len(rows),
        "examined_share": float(found.examined.sum() / rows.size),
    }


def hard_rows(length: int, lanes: int) -> np.ndarray:
    """Rows made to keep the WTU busy: BF16 bits, uint16 [rows, length].

    The last score raises the row's exponent; all scores lie in one bin, or at one score, but for outliers;
    the threshold is passed at the row's end.
    """
    one, two, low = 0x3F80, 0x4000, 0x0080
    rng = np.random.default_rng(1)
    ties = np.full(length, one, dtype=np.uint16)
    late = ties.copy()
    late[-1] = two
    later = np.full(length, one, dtype=np.uint16)
    later[-lanes:] = np.arange(lanes) * 0x80 + two
    bins = (one + rng.integers(0, 128, length)).astype(np.uint16)
    late_bins = bins.copy()
    late_bins[-1] = two
    outliers = bins.copy()
    outliers[:: max(1, length // 8)] = low
    outliers[-1] = two
    rising = (0x3000 + np.arange(length) * (0x1000 // length)).astype(np.uint16)
    return np.stack([ties, late, later, bins, late_bins, outliers, rising, rising[::-1]])


def _prediction(config: Config, hcu_cycles: int) -> dict[str, Any]:
    """Prediction of a layer at 40 K tokens on eight cores, one KV head each, beside the layer itself.

    HCU and WTU work while weights stream in, so what they add is the time that the bytes of the tables take
    from the weights' bandwidth, and whatever they are busy beyond the layer's own time: `share_of_lxe`, for
    scores that read a copy of the means in `mean_bits` bits; `bf16` is for those that read the BF16 means.
    """
    layer, clusters = Layer(), SYNTHETIC[0]
    rows = layer.queries * CHUNK_TOKENS
    engine = KvpuEngine(RtlTransport(CommandInterface(config)))
    engine.set_rule(Rule(th_r=TH_R), TH_HD)
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((1, rows, clusters)).astype(np.float32).view(np.uint32) >> 16
    request = SelectRequest(scores.astype(np.uint16), np.full(clusters, OCCUPANCY), 0)
    wtu_cycles = _count(engine, Register.WTU_BUSY, partial(engine.select, [request]))
    small = config.hcu.hash_bits // 8 + COUNT_BYTES
    moved = {bits: _table_traffic(layer, clusters, small, bits) for bits in COPIES}
    exposed = max(0.0, hcu_cycles + wtu_cycles - layer.cycles)
    shares = {bits: size / layer.weight_bytes + exposed / layer.cycles for bits, size in moved.items()}
    table_bytes = moved[MEAN_BITS]
    return {
        "mean_bits": MEAN_BITS,
        "hcu_cycles": hcu_cycles,
        "wtu_cycles": wtu_cycles,
        "layer_cycles": layer.cycles,
        "table_bytes": table_bytes,
        "share_of_lxe": shares[MEAN_BITS],
        "bf16": {"table_bytes": moved[16], "share_of_lxe": shares[16]},
        "share_by_mean_bits": {f"b{bits}": share for bits, share in shares.items()},
        "share_without_means": clusters * small / layer.weight_bytes + exposed / layer.cycles,
        "share_if_not_overlapped": table_bytes / layer.weight_bytes
        + (hcu_cycles + wtu_cycles) / layer.cycles,
        "lanes": {"hcu": config.hcu.lanes, "wtu": config.wtu.lanes},
    }


def _table_traffic(layer: Layer, clusters: int, small: int, mean_bits: int) -> int:
    """Bytes of a layer's tables that prediction moves for one frame: all that scores read, and the update.

    An update reads and writes mean, hash and count of each token's cluster; with a quantised copy it reads
    the new mean once more and writes the copy.

    Args:
        layer: decoder layer.
        clusters: in its table.
        small: bytes of a cluster's hash and count.
        mean_bits: of a mean as scores read it.
    """
    mean_bytes = 2 * layer.kv_heads * KvmuConfig().head_dim
    copied = sum(copy_bytes(Config(), layer.kv_heads, mean_bits))
    update = 2 * (mean_bytes + small) + (mean_bytes + copied if copied else 0)
    return clusters * (small + (copied or mean_bytes)) + CHUNK_TOKENS * update


def _segments(config: Config) -> dict[str, Any]:
    """Share of FETCH's cycles in which a beat of K or V comes: full segments of 16 KB, and single tokens."""
    kvmu = replace(config.kvmu, head_dim=128, kv_heads=1, segment_tokens=32)
    wide = replace(config, kvmu=kvmu)
    busy = {}
    for name, tokens in (("bus_busy", kvmu.segment_tokens), ("bus_busy_scattered", 1)):
        clusters = 256 if tokens > 1 else 1024
        busy[name] = _fetch_all(wide, clusters, tokens)
    return {**busy, "segment_bytes": kvmu.segment_bytes, "outstanding": kvmu.outstanding}


def _fetch_all(config: Config, clusters: int, tokens: int) -> float:
    """Fetches every second cluster of a table whose clusters hold one segment of so many tokens."""
    layout = MemoryLayout.of(config, 1, 1, Capacity(clusters=clusters, segments=clusters, ring=0))
    memory = layout.new_memory()
    engine = DreEngine(RtlTransport(CommandInterface(config, memory), latency=LATENCY), layout)
    header = replace(layout.headers[0], clusters=clusters, segments=clusters, tokens=clusters * tokens)
    engine.transport.write(layout.addresses[0], header.pack())
    table = Table(config, memory, layout.addresses[0])
    table.map()[:] = np.stack([np.arange(clusters), np.full(clusters, tokens)], axis=1)
    mask = np.arange(clusters) % 2 == 0
    before = engine.counters()
    engine.fetch([FetchRequest(0, 0, mask[None])])
    after = engine.counters()
    return (after["kv_beats"] - before["kv_beats"]) / (after["fetch_busy"] - before["fetch_busy"])


def _captured(config: Config, traces: list[Trace]) -> dict[str, Any]:
    """The checkpoint's own keys, layer by layer: clusters, bytes of tables, and FETCH of what is selected."""
    heads, tokens, head_dim = traces[0].keys.shape
    config = config.with_heads(heads, head_dim)
    capacity = Capacity(clusters=min(tokens, 65_535), segments=tokens, ring=4 * config.hcu.chunk_tokens)
    layout = MemoryLayout.of(config, len(traces), heads, capacity)
    engine = DreEngine(RtlTransport(CommandInterface(config, layout.new_memory()), latency=LATENCY), layout)
    engine.set_rule(Rule(th_r=TH_R), TH_HD)
    for index, trace in enumerate(traces):
        _append_all(engine, index, trace)
    tables = [engine.table(index) for index in range(len(traces))]
    before = engine.counters()
    for index, trace in enumerate(traces):
        means = tables[index].means()
        scores = np.stack([mac_tree.dot_bf16(trace.queries[head], means[:, head]) for head in range(heads)])
        engine.retrieve([RetrieveRequest(index, index, scores)])
    after = engine.counters()
    clusters = sum(table.header.clusters for table in tables)
    occupancy = len(traces) * tokens / clusters
    segments = sum(table.header.segments for table in tables)
    return {
        "measured_occupancy": occupancy,
        "share_at_measured_occupancy": table_share(KvmuConfig(), config, occupancy),
        "segment_fill": len(traces) * tokens / (segments * config.kvmu.segment_tokens),
        "kvmu": {
            "bus_busy_captured": (after["kv_beats"] - before["kv_beats"])
            / (after["fetch_busy"] - before["fetch_busy"]),
        },
    }


def _append_all(engine: DreEngine, index: int, trace: Trace) -> None:
    """Takes a whole trace into a table, chunk by chunk."""
    heads, tokens, head_dim = trace.keys.shape
    hash_bits = engine.config.hcu.hash_bits
    planes = hashing.hyperplanes(0, index, 0, hash_bits, heads * head_dim)
    flat = trace.keys.transpose(1, 0, 2).reshape(tokens, -1)
    hashes = hashing.hash_keys(flat, planes, hash_bits)
    kv = np.stack([trace.keys, trace.values])
    for first in range(0, tokens, CHUNK_TOKENS):
        last = min(first + CHUNK_TOKENS, tokens)
        engine.append([AppendRequest(index, index, hashes[first:last], kv[:, :, first:last])])
