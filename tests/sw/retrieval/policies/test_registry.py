"""Every policy by its name: settings, faults, reports, and the decoder's part in them."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.retrieval.policies import NAMES
from vrex.sw.retrieval.policies.base import Compacted
from vrex.sw.retrieval.policies.calibration import Calibration
from vrex.sw.retrieval.policies.registry import POLICIES, make_policy, make_settings
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.checkpoint import SHIPPED
from vrex.sw.videollm.decoder import PREFIX
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.videollm import VideoLLM

FAULTS = [
    ("nothing", {}, "policy 'nothing' is unknown; choose one of full, flexgen, "),
    ("full", {"ratio": 0.1}, "policy full has no knob 'ratio'; it has none"),
    ("topk", {"alpha": 1}, "policy topk has no knob 'alpha'; choose one of ratio"),
    ("topk", {"ratio": 0.0}, "ratio must be above 0 and at most 1, not 0.0"),
    ("topk", {"ratio": "nan"}, "ratio must be above 0 and at most 1, not nan"),
    ("topk", {"ratio": "much"}, "ratio must be a number"),
    ("quest", {"page": 0}, "page must be at least 1, not 0"),
    ("quest", {"page": "1.5"}, "page must be a whole number"),
    ("quest", {"page": True}, "page must be a whole number"),
    ("quest", {"ratio": 1.1}, "ratio must be above 0 and at most 1, not 1.1"),
    ("rekv", {"frame_ratio": -1}, "frame_ratio must be above 0"),
    ("rekv", {"text_ratio": 2}, "text_ratio must be above 0"),
    ("rekv", {"sinks": -1}, "sinks must be at least 0, not -1"),
    ("rekv", {"window": -1}, "window must be at least 0, not -1"),
    ("streaming-llm", {"sinks": -1}, "sinks must be at least 0, not -1"),
    ("streaming-llm", {"window": -2}, "window must be at least 0, not -2"),
    ("infinigen", {"alpha": -1}, "alpha must be a number of at least 0, not -1.0"),
    ("infinigen", {"alpha": "inf"}, "alpha must be a number of at least 0, not inf"),
    ("infinigen", {"columns": 0}, "columns must be above 0"),
    ("infinigen", {"cap": 1.5}, "cap must be above 0"),
    ("infinigen", {"full_layers": 0}, "full_layers must be at least 1, not 0"),
    ("infinigen", {"prefill_ratio": 0.5}, "policy infinigen has no knob 'prefill_ratio'"),
    ("infinigen-p", {"prefill_ratio": 0}, "prefill_ratio must be above 0"),
    ("infinigen-p", {"cap": 0}, "cap must be above 0"),
    ("oaken", {"bits": 1}, "bits must be from 2 to 8, not 1"),
    ("oaken", {"bits": 9}, "bits must be from 2 to 8, not 9"),
    ("resv-bits", {"k": 0}, "k must be at least 1, not 0"),
    ("resv-bits", {"k": "many"}, "k must be a whole number"),
    ("resv-bits", {"bits": 48}, "bits must be 32, 64 or 128, not 48"),
    ("resv-bits", {"sinks": -1}, "sinks must be at least 0, not -1"),
    ("resv-bits", {"window": -1}, "window must be at least 0, not -1"),
    ("resv-bits", {"seed": -1}, "seed must be at least 0, not -1"),
    ("resv-bits", {"th_hd": 7}, "th_hd is of two levels of codes; set levels to 2, or leave th_hd out"),
    ("resv-bits", {"depth": 8}, "depth is of two levels of codes; set levels to 2, or leave depth out"),
    (
        "resv-bits",
        {"levels": 2, "depth": 3, "prompt": 4},
        "depth 3 is below prompt 4: raise depth, or lower prompt",
    ),
    ("resv-bits", {"prompt": 0.5}, "prompt must be a number of at least 1, not 0.5"),
    ("resv-bits", {"prompt": "inf"}, "prompt must be a number of at least 1, not inf"),
    (
        "resv-bits",
        {"kv_bits": 16, "rotate": True},
        "rotate is of packed keys; set kv_bits to 4, or leave rotate out",
    ),
    (
        "resv-bits",
        {"th_r": 0.2},
        "policy resv-bits has no knob 'th_r'; choose one of k, prompt, bits, kv_bits, rotate, levels, "
        "th_hd, depth, sinks, window, seed, or policy resv or resv-nocluster, which has it",
    ),
    ("resv-nocluster", {"rule": "best"}, "rule 'best' is unknown; choose one of raw, shift, exp"),
    ("resv-nocluster", {"th_r": 1}, "th_r must be at least 0 and below 1, not 1.0"),
    ("resv-nocluster", {"sinks": -1}, "sinks must be at least 0, not -1"),
    ("resv-nocluster", {"window": -1}, "window must be at least 0, not -1"),
    ("resv", {"cluster_first": "maybe"}, "cluster_first must be true or false"),
    ("resv", {"rule": 3}, "rule must be a word"),
    ("resv", {"mean_bits": "6"}, "mean_bits must be 16, 8 or 4, not 6"),
    ("resv", {"mean_bits": "few"}, "mean_bits must be a whole number"),
]


@pytest.mark.parametrize(("name", "knobs", "says"), FAULTS)
def test_faults_are_one_sentence(name: str, knobs: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        make_settings(name, knobs)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_values_may_come_as_text() -> None:
    settings = make_settings("resv", {"th_hd": "7", "th_r": "0.25", "rule": "exp", "cluster_first": "true"})
    assert (settings.th_hd, settings.th_r, settings.rule, settings.cluster_first) == (7, 0.25, "exp", True)
    assert make_settings("infinigen", {"alpha": 4}).alpha == 4.0


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_on_a_short_stream(name: str, shipped: VideoLLM, calibration: Calibration) -> None:
    shape = Shape.of(shipped.config)
    settings = make_settings(name, {})
    assert dataclasses.asdict(settings) == POLICIES[name].knobs
    policy = make_policy(name, settings, shape, calibration=calibration)
    assert policy.name == name
    cache = shipped.decoder.new_cache()
    for frame in make(2, 14).frames:
        shipped.decoder.forward(shipped.embed_frame(frame), cache, "frame", policy)
    out = shipped.decoder.forward(shipped.embed_text([9]), cache, "text", policy)
    assert np.isfinite(out).all()
    report = policy.report()
    own = ["nan_keys"] if name == "resv-bits" else []
    assert list(report) == [*make_policy("full", None, shape).report(), *own]
    json.dumps(report)
    for stage in ("frame", "text"):
        assert 0 < report["ratio"][stage] <= 1
    assert np.shape(report["ratio"]["per_layer_head"]) == (shape.layers, shape.kv_heads)


def test_a_calibrated_policy_needs_a_calibration(shipped: VideoLLM) -> None:
    with pytest.raises(ValueError, match="policy oaken needs a calibration"):
        make_policy("oaken", make_settings("oaken", {}), Shape.of(shipped.config))


ALMOST_ALL: dict[str, dict[str, Any]] = {
    "flexgen": {},
    "resv": {"rule": "shift", "th_r": 0.99999, "sinks": 0, "window": 0},
    "resv-nocluster": {"rule": "shift", "th_r": 0.99999, "sinks": 0, "window": 0},
    "resv-bits": {"k": 1_000_000},
    "topk": {"ratio": 1.0},
    "quest": {"ratio": 1.0},
    "rekv": {"frame_ratio": 1.0, "text_ratio": 1.0},
    "streaming-llm": {"window": 99},
    "infinigen": {"cap": 1.0, "alpha": 1e9},
    "infinigen-p": {"cap": 1.0, "alpha": 1e9, "prefill_ratio": 1.0},
}


def stream(model: VideoLLM, policy: Any) -> np.ndarray:
    """The last text token's logits after eight frames."""
    cache = model.decoder.new_cache()
    for frame in make(6, 8).frames:
        model.decoder.forward(model.embed_frame(frame), cache, "frame", policy)
    return model.decoder.logits(model.decoder.forward(model.embed_text([9]), cache, "text", policy))


@pytest.mark.parametrize("name", ALMOST_ALL)
def test_at_the_end_of_its_range_a_policy_is_full(
    name: str, shipped: VideoLLM, calibration: Calibration
) -> None:
    shape = Shape.of(shipped.config)
    policy = make_policy(name, make_settings(name, ALMOST_ALL[name]), shape, calibration=calibration)
    # Just below 1 the rules of ReSV still leave out what all rows score lowest.
    atol = 0.03 if name.startswith("resv") else 2e-3
    np.testing.assert_allclose(stream(shipped, policy), stream(shipped, None), atol=atol)
    assert policy.report()["ratio"]["frame"] > 0.99


def test_full_equals_transformers(shipped: VideoLLM) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    config = json.loads((SHIPPED / "config.json").read_text())["text_config"]
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).float().eval()
    names = theirs.state_dict().keys()
    weights = {
        name.removeprefix(PREFIX): value.float()
        for name, value in load_file(SHIPPED / "model.safetensors").items()
        if name.removeprefix(PREFIX) in names
    }
    theirs.load_state_dict(weights, strict=False)
    decoder = shipped.decoder
    policy = make_policy("full", make_settings("full", {}), Shape.of(shipped.config))
    frames = [shipped.embed_frame(frame) for frame in make(4, 5).frames]
    cache = decoder.new_cache("float32")
    ours = [decoder.logits(decoder.forward(x, cache, policy=policy)) for x in frames]
    with torch.no_grad():
        expected = theirs(inputs_embeds=torch.from_numpy(np.concatenate(frames))[None]).logits[0].numpy()
    np.testing.assert_allclose(np.concatenate(ours), expected, atol=2e-3)


def rotated(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """RoPE in complex float64: x [heads, tokens, head_dim]."""
    half = x.shape[2] // 2
    angles = positions[:, None] * theta ** (-np.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=2)


@pytest.mark.parametrize("tokens", [[], [0, 1, 5, 6, 18, 19], list(range(20)), list(range(3, 20)), [7]])
def test_closed_gaps_count_positions_from_zero(shipped: VideoLLM, tokens: list[int]) -> None:
    config = shipped.config.text
    rng = np.random.default_rng(len(tokens))
    past, rows, n = 20, 4, len(tokens)
    q = rng.standard_normal((config.heads, rows, config.head_dim))
    k, v = rng.standard_normal((2, config.kv_heads, past + rows, config.head_dim))
    places, theta = np.arange(past + rows), config.rope_theta
    seen = shipped.decoder._attend_compacted(
        rotated(q, places[past:], theta).astype(np.float32),
        rotated(k, places, theta).astype(np.float32),
        v.astype(np.float32),
        Compacted(np.array(tokens, dtype=np.int64)).tokens,
    )
    taken = [*tokens, *range(past, past + rows)]
    k, v = rotated(k[:, taken], np.arange(n + rows), theta), v[:, taken]
    q = rotated(q, np.arange(n, n + rows), theta)
    group = config.heads // config.kv_heads
    for head in range(config.heads):
        logits = q[head] @ k[head // group].T / np.sqrt(config.head_dim)
        logits[np.arange(n + rows) > n + np.arange(rows)[:, None]] = -np.inf
        weights = np.exp(logits - logits.max(1, keepdims=True))
        expected = weights / weights.sum(1, keepdims=True) @ v[head // group]
        np.testing.assert_allclose(seen[head], expected, atol=2e-5)


def test_the_names_are_those_of_the_registry() -> None:
    assert tuple(POLICIES) == NAMES


def test_the_papers_settings_may_be_changed() -> None:
    assert make_settings("resv", {"seed": 4}, paper=True) == ResvSettings.paper(seed=4)
