"""What the host writes to a core's memory once: weights in the DPE's order, and the rotary table."""

from typing import Protocol

import numpy as np

from vrex.model.dre import hashing
from vrex.model.lib import arith
from vrex.model.lxe import dpe
from vrex.sw.videollm.checkpoint import Tensors
from vrex.sw.videollm.chip_layout import ChipLayout
from vrex.sw.videollm.decoder import PREFIX


class Rotation(Protocol):
    """`Decoder.rotation`."""

    def __call__(self, start: int, rows: int, /) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines of positions, float32 [rows, head_dim / 2]."""
        ...


def layer_image(checkpoint: Tensors, layout: ChipLayout, layer: int, core: int = 0) -> bytes:
    """The bytes of a layer's weights on one core of a team, as `ChipLayout.weights` places them.

    Raises:
        UserError: a tensor is missing or misshapen.
    """
    shape, text = layout.shape, layout.shape.text
    d, ffn, dim = text.hidden_size, text.intermediate_size, text.head_dim
    at = f"{PREFIX}model.layers.{layer}."

    def bits(name: str, *size: int) -> np.ndarray:
        return arith.to_bf16(checkpoint.tensor(f"{at}{name}.weight", size))

    def mine(name: str, *size: int) -> np.ndarray:
        """The rows of a matrix that are columns of this core."""
        return np.split(bits(name, *size), shape.team)[core]

    rows = {
        "input_layernorm": bits("input_layernorm", d),
        "post_attention_layernorm": bits("post_attention_layernorm", d),
    }
    if text.qk_norm:
        rows |= {f"{name}_norm": bits(f"self_attn.{name}_norm", dim) for name in "qk"}
    weights = {
        "q_proj": mine("self_attn.q_proj", text.heads * dim, d),
        "k_proj": mine("self_attn.k_proj", text.kv_heads * dim, d),
        "v_proj": mine("self_attn.v_proj", text.kv_heads * dim, d),
        "o_proj": mine("self_attn.o_proj", d, text.heads * dim),
        "gate_proj": mine("mlp.gate_proj", ffn, d),
        "up_proj": mine("mlp.up_proj", ffn, d),
        "down_proj": mine("mlp.down_proj", d, ffn),
    }
    settings = shape.settings
    for table in range(shape.tables):
        number = core * shape.tables + table
        weights[f"planes{table}"] = hashing.hyperplanes(
            settings.seed, layer, number, settings.n_hp, shape.table_heads * dim
        )
    rows |= {name: dpe.weight_beats(matrix, shape.config.dpe) for name, matrix in weights.items()}
    image = bytearray(layout.weights.size)
    for name, values in rows.items():
        data = values.astype("<u2").tobytes()
        image[layout.weights[name] : layout.weights[name] + len(data)] = data
    return bytes(image)


def rotary_image(rotation: Rotation, first: int, rows: int) -> bytes:
    """Rows of the rotary table: the cosines of both halves of a head, then the sines, FP32."""
    cos, sin = rotation(first, rows)
    return np.concatenate([cos, cos, sin, sin], axis=1).astype("<f4").tobytes()
