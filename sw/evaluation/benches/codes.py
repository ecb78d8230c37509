"""What ranking a long past by binary codes reads and recalls, on one level and on two.

Streams longer than a model was trained for are made of real ones: `Source` holds keys and queries of one KV
head before RoPE, as a model made them. A stream begins as the real one did, sinks included, and goes on with
runs of consecutive real tokens from anywhere in it. Each token x is mixed with another one y around their
mean c, c + sqrt(1 - a^2) (x - c) + a (y - c), which keeps mean and covariance and makes contents that the
stream has not had; then RoPE turns it to its position. A probe is a real chunk with the window before it, set
at the stream's end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vrex.model.dre import codes
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.sw.evaluation.figures.picture import new_figure, png, text_table
from vrex.sw.retrieval.policies.code_table import CodeTable, Levels
from vrex.sw.retrieval.policies.resv_bits import ResvBitsSettings

LENGTHS = (1_000, 2_000, 4_000, 8_000, 16_000, 40_000, 100_000, 400_000)
"""Tokens with a code."""

MOST = 40_000
"""Longer streams are made of the first head of each model only."""

K = 256
"""Tokens that are selected."""

RUN = 64
"""Mean length of a run of real tokens."""

MIX = 0.2
"""Share a of another token's content: with it streams have as many clusters as the real ones."""

ROWS, WINDOW, PROBES = 11, 110, 8
"""Tokens of a chunk and of the window before it, and real chunks that are asked at each length."""

KEPT, ADD = 32, 2048
"""Chunks before each length that enter one by one, for what they move; tokens that enter at once before."""

SEED = 20261130


@dataclass(frozen=True)
class Source:
    """A KV head of a real stream, before RoPE.

    Attributes:
        model, layer, head: where it is from.
        keys: float32 [n, dim].
        queries: float32 [query heads of the KV head, n, dim].
        frequencies: of RoPE, radians a token, float64 [dim / 2].
    """

    model: str
    layer: int
    head: int
    keys: np.ndarray
    queries: np.ndarray
    frequencies: np.ndarray

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model} layer {self.layer} head {self.head}"

    def stretched(self, tokens: int) -> "Source":
        """The same head in a model for so many tokens.

        What turns less than once over the real stream turns as little over the long one, as RoPE scaled for
        long contexts does (YaRN, Llama 3); without that, attention falls apart far beyond the trained length.
        """
        real = len(self.keys)
        slow = self.frequencies * real < 2 * np.pi
        shrunk = self.frequencies * min(1.0, real / tokens)
        return replace(self, frequencies=np.where(slow, shrunk, self.frequencies))

    def turned(self, x: np.ndarray, first: int) -> np.ndarray:
        """RoPE (half-split pairs) from position `first` on: float32 [..., n, dim] to BF16 bits uint16."""
        angles = np.arange(first, first + x.shape[-2])[:, None] * self.frequencies
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        low, high = np.split(x, 2, axis=-1)
        return arith.to_bf16(np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1))


class Stream:
    """Keys of an endless stream made of a source.

    Attributes:
        tokens: those that there were.
    """

    def __init__(self, source: Source, sinks: int, mix: float = MIX) -> None:
        """A stream behind the source's `sinks` first tokens."""
        self._source, self._mix = source, mix
        self._rng = np.random.default_rng([SEED, source.layer, source.head])
        self._mean = source.keys[sinks:].mean(axis=0)
        self._first, self._at = sinks, sinks
        self.tokens = sinks

    def next(self, count: int) -> np.ndarray:
        """The next tokens, BF16 bits uint16 [count, dim]."""
        source, real = self._source, len(self._source.keys)
        picked = np.empty(count, dtype=np.int64)
        for i in range(count):
            picked[i] = self._at
            self._at += 1
            # The stream begins as the real one does; later a run ends after RUN tokens on average.
            begun = self.tokens + i < self._first + WINDOW + ROWS
            if self._at == real or (not begun and self._rng.random() < 1 / RUN):
                self._at = int(self._rng.integers(self._first, real))
        others = self._rng.integers(self._first, real, count)
        own, other = source.keys[picked] - self._mean, source.keys[others] - self._mean
        mixed = self._mean + np.float32((1 - self._mix**2) ** 0.5) * own + np.float32(self._mix) * other
        turned = source.turned(mixed, self.tokens)
        self.tokens += count
        return turned


@dataclass(frozen=True)
class Probe:
    """A real chunk, set at the end of a stream.

    Attributes:
        queries: BF16 bits, uint16 [query heads x rows, dim].
        residents: keys of sinks, window and chunk, BF16 bits uint16 [m, dim].
        seen: bool [query heads x rows, m], which of them a row attends to.
    """

    queries: np.ndarray
    residents: np.ndarray
    seen: np.ndarray


def probes_at(source: Source, sinks: int, end: int) -> list[Probe]:
    """Chunks evenly spaced over the source's second half, behind `end` coded tokens and the sinks."""
    real, heads = len(source.keys), len(source.queries)
    starts = np.linspace(real // 2, real - ROWS, PROBES).astype(int)
    position = sinks + end
    causal = np.tril(np.ones((ROWS, ROWS), dtype=bool))
    seen = np.concatenate([np.ones((ROWS, sinks + WINDOW), dtype=bool), causal], axis=1)
    found = []
    for start in starts.tolist():
        near = source.turned(source.keys[start - WINDOW : start + ROWS], position)
        asked = source.turned(source.queries[:, start : start + ROWS], position + WINDOW)
        first = source.turned(source.keys[:sinks], 0)
        found.append(
            Probe(asked.reshape(heads * ROWS, -1), np.concatenate([first, near]), np.tile(seen, (heads, 1)))
        )
    return found


def masses(probe: Probe, keys: np.ndarray) -> tuple[np.ndarray, float]:
    """Exact attention, float32: what falls on each coded token, and on the residents together.

    Args:
        probe: its queries and residents.
        keys: of the coded tokens, BF16 bits uint16 [n, dim].

    Returns:
        Means over rows: float64 [n], and what is left of 1.
    """
    q = arith.from_bf16(probe.queries) * np.float32(keys.shape[1] ** -0.5)
    near = np.where(probe.seen, q @ arith.from_bf16(probe.residents).T, -np.inf)
    total = np.zeros(len(keys))
    far = arith.from_bf16(keys)
    for row, own in zip(q, near, strict=True):
        scores = far @ row
        largest = max(float(scores.max()), float(own.max()))
        weights = np.exp(scores - np.float32(largest))
        total += weights / (float(weights.sum(dtype=np.float64)) + float(np.exp(own - largest).sum()))
    total /= len(q)
    return total, 1 - float(total.sum())


def bench_codes(
    sources: Sequence[Source],
    lengths: Sequence[int] = LENGTHS,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Both tables on streams of each source.

    Args:
        sources: heads of models.
        lengths: coded tokens at which the probes are asked.
        progress: called with what is measured next, once for each source and length.

    Returns:
        `settings` of the policy, `stream` (how streams are made), and `rows`, for each source and length:
        `source`, `model`, `tokens`; `th_hd` and `clusters` of two levels by then; `flat`, one level, and
        `two`, each with `read_bytes` to rank, a mean over probes, `kept_bytes` to take in a chunk of `ROWS`
        tokens, `recall` of attention mass by sinks, window, chunk and the selected tokens, and `found`, the
        same of the mass on tokens with a code. `best` is the recall of the true best k tokens, `resident`
        that without any.
    """
    settings = ResvBitsSettings(k=K)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for source in sources:
        asked = [length for length in sorted(lengths) if length <= MOST or source.model not in seen]
        seen.add(source.model)
        run = _Run(source.stretched(max(asked, default=0)), settings)
        for length in asked:
            if progress:
                progress(f"{source.name}, {length:,} tokens")
            rows.append(run.measure(length))
    return {
        "settings": {"k": settings.k, "bits": settings.bits, "th_hd": settings.th_hd, "depth": settings.depth}
        | {"sinks": settings.sinks, "seed": settings.seed},
        "stream": {"run": RUN, "mix": MIX, "rows": ROWS, "window": WINDOW, "probes": PROBES, "seed": SEED},
        "rows": rows,
    }


class _Run:
    """A stream that enters a table of each kind."""

    def __init__(self, source: Source, settings: ResvBitsSettings) -> None:
        self._source, self._settings = source, settings
        self._stream = Stream(source, settings.sinks)
        self._scale = Scale.from_float(source.keys.shape[1] ** -0.5)
        # The centre is frozen when the window first overflows.
        first = self._stream.next(WINDOW + ROWS)
        rows = codes.planes(settings.seed, source.layer, source.head, settings.bits, first.shape[1])
        limit = settings.depth * settings.k
        self._tables = {
            "flat": CodeTable(rows, first),
            "two": CodeTable(rows, first, Levels(settings.th_hd, limit)),
        }
        self._keys, self._coded = [first], len(first)
        for table in self._tables.values():
            table.add(first)

    def _add(self, count: int) -> dict[str, int]:
        """Takes tokens in, the last `KEPT` chunks one by one; what each table moved for one of these."""
        moved = dict.fromkeys(self._tables, 0)
        tail = min(KEPT, count // ROWS)
        head = count - tail * ROWS
        sizes = [*[ADD] * (head // ADD), *[head % ADD] * (head % ADD > 0), *[ROWS] * tail]
        for number, size in enumerate(sizes):
            keys = self._stream.next(size)
            self._keys.append(keys)
            for name, table in self._tables.items():
                bytes_moved = table.add(keys)
                moved[name] += bytes_moved if number >= len(sizes) - tail else 0
        self._coded += count
        return {name: round(total / max(tail, 1)) for name, total in moved.items()}

    def measure(self, length: int) -> dict[str, Any]:
        """The row of a length."""
        source, settings = self._source, self._settings
        moved = self._add(length - self._coded)
        keys = np.concatenate(self._keys)
        sums: dict[str, Any] = {name: {"read": 0, "recall": 0.0, "found": 0.0} for name in self._tables}
        best = resident = 0.0
        probes = probes_at(source, settings.sinks, length)
        for probe in probes:
            mass, near = masses(probe, keys)
            far = mass.sum()
            best += near + np.partition(mass, -settings.k)[-settings.k :].sum()
            resident += near
            for name, table in self._tables.items():
                ranked = table.best(probe.queries, probe.residents, probe.seen, self._scale, settings.k)
                kept = mass[ranked.tokens].sum()
                sums[name]["read"] += ranked.read
                sums[name]["recall"] += near + kept
                sums[name]["found"] += kept / far
        n = len(probes)
        row: dict[str, Any] = {
            "source": source.name,
            "model": source.model,
            "tokens": length,
            "th_hd": self._tables["two"].th_hd,
            "clusters": self._tables["two"].clusters,
            "best": round(best / n, 4),
            "resident": round(resident / n, 4),
        }
        for name, part in sums.items():
            row[name] = {
                "read_bytes": round(part["read"] / n),
                "kept_bytes": moved[name],
                "recall": round(float(part["recall"]) / n, 4),
                "found": round(float(part["found"]) / n, 4),
            }
        return row


def table(figures: dict[str, Any]) -> str:
    """A line for each source and length."""
    lines: list[tuple[Any, ...]] = [
        ("source", "tokens", "clusters", "flat KB", "two KB", "recall: best", "flat", "two", "none")
    ]
    for row in figures["rows"]:
        flat, two = row["flat"], row["two"]
        lines.append(
            (
                row["source"],
                f"{row['tokens']:,}",
                row["clusters"],
                f"{_kilobytes(flat):.0f}",
                f"{_kilobytes(two):.0f}",
                f"{row['best']:.3f}",
                f"{flat['recall']:.3f}",
                f"{two['recall']:.3f}",
                f"{row['resident']:.3f}",
            )
        )
    return text_table(lines)


def _kilobytes(part: dict[str, Any]) -> float:
    """What a chunk moves: read to rank and moved to keep."""
    return float(part["read_bytes"] + part["kept_bytes"]) / 1000


def plot(figures: dict[str, Any]) -> bytes:
    """Bytes of a chunk, and recall against one level, over the length."""
    figure, (left, right) = new_figure(2, 5.0)
    sources = list(dict.fromkeys(row["source"] for row in figures["rows"]))
    for source in sources:
        rows = [row for row in figures["rows"] if row["source"] == source]
        tokens = [row["tokens"] for row in rows]
        left.plot(tokens, [_kilobytes(row["two"]) for row in rows], marker=".", label=source)
        right.plot(tokens, [row["two"]["recall"] - row["flat"]["recall"] for row in rows], marker=".")
    lengths = sorted({row["tokens"] for row in figures["rows"]})
    one = {row["tokens"]: _kilobytes(row["flat"]) for row in figures["rows"]}
    left.plot(lengths, [one[length] for length in lengths], color="0.4", linestyle="--", label="one level")
    left.set(xscale="log", yscale="log", xlabel="tokens with a code", ylabel="KB a chunk and KV head")
    left.legend(fontsize=6)
    right.axhline(0, color="0.4", linestyle="--", linewidth=1)
    right.set(xscale="log", xlabel="tokens with a code", ylabel="recall of two levels - of one")
    return png(figure)
