"""`with vrex.retrieval(model): ...`: a transformers model that attends only to what a policy retrieves."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from vrex.errors import UserError
from vrex.sw.driver.transport import DriverError
from vrex.sw.retrieval.hf.attention import attend, rotate
from vrex.sw.retrieval.hf.bits import TorchBits
from vrex.sw.retrieval.hf.tables import TorchTables
from vrex.sw.retrieval.policies import DEFAULT
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.base import FRAME, TEXT, Chunk, Codec
from vrex.sw.retrieval.policies.narrow import BF16_BITS, Narrow
from vrex.sw.retrieval.policies.registry import entry, make_policy, make_settings
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_bits import ResvBits
from vrex.sw.retrieval.policies.shape import Shape

ATTENTION = "vrex_retrieval"
"""Name of the attention function in transformers."""

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
STAGES = (FRAME, TEXT)

_ACTIVE: dict[torch.nn.Module, "Session"] = {}
"""Attention modules of the models that stream now."""


class Session:
    """A model's retrieval while its `with` block lasts; see `retrieval`.

    One session follows one sequence at a time: a chunk at position 0 begins a new one, every other chunk
    must follow the one before.

    Attributes:
        cache: a cache to pass as `past_key_values`; made anew by `new_sequence`. Another `DynamicCache`, such
            as the one that `generate` makes, does as well.
        stage: what the next chunks are, `"frame"` or `"text"`; None: a chunk of one token is text.
        calls: attention calls per layer of the present sequence.
    """

    def __init__(self, model: PreTrainedModel, policy: str, settings: Any, frame_tokens: int) -> None:
        """See `retrieval`."""
        self._decoder = _decoder_of(model)
        config = self._decoder.config
        heads = config.num_attention_heads
        self._shape = Shape(
            layers=config.num_hidden_layers,
            query_heads=heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            frame_tokens=frame_tokens,
        )
        self.model, self.policy_name, self.settings = model, policy, settings
        self.stage: str | None = None
        # What came into each layer last, and its rotation, for policies that look beyond q and k.
        self._inputs: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self.new_sequence()

    def new_sequence(self) -> None:
        """Forgets the sequence: empty cache, empty tables."""
        self.cache = DynamicCache(config=self.model.config)
        self.calls = [0] * self._shape.layers
        self._seen = [0] * self._shape.layers
        self._policy: Reporting = self._make_policy()

    @property
    def active(self) -> bool:
        """Whether every layer's attention has gone through the policy since the sequence began."""
        return min(self.calls) > 0

    def report(self) -> dict[str, Any]:
        """What was attended to in the present sequence: `Resv.report`, with the policy's name and knobs."""
        knobs = {name: getattr(self.settings, name) for name in entry(self.policy_name).knobs}
        return {"policy": self.policy_name, "settings": knobs, "calls": self.calls, **self._policy.report()}

    @property
    def _takes_tensors(self) -> bool:
        """Whether the policy works on the model's device."""
        one_level = self.policy_name == ResvBits.name and self.settings.levels == 1
        return self.policy_name == Resv.name or one_level

    def _make_policy(self) -> Reporting:
        if not self._takes_tensors:
            return make_policy(self.policy_name, self.settings, self._shape)
        device = next(self.model.parameters()).device
        policy: Reporting
        if self.policy_name == Resv.name:
            policy = Resv(self.settings, self._shape, TorchTables(self.settings, self._shape, device))
        else:
            policy = TorchBits(self.settings, self._shape, device)
        if self.settings.kv_bits == BF16_BITS:
            return policy
        return Narrow(policy, self.settings, self._shape, _to_numpy)

    def _before_model(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Checks what enters the decoder.

        Raises:
            UserError: a batch, a padded sequence, or a cache that is no growing one.
        """
        inputs = kwargs.get("inputs_embeds")
        inputs = kwargs.get("input_ids", args[0] if args else None) if inputs is None else inputs
        if inputs is not None and len(inputs) != 1:
            raise UserError(
                f"a batch of {len(inputs)} sequences, but retrieval follows one; give one at a time"
            )
        mask = kwargs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and not bool((mask == 1).all()):
            raise UserError("attention_mask hides tokens, but retrieval has none to skip; give no padding")
        cache = kwargs.get("past_key_values")
        layers = getattr(cache, "layers", [])
        grows = cache is None or isinstance(cache, DynamicCache)
        if not grows or any(type(layer) is not DynamicLayer for layer in layers):
            raise UserError(
                f"past_key_values is a {type(cache).__name__}, but retrieval needs a cache that keeps all "
                "tokens in order; pass a DynamicCache or none"
            )

    def _before_layer(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Remembers what enters a decoder layer."""
        x = args[0] if args else kwargs["hidden_states"]
        self._inputs[module.self_attn.layer_idx] = (x, *kwargs["position_embeddings"])

    def _attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Attention of one layer; q [query heads, rows, head_dim], k, v [KV heads, past + rows, head_dim]."""
        rows = q.shape[1]
        start = k.shape[1] - rows
        if start == 0 and self._seen[layer]:
            self._restart(layer)
        if start != self._seen[layer]:
            raise UserError(
                f"the cache holds {start} tokens, but the policy has seen {self._seen[layer]}; a session "
                "follows one sequence chunk by chunk, so begin with an empty cache"
            )
        self._seen[layer] += rows
        self.calls[layer] += 1
        try:
            choice = self._policy.select(self._chunk(layer, start, q.detach(), k.detach(), v.detach()))
        except DriverError as error:
            raise UserError(str(error)) from error
        return attend(q, k, v, choice, scaling, self._decoder.rotary_emb.inv_freq)

    def _restart(self, layer: int) -> None:
        """A new sequence began without `new_sequence`: the cache is the caller's."""
        if layer == 0:
            cache = self.cache
            self.new_sequence()
            self.cache = cache

    def _chunk(self, layer: int, start: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Chunk:
        stage = self.stage or (FRAME if q.shape[1] > 1 else TEXT)
        if stage not in STAGES:
            raise UserError(f"stage is {stage!r}; set it to 'frame', 'text' or None")
        form: Callable[[torch.Tensor], Any] = _as_is if self._takes_tensors else _to_numpy
        _, cos, sin = self._inputs[layer]
        return Chunk(
            layer=layer,
            stage=stage,
            start=start,
            q=form(q),
            k=form(k[:, start:]),
            v=form(v[:, start:]),
            keys=form(k[:, :start]),
            predict_q=lambda other: form(self._predict_q(layer, other)),
            unrotated_q=form(_unrotate(q, cos[0], sin[0])),
            unrotated_k=form(_unrotate(k[:, start:], cos[0], sin[0])),
        )

    def _predict_q(self, layer: int, other: int) -> torch.Tensor:
        """Queries that another layer makes of this layer's input, [query heads, rows, head_dim]."""
        x, cos, sin = self._inputs[layer]
        block = self._decoder.layers[other]
        attention = block.self_attn
        projected = attention.q_proj(block.input_layernorm(x)[0].detach())
        q = projected.view(len(projected), -1, self._shape.head_dim)
        if hasattr(attention, "q_norm"):
            q = attention.q_norm(q)
        return rotate(q.transpose(0, 1), cos[0], sin[0]).detach()


def _as_is(x: torch.Tensor) -> Any:
    return x


def _to_numpy(x: torch.Tensor) -> np.ndarray:
    return x.float().cpu().numpy()


def _unrotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Undoes RoPE, scaled or not."""
    return rotate(x, cos, -sin) / (cos * cos + sin * sin)


def _decoder_of(model: Any) -> Any:
    """The part of a model that holds the decoder layers.

    Raises:
        UserError: it is none that the plug-in knows.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    if kind not in MODEL_TYPES or not isinstance(model, PreTrainedModel):
        raise UserError(f"a model of type {kind!r} is not supported; give one of {', '.join(MODEL_TYPES)}")
    layers = getattr(config, "layer_types", None) or []
    if getattr(config, "sliding_window", None) and (not layers or "sliding_attention" in layers):
        raise UserError(f"the {kind} model has a sliding window, which retrieval replaces; give one without")
    return model.get_decoder()


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention interface of transformers: tensors [1, heads, tokens, head_dim]."""
    session = _ACTIVE[module]
    layer: Any = module.layer_idx
    out = session._attend(int(layer), query[0], key[0], value[0], scaling)
    return out.transpose(0, 1).unsqueeze(0).contiguous(), None


@contextmanager
def retrieval(
    model: PreTrainedModel, policy: str = DEFAULT, *, frame_tokens: int = 10, **knobs: Any
) -> Iterator[Session]:
    """Makes a transformers model attend only to the past that a policy retrieves, inside the `with` block.

    Forward passes, chunk by chunk or not, and `generate` work as before; batch size 1. Keys and values stay
    in the model's cache on its device. `resv`, `resv-bits` of one level and `full` run on that device, other
    policies in numpy.

    Args:
        model: of type Llama, Mistral, Qwen2 or Qwen3, without a sliding window.
        policy: a name of `vrex.sw.retrieval.policies.registry.POLICIES` that needs no calibration.
        frame_tokens: tokens of a frame; windows are counted in frames of `frame_tokens` + 1 tokens.
        knobs: of the policy, see its settings.

    Yields:
        The session; its `report` says what was attended to.

    Raises:
        UserError: an unknown policy, knob or model, a model that streams already, or, while streaming, input
            that retrieval can't follow.
    """
    settings = make_settings(policy, knobs)
    if entry(policy).calibrated:
        raise UserError(
            f"policy {policy} needs a calibration, which the plug-in does not make; choose another"
        )
    if frame_tokens < 1:
        raise UserError(f"frame_tokens is {frame_tokens}; give at least 1")
    session = Session(model, policy, settings, frame_tokens)
    if isinstance(session._policy, Codec):
        raise UserError(f"policy {policy} changes what the cache keeps; choose another")
    blocks = list(session._decoder.layers)
    if any(block.self_attn in _ACTIVE for block in blocks):
        raise UserError("the model streams already; leave that block first")
    AttentionInterface.register(ATTENTION, _attention)
    before: Any = model.config._attn_implementation
    hooks = [session._decoder.register_forward_pre_hook(session._before_model, with_kwargs=True)]
    hooks += [block.register_forward_pre_hook(session._before_layer, with_kwargs=True) for block in blocks]
    _ACTIVE.update({block.self_attn: session for block in blocks})
    try:
        model.set_attn_implementation(ATTENTION)
        yield session
        if not session.active:
            warnings.warn(
                f"policy {policy} was never asked: the model did not run in the block", stacklevel=3
            )
    finally:
        model.set_attn_implementation(before)
        for hook in hooks:
            hook.remove()
        for block in blocks:
            del _ACTIVE[block.self_attn]
