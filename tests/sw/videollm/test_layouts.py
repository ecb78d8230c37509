"""VideoLLM-Online's layout, written by transformers and PEFT, gives the logits that they give."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vrex.errors import UserError
from vrex.sw.videollm.config import load_base_config
from vrex.sw.videollm.stream import Answered, Stream
from vrex.sw.videollm.videollm import VideoLLM

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

WORDS = ["<|begin|>", "<|end|>", ",", "[", "]", "\n", ":", "User", "Assistant", "what", "now", "A", "frames"]
TEXT = {
    "vocab_size": 40,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 4,
}
BASES: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, rope_parameters=LLAMA3)),
    "smollm2": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **(TEXT | {"num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 54}),
            tie_word_embeddings=True,
        )
    ),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**TEXT, head_dim=14)),
}


def tokenizer() -> dict[str, Any]:
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False},
                {
                    "type": "Split",
                    "pattern": {"Regex": r"\w+|\n|[^\w\s]"},
                    "behavior": "Isolated",
                    "invert": False,
                },
            ],
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "A"},
    }


def randomise(module: Any, seed: int = 0) -> None:
    for index, parameter in enumerate(module.parameters(), seed):
        generator = torch.Generator().manual_seed(index)
        scale = 1 / np.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 0.1
        noise = scale * torch.randn(parameter.shape, generator=generator)
        parameter.data = noise if parameter.dim() > 1 else 1 + noise


class Folders:
    """Base, adapter and vision folders, and the models that wrote them."""

    def __init__(self, root: Path, kind: str, rslora: bool = False, **lora: Any) -> None:
        self.base, self.adapter, self.vision = (root / name for name in ("base", "adapter", "vision"))
        model = BASES[kind]()
        randomise(model)
        model.save_pretrained(self.base, max_shard_size="20KB")
        (self.base / "tokenizer.json").write_text(json.dumps(tokenizer()))
        self.tower = transformers.SiglipModel(
            transformers.SiglipConfig(
                vision_config=VISION, text_config={**VISION, "vocab_size": 9, "num_hidden_layers": 1}
            )
        )
        randomise(self.tower)
        self.tower.save_pretrained(self.vision)
        width = model.config.hidden_size
        model.connector = torch.nn.Sequential(
            torch.nn.Linear(VISION["hidden_size"], width), torch.nn.GELU(), torch.nn.Linear(width, width)
        )
        head = "" if kind == "smollm2" else "|lm_head$"
        saved = ["connector", *lora.pop("modules_to_save", [])]
        settings = {"target_modules": rf"model\.layers.*_proj{head}"} | lora
        config = peft.LoraConfig(r=4, lora_alpha=6, use_rslora=rslora, modules_to_save=saved, **settings)
        self.model = peft.get_peft_model(model, config)
        trained = [p for p in self.model.named_parameters() if p[1].requires_grad and "connector" not in p[0]]
        randomise(torch.nn.ParameterList(p for _, p in trained), seed=1000)
        self.model.save_pretrained(self.adapter)
        self.model.eval()

    def load(self, **options: Any) -> VideoLLM:
        return VideoLLM.load(self.base, adapter=self.adapter, vision=self.vision, **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "rslora"), [("llama", False), ("llama", True), ("qwen3", False), ("smollm2", False)]
)
def test_logits_equal_transformers_and_peft(tmp_path: Path, kind: str, rslora: bool) -> None:
    folders = Folders(tmp_path, kind, rslora)
    assert len(list(folders.base.glob("*.safetensors"))) > 3
    ours = folders.load()
    x = np.random.default_rng(1).standard_normal((90, ours.config.text.hidden_size)).astype(np.float32)
    with torch.no_grad():
        wanted = folders.model(inputs_embeds=torch.from_numpy(x)[None]).logits[0].numpy()
        with folders.model.disable_adapter():
            plain = folders.model(inputs_embeds=torch.from_numpy(x)[None]).logits[0].numpy()
    assert np.abs(wanted - plain).max() > 0.1
    for resident in (True, False):
        decoder = folders.load(resident=resident).decoder
        cache = decoder.new_cache("float32")
        parts = [decoder.logits(decoder.forward(part, cache)) for part in np.split(x, [40, 41, 52])]
        np.testing.assert_allclose(np.concatenate(parts), wanted, atol=1e-4 * np.abs(wanted).max())


FIRST_UNTIED = 9
"""So many of the adapters change embeddings or head, which a tied base has in one tensor."""
ADAPTERS: dict[str, dict[str, Any]] = {
    "head": {"modules_to_save": ["lm_head"]},
    "embeddings": {"modules_to_save": ["embed_tokens"]},
    "both": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "tokens": {"trainable_token_indices": [5, 3]},
    "tokens of the head": {
        "trainable_token_indices": {"lm_head": [5, 3]},
        "target_modules": ["q_proj"],
    },
    "tokens of both": {
        "trainable_token_indices": {"embed_tokens": [7, 2], "lm_head": [3]},
        "target_modules": ["q_proj"],
    },
    "lora on embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "lora on the head": {"target_modules": ["lm_head"]},
    "lora on both": {"target_modules": ["lm_head", "embed_tokens"], "rank_pattern": {"lm_head": 3}},
    "norms": {"modules_to_save": ["norm"]},
    "projections": {"modules_to_save": ["k_proj"], "target_modules": ["q_proj", "down_proj"]},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {r"layers\.1\..*k_proj": 2, "q_proj": 7},
        "alpha_pattern": {"mlp.up_proj": 11, "q_proj": 3},
    },
    "some layers": {"target_modules": ["o_proj"], "layers_to_transform": [1]},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "gaussian": {"init_lora_weights": "gaussian", "lora_dropout": 0.1, "fan_in_fan_out": True},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "llama") for name in ADAPTERS] + [(name, "smollm2") for name in list(ADAPTERS)[:FIRST_UNTIED]],
)
def test_what_else_an_adapter_changes_equals_peft(tmp_path: Path, name: str, kind: str) -> None:
    folders = Folders(tmp_path, kind, **ADAPTERS[name])
    ids = [0, 5, 3, 7, 2, 11, 5, 39, 1]
    with torch.no_grad():
        wanted = folders.model(input_ids=torch.tensor([ids])).logits[0].numpy()
        with folders.model.disable_adapter():
            plain = folders.model(input_ids=torch.tensor([ids])).logits[0].numpy()
    decoder = folders.load().decoder
    given = decoder.logits(decoder.forward(decoder.embeddings[ids], decoder.new_cache("float32")))
    assert np.abs(wanted - plain).max() > 0.1
    np.testing.assert_allclose(given, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.filterwarnings("ignore")
def test_frames_pass_tower_and_connector(tmp_path: Path) -> None:
    folders = Folders(tmp_path, "llama")
    ours = folders.load()
    frame = np.random.default_rng(2).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    pixels = torch.from_numpy((frame / 127.5 - 1).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        out = folders.tower.vision_model.eval()(pixels)
        cells = out.last_hidden_state.transpose(1, 2).reshape(1, -1, 6, 6)
        pooled = torch.nn.functional.adaptive_avg_pool2d(cells, 3).flatten(2).transpose(1, 2)
        wanted = folders.model.base_model.model.connector(torch.cat([out.pooler_output[:, None], pooled], 1))
    np.testing.assert_allclose(ours.embed_frame(frame), wanted[0].numpy(), atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_stream_speaks_in_sentences(tmp_path: Path) -> None:
    model = Folders(tmp_path, "llama").load()
    words = model.tokenizer
    ids = {word: i for i, word in enumerate(WORDS)}
    assert words.opening("quiet")[0] == ids["<|begin|>"]
    assert words.opening("quiet")[-3:] == [ids[w] for w in ("\n", "\n", "[")]
    question = ["]", "\n", "User", ":", "what", "now", "\n", "Assistant", ":"]
    assert words.turn("what now") == [ids[w] for w in question]
    assert words.turn(None) == [ids[w] for w in ("]", "\n", "Assistant", ":")]
    assert words.resume() == [ids[w] for w in ("\n", "[")]
    frames = np.random.default_rng(3).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    stream = Stream(model, max_answer=3, threshold=0)
    events = list(stream.run(frames, [(0.4, "what now")]))
    assert any(isinstance(event, Answered) for event in events)
    assert stream.cache.length > 3 * 10 + len(question)


@pytest.mark.filterwarnings("ignore")
def test_mistakes_name_file_and_tensor(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "good", "llama")

    def fails(change: Callable[[Path], None], *parts: str) -> None:
        root = tmp_path / "bad"
        shutil.copytree(tmp_path / "good", root)
        change(root)
        with pytest.raises(UserError) as caught:
            VideoLLM.load(root / "base", adapter=root / "adapter", vision=root / "vision")
        print(caught.value)
        assert "\n" not in str(caught.value)
        assert all(part in str(caught.value) for part in parts), caught.value
        shutil.rmtree(root)

    def edit(file: str, change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
        def run(root: Path) -> None:
            tensors = load_file(root / file)
            change(tensors)
            save_file(tensors, root / file)

        return run

    def settings(file: str, **keys: Any) -> Callable[[Path], None]:
        def run(root: Path) -> None:
            values = json.loads((root / file).read_text())
            (root / file).write_text(json.dumps(values | keys))

        return run

    adapter, key = (
        "adapter/adapter_model.safetensors",
        "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight",
    )
    shard = min(folders.base.glob("*.safetensors")).name
    fails(lambda root: (root / "base" / shard).unlink(), shard, "cannot be read")
    fails(lambda root: shutil.rmtree(root / "vision"), "vision is not a folder")
    fails(lambda root: (root / adapter).unlink(), "adapter holds neither adapter_model.safetensors")
    fails(lambda root: (root / "adapter/adapter_config.json").unlink(), "adapter_config.json cannot be read")
    fails(edit(adapter, lambda t: t.pop(key)), f"tensor {key} is missing", "adapter of this base model")
    fails(
        edit(adapter, lambda t: t.update({key: t[key][:, :-1]})),
        f"tensor {key} has shape (4, 47), expected (4, 48)",
        "adapter of this base model",
    )
    other = key.replace("layers.1", "layers.7")
    fails(edit(adapter, lambda t: t.update({other: t[key]})), other, "does not have")
    fails(edit(adapter, lambda t: t.pop("base_model.model.connector.0.bias")), "connector.0.bias is missing")
    fails(settings("adapter/adapter_config.json", peft_type="IA3"), "peft_type is 'IA3'")
    config = "adapter/adapter_config.json"
    fails(settings(config, use_dora=True), "self_attn.q_proj.lora_magnitude_vector is missing")
    fails(settings(config, r="x"), "key r is 'x'")
    fails(settings(config, lora_alpha=True), "key lora_alpha is True")
    for start in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "mica", "lora_ga", "new", 3):
        fails(settings(config, init_lora_weights=start), f"key init_lora_weights is {start!r}")
    for name in ("use_qalora", "lora_bias", "ensure_weight_tying"):
        fails(settings(config, **{name: True}), f"key {name} is True, which is not supported")
    for name in ("alora_invocation_tokens", "layer_replication", "target_parameters"):
        fails(settings(config, **{name: [1]}), f"key {name} is [1], which is not supported")
    fails(settings(config, arrow_config={"top_k": 3}), "key arrow_config is {'top_k': 3}")
    fails(settings(config, use_xlora=True), "key use_xlora is True, which is not understood")
    fails(settings(config, rank_pattern={"(": 3}), "rank_pattern holds '(', which is no regular")
    fails(settings(config, rank_pattern={"q_proj": 0.5}), "rank_pattern is {'q_proj': 0.5}")
    fails(settings(config, trainable_token_indices=[-1]), "trainable_token_indices is [-1]")
    row = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    fails(edit(adapter, lambda t: t.update({row: t[key]})), row, "trainable_token_indices does not name")
    bias = key.replace("lora_A.weight", "bias")
    fails(edit(adapter, lambda t: t.update({bias: t[key][0]})), bias, "does not have")
    vector = key.replace("lora_A.weight", "lora_magnitude_vector")
    fails(edit(adapter, lambda t: t.update({vector: t[key][0]})), vector, "not supported")
    prompt = "prompt_embeddings"
    fails(edit(adapter, lambda t: t.update({prompt: t[key]})), prompt, "not supported")
    stray = "vision_model.encoder.layers.0.gate"
    fails(
        edit("vision/model.safetensors", lambda t: t.update({stray: np.zeros(3, np.float32)})),
        f"tensor {stray} is not understood",
    )
    fails(settings("base/config.json", model_type="mamba"), "model_type is 'mamba'", "llama and qwen3")
    fails(settings("vision/config.json", model_type="clip"), "model_type is 'clip'")
    for adapter_only, vision_only in ((folders.adapter, None), (None, folders.vision)):
        with pytest.raises(UserError, match="belong together; give all three"):
            VideoLLM.load(folders.base, adapter_only, vision_only)


def test_rope_of_older_configs(tmp_path: Path) -> None:
    """Llama 3.1's config.json has `rope_theta` and `rope_scaling`."""
    path, vision = tmp_path / "config.json", tmp_path / "vision.json"
    older = TEXT | {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 5e5, "head_dim": 8}
    scaling = {name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    path.write_text(json.dumps(older | {"rope_scaling": scaling}))
    vision.write_text(json.dumps(VISION | {"model_type": "siglip_vision_model"}))
    new = older | {"rope_parameters": LLAMA3}
    config = load_base_config(path, vision).text
    path.write_text(json.dumps(new))
    assert load_base_config(path, vision).text == config
    assert config.rope is not None
    assert config.rope.factor == 8
