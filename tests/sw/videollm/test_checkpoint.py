"""Every way a checkpoint folder can be wrong is told in one sentence that names the file and the part."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vrex.errors import UserError
from vrex.sw.videollm.videollm import VideoLLM

Make = Callable[..., Path]
NAME = "language_model.model.layers.1.mlp.up_proj.weight"


def fails(folder: Path, *parts: str) -> None:
    """Loading raises one sentence that holds all parts."""
    with pytest.raises(UserError) as caught:
        VideoLLM.load(folder)
    message = str(caught.value)
    print(message)
    assert "\n" not in message
    assert not message.endswith(".")
    for part in parts:
        assert part in message


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def logits(folder: Path) -> np.ndarray:
    model = VideoLLM.load(folder)
    side = model.config.vision.image_size
    frame = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    x = np.concatenate([model.embed_text([1, 10]), model.embed_frame(frame)])
    return model.decoder.logits(model.decoder.forward(x, model.decoder.new_cache("float32")))


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_equal_one_file(make_checkpoint: Make) -> None:
    whole, parts = make_checkpoint(), make_checkpoint()
    shard(parts)
    np.testing.assert_array_equal(logits(parts), logits(whole))


def test_missing_shard_and_broken_index(make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    shard(folder)
    (folder / "part-1.safetensors").unlink()
    fails(folder, "part-1.safetensors", "cannot be read")
    for text in ("{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000):
        (folder / "model.safetensors.index.json").write_text(text)
        fails(folder, "model.safetensors.index.json", "not a valid shard index")


def test_a_tensor_in_two_files_is_refused(make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    shard(folder)
    one, two = (load_file(folder / f"part-{i}.safetensors") for i in range(2))
    name = next(iter(one))
    save_file(two | {name: one[name] + 1}, folder / "part-1.safetensors")
    fails(folder, f"part-1.safetensors holds tensor {name}", "part-0.safetensors holds as well")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_types(make_checkpoint: Make, dtype: str) -> None:
    folder, other = make_checkpoint(), make_checkpoint()
    rewrite(other, lambda t: t.update({name: value.astype(dtype) for name, value in t.items()}))
    np.testing.assert_allclose(logits(other), logits(folder), atol=0.05)


def test_integer_weights(make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    rewrite(folder, lambda t: t.update({NAME: t[NAME].astype(np.int32)}))
    fails(folder, "model.safetensors", NAME, "I32")


def test_tied_head_needs_no_tensor(make_checkpoint: Make) -> None:
    folder = make_checkpoint(text_config={"tie_word_embeddings": True})
    assert VideoLLM.load(folder).config.text.tied
    untied = make_checkpoint()
    rewrite(untied, lambda t: t.__delitem__("language_model.lm_head.weight"))
    fails(untied, "language_model.lm_head.weight is missing")


@pytest.mark.parametrize("pooled", [True, False])
def test_frame_tokens_follow_the_config(make_checkpoint: Make, pooled: bool) -> None:
    changes = {"frame_token_cls": False} if pooled else {"frame_token_pooled": None}
    model = VideoLLM.load(make_checkpoint(frame_num_tokens=None, **changes))
    frame = np.zeros((20, 20, 3), dtype=np.uint8)
    both = VideoLLM.load(make_checkpoint()).embed_frame(frame)
    np.testing.assert_allclose(model.embed_frame(frame), both[1:] if pooled else both[:1], atol=1e-4)


def test_missing_folder_and_files(make_checkpoint: Make, tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "nowhere", "not a folder")
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        folder = make_checkpoint()
        (folder / name).unlink()
        fails(folder, name)


def test_every_tensor_is_demanded(make_checkpoint: Make) -> None:
    folder = make_checkpoint()
    tensors = load_file(folder / "model.safetensors")
    for name, value in tensors.items():
        save_file({n: v for n, v in tensors.items() if n != name}, folder / "model.safetensors")
        fails(folder, "model.safetensors", f"tensor {name} is missing")
        save_file({**tensors, name: value[..., None]}, folder / "model.safetensors")
        fails(folder, f"tensor {name} has shape {(*value.shape, 1)}, expected {value.shape}")


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\xff" * 64, None])
def test_no_safetensors_file(make_checkpoint: Make, content: bytes | None) -> None:
    folder = make_checkpoint()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    fails(folder, "model.safetensors is not a valid safetensors file")


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_broken_config(make_checkpoint: Make, text: str) -> None:
    folder = make_checkpoint()
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    fails(folder, "config.json")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model_type": "llava"}, ["model_type", "'llava'", "videollm_online"]),
        ({"model_type": None}, ["model_type is missing"]),
        ({"vision_config": 3}, ["vision_config is not a JSON object"]),
        ({"vision_config": {"model_type": "clip_vision_model"}}, ["vision_config.model_type", "clip_vision"]),
        ({"vision_config": {"hidden_act": "relu"}}, ["vision_config.hidden_act", "relu"]),
        ({"vision_config": {"num_attention_heads": 5}}, ["vision_config.num_attention_heads"]),
        ({"vision_config": {"patch_size": 99}}, ["vision_config.patch_size"]),
        ({"vision_config": {"layer_norm_eps": "small"}}, ["vision_config.layer_norm_eps"]),
        ({"text_config": {"model_type": "mamba"}}, ["text_config.model_type", "mamba"]),
        ({"text_config": {"hidden_size": None}}, ["text_config.hidden_size is missing"]),
        ({"text_config": {"hidden_size": 0}}, ["text_config.hidden_size is 0"]),
        ({"text_config": {"hidden_size": "big"}}, ["text_config.hidden_size is 'big'"]),
        ({"text_config": {"num_key_value_heads": 4}}, ["text_config.num_key_value_heads"]),
        ({"text_config": {"head_dim": 7}}, ["text_config.head_dim is 7"]),
        ({"text_config": {"attention_bias": True}}, ["text_config.attention_bias is True"]),
        ({"text_config": {"tie_word_embeddings": "no"}}, ["text_config.tie_word_embeddings"]),
        ({"text_config": {"eos_token_id": 99}}, ["text_config.eos_token_id is 99"]),
        ({"text_config": {"eos_token_id": "end"}}, ["text_config.eos_token_id is 'end'"]),
        ({"text_config": {"rope_scaling": {"type": "linear"}}}, ["text_config.rope_scaling"]),
        (
            {"text_config": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}},
            ["text_config.rope_parameters.rope_type is 'yarn'"],
        ),
        ({"text_config": {"use_sliding_window": True}}, ["text_config.use_sliding_window is True"]),
        ({"text_config": {"sliding_window": 512}}, ["text_config.sliding_window is set"]),
        ({"text_config": {"layer_types": ["sliding_attention"] * 3}}, ["text_config.layer_types must be"]),
        ({"text_config": {"mlp_bias": 1}}, ["text_config.mlp_bias is 1"]),
        ({"text_config": {"hidden_act": "gelu"}}, ["text_config.hidden_act is 'gelu'"]),
        ({"text_config": {"partial_rotary_factor": 0.5}}, ["text_config.partial_rotary_factor is 0.5"]),
        ({"text_config": {"attention_multiplier": 2.0}}, ["text_config.attention_multiplier is 2.0, which"]),
        (
            {"text_config": {"quantization_config": {"bits": 4}}},
            ["text_config.quantization_config is {'bits'"],
        ),
        ({"text_config": {"auto_map": {"a": "b"}}}, ["text_config.auto_map is {'a'", "not understood"]),
        ({"text_config": {"rms_norm_eps": 10**400}}, ["text_config.rms_norm_eps is 1000", "fits float32"]),
        ({"text_config": {"rms_norm_eps": 1e-60}}, ["text_config.rms_norm_eps is 1e-60", "fits float32"]),
        ({"text_config": {"rope_theta": 5.0}}, ["rope_parameters.rope_theta is 10000, but rope_theta is 5"]),
        (
            {"text_config": {"rope_parameters": {"rope_typ": "llama3"}}},
            ["rope_parameters.rope_typ is 'llama3'"],
        ),
        (
            {"text_config": {"rope_parameters": {"type": "default", "rope_type": "llama3"}}},
            ["text_config.rope_parameters.type is 'default', but rope_type is 'llama3'"],
        ),
        ({"vision_config": {"num_queries": 4}}, ["vision_config.num_queries is 4, which is not understood"]),
        ({"vision_config": {"num_channels": 1}}, ["vision_config.num_channels is 1"]),
        ({"frame_resolution": 384}, ["frame_resolution is not vision_config.image_size"]),
        ({"frame_token_polled": [3, 3]}, ["key frame_token_polled is [3, 3], which is not understood"]),
        ({"frame_token_cls": "yes"}, ["frame_token_cls is 'yes'"]),
        ({"frame_token_pooled": [3]}, ["frame_token_pooled is [3]"]),
        ({"frame_num_tokens": 10}, ["frame_num_tokens should be 7"]),
        ({"stream_open": None}, ["stream_open is missing"]),
        ({"stream_open": 4}, ["stream_open is 4"]),
        ({"image_mean": [0.5]}, ["image_mean is [0.5]"]),
        ({"image_std": [0.5, 0, 0.5]}, ["image_std"]),
    ],
)
def test_bad_config(make_checkpoint: Make, changes: dict[str, Any], parts: list[str]) -> None:
    folder = make_checkpoint()
    config = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        target = config
        if isinstance(value, dict):
            target, (key, value) = config[key], next(iter(value.items()))
        target[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    fails(folder, "config.json", *parts)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400"])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta", "initializer_range"])
def test_numbers_that_are_none(make_checkpoint: Make, key: str, word: str) -> None:
    folder = make_checkpoint(text_config={key: 0.125})
    path = folder / "config.json"
    text = path.read_text()
    assert f'"{key}": 0.125' in text
    path.write_text(text.replace(f'"{key}": 0.125', f'"{key}": {word}'))
    fails(folder, "config.json is not valid JSON", f"{word} is no number")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_no_number(make_checkpoint: Make, value: float) -> None:
    folder = make_checkpoint()

    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors[NAME].flat[-1] = value

    rewrite(folder, spoil)
    fails(folder, f"model.safetensors: tensor {NAME} holds a NaN or an infinity")


def test_a_key_that_stands_twice(make_checkpoint: Make) -> None:
    path = make_checkpoint() / "config.json"
    path.write_text(path.read_text().replace('"head_dim": 10', '"head_dim": 10, "head_dim": 12'))
    fails(path.parent, "config.json", "key 'head_dim' stands twice")


def test_defaults_are_those_of_transformers(make_checkpoint: Make) -> None:
    """Llama 2 has no rope_theta; keys that are null, or change nothing, are no fault."""
    whole = logits(make_checkpoint())
    harmless = {"sliding_window": None, "max_window_layers": 3, "pretraining_tp": 1, "odd": None, "top_k": 50}
    for rope in (None, {}, {"type": None}, {"rope_type": "default", "partial_rotary_factor": 1.0}):
        folder = make_checkpoint(text_config={"rope_parameters": rope, **harmless})
        np.testing.assert_array_equal(logits(folder), whole)


def test_old_place_of_rope_theta(make_checkpoint: Make) -> None:
    folder = make_checkpoint(text_config={"rope_parameters": None, "rope_theta": 10000.0})
    np.testing.assert_array_equal(logits(folder), logits(make_checkpoint()))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda text: "{", "not a valid tokenizer.json"),
        (lambda text: "[]", "not a valid tokenizer.json"),
        (lambda text: re.sub('"User:"', '"Human:"', text), "lacks the word 'User:'"),
        (lambda text: text.replace('"red": 12', '"red": 16'), "beyond the config's vocab_size of 16"),
    ],
)
def test_bad_tokenizer(make_checkpoint: Make, change: Callable[[str], str], part: str) -> None:
    folder = make_checkpoint()
    path = folder / "tokenizer.json"
    path.write_text(change(path.read_text()))
    fails(folder, "tokenizer.json", part)
