"""A trained model as a folder in the layout of the shipped checkpoint."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from vrex.errors import UserError
from vrex.files import write_file
from vrex.sw.videollm.checkpoint import Checkpoint
from vrex.sw.videollm.config import load_config
from vrex.sw.videollm.procstream import Level
from vrex.sw.videollm.procstream.world import ACTIONS, COLORS, SHAPES
from vrex.sw.videollm.tokenizer import Tokenizer
from vrex.sw.videollm.training.model import POOLED, ModelShape, StreamModel, text_config, vision_config
from vrex.sw.videollm.training.samples import FRAME_TOKENS, words

TIED = "language_model.lm_head.weight"
"""The same tensor as the embeddings, and not in the file."""
EMBEDDINGS = "language_model.model.embed_tokens.weight"


def write_model(model: StreamModel, shape: ModelShape, level: Level, folder: Path) -> int:
    """Writes config.json, tokenizer.json and model.safetensors (BF16), each whole or not at all.

    Returns the bytes of the weights. Raises UserError if the folder can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); choose another --out") from error
    state = {name: tensor for name, tensor in model.state_dict().items() if name != TIED}
    tensors = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in state.items()}
    content = save(tensors, metadata={"format": "pt"})
    for name, text in (("config.json", _config(shape, level)), ("tokenizer.json", _tokenizer(level))):
        write_file(folder / name, (json.dumps(text, indent=1) + "\n").encode())
    write_file(folder / "model.safetensors", content)
    return len(content)


def read_weights(model: StreamModel, level: Level, folder: Path) -> int:
    """Takes over the tensors of a model folder whose names and shapes fit, words by their names.

    Returns how many fit. Raises UserError if the folder is not a whole model, or none fits.
    """
    if not folder.is_dir():
        raise UserError(f"--init {folder} is not a folder; give the folder of a checkpoint")
    config = load_config(folder / "config.json")
    tokenizer, checkpoint = Tokenizer(folder / "tokenizer.json", config), Checkpoint(folder)
    own = {name: tensor for name, tensor in model.state_dict().items() if name != TIED}
    fitting = 0
    for name in sorted(own.keys() & checkpoint.names):
        tensor = own[name]
        theirs = torch.from_numpy(checkpoint.tensor(name, checkpoint.shape(name)))
        if name == EMBEDDINGS and theirs.shape[1] == tensor.shape[1]:
            for number, word in enumerate(words(level)):
                if tokenizer.knows(word):
                    tensor[number] = theirs[tokenizer.word(word)].to(tensor)
            fitting += 1
        elif theirs.shape == tensor.shape:
            tensor.copy_(theirs)
            fitting += 1
    if not fitting:
        raise UserError(f"--init {folder}: none of its tensors has the shape of this model's; leave it out")
    return fitting


def _config(shape: ModelShape, level: Level) -> dict[str, Any]:
    return {
        "model_type": "videollm_online",
        "dtype": "bfloat16",
        "vision_config": vision_config(shape),
        "text_config": text_config(shape),
        "frame_resolution": vision_config(shape)["image_size"],
        "frame_token_cls": True,
        "frame_token_pooled": list(POOLED),
        "frame_num_tokens": FRAME_TOKENS,
        "v_placeholder": "<v>",
        "frame_token_interval": ",",
        "stream_open": "[",
        "stream_close": "]",
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "procstream": {
            "level": level.name,
            "shapes": SHAPES,
            "actions": ACTIONS,
            "colors": COLORS,
            "tasks": level.recipes,
            "step_index": "shape*6+action",
        },
    }


def _tokenizer(level: Level) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words(level))},
            "unk_token": "<pad>",
        },
    }
