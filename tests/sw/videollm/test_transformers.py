"""Random checkpoints of several shapes against transformers' SiglipVisionModel and LlamaForCausalLM."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from vrex.sw.videollm.videollm import VideoLLM

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPES: list[dict[str, Any]] = [
    {},
    {"text_config": {"num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True}},
    {"text_config": {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 6}},
    {
        "vision_config": {"image_size": 28, "num_attention_heads": 3, "num_hidden_layers": 1},
        "frame_token_pooled": [3, 3],
        "frame_num_tokens": 10,
    },
    # pictures that the patches do not fill, and a grid smaller than the pooled one
    {
        "vision_config": {"image_size": 11, "patch_size": 5},
        "frame_token_pooled": [3, 3],
        "frame_num_tokens": 10,
    },
]


def weights(folder: Path, prefix: str) -> dict[str, Any]:
    tensors = load_file(folder / "model.safetensors")
    return {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def config(folder: Path, key: str) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())[key]


@pytest.mark.parametrize("changes", SHAPES)
def test_decoder_equals_llama(make_checkpoint: Any, changes: dict[str, Any]) -> None:
    folder = make_checkpoint(**changes)
    ours = VideoLLM.load(folder).decoder
    settings = transformers.LlamaConfig(**config(folder, "text_config"))
    theirs = transformers.LlamaForCausalLM(settings).float().eval()
    theirs.load_state_dict(weights(folder, "language_model."), strict=not ours.config.tied)
    x = np.random.default_rng(1).standard_normal((23, ours.config.hidden_size)).astype(np.float32)
    cache = ours.new_cache("float32")
    logits = np.concatenate([ours.logits(ours.forward(part, cache)) for part in np.split(x, [9, 10, 17])])
    with torch.no_grad():
        expected = theirs(inputs_embeds=torch.from_numpy(x)[None]).logits[0].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("changes", SHAPES)
def test_frame_tokens_equal_siglip(make_checkpoint: Any, changes: dict[str, Any]) -> None:
    folder = make_checkpoint(**changes)
    model = VideoLLM.load(folder)
    theirs = transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(**config(folder, "vision_config"))
    )
    theirs = theirs.float().eval()
    theirs.load_state_dict(weights(folder, "vision_tower."))
    side, grid = model.config.vision.image_size, model.config.vision.grid
    frame = np.random.default_rng(2).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels = (frame / 255 - np.array(model.config.mean)) / np.array(model.config.std)
    with torch.no_grad():
        out = theirs(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None])
        cells = out.last_hidden_state.transpose(1, 2).reshape(1, -1, grid, grid)
        pooled = torch.nn.functional.adaptive_avg_pool2d(cells, model.config.frame_pooled)
        tokens = torch.cat([out.pooler_output[:, None], pooled.flatten(2).transpose(1, 2)], 1)[0]
        part = weights(folder, "connector.")
        hidden = torch.nn.functional.gelu(tokens @ part["0.weight"].T + part["0.bias"])
        expected = (hidden @ part["2.weight"].T + part["2.bias"]).numpy()
    np.testing.assert_allclose(model.embed_frame(frame), expected, atol=1e-4)
