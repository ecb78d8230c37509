"""The benchmark of the cache on a short stream: its sums, and that its comparison can fail."""

import json

import pytest

from vrex.sw.evaluation.benches import cache
from vrex.sw.retrieval.cache.tables import StoredTables
from vrex.sw.retrieval.cache.tiers import Budgets
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.tables import Selection

TOKENS = 1500
LITTLE = Budgets(device=1_200_000, host=1_000_000)


def test_a_short_stream() -> None:
    done: list[int] = []
    figures = cache.bench_cache(TOKENS, LITTLE, done.append)
    assert done[-1] == TOKENS
    assert [mark["tokens"] for mark in figures["marks"]] == list(range(150, TOKENS + 1, 150))
    assert figures["compared"] > 0
    assert figures["mismatches"] == 0
    assert figures["cache"]["tiers"]["file"]["bytes"] > 0
    json.dumps(figures, allow_nan=False)
    assert f"{figures['compared']:,} values compared, 0 mismatches" in cache.table(figures)


def test_a_wrong_delivery_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = StoredTables.choose

    def wrong(self: StoredTables, chunk: Chunk, selection: Selection, sinks: int) -> Delivered:
        delivered = choose(self, chunk, selection, sinks)
        delivered.kv[0][0, -1:, 3] += 1
        return delivered

    monkeypatch.setattr(StoredTables, "choose", wrong)
    assert cache.bench_cache(TOKENS, LITTLE)["mismatches"] > 0


@pytest.mark.slow
def test_a_long_stream_in_bounded_memory() -> None:
    """100 000 tokens in 16 MB of device and 64 MB of host memory."""
    figures = cache.bench_cache()
    assert figures["mismatches"] == 0
    assert figures["rss_growth_bytes"] <= 100e6
    print({key: figures[key] for key in ("rss_growth_bytes", "time_growth", "attended_growth")})
