"""Small GGUF files of random Llama models, written as llama.cpp writes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS = 96, 128, 2, 6, 3
HEAD_DIM = HIDDEN // HEADS
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "Ġ the", "i n", "Ċ Ċ"]
WORDS = [*CONTROL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]


@dataclass(frozen=True)
class Written:
    """What went into a file: `weights` by GGUF's names, float32 as they read back, rows in GGUF's order."""

    path: Path
    weights: dict[str, np.ndarray]


def write(
    path: Path,
    seed: int = 0,
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    architecture: str = "llama",
    pre: str = "smollm",
    tied: bool = True,
    without: str = "",
) -> Written:
    """Writes a model; `kind` is the type of its matrices, `without` a tensor or key that is left out."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(WORDS), HIDDEN), "output_norm": (HIDDEN,)}
    if not tied:
        shapes["output"] = (len(WORDS), HIDDEN)
    for layer in range(LAYERS):
        inner: dict[str, tuple[int, ...]] = {
            "attn_norm": (HIDDEN,),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_norm": (HIDDEN,),
            "ffn_gate": (FFN, HIDDEN),
            "ffn_up": (FFN, HIDDEN),
            "ffn_down": (HIDDEN, FFN),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in inner.items()}
    writer = gguf.GGUFWriter(path, architecture)
    keys: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": 512,
        "embedding_length": HIDDEN,
        "feed_forward_length": FFN,
        "head_count": HEADS,
        "head_count_kv": KV_HEADS,
        "layer_norm_rms_eps": 1e-5,
        "rope_freq_base": 10_000.0,
        "rope_dimension_count": HEAD_DIM,
        "vocab_size": len(WORDS),
    }
    for name, value in keys.items():
        if name != without:
            getattr(writer, f"add_{name}")(value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(WORDS)
    writer.add_token_merges(MERGES)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(WORDS) - len(CONTROL)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    weights = {}
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32) * 0.15 + (len(shape) == 1)
        stored, used = values, gguf.GGMLQuantizationType.F32
        if len(shape) == 2:
            stored, used = gguf.quantize(values, kind), kind
            values = gguf.dequantize(stored, kind)
        weights[name] = values
        if name != without:
            writer.add_tensor(f"{name}.weight", stored, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Written(path, weights)
