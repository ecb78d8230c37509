"""The plug-in for transformers: small random models, and the shipped checkpoint against the numpy engine."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.retrieval.policies.base import TEXT
from vrex.sw.retrieval.policies.registry import make_policy, make_settings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.checkpoint import SHIPPED
from vrex.sw.videollm.procstream.procvideo import make
from vrex.sw.videollm.stream import Answered, Stream, VideoLLM

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import vrex  # noqa: E402  the names below need torch
from vrex.sw.retrieval.hf import session as session_module  # noqa: E402

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
KINDS = {
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **SIZES,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        )
    ),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, head_dim=24)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)),
    "mistral": lambda: transformers.MistralForCausalLM(
        transformers.MistralConfig(**SIZES, sliding_window=None)
    ),
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def model_of(kind: str) -> Any:
    torch.manual_seed(3)
    return KINDS[kind]().eval()


def ids_of(n: int) -> Any:
    return torch.randint(0, SIZES["vocab_size"], (1, n), generator=torch.Generator().manual_seed(n))


def in_chunks(model: Any, ids: Any, cache: Any, rows: int) -> Any:
    starts = range(0, ids.shape[1], rows)
    return torch.cat([model(ids[:, i : i + rows], past_key_values=cache).logits for i in starts], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_full_is_the_plain_model(kind: str) -> None:
    model, ids = model_of(kind), ids_of(90)
    logits, answer = model(ids).logits, model.generate(ids, max_new_tokens=8, do_sample=False)
    with vrex.retrieval(model, policy="full") as session:
        assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False), answer)
        session.new_sequence()
        torch.testing.assert_close(in_chunks(model, ids, session.cache, 11), logits, atol=1e-5, rtol=0)
        assert session.report()["ratio"]["frame"] == 1
    assert torch.equal(model(ids).logits, logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_near_one_attends_to_everything(kind: str) -> None:
    """Under `exp` what is left out at th_r near 1 has next to no weight in the attention either."""
    model, ids = model_of(kind), ids_of(120)
    logits = model(ids).logits
    with vrex.retrieval(model, "resv", rule="exp", th_r=0.9999, window=1, frame_tokens=4) as session:
        got = in_chunks(model, ids, session.cache, 5)
        ratio = session.report()["ratio"]["frame"]
    torch.testing.assert_close(got, logits, atol=0.05, rtol=0)
    with vrex.retrieval(model, "resv", th_r=0.05, window=1, frame_tokens=4) as session:
        in_chunks(model, ids, session.cache, 5)
        assert session.report()["ratio"]["frame"] < ratio


@pytest.mark.parametrize(
    "policy", ["resv", "rekv", "quest", "topk", "streaming-llm", "resv-nocluster", "resv-bits"]
)
def test_every_policy_runs_and_leaves_the_model_as_it_was(policy: str) -> None:
    model, ids = model_of("qwen3"), ids_of(150)
    before = model.config._attn_implementation
    logits = model(ids).logits
    # A count of tokens has to be below the past's.
    knobs = {"k": 20} if policy == "resv-bits" else {}
    with vrex.retrieval(model, policy=policy, frame_tokens=5, **knobs) as session:
        in_chunks(model, ids, session.cache, 6)
        model(ids[:, :1], past_key_values=session.cache)
        report = session.report()
        assert session.active
    assert report["calls"] == [26] * 3
    assert report["policy"] == policy
    assert 0 < report["ratio"]["frame"] < 1
    assert 0 < report["ratio"]["text"] < 1
    assert model.config._attn_implementation == before
    assert not session_module._ACTIVE
    assert not model.model._forward_pre_hooks
    assert torch.equal(model(ids).logits, logits)


@pytest.mark.parametrize("policy", ["resv", "resv-bits"])
def test_a_store_of_4_bits(policy: str) -> None:
    """With all the past attended to, logits move by the rounding alone; fetched bytes are the records'."""
    model, ids = model_of("qwen3"), ids_of(150)
    knobs = {"k": 1000} if policy == "resv-bits" else {"rule": "exp", "th_r": 0.9999}
    logits, fetched = [], []
    for bits in (16, 4):
        with vrex.retrieval(model, policy=policy, frame_tokens=5, window=2, kv_bits=bits, **knobs) as session:
            logits.append(in_chunks(model, ids, session.cache, 6))
            fetched.append(session.report()["fetched"])
    error = (logits[0] - logits[1]).square().mean().sqrt() / logits[0].square().mean().sqrt()
    assert 1e-4 < error < 0.05
    # 24 dimensions are one group: 12 bytes of codes and a scale, for a key and for a value.
    assert [part["bytes"] / part["tokens"] for part in fetched] == [2 * 24 * 2, 2 * (12 + 2)]
    assert abs(fetched[0]["tokens"] - fetched[1]["tokens"]) < 0.1 * fetched[0]["tokens"]


class Tape:
    """What policies answered, by stage, layer and head."""

    def __init__(self, policy: Any) -> None:
        self.name, self._policy = policy.name, policy
        self.answers: list[tuple[int, int, int, np.ndarray]] = []

    def select(self, chunk: Any) -> Any:
        choice = self._policy.select(chunk)
        self.answers += [(chunk.layer, chunk.start, head, part) for head, part in enumerate(choice)]
        return choice

    def report(self) -> Any:
        return self._policy.report()


class Adapter:
    """A transformers model in the place of the numpy decoder."""

    def __init__(self, model: Any, session: Any, words: np.ndarray) -> None:
        self.model, self.session, self.embeddings = model, session, words

    def new_cache(self, dtype: str) -> Any:
        return self.session.cache

    def forward(self, x: np.ndarray, cache: Any, stage: str, policy: Any) -> np.ndarray:
        self.session.stage = stage
        inputs = torch.from_numpy(x).unsqueeze(0)
        return self.model(inputs_embeds=inputs, past_key_values=cache).logits[0].numpy()

    def logits(self, x: np.ndarray) -> np.ndarray:
        return x


def shipped_in_transformers(config: Any) -> Any:
    from safetensors.torch import load_file

    text = config.text
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.hidden_size,
            intermediate_size=text.intermediate_size,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            num_key_value_heads=text.kv_heads,
            head_dim=text.head_dim,
            rms_norm_eps=text.eps,
            rope_theta=text.rope_theta,
            tie_word_embeddings=text.tied,
        )
    )
    weights = load_file(SHIPPED / "model.safetensors")
    prefix = "language_model."
    own = {name[len(prefix) :]: value.float() for name, value in weights.items() if name.startswith(prefix)}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model.eval()


def watch(model: VideoLLM, policy: Any, frames: int) -> list[tuple[str, str]]:
    """Streams ProcStream video 1; returns questions and answers."""
    video = make(1, frames)
    stream = Stream(model, policy, cache_dtype="float32")
    asked = [(question.time, question.text) for question in video.questions]
    events = stream.run(video.frames, asked)
    return [(event.question, event.text) for event in events if isinstance(event, Answered)]


def compare_engines(frames: int) -> None:
    numpy_model = VideoLLM.load()
    shape = Shape.of(numpy_model.config)
    settings = make_settings("resv", {})
    golden = Tape(make_policy("resv", settings, shape))
    wanted = watch(numpy_model, golden, frames)
    model = shipped_in_transformers(numpy_model.config)
    with vrex.retrieval(model, "resv", frame_tokens=shape.frame_tokens) as session:
        session._policy = tape = Tape(session._policy)
        adapter: Any = Adapter(model, session, numpy_model.decoder.embeddings)
        got = watch(dataclasses.replace(numpy_model, decoder=adapter), None, frames)
        ratios = session.report()["ratio"], golden.report()["ratio"]
    assert got == wanted
    assert len(tape.answers) == len(golden.answers)
    pairs = list(zip(tape.answers, golden.answers, strict=True))
    equal = sum(a[:3] == b[:3] and np.array_equal(a[3], b[3]) for a, b in pairs)
    tokens = sum(len(np.setxor1d(a[3], b[3])) for a, b in pairs) / sum(len(b[3]) for _, b in pairs)
    print(f"{equal} of {len(pairs)} selections equal, {tokens:.2%} of the tokens differ")
    assert equal >= 0.999 * len(pairs)
    assert ratios[0][TEXT] == pytest.approx(ratios[1][TEXT], rel=1e-3)


def test_the_shipped_checkpoint_answers_as_the_numpy_engine() -> None:
    compare_engines(24)


@pytest.mark.slow
def test_a_whole_video_answers_as_the_numpy_engine() -> None:
    compare_engines(96)


def test_mistakes_are_one_sentence() -> None:
    model, ids = model_of("llama"), ids_of(20)

    def fails(match: str, run: Any, **options: Any) -> None:
        with pytest.raises(UserError, match=match) as raised, vrex.retrieval(model, **options):
            run()
        assert "\n" not in str(raised.value)
        assert not session_module._ACTIVE
        assert model.config._attn_implementation == "sdpa"

    nothing = lambda: None  # noqa: E731
    fails("policy 'none' is unknown; choose one of", nothing, policy="none")
    fails("policy resv-bits has no knob 'thr'; choose one of", nothing, thr=0.5)
    fails("needs a calibration", nothing, policy="infinigen-p")
    fails("frame_tokens is 0; give at least 1", nothing, frame_tokens=0)
    fails("mean_bits is 4, but the plug-in", nothing, policy="resv", mean_bits=4)
    fails("a batch of 2 sequences", lambda: model(ids.expand(2, -1)))
    mask = torch.ones_like(ids)
    mask[0, 0] = 0
    fails("attention_mask hides tokens", lambda: model(ids, attention_mask=mask))
    static = transformers.StaticCache(config=model.config, max_cache_len=64)
    fails("past_key_values is a StaticCache", lambda: model(ids, past_key_values=static))
    with vrex.retrieval(model):
        model(ids)
        with pytest.raises(UserError, match="streams already"), vrex.retrieval(model):
            pass
        model(ids)

    def skips() -> None:
        cache = transformers.DynamicCache(config=model.config)
        model(ids, past_key_values=cache)
        model(ids[:, :3], past_key_values=cache)
        cache.crop(-13)
        model(ids[:, :3], past_key_values=cache)

    fails("the cache holds 10 tokens, but the policy has seen 23", skips)


def test_other_models_are_refused() -> None:
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=9))
    with pytest.raises(UserError, match="a model of type 'gpt2' is not supported"), vrex.retrieval(gpt2):
        pass
    config = transformers.MistralConfig(**SIZES, sliding_window=16)
    windowed = transformers.MistralForCausalLM(config)
    with pytest.raises(UserError, match="has a sliding window"), vrex.retrieval(windowed):
        pass
    with pytest.raises(UserError, match="a model of type 'Linear'"), vrex.retrieval(torch.nn.Linear(1, 1)):
        pass


def test_a_block_without_a_forward_pass_warns() -> None:
    model = model_of("llama")
    with pytest.warns(UserWarning, match="policy resv-bits was never asked"), vrex.retrieval(model):
        pass


def test_importing_vrex_does_not_import_torch() -> None:
    code = "import sys, vrex; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path("/")).returncode == 0
