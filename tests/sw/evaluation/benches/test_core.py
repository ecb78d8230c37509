"""`vrex bench core` up to the simulation: the layer, its past, and what it needs at least."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.config import LxeConfig, preset
from vrex.sw.cli import main as cli
from vrex.sw.evaluation.benches import core
from vrex.sw.evaluation.benches.core import Needs, layer_text, layer_with_past
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.videollm.random_weights import RandomWeights

CONFIG = preset("small")
SIZES = [128, 192, 4, 2, 64]
TOKENS = 150


def test_a_random_layer_has_the_past_of_a_narrow_one() -> None:
    """The tables hold as many tokens as the video brings, and a job counts what it needs."""
    text = layer_text(SIZES)
    layer = layer_with_past(CONFIG, text, TOKENS, [11], ResvSettings())
    assert layer.sequence.start == TOKENS
    found = layer.chip.counts(0)
    assert 0 < found.clusters.sum() < found.tokens.sum() < TOKENS
    layer.needs.append(Needs(layer.chip.layout.shape.config))
    x = np.random.default_rng(1).standard_normal((11, text.hidden_size)).astype(np.float32)
    result = layer.sequence.run(x, "frame")
    assert np.isfinite(result).all()
    assert np.abs(result - x).max() > 0.1
    needs = layer.needs.pop()
    # Each weight once over a bus of 8 bytes, and what attention reads beside them.
    weights = 2 * (2 * 128 * 256 + 2 * 128 * 128 + 3 * 128 * 192) / 8
    assert weights < needs.weights < 1.5 * weights


def test_quantised_means_need_fewer_beats() -> None:
    """By a half or three quarters of the means' own, which are read with their scales."""
    needs = {}
    for bits in (16, 8, 4):
        settings = ResvSettings(mean_bits=bits, th_hd=1)
        layer = layer_with_past(CONFIG, layer_text(SIZES), TOKENS, [11], settings)
        # The same clusters whatever scores read; what is delivered is counted by itself.
        clusters = int(layer.chip.counts(0).clusters.sum())
        layer.needs.append(Needs(layer.chip.layout.shape.config))
        x = np.random.default_rng(1).standard_normal((11, SIZES[0])).astype(np.float32)
        layer.sequence.run(x, "frame")
        needs[bits] = clusters, layer.needs.pop().weights
    (clusters, wide), (same, eight), (again, four) = needs.values()
    assert clusters == same == again > 20
    assert clusters < 64
    # Beats of 8 bytes: 2 KV heads with 64 values each, and for each of them scales of both.
    means, scales = 2 * clusters * 64 // 4, 2 * -(-(2 * clusters - 1) // 4)
    assert wide - eight == means // 2 - scales
    assert wide - four == means * 3 // 4 - scales


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        (["mean_bits=5"], "mean_bits must be 16, 8 or 4, not 5"),
        (["mean_bits=8", "mean_bits=4"], "--set mean_bits=4 sets mean_bits a second time"),
        (["predict=next"], "--offload chip selects with a layer's own queries"),
    ],
)
def test_settings_that_can_not_be_are_refused(
    knobs: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "core", "--lengths", "22", "--json", str(tmp_path / "core.json")]
    assert cli.main([*command, *(word for knob in knobs for word in ("--set", knob))]) == 2
    assert says in capsys.readouterr().err


def test_weights_are_the_same_each_time() -> None:
    weights = RandomWeights()
    first, again, other = (weights.tensor(name, (40, 300)) for name in ("a", "a", "b"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() == pytest.approx(300**-0.5, rel=0.02)
    assert (weights.tensor("norm", (7,)) == 1).all()


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (
            "128,192,4,2",
            "--layer 128,192,4,2: give hidden_size, intermediate_size, heads, kv",
        ),
        ("128,192,4,0,64", "each at least 1"),
        ("128,192,4,3,64", "--layer 128,192,4,3,64: KV heads must divide query heads"),
        ("128,192,4,2,63", "and 2 head_dim"),
        ("128,192,4,2,72", "no core of preset small serves such a layer: kvmu.head_dim must be"),
    ],
)
def test_sizes_that_make_no_layer_are_refused(
    sizes: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "core", "--preset", "small", "--layer", sizes, "--lengths", "22"]
    assert cli.main([*command, "--json", str(tmp_path / "core.json")]) == 2
    errors = capsys.readouterr().err
    assert says in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_several_cores_are_refused() -> None:
    with pytest.raises(UserError, match="measures one core, not the 2 of preset small; set cores=1"):
        layer_with_past(replace(CONFIG, cores=2), None, TOKENS, [1], ResvSettings())


def test_rows_that_do_not_fit_are_refused_before_the_past_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_watch", lambda layer: pytest.fail("the past was made"))
    tight = replace(CONFIG, lxe=LxeConfig(memory_kib=32))
    with pytest.raises(UserError, match="the core can't take 32 tokens at once"):
        layer_with_past(tight, None, TOKENS, [1, 32], ResvSettings())
