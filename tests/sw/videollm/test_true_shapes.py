"""A model of VideoLLM-Online's true width, made on the fly, through the simulated RTL."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from vrex.sw.cli import main as cli

LAYERS = 2
VOCABULARY = 64
SIGLIP_L = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
LLAMA_3_8B = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
WORDS = ["<bos>", "<eos>", "<v>", ",", "[", "]", "User:", "Assistant:", "quiet", "now"]
CONFIG = {
    "model_type": "videollm_online",
    "vision_config": SIGLIP_L,
    "text_config": LLAMA_3_8B,
    "frame_token_cls": True,
    "frame_token_pooled": [3, 3],
    "frame_num_tokens": 10,
    "v_placeholder": "<v>",
    "frame_token_interval": ",",
    "stream_open": "[",
    "stream_close": "]",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def write_checkpoint(folder: Path) -> None:
    """Random float16 weights, 1.0 GB."""
    from tests.sw.videollm.conftest import shapes

    folder.mkdir()
    rng = np.random.default_rng(1)
    tensors = {}
    for name, shape in shapes(CONFIG).items():
        if len(shape) == 1:
            tensors[name] = np.full(shape, name.endswith("weight"), dtype=np.float16)
        else:
            weights = rng.standard_normal(shape, dtype=np.float32)
            tensors[name] = (weights / np.sqrt(shape[-1])).astype(np.float16)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(WORDS)}, "unk_token": "<v>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.slow
def test_five_frames_through_the_rtl(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model")
    video = tmp_path / "video.mp4"
    assert cli.main(["procstream", "1", "--frames", "5", "-o", str(video)]) == 0
    out = tmp_path / "run.json"
    words = ["run", "--video", str(video), "--model", str(tmp_path / "model")]
    words += ["--window", "1", "--backend", "rtl", "--check"]
    assert cli.main([*words, "--json", str(out), "--png", str(tmp_path / "run.png")]) == 0
    figures = json.loads(out.read_text())
    assert figures["frames"] == 5
    assert figures["rtl"]["mismatches"] == 0
    assert figures["rtl"]["compared"] > 5 * LAYERS
    assert np.shape(figures["ratio"]["per_layer_head"]) == (LAYERS, 8)
