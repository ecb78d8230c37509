"""Names of the weights of a model in its checkpoint, for telling those that nothing reads."""

import re
from collections.abc import Iterable

from vrex.errors import UserError
from vrex.sw.videollm.config import TextConfig

EMBEDDINGS = "model.embed_tokens"
HEAD = "lm_head"

# Buffers that older versions of transformers wrote, and what SigLIP has besides its tower.
_UNREAD = re.compile(
    r"(.*\.)?(rotary_emb\.inv_freq|position_ids)|(text_model\.|text_projection\.).*|logit_(scale|bias)"
)


def text_modules(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Shapes [outputs, inputs] or [channels] of the language model's weights, by their modules' names."""
    d, ffn = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (q_size, d),
        "self_attn.k_proj": (kv_size, d),
        "self_attn.v_proj": (kv_size, d),
        "self_attn.o_proj": (d, q_size),
        "mlp.gate_proj": (ffn, d),
        "mlp.up_proj": (ffn, d),
        "mlp.down_proj": (d, ffn),
        "input_layernorm": (d,),
        "post_attention_layernorm": (d,),
    }
    if config.qk_norm:
        layer |= {"self_attn.q_norm": (config.head_dim,), "self_attn.k_norm": (config.head_dim,)}
    modules: dict[str, tuple[int, ...]] = {
        f"model.layers.{index}.{name}": shape
        for index in range(config.layers)
        for name, shape in layer.items()
    }
    vocabulary = (config.vocab_size, d)
    return modules | {EMBEDDINGS: vocabulary, "model.norm": (d,), HEAD: vocabulary}


def text_names(config: TextConfig, prefix: str = "") -> set[str]:
    """Names of the language model's tensors."""
    return {f"{prefix}{module}.weight" for module in text_modules(config)}


def check_read(source: object, names: Iterable[str], read: set[str]) -> None:
    """Makes sure that a checkpoint holds nothing that would change the model if it were read.

    Args:
        source: the file or folder, for the message.
        names: of its tensors.
        read: those that are read.

    Raises:
        UserError: a tensor is neither read nor known to change nothing.
    """
    for name in sorted(set(names) - read):
        if not _UNREAD.fullmatch(name):
            raise UserError(
                f"{source}: tensor {name} is not understood; give a model of a supported architecture"
            )
