import sys
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.sw.evaluation.benches.decoder import bench_decoder


def test_result() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    calls: list[tuple[int, int]] = []
    result = bench_decoder(frames=12, repeats=2, progress=lambda done, total: calls.append((done, total)))
    print(result)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result["frames"] == 12
    assert result["max_logit_difference"] < 1e-3
    for name in ("numpy", "transformers"):
        assert len(result[name]["runs"]) == 2
        assert min(result[name]["runs"]) <= result[name]["fps"] <= max(result[name]["runs"])
    assert result["ratio"] == pytest.approx(result["numpy"]["fps"] / result["transformers"]["fps"])


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "transformers", missing)
    with pytest.raises(UserError, match="run make setup-dev"):
        bench_decoder(frames=1, repeats=1)


def test_counts() -> None:
    with pytest.raises(UserError, match="0 frames"):
        bench_decoder(frames=0)
