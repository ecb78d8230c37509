"""The model that is trained: transformers' SigLIP tower and Llama, joined by VideoLLM-Online's connector."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel

from vrex.errors import UserError
from vrex.sw.videollm.procstream.render import SIZE
from vrex.sw.videollm.training.samples import NOTHING, PROTOCOL

POOLED = (3, 3)
PLACEHOLDER = PROTOCOL.index("<v>")
VOCABULARY = 128
"""Room for the words of every level."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the model; the defaults are the shipped checkpoint's."""

    patch: int = 8
    vision_width: int = 192
    vision_layers: int = 4
    vision_heads: int = 3
    width: int = 256
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 704

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise UserError(f"{name} is {value}; give at least 1")
        for whole, part in (("vision_width", "vision_heads"), ("heads", "kv_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise UserError(
                    f"{part} ({getattr(self, part)}) does not divide {whole} ({getattr(self, whole)})"
                )
        if SIZE % self.patch:
            raise UserError(f"patch ({self.patch}) does not divide the pictures' {SIZE} pixels")
        if self.head_dim % 2:
            raise UserError(f"head_dim is {self.head_dim}, but RoPE needs an even number")


def vision_config(shape: ModelShape) -> dict[str, Any]:
    """The tower's section of config.json."""
    return {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
        "num_channels": 3,
        "image_size": SIZE,
        "patch_size": shape.patch,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "model_type": "siglip_vision_model",
    }


def text_config(shape: ModelShape) -> dict[str, Any]:
    """The decoder's section of config.json."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
        "tie_word_embeddings": True,
        "bos_token_id": PROTOCOL.index("<bos>"),
        "eos_token_id": PROTOCOL.index("<eos>"),
        "pad_token_id": PROTOCOL.index("<pad>"),
        "model_type": "llama",
    }


class StreamModel(nn.Module):
    """Frames and words to logits; its parameters have the names of the shipped checkpoint's tensors."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.vision_tower = SiglipVisionModel(SiglipVisionConfig(**vision_config(shape)))
        self.connector = nn.Sequential(
            nn.Linear(shape.vision_width, shape.width), nn.GELU(), nn.Linear(shape.width, shape.width)
        )
        self.language_model = LlamaForCausalLM(LlamaConfig(**text_config(shape)))

    def frame_tokens(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 64, 64, 3] to [n, 10, width]: the pooling head's output, then the pooled grid."""
        pixels = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        seen = self.vision_tower(pixel_values=pixels)
        hidden = seen.last_hidden_state
        side = round(hidden.shape[1] ** 0.5)
        grid = hidden.transpose(1, 2).reshape(len(hidden), -1, side, side)
        pooled = nn.functional.adaptive_avg_pool2d(grid.float(), POOLED).flatten(2).transpose(1, 2)
        return self.connector(torch.cat([seen.pooler_output[:, None].float(), pooled], dim=1))

    def forward(self, frames: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Frames uint8 [samples * n, 64, 64, 3], ids [samples, tokens]; logits [samples, tokens, words]."""
        words = self.language_model.get_input_embeddings()(ids)
        seen = self.frame_tokens(frames).reshape(-1, words.shape[-1]).to(words.dtype)
        x = words.masked_scatter((ids == PLACEHOLDER)[..., None], seen)
        return self.language_model(inputs_embeds=x, use_cache=False).logits


def loss_of(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean cross entropy of all labels by their weights."""
    each = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NOTHING, reduction="none"
    )
    return (each * weights.flatten()).sum() / weights.sum()
