"""What runs: the shape of a language model and of a vision tower, past, chunk and batch."""

from dataclasses import dataclass

from vrex.sw.perf.description.sections import load_entry, whole

BF16_BYTES = 2
FRAME_TOKENS = 10
"""Tokens of a frame in VideoLLM-Online: the pooled 3 x 3 and one of the whole picture."""
COIN_FRAMES, COIN_QUESTION, COIN_ANSWER = 26, 25, 39
"""The V-Rex paper's average case of COIN: frames, and tokens of question and answer."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Shape of a decoder of the Llama and Qwen family.

    Attributes:
        layers, hidden, heads, kv_heads, head_dim, ffn, vocab: dimensions as its configuration file has them.
    """

    layers: int = whole()
    hidden: int = whole()
    heads: int = whole()
    kv_heads: int = whole()
    head_dim: int = whole()
    ffn: int = whole()
    vocab: int = whole()

    @property
    def layer_weights(self) -> int:
        """Values of q, k, v, o, gate, up and down of a layer."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.ffn

    @property
    def head_weights(self) -> int:
        """Values of the output layer."""
        return self.hidden * self.vocab

    @property
    def weight_bytes(self) -> int:
        """All that must lie in memory: layers, output layer and embedding, BF16."""
        return BF16_BYTES * (self.layers * self.layer_weights + 2 * self.head_weights)

    def kv_bytes(self, tokens: float, bits: float = 16) -> float:
        """Bytes of K and V of so many tokens in one layer.

        Each KV head counts once, however many query heads share it. Fewer bits than 16 bring a scale of two
        bytes for a token's K and one for its V in each KV head.
        """
        scales = 0.0 if bits == 16 else 2 * 2 * self.kv_heads
        return tokens * (2 * self.kv_heads * self.head_dim * bits / 8 + scales)


@dataclass(frozen=True, kw_only=True)
class Vision:
    """Shape of a vision tower.

    Attributes:
        layers, hidden, ffn, heads: of the transformer.
        tokens: patches of a picture.
        patch_values: values of a patch, all colours.
    """

    layers: int = whole()
    hidden: int = whole()
    ffn: int = whole()
    heads: int = whole()
    tokens: int = whole()
    patch_values: int = whole()

    @property
    def layer_weights(self) -> int:
        """Values of a layer."""
        return 4 * self.hidden * self.hidden + 2 * self.hidden * self.ffn

    @property
    def weights(self) -> int:
        """Values of all layers and of the patches' projection."""
        return self.layers * self.layer_weights + self.hidden * self.patch_values

    @property
    def flop(self) -> float:
        """Operations on one picture; a multiplication and its addition count as two."""
        attention = 4 * self.tokens * self.tokens * self.hidden * self.layers
        return 2 * self.tokens * self.weights + attention


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One step.

    Attributes:
        model, vision: what runs; `vision` None where a chunk holds no picture, as in text.
        past: tokens in the KV cache of each sequence.
        tokens: that enter, of each sequence.
        batch: sequences.
        text: the chunk is text; the ratio is the text's, and the output layer runs.
    """

    model: Model
    vision: Vision | None
    past: int
    tokens: int
    batch: int
    text: bool

    @property
    def rows(self) -> int:
        """Rows of the matrix products with weights."""
        return self.tokens * self.batch


def load_model(chosen: str) -> Model:
    """A language model by its name in `data/models.toml`, or from a file with its fields.

    Raises:
        UserError: there is none, or a field is wrong.
    """
    return load_entry(Model, "models.toml", chosen, "model")


def load_vision(chosen: str) -> Vision:
    """A vision tower by its name in `data/visions.toml`, or from a file with its fields.

    Raises:
        UserError: there is none, or a field is wrong.
    """
    return load_entry(Vision, "visions.toml", chosen, "vision tower")


def frame(model: Model, vision: Vision, past: int, batch: int = 1) -> Workload:
    """The step of a frame."""
    return Workload(model=model, vision=vision, past=past, tokens=FRAME_TOKENS, batch=batch, text=False)


def token(model: Model, past: int, batch: int = 1, tokens: int = 1) -> Workload:
    """The step of a generated token, or of a question of several."""
    return Workload(model=model, vision=None, past=past, tokens=tokens, batch=batch, text=True)
