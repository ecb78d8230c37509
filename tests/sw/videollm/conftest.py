"""Random small checkpoints of any shape, and the shipped model."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from vrex.sw.videollm.videollm import VideoLLM

REFERENCE = Path(__file__).parents[2] / "data" / "procstream-tiny-reference.npz"
SEED = 20260
WORDS = [
    "<pad>",
    "<bos>",
    "<eos>",
    "<v>",
    "[",
    ",",
    "]",
    "User:",
    "Assistant:",
    "narrate",
    "quiet",
    "now",
    "red",
]
CONFIG: dict[str, Any] = {
    "model_type": "videollm_online",
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 20,
        "patch_size": 4,
        "layer_norm_eps": 1e-6,
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": 16,
        "hidden_size": 48,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "frame_token_cls": True,
    "frame_token_pooled": [2, 3],
    "frame_num_tokens": 7,
    "v_placeholder": "<v>",
    "frame_token_interval": ",",
    "stream_open": "[",
    "stream_close": "]",
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this config holds."""
    v, t = config["vision_config"], config["text_config"]
    d, ffn, patch = v["hidden_size"], v["intermediate_size"], v["patch_size"]
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (d,), (d,)

    tower = "vision_tower."
    found[f"{tower}embeddings.patch_embedding.weight"] = (d, 3, patch, patch)
    found[f"{tower}embeddings.patch_embedding.bias"] = (d,)
    found[f"{tower}embeddings.position_embedding.weight"] = ((v["image_size"] // patch) ** 2, d)
    for i in range(v["num_hidden_layers"]):
        at = f"{tower}encoder.layers.{i}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{at}self_attn.{name}", d, d)
        linear(f"{at}mlp.fc1", ffn, d)
        linear(f"{at}mlp.fc2", d, ffn)
        norm(f"{at}layer_norm1")
        norm(f"{at}layer_norm2")
    norm(f"{tower}post_layernorm")
    found[f"{tower}head.probe"] = (1, 1, d)
    found[f"{tower}head.attention.in_proj_weight"] = (3 * d, d)
    found[f"{tower}head.attention.in_proj_bias"] = (3 * d,)
    linear(f"{tower}head.attention.out_proj", d, d)
    norm(f"{tower}head.layernorm")
    linear(f"{tower}head.mlp.fc1", ffn, d)
    linear(f"{tower}head.mlp.fc2", d, ffn)
    width, text_ffn = t["hidden_size"], t["intermediate_size"]
    q_size, kv_size = (t[key] * t["head_dim"] for key in ("num_attention_heads", "num_key_value_heads"))
    linear("connector.0", width, d)
    linear("connector.2", width, width)
    model = "language_model.model."
    found[f"{model}embed_tokens.weight"] = (t["vocab_size"], width)
    found[f"{model}norm.weight"] = (width,)
    if not t["tie_word_embeddings"]:
        found["language_model.lm_head.weight"] = (t["vocab_size"], width)
    for i in range(t["num_hidden_layers"]):
        at = f"{model}layers.{i}."
        found[f"{at}self_attn.q_proj.weight"] = (q_size, width)
        found[f"{at}self_attn.k_proj.weight"] = found[f"{at}self_attn.v_proj.weight"] = (kv_size, width)
        found[f"{at}self_attn.o_proj.weight"] = (width, q_size)
        found[f"{at}mlp.gate_proj.weight"] = found[f"{at}mlp.up_proj.weight"] = (text_ffn, width)
        found[f"{at}mlp.down_proj.weight"] = (width, text_ffn)
        found[f"{at}input_layernorm.weight"] = found[f"{at}post_attention_layernorm.weight"] = (width,)
    return found


def random_tensors(config: dict[str, Any], seed: int = SEED) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes(config).items():
        scale = 0.1 if len(shape) == 1 else 1.5 / np.sqrt(shape[-1])
        tensors[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
        if len(shape) == 1 and name.endswith("weight"):
            tensors[name] += 1  # the gain of a norm
    return tensors


def merged(changes: dict[str, Any]) -> dict[str, Any]:
    """CONFIG with some keys changed, sections key by key; the value None removes a key."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        if isinstance(value, dict):
            config[key].update(value)
            config[key] = {name: entry for name, entry in config[key].items() if entry is not None}
        elif value is None:
            del config[key]
        else:
            config[key] = value
    return config


CheckpointMaker = Callable[..., Path]


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> CheckpointMaker:
    """A function that writes a random checkpoint folder; keywords change the config."""

    def make(**changes: Any) -> Path:
        config = merged(changes)
        folder = tmp_path / f"checkpoint{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        vocabulary = {word: i for i, word in enumerate(WORDS)}
        tokenizer = {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"},
        }
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        save_file(random_tensors(config), folder / "model.safetensors")
        return folder

    return make


@pytest.fixture
def tiny(make_checkpoint: CheckpointMaker) -> VideoLLM:
    return VideoLLM.load(make_checkpoint())


@pytest.fixture(scope="session")
def shipped() -> VideoLLM:
    return VideoLLM.load()


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE) as data:
        return dict(data)
