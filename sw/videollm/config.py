"""The shape of a streaming video LLM, as its checkpoint's config.json states it."""

from dataclasses import dataclass
from pathlib import Path

from vrex.sw.videollm.config_keys import (
    COMMON_KEYS,
    LLAMA3_KEYS,
    NORM_EPS,
    QWEN3_HEAD_DIM,
    ROPE_KEYS,
    ROPE_THETA,
    TEXT_KEYS,
    TEXT_ONLY,
    TOP_KEYS,
    VISION_KEYS,
    VISION_ONLY,
)
from vrex.sw.videollm.section import Section, read_json


@dataclass(frozen=True)
class VisionConfig:
    """A SigLIP vision tower: square pictures cut into square patches, no class token."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    channels: int
    image_size: int
    patch_size: int
    eps: float

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's scaling of rotary frequencies by their wavelength (rope type `llama3`).

    Wavelengths above `original` / `low` positions are stretched by `factor`, those below `original` / `high`
    are kept, and between them the two are blended.
    """

    factor: float
    low: float
    high: float
    original: float


@dataclass(frozen=True)
class TextConfig:
    """A Llama decoder, or a Qwen3 one: the same with a norm on each head's q and k.

    Attributes:
        bos: id of the word before everything, None where the model has none.
        rope: scaling of the rotary frequencies, None for plain RoPE.
        qk_norm: whether q and k are normalised head by head before RoPE.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    eps: float
    tied: bool
    bos: int | None
    eos: tuple[int, ...]
    rope: RopeScaling | None = None
    qk_norm: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """Vision tower, decoder, and the words of the stream protocol (VideoLLM-Online).

    Attributes:
        frame_cls: whether a frame's first token is the vision tower's pooling head.
        frame_pooled: (rows, columns) the patch grid is average-pooled to, or None.
        placeholder: the word that stands for a frame token; never part of a text.
        interval: the word between two frames; predicting it means "keep watching".
        stream_open, stream_close: the words around a run of frames.
        user, assistant: the words before a question and before an answer.
        mean, std: per channel, applied to pixels scaled to 0..1.
        system: what the model is told first, in models that are spoken to in sentences; None where each
            word of the protocol is one token, and the first names the mode.
    """

    vision: VisionConfig
    text: TextConfig
    frame_cls: bool
    frame_pooled: tuple[int, int] | None
    placeholder: str
    interval: str
    stream_open: str
    stream_close: str
    user: str
    assistant: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    system: str | None = None

    @property
    def frame_tokens(self) -> int:
        """Tokens that one frame becomes."""
        rows, columns = self.frame_pooled or (0, 0)
        return int(self.frame_cls) + rows * columns


SYSTEM = (
    "A multimodal AI assistant is helping users with some activities. Below is their conversation, "
    "interleaved with the list of video frames received by the assistant."
)
"""What VideoLLM-Online tells its model first."""

TEXT_TYPES = ("llama", "qwen3")
"""Decoders there are, by their names in transformers."""


def _vision(section: Section) -> VisionConfig:
    section.only("model_type", "siglip_vision_model", required=True)
    for key, supported in VISION_ONLY.items():
        section.only(key, supported)
    section.known(COMMON_KEYS, VISION_KEYS, VISION_ONLY)
    config = VisionConfig(
        hidden_size=section.size("hidden_size"),
        intermediate_size=section.size("intermediate_size"),
        layers=section.size("num_hidden_layers"),
        heads=section.size("num_attention_heads"),
        channels=3,
        image_size=section.size("image_size"),
        patch_size=section.size("patch_size"),
        eps=section.positive("layer_norm_eps", 1e-6),
    )
    if config.hidden_size % config.heads:
        raise section.fault("num_attention_heads", f"({config.heads}) does not divide hidden_size")
    if config.patch_size > config.image_size:
        raise section.fault("patch_size", f"({config.patch_size}) is larger than image_size")
    return config


def _rope(section: Section) -> tuple[float, RopeScaling | None]:
    """Base of the rotary frequencies and their scaling, in either place Hugging Face has kept them."""
    theta = section.positive("rope_theta", ROPE_THETA)
    places = [key for key in ("rope_parameters", "rope_scaling") if section.values.get(key) is not None]
    if not places:
        return theta, None
    if len(places) > 1:
        raise section.fault("rope_scaling", "stands beside rope_parameters; keep one of them")
    rope = section.section(places[0])
    own = rope.positive("rope_theta", theta)
    if own != theta and section.values.get("rope_theta") is not None:
        raise rope.fault("rope_theta", f"is {own:g}, but rope_theta is {theta:g}; keep one of them")
    return own, _rope_scaling(rope)


def _rope_scaling(rope: Section) -> RopeScaling | None:
    kinds = {key: rope.values[key] for key in ("rope_type", "type") if rope.values.get(key) is not None}
    key, kind = next(iter(kinds.items()), ("rope_type", "default"))
    if kind not in ("default", "llama3"):
        raise rope.fault(key, f"is {kind!r}, but only 'default' and 'llama3' are supported")
    if any(other != kind for other in kinds.values()):
        raise rope.fault("type", f"is {kinds['type']!r}, but rope_type is {kind!r}; keep one of them")
    rope.only("partial_rotary_factor", 1.0)
    rope.known(ROPE_KEYS, LLAMA3_KEYS if kind == "llama3" else ())
    if kind == "default":
        return None
    scaling = RopeScaling(*(rope.positive(key) for key in LLAMA3_KEYS))
    if scaling.low >= scaling.high:
        raise rope.fault("low_freq_factor", f"is {scaling.low:g}, but must be below high_freq_factor")
    return scaling


def _full_attention(section: Section) -> None:
    """Makes sure that no layer has a sliding window."""
    if section.values.get("model_type") == "llama" and section.values.get("sliding_window") is not None:
        raise section.fault("sliding_window", "is set, but only attention to everything is supported")
    kinds = section.values.get("layer_types")
    if kinds is not None and kinds != ["full_attention"] * section.size("num_hidden_layers"):
        raise section.fault("layer_types", "must be 'full_attention' for each layer")


def _text(section: Section) -> TextConfig:
    kind = section.get("model_type")
    if kind not in TEXT_TYPES:
        raise section.fault("model_type", f"is {kind!r}, but only {' and '.join(TEXT_TYPES)} are supported")
    for key, supported in TEXT_ONLY.items():
        section.only(key, supported)
    section.known(COMMON_KEYS, TEXT_KEYS, TEXT_ONLY)
    _full_attention(section)
    heads, hidden = section.size("num_attention_heads"), section.size("hidden_size")
    theta, rope = _rope(section)
    config = TextConfig(
        vocab_size=section.size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=section.size("intermediate_size"),
        layers=section.size("num_hidden_layers"),
        heads=heads,
        kv_heads=section.size("num_key_value_heads", heads),
        head_dim=section.size("head_dim", QWEN3_HEAD_DIM if kind == "qwen3" else max(1, hidden // heads)),
        rope_theta=theta,
        eps=section.positive("rms_norm_eps", NORM_EPS),
        tied=section.flag("tie_word_embeddings", False),
        bos=None if section.values.get("bos_token_id") is None else section.token("bos_token_id")[0],
        eos=section.token("eos_token_id"),
        rope=rope,
        qk_norm=kind == "qwen3",
    )
    if config.heads % config.kv_heads:
        raise section.fault("num_key_value_heads", f"({config.kv_heads}) does not divide num_attention_heads")
    if config.head_dim % 2:
        raise section.fault("head_dim", f"is {config.head_dim}, but RoPE needs an even number")
    for key, ids in (("bos_token_id", (config.bos or 0,)), ("eos_token_id", config.eos)):
        if max(ids) >= config.vocab_size:
            raise section.fault(key, f"is {max(ids)}, outside the vocabulary of {config.vocab_size}")
    return config


def _pooled(section: Section) -> tuple[int, int] | None:
    if section.values.get("frame_token_pooled") is None:
        return None
    value = section.values["frame_token_pooled"]
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(x, int) and x > 0 for x in value):
        raise section.fault("frame_token_pooled", f"is {value!r}, expected two whole numbers")
    return value[0], value[1]


def _read(path: Path) -> Section:
    return Section(read_json(path), path)


def load_base_config(base: Path, vision: Path) -> ModelConfig:
    """The model that VideoLLM-Online makes of a language model and a SigLIP model.

    A frame is the pooling head's token and 3 x 3 pooled patches; pixels are scaled to -1..1.

    Args:
        base: config.json of the language model (Llama or Qwen3).
        vision: config.json of the SigLIP model, or of its vision tower alone.

    Raises:
        UserError: as `load_config`.
    """
    tower = _read(vision)
    if tower.values.get("model_type") == "siglip":
        tower = tower.section("vision_config")
    words = {"placeholder": "<v>", "interval": ",", "stream_open": "[", "stream_close": "]"}
    return ModelConfig(
        vision=_vision(tower),
        text=_text(_read(base)),
        frame_cls=True,
        frame_pooled=(3, 3),
        **words,
        user="User:",
        assistant="Assistant:",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        system=SYSTEM,
    )


def load_config(path: Path) -> ModelConfig:
    """Read and check a checkpoint's config.json.

    Args:
        path: the JSON file.

    Raises:
        UserError: the file is missing or broken, lacks a key, or asks for an unsupported architecture.
    """
    top = _read(path)
    top.only("model_type", "videollm_online", required=True)
    top.known(COMMON_KEYS, TOP_KEYS)
    vision = _vision(top.section("vision_config"))
    if top.size("frame_resolution", vision.image_size) != vision.image_size:
        raise top.fault("frame_resolution", f"is not vision_config.image_size, {vision.image_size}")
    config = ModelConfig(
        vision=vision,
        text=_text(top.section("text_config")),
        frame_cls=top.flag("frame_token_cls", True),
        frame_pooled=_pooled(top),
        placeholder=top.word("v_placeholder"),
        interval=top.word("frame_token_interval"),
        stream_open=top.word("stream_open"),
        stream_close=top.word("stream_close"),
        user=top.word("user_prefix", "User:"),
        assistant=top.word("assistant_prefix", "Assistant:"),
        mean=top.numbers("image_mean", vision.channels),
        std=top.numbers("image_std", vision.channels),
    )
    if config.frame_tokens != top.size("frame_num_tokens", config.frame_tokens or 1):
        raise top.fault("frame_num_tokens", f"should be {config.frame_tokens} by the other keys")
    if not all(config.std):
        raise top.fault("image_std", "holds a zero, which pixels cannot be divided by")
    return config
