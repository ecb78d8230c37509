"""Decoder layers on an LXE: `--offload layer`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.lib import arith
from vrex.model.lxe import program, vpe
from vrex.model.lxe.program import Program, Tensor
from vrex.sw.driver.lxe import LxeEngine
from vrex.sw.retrieval.policies.base import Delivered, Policy
from vrex.sw.videollm.cache import KVCache
from vrex.sw.videollm.checkpoint import Tensors
from vrex.sw.videollm.config import TextConfig
from vrex.sw.videollm.decoder import (
    PREFIX,
    Decoder,
    Projected,
    attend_delivered,
    feed_forward,
    joined,
    normalise,
)

Code = vpe.Function


class LayerPrograms:
    """One decoder layer as two programs: up to queries, keys and values, and from attention to the end.

    Between them keys and values enter the cache and the policy chooses. The residual stream is FP32, weights
    and what is multiplied by them BF16, softmax FP32.

    Args:
        checkpoint: tensors of the model.
        config: its shapes.
        index: of the layer.
        lxe: where the programs run.

    Raises:
        UserError: a tensor is missing or misshapen, or heads do not begin a line of the LXE's memory.
    """

    def __init__(self, checkpoint: Tensors, config: TextConfig, index: int, lxe: LxeEngine) -> None:
        self._config, self._lxe = config, lxe
        inputs = lxe.config.dpe.inputs
        if config.head_dim % inputs:
            raise UserError(
                f"head_dim {config.head_dim} is no multiple of the {inputs} values of a line of preset "
                f"{lxe.config.name}'s LXE; choose another --lxe-preset"
            )
        d, ffn = config.hidden_size, config.intermediate_size
        shapes = {
            "input_layernorm": (d,),
            "self_attn.q_proj": (config.heads * config.head_dim, d),
            "self_attn.k_proj": (config.kv_heads * config.head_dim, d),
            "self_attn.v_proj": (config.kv_heads * config.head_dim, d),
            "self_attn.o_proj": (d, config.heads * config.head_dim),
            "post_attention_layernorm": (d,),
            "mlp.gate_proj": (ffn, d),
            "mlp.up_proj": (ffn, d),
            "mlp.down_proj": (d, ffn),
        }
        if config.qk_norm:
            shapes |= {f"self_attn.{name}_norm": (config.head_dim,) for name in "qk"}
        at = f"{PREFIX}model.layers.{index}."
        self._weights = {
            name.rpartition(".")[2]: arith.to_bf16(checkpoint.tensor(f"{at}{name}.weight", shape))
            for name, shape in shapes.items()
        }
        half = np.eye(config.head_dim // 2, dtype=np.float32)
        # Row i of the product with it is element i of a head with its halves exchanged, the first negated.
        self._turn = arith.to_bf16(np.block([[0 * half, -half], [half, 0 * half]]))

    def project(
        self, x: np.ndarray, rotation: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Queries, keys and values of a chunk, RoPE applied.

        Args:
            x: float32 [rows, hidden_size].
            rotation: cosines and sines, float32 [rows, head_dim / 2].

        Returns:
            q float32 [query heads, rows, head_dim], k and v float32 [KV heads, rows, head_dim], all of them
            BF16 values.

        Raises:
            DriverError: the LXE refused or did not answer.
            UserError: its memory is too small.
        """
        p = Program(self._lxe.config)
        with _fits():
            h = self._normed(p, p.load(x), "input_layernorm")
            turn = p.load(self._turn)
            cos, sin = (p.load(np.concatenate([part, part], axis=1)) for part in rotation)
            for name, heads in (("q", self._config.heads), ("k", self._config.kv_heads)):
                with p.scratch():
                    p.store(self._rotated(p, h, name, heads, turn, cos, sin))
            weights = self._weights["v_proj"]
            p.store(p.gemm(h, weights, p.tensor(len(x), len(weights))))
        q, k, v = (
            arith.from_bf16(rows).reshape(len(x), -1, self._config.head_dim).transpose(1, 0, 2)
            for rows in self._lxe.run(p).results
        )
        return q, k, v

    def finish(self, x: np.ndarray, q: np.ndarray, own: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
        """The rest of the layer.

        Args:
            x: float32 [rows, hidden_size], the layer's input.
            q: float32 [query heads, rows, head_dim], BF16 values.
            own: float32 [2, KV heads, rows, head_dim], BF16 values: the chunk's keys and values.
            past: per KV head the same of the past to attend, float32 [2, n, head_dim].

        Returns:
            float32 [rows, hidden_size].

        Raises:
            DriverError: the LXE refused or did not answer.
            UserError: its memory is too small.
        """
        p = Program(self._lxe.config)
        with _fits():
            residual = p.load(x)
            attended = p.tensor(len(x), q.shape[0] * q.shape[2])
            group = q.shape[0] // own.shape[1]
            for head, kv in enumerate(past):
                queries = q[head * group : (head + 1) * group]
                targets = [
                    p.columns(attended, (head * group + g) * q.shape[2], q.shape[2]) for g in range(group)
                ]
                with p.scratch():
                    self._attend(p, queries, own[:, head], kv, targets)
            with p.scratch():
                self._add(p, residual, attended, "o_proj")
            with p.scratch():
                self._feed_forward(p, residual)
            p.store(residual)
        return self._lxe.run(p).results[0]

    def _normed(self, p: Program, x: Tensor, name: str) -> Tensor:
        weight = p.load(self._weights[name][None])
        return program.rms_norm(p, x, weight, self._config.eps, p.tensor(x.rows, x.length))

    def _rotated(
        self, p: Program, h: Tensor, name: str, heads: int, turn: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """Projection and RoPE: x cos + x' sin, where x' has its halves exchanged and the first negated."""
        weights, dim = self._weights[f"{name}_proj"], self._config.head_dim
        x = p.gemm(h, weights, p.tensor(h.rows, len(weights)))
        turned = p.tensor(h.rows, len(weights))
        product = p.tensor(h.rows, dim, bf16=False)
        for head in range(heads):
            bare, swapped = (p.columns(tensor, head * dim, dim) for tensor in (x, turned))
            if self._config.qk_norm:
                weight = p.load(self._weights[f"{name}_norm"][None])
                program.rms_norm(p, bare, weight, self._config.eps, bare)
            p.gemm(bare, turn, swapped)
            p.vector(Code.MUL, product, swapped, b=sin)
            p.vector(Code.FMA, bare, bare, b=cos, c=product)
        return x

    def _attend(
        self, p: Program, q: np.ndarray, own: np.ndarray, past: np.ndarray, targets: list[Tensor]
    ) -> None:
        """Attention of one KV head: q [group, rows, head_dim], own and past [2, n, head_dim]."""
        group, rows, dim = q.shape
        # The chunk's own tokens fill whole words, so that the past's scores begin a line.
        width = p.row_lines(rows) * p.config.dpe.inputs
        padded = np.zeros((2, width, dim), dtype=np.float32)
        padded[:, :rows] = own
        allowed = np.full((rows, width), -np.inf, dtype=np.float32)
        allowed[:, :rows] = np.triu(allowed[:, :rows], 1)
        allowed[np.tril_indices(rows)] = 0
        n = past.shape[1]
        queries = p.load(arith.to_bf16(q.reshape(-1, dim)))
        scores = p.tensor(group * rows, width + n, bf16=False)
        mine = p.columns(scores, 0, width)
        p.gemm(queries, arith.to_bf16(padded[0]), mine)
        p.vector(Code.ADD, mine, mine, c=p.load(arith.to_bf16(np.tile(allowed, (group, 1)))))
        if n:
            p.gemm(queries, arith.to_bf16(past[0]), p.columns(scores, width, n))
        weights = program.softmax(p, scores, dim**-0.5, p.tensor(scores.rows, scores.length))
        parts = [(p.columns(weights, 0, width), padded[1])]
        parts += [(p.columns(weights, width, n), past[1])] if n else []
        sums = [
            p.gemm(part, arith.to_bf16(values), p.tensor(part.rows, dim, bf16=False), columns=True)
            for part, values in parts
        ]
        for g, target in enumerate(targets):
            first, *other = (total.part(g * rows, rows) for total in sums)
            if other:
                p.vector(Code.ADD, target, first, c=other[0])
            else:
                p.vector(Code.COPY, target, first)

    def _add(self, p: Program, residual: Tensor, x: Tensor, name: str) -> None:
        """Adds a projection to the residual stream."""
        weights = self._weights[name]
        product = p.gemm(x, weights, p.tensor(x.rows, len(weights), bf16=False))
        p.vector(Code.ADD, residual, residual, c=product)

    def _feed_forward(self, p: Program, residual: Tensor) -> None:
        h = self._normed(p, residual, "post_attention_layernorm")
        gate, up = (
            p.gemm(h, self._weights[name], p.tensor(h.rows, len(self._weights[name]), bf16=False))
            for name in ("gate_proj", "up_proj")
        )
        program.silu(p, gate, gate)
        gated = p.vector(Code.MUL, p.tensor(gate.rows, gate.length), gate, b=up)
        self._add(p, residual, gated, "down_proj")


@contextmanager
def _fits() -> Iterator[None]:
    """Turns a full memory into a sentence for the user."""
    try:
        yield
    except ValueError as error:
        raise UserError(
            f"the LXE's memory can't hold the layer ({error}); attend to less, or choose another --lxe-preset"
        ) from error


@dataclass
class Comparison:
    """Offloaded layers against float32 software.

    Attributes:
        ulps: per layer the largest difference of an output, given the same input, in BF16 ulps of the
            largest magnitude of its row.
        rows: of logits that were compared; software computed all layers of those from the first offloaded
            layer on, given the same past.
        logits: largest difference of logits, as a share of the largest magnitude of its row.
        words: rows of which the most likely word is the same.
    """

    ulps: dict[int, float] = field(default_factory=dict)
    rows: int = 0
    logits: float = 0.0
    words: int = 0

    def add_layer(self, index: int, result: np.ndarray, expected: np.ndarray) -> None:
        """Takes in one chunk of a layer."""
        self.ulps[index] = max(self.ulps.get(index, 0.0), row_ulps(result, expected))

    def add_logits(self, result: np.ndarray, expected: np.ndarray) -> None:
        """Takes in logits, float32 [rows, words]."""
        top = np.abs(expected).max(axis=-1, keepdims=True)
        self.logits = max(self.logits, float((np.abs(result - expected) / top).max()))
        self.rows += len(result)
        self.words += int((result.argmax(axis=-1) == expected.argmax(axis=-1)).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        return {
            "layer_ulps": {str(index): ulps for index, ulps in self.ulps.items()},
            "logits": {"rows": self.rows, "largest_difference": self.logits, "same_word": self.words},
        }


def row_ulps(result: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference in BF16 ulps of the largest magnitude of its row; infinite where one is NaN."""
    top = np.abs(expected).max(axis=-1)
    ulp = np.exp2(np.floor(np.log2(top)) - 7)
    worst = (np.abs(result.astype(np.float64) - expected) / ulp[..., None]).max()
    return float("inf") if np.isnan(worst) else float(worst)


class OffloadedDecoder(Decoder):
    """A decoder some of whose layers run on an LXE, compared with software all the while.

    Args:
        checkpoint, config, resident: as of `Decoder`.
        lxe: where they run.
        layers: which ones.

    Raises:
        UserError: as `Decoder` and `LayerPrograms`; there is no such layer.
    """

    def __init__(
        self,
        checkpoint: Tensors,
        config: TextConfig,
        resident: bool,
        *,
        lxe: LxeEngine,
        layers: Sequence[int],
    ) -> None:
        super().__init__(checkpoint, config, resident)
        missing = [index for index in layers if index >= config.layers]
        if missing:
            raise UserError(f"there is no layer {missing[0]}: the model has layers 0 to {config.layers - 1}")
        self._engines = {index: LayerPrograms(checkpoint, config, index, lxe) for index in layers}
        self.comparison = Comparison()

    def forward(
        self, x: np.ndarray, cache: KVCache, stage: str = "frame", policy: Policy | None = None
    ) -> np.ndarray:
        """As `Decoder.forward`, with a policy that delivers keys and values.

        Raises:
            DriverError: the LXE refused or did not answer.
        """
        rotation = self._rotation(cache.length, len(x))
        # What software makes of the chunk; None until the first offloaded layer.
        shadow: np.ndarray | None = None
        for index, engine in enumerate(map(self._engines.get, range(self.config.layers))):
            if engine is not None and shadow is None:
                shadow = x
            normed = normalise(x, self.config.eps)
            soft = self._project(index, normed, rotation, policy)
            projected = soft
            if engine is not None:
                projected = Projected(*engine.project(x, rotation), soft.bare_q, soft.bare_k)
            chosen = self._choose(index, normed, projected, rotation, cache.layers[index], stage, policy)
            assert isinstance(chosen, Delivered)
            own = cache.layers[index].last(len(x)).copy()
            cache.layers[index].release()
            if shadow is not None:
                shadow = self._software(index, shadow, rotation, chosen.kv, policy)
            if engine is None:
                x = self._finished(index, x, attend_delivered(projected.q, own, chosen.kv))
            else:
                expected = self._software(index, x, rotation, chosen.kv, policy)
                x = engine.finish(x, projected.q, own, chosen.kv)
                self.comparison.add_layer(index, x, expected)
        if shadow is not None:
            self.comparison.add_logits(self.logits(x), self.logits(shadow))
        return x

    def _software(
        self,
        index: int,
        x: np.ndarray,
        rotation: tuple[np.ndarray, np.ndarray],
        past: list[np.ndarray],
        policy: Policy | None,
    ) -> np.ndarray:
        """A layer in float32, with this past."""
        soft = self._project(index, normalise(x, self.config.eps), rotation, policy)
        own = arith.round_bf16(np.stack([soft.k, soft.v]))
        return self._finished(index, x, attend_delivered(soft.q, own, past))

    def _finished(self, index: int, x: np.ndarray, attended: np.ndarray) -> np.ndarray:
        layer = self._layers[index]
        x = x + joined(attended) @ layer.out.T
        return x + feed_forward(layer, normalise(x, self.config.eps))
