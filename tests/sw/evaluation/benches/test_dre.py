"""Figures of the retrieval engine."""

from dataclasses import replace

import numpy as np
import pytest

from vrex.model.config import HcuConfig, KvmuConfig, preset
from vrex.sw.evaluation.benches.dre import Layer, _table_traffic, bench_dre, hard_rows, table, table_share


def test_share_of_the_table_at_the_papers_occupancy() -> None:
    """By hand: hash 4, count 2, tail 4, mean 2048, four map entries of 4; 32 tokens of 4096 bytes."""
    share = table_share(KvmuConfig(), preset("edge"), 32)
    assert share == pytest.approx((4 + 2 + 4 + 2048 + 16) / (32 * 4096))
    assert share <= 0.0167


def test_share_of_the_table_counts_whole_segments() -> None:
    edge = preset("edge")
    one = table_share(KvmuConfig(kv_heads=1, head_dim=64), edge, 1)
    assert one == pytest.approx((4 + 2 + 4 + 128 + 4) / 256)
    wide = replace(edge, hcu=HcuConfig(hash_bits=64))
    assert table_share(KvmuConfig(), wide, 9) == pytest.approx((8 + 2 + 4 + 2048 + 8) / (9 * 4096))


def test_a_layer_takes_as_long_as_its_weights() -> None:
    layer = Layer()
    assert 32 * layer.weight_bytes == pytest.approx(13.96e9, rel=0.001)
    assert layer.cycles / layer.clock == pytest.approx(layer.weight_bytes / 204.8e9)


@pytest.mark.parametrize("length", [64, 1024, 4096])
def test_hard_rows_are_finite_and_differ(length: int) -> None:
    rows = hard_rows(length, 16)
    assert rows.shape[1:] == (length,)
    assert np.isfinite((rows.astype(np.uint32) << 16).view(np.float32)).all()
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.slow
def test_the_engine_meets_its_targets() -> None:
    steps: list[str] = []
    figures = bench_dre(preset("edge"), steps.append)
    assert steps == ["hcu", "wtu", "prediction", "kvmu", "captured"]
    hcu, exact, kvmu = figures["hcu"], figures["wtu"]["exact"], figures["kvmu"]
    assert hcu["cycles"] <= 1.1 * hcu["ideal_cycles"] + 200
    for name, mean, worst in (("n1024", 130, 270), ("n4096", 520, 1040)):
        assert exact[name]["mean"] <= mean
        assert exact[name]["worst"] <= worst
    assert 0 < figures["wtu"]["bucket"]["examined_share"] < 1
    assert kvmu["bus_busy"] >= 0.9
    assert 0 < kvmu["bus_busy_captured"] < 1
    assert figures["hc_table"]["share"] <= 0.0167
    assert "FETCH" in table(figures)
    prediction = figures["prediction"]
    assert prediction["share_of_lxe"] == prediction["share_by_mean_bits"]["b8"] <= 0.005
    assert prediction["mean_bits"] == 8
    # BF16 means miss the target, and the bench says so.
    assert prediction["bf16"]["share_of_lxe"] == prediction["share_by_mean_bits"]["b16"] > 0.005


def test_tables_move_less_with_a_quantised_copy() -> None:
    """By hand, for 3 clusters: what scores read, and for each of 10 tokens the update."""
    layer, mean = Layer(), 2 * 8 * 128
    assert _table_traffic(layer, 3, 6, 16) == 3 * (6 + mean) + 10 * 2 * (mean + 6)
    for bits, copy in ((8, 8 * 130), (4, 8 * 66)):
        update = 2 * (mean + 6) + mean + copy
        assert _table_traffic(layer, 3, 6, bits) == 3 * (6 + copy) + 10 * update
