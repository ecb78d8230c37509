"""`vrex bench hf`, at a small shape."""

import json
from pathlib import Path

import pytest

from vrex.errors import UserError
from vrex.sw.cli import main as cli

pytest.importorskip("torch")
pytest.importorskip("transformers")

from vrex.sw.evaluation.benches import hf

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "SHAPE", SMALL)


def test_each_policy_at_each_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hf.json"
    assert cli.main(["bench", "hf", "--lengths", "400,200", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert (figures["device"], figures["dtype"], figures["layers"]) == ("cpu", "float32", 1)
    assert [(row["policy"], row["tokens"]) for row in figures["rows"]] == [
        (policy, tokens)
        for policy in ("transformers", "full", "resv", "rekv", "resv-bits")
        for tokens in (198, 396)
    ]
    assert all(row["ms_per_frame"] > 0 and row["cpu_ms_per_frame"] > 0 for row in figures["rows"])
    ratios = {row["policy"]: row["ratio"] for row in figures["rows"] if row["tokens"] == 396}
    assert ratios["transformers"] is None
    assert ratios["full"] == ratios["resv-bits"] == 1
    assert 0 < ratios["resv"] < 1
    assert 0 < ratios["rekv"] < 1
    assert "ms/frame" in capsys.readouterr().out


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"lengths are \[5\]; give at least one, of 66 tokens or more"):
        hf.bench_hf([5])
    with pytest.raises(UserError, match="device 'nowhere' cannot be used here"):
        hf.bench_hf([100], device="nowhere")
    with pytest.raises(UserError, match="policy 'best' is unknown; choose one of full, "):
        hf.bench_hf([100], policies=["best"])
    assert cli.main(["bench", "hf", "--lengths", "a", "--json", "-"]) == 2
    assert "argument --lengths: invalid numbers value: 'a'" in capsys.readouterr().err
