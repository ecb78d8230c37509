"""Measures other running means and other copies of means in 4 bits, on the checkpoint's keys and others.

    .venv/bin/python scripts/measure_means.py [--frames 192]

Prints two tables: of each way to quantise means the recall of their scores' top tenth, and of each way to
keep a mean the relative error |mean - exact| / |exact| by number of members.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vrex.model.config import preset
from vrex.model.dre import mean, quant
from vrex.model.lib import arith
from vrex.sw.driver import open_transport
from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.figures.watch import FULL, Observed
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import flat_keys

SEED = 1000
TH_HDS = (5, 7, 10)
SIZES = (2, 16, 32, 64, 128, 256)
"""Least members of each row of the first table; the next row's least is the end."""
CAPS = (32, 64, 128)
ROWS = 64
"""Query rows of each layer and query head: those of the last frames."""
GROUP = 32
"""Clusters that share a scale in groups by channel."""
OFFSET, OUTLIER = 3.0, 8.0
"""Of a made-up key's channels, in standard deviations: every eighth has one, one in 64 is so much larger."""

Update = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(mean float32 [dim], key float32 [dim], members with the new one) -> mean."""


def exactly(m: np.ndarray, k: np.ndarray, n: int) -> np.ndarray:
    """M + (k - m) / n in FP32."""
    return m + (k - m) * (np.float32(1) / np.float32(n))


def nearest(m: np.ndarray, k: np.ndarray, n: int) -> np.ndarray:
    """The contract's: rounded to BF16, ties to even."""
    return arith.round_bf16(exactly(m, k, n))


def floored(least: int) -> Update:
    """The contract's with 1/n no smaller than 1/least."""
    return lambda m, k, n: nearest(m, k, min(n, least))


def dithered(m: np.ndarray, k: np.ndarray, n: int) -> np.ndarray:
    """The contract's other rounding."""
    return arith.from_bf16(mean.dither(exactly(m, k, n), np.array([n])))


def wider(bits: int) -> Update:
    """Rounded to BF16 with so many more bits."""
    low = 16 - bits

    def update(m: np.ndarray, k: np.ndarray, n: int) -> np.ndarray:
        word = exactly(m, k, n).view(np.uint32)
        half = (np.uint32(1) << np.uint32(low - 1)) - np.uint32(1) + (word >> np.uint32(low) & np.uint32(1))
        return (word + half >> np.uint32(low) << np.uint32(low)).view(np.float32)

    return update


WAYS: dict[str, Update] = {
    "as it is": nearest,
    "1/n from 1/32 on": floored(32),
    "dithered": dithered,
    "8 bits more": wider(8),
    "FP32": exactly,
}


def follow(keys: np.ndarray, way: Update) -> np.ndarray:
    """Mean of keys float32 [n, dim], rounded to BF16 at the end."""
    running = keys[0]
    for n, key in enumerate(keys[1:], 2):
        running = way(running, key, n)
    return arith.round_bf16(running)


def error(own: np.ndarray, keys: np.ndarray) -> float:
    """|mean - exact| / |exact|."""
    exact = keys.astype(np.float64).mean(axis=0)
    return float(np.linalg.norm(own - exact) / np.linalg.norm(exact))


def capture(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys float32 [layers, KV heads, tokens, dim] of a video; last queries [layers, heads, ROWS, dim]."""
    last: dict[int, Chunk] = {}
    queries: dict[int, list[np.ndarray]] = {}

    def observe(chunk: Chunk) -> None:
        last[chunk.layer] = chunk
        queries.setdefault(chunk.layer, []).append(chunk.q)

    bench = Bench(None, Path("calibration.npz"))
    bench.run(VideoCell(FULL, Clip("tasks", frames, SEED)), lambda policy: Observed(policy, observe))
    keys = [np.concatenate([chunk.keys, chunk.k], axis=1) for _, chunk in sorted(last.items())]
    rows = [np.concatenate(own, axis=1)[:, -ROWS:] for _, own in sorted(queries.items())]
    return np.stack(keys), np.stack(rows)


def members(keys: np.ndarray, th_hd: int) -> list[tuple[int, list[np.ndarray]]]:
    """(layer, tokens of each cluster) of keys [layers, KV heads, tokens, dim] at a threshold."""
    layers, heads, tokens, dim = keys.shape
    transport = open_transport("golden", preset("edge"))
    tables = HostTables(ResvSettings(th_hd=th_hd), Shape(layers, heads, heads, dim, 0), transport)
    found = []
    for layer in range(layers):
        tables.take(layer, arith.to_bf16(keys[layer]), np.arange(tokens))
        [own] = tables.layers[layer]
        cluster, ids = own.hc.token_cluster, own.hc.token_ids
        found.append((layer, [ids[cluster == i] for i in range(own.hc.clusters)]))
    return found


def print_means(keys: np.ndarray) -> None:
    """The first table."""
    bf16 = arith.round_bf16(keys)
    names = [*WAYS, *(f"closed at {cap}" for cap in CAPS)]
    print("th_hd  members  clusters  " + "  ".join(names))
    for th_hd in TH_HDS:
        rows: dict[int, list[list[float]]] = {size: [] for size in SIZES}
        more = dict.fromkeys(CAPS, 0)
        total = 0
        for layer, clusters in members(keys, th_hd):
            flat = flat_keys(bf16[layer])
            for tokens in clusters:
                own, n = flat[tokens], len(tokens)
                total += 1
                for cap in CAPS:
                    more[cap] += -(-n // cap) - 1
                if n < SIZES[0]:
                    continue
                found = [error(follow(own, way), own) for way in WAYS.values()]
                # Closed clusters: each token's share of the error of the piece that it is in.
                for cap in CAPS:
                    pieces = [own[at : at + cap] for at in range(0, n, cap)]
                    each = [error(follow(piece, nearest), piece) * len(piece) for piece in pieces]
                    found.append(sum(each) / n)
                rows[max(size for size in SIZES if size <= n)].append(found)
        for size, of_size in rows.items():
            if of_size:
                means = "  ".join(f"{100 * value:.2f} %" for value in np.mean(of_size, axis=0))
                print(f"{th_hd}  {size}  {len(of_size)}  {means}")
        grown = ", ".join(f"{cap}: {100 * more[cap] / total:.1f} %" for cap in CAPS)
        print(f"{th_hd}: {total} clusters; more of them when closed at {grown}")


def print_drift() -> None:
    """The same of long made-up clusters, whose centre stays or moves by a standard deviation."""
    rng = np.random.default_rng(1)
    counts = (64, 256, 1024, 4096, 16384, 65535)
    for name, drift in (("still", 0.0), ("moving", 1.0)):
        centre = rng.standard_normal(64)
        step = drift * rng.standard_normal(64)
        way_along = np.linspace(0, 1, counts[-1])[:, None]
        keys = centre + way_along * step + 0.3 * rng.standard_normal((counts[-1], 64))
        keys = arith.round_bf16(keys.astype(np.float32))
        for label, way in WAYS.items():
            running, found = keys[0], []
            for n, key in enumerate(keys[1:], 2):
                running = way(running, key, n)
                if n in counts:
                    found.append(f"{100 * error(arith.round_bf16(running), keys[:n]):.2f} %")
            print(f"{name}, {label}: " + "  ".join(found))


def symmetric(values: np.ndarray) -> np.ndarray:
    """Float32 means [clusters, dim] as SCORE reads their copy in 4 bits, one scale each."""
    return arith.from_bf16(quant.dequantise(*quant.quantise(arith.to_bf16(values), 4)))


def centred(values: np.ndarray) -> np.ndarray:
    """The same after the means' common offset, which adds the same to all scores of a row, is taken away."""
    return symmetric(values - values.mean(axis=0))


def by_channel(values: np.ndarray) -> np.ndarray:
    """One scale for each channel of `GROUP` clusters, symmetric."""
    parts = [values[at : at + GROUP] for at in range(0, len(values), GROUP)]
    return np.concatenate([symmetric(part.T.copy()).T for part in parts])


def by_channel_between(values: np.ndarray) -> np.ndarray:
    """One scale and one offset for each channel of `GROUP` clusters."""
    out = []
    for at in range(0, len(values), GROUP):
        part = values[at : at + GROUP]
        low, high = part.min(axis=0), part.max(axis=0)
        step = np.maximum(high - low, 1e-9) / 15
        out.append(low + step * np.rint((part - low) / step))
    return np.concatenate(out).astype(np.float32)


COPIES = {
    "one scale": symmetric,
    "offset removed, one scale": centred,
    "scale by channel": by_channel,
    "scale and offset by channel": by_channel_between,
}


def recall(q: np.ndarray, means: np.ndarray, copy: np.ndarray) -> float:
    """Share of the top tenth of clusters of rows q [rows, dim] that a copy of the means finds."""
    k = max(1, len(means) // 10)
    right, found = (np.argsort(-(q @ each.T), axis=1, kind="stable")[:, :k] for each in (means, copy))
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(right, found, strict=True)]))


def made_up(rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(rows, means) with plain channels, with offsets of some, and with a few large ones."""
    means, q = (rng.standard_normal((n, 64)).astype(np.float32) for n in (1024, ROWS))
    offset = np.where(np.arange(64) % 8 == 0, np.float32(OFFSET), 0)
    large = np.where(np.arange(64) == 5, np.float32(OUTLIER), 1)
    return {
        "made up, plain": (q, means),
        "made up, offsets": (q, means + offset),
        "made up, a large channel": (q, means * large),
        "made up, both": (q, means * large + offset),
    }


def print_recall(keys: np.ndarray, queries: np.ndarray) -> None:
    """The second table."""
    found: dict[str, list[list[float]]] = {}
    _, heads, _, dim = keys.shape
    for layer, clusters in members(keys, TH_HDS[0]):
        means = np.stack([keys[layer][:, tokens].mean(axis=1) for tokens in clusters], axis=1)
        for head in range(heads):
            rows = queries[layer].reshape(heads, -1, dim)[head]
            own = arith.round_bf16(means[head])
            values = [recall(rows, own, copy(own)) for copy in COPIES.values()]
            found.setdefault("checkpoint", []).append(values)
    for name, (rows, own) in made_up(np.random.default_rng(2)).items():
        found[name] = [[recall(rows, own, copy(own)) for copy in COPIES.values()]]
    print("recall of the top tenth: " + ", ".join(COPIES))
    for name, heads_of in found.items():
        each = np.array(heads_of)
        both = zip(each.mean(axis=0), each.min(axis=0), strict=True)
        print(f"{name}: " + "  ".join(f"{value:.3f} (least {least:.3f})" for value, least in both))


def main() -> None:
    """Captures a video's keys and prints the tables."""
    parser = argparse.ArgumentParser(description="Other running means and other copies of means.")
    parser.add_argument("--frames", type=int, default=192)
    args = parser.parse_args()
    keys, queries = capture(args.frames)
    print_recall(keys, queries)
    print_means(keys)
    print_drift()


if __name__ == "__main__":
    main()
