"""A SigLIP vision tower with its attention-pooling head, and frame tokens, in float32 numpy."""

from dataclasses import dataclass

import numpy as np

from vrex.sw.videollm.activations import gelu_tanh
from vrex.sw.videollm.checkpoint import Tensors
from vrex.sw.videollm.config import ModelConfig

PREFIX = "vision_tower."


@dataclass(frozen=True)
class _Linear:
    """x W^T + b; weight [outputs, inputs], bias [outputs]."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = x @ self.weight.T
        y += self.bias
        return y


@dataclass(frozen=True)
class _LayerNorm:
    weight: np.ndarray
    bias: np.ndarray
    eps: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[1])
        x /= np.sqrt(variance + np.float32(self.eps))
        x *= self.weight
        x += self.bias
        return x


@dataclass(frozen=True)
class _Layer:
    norm1: _LayerNorm
    qkv: _Linear
    out: _Linear
    norm2: _LayerNorm
    up: _Linear
    down: _Linear


class _Loader:
    """Reads the tower's parts under one prefix of tensor names."""

    def __init__(self, checkpoint: Tensors, config: ModelConfig) -> None:
        self.checkpoint, self.vision = checkpoint, config.vision

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        return self.checkpoint.tensor(PREFIX + name, shape)

    def linear(self, name: str, outputs: int, inputs: int) -> _Linear:
        return _Linear(self.tensor(f"{name}.weight", outputs, inputs), self.tensor(f"{name}.bias", outputs))

    def norm(self, name: str) -> _LayerNorm:
        d = self.vision.hidden_size
        return _LayerNorm(self.tensor(f"{name}.weight", d), self.tensor(f"{name}.bias", d), self.vision.eps)

    def layer(self, index: int) -> _Layer:
        d, ffn, at = self.vision.hidden_size, self.vision.intermediate_size, f"encoder.layers.{index}."
        parts = [self.linear(f"{at}self_attn.{p}_proj", d, d) for p in "qkv"]
        return _Layer(
            norm1=self.norm(f"{at}layer_norm1"),
            qkv=_Linear(np.concatenate([p.weight for p in parts]), np.concatenate([p.bias for p in parts])),
            out=self.linear(f"{at}self_attn.out_proj", d, d),
            norm2=self.norm(f"{at}layer_norm2"),
            up=self.linear(f"{at}mlp.fc1", ffn, d),
            down=self.linear(f"{at}mlp.fc2", d, ffn),
        )


class VisionTower:
    """Turns a frame into frame tokens (before the connector).

    Args:
        checkpoint: the tensors.
        config: the shapes, the pooling and the pixel normalisation.

    Raises:
        UserError: a tensor is missing or has another shape than the config demands.
    """

    def __init__(self, checkpoint: Tensors, config: ModelConfig) -> None:
        self.config = config
        vision, load = config.vision, _Loader(checkpoint, config)
        d, patch, channels = vision.hidden_size, vision.patch_size, vision.channels
        kernel = load.tensor("embeddings.patch_embedding.weight", d, channels, patch, patch)
        # patches are cut as [y, x, channel], the kernel is stored as [channel, y, x]
        self._patch = _Linear(
            kernel.transpose(0, 2, 3, 1).reshape(d, -1), load.tensor("embeddings.patch_embedding.bias", d)
        )
        self._positions = load.tensor("embeddings.position_embedding.weight", vision.grid**2, d)
        self._layers = [load.layer(i) for i in range(vision.layers)]
        self._post_norm = load.norm("post_layernorm")
        self._probe = load.tensor("head.probe", 1, 1, d)[0]
        self._head_qkv = _Linear(
            load.tensor("head.attention.in_proj_weight", 3 * d, d),
            load.tensor("head.attention.in_proj_bias", 3 * d),
        )
        self._head_out = load.linear("head.attention.out_proj", d, d)
        self._head_norm = load.norm("head.layernorm")
        self._head_up = load.linear("head.mlp.fc1", vision.intermediate_size, d)
        self._head_down = load.linear("head.mlp.fc2", d, vision.intermediate_size)
        self._mean = np.array(config.mean, dtype=np.float32)
        self._std = np.array(config.std, dtype=np.float32)

    def frame_tokens(self, frame: np.ndarray) -> np.ndarray:
        """The tokens of one frame: the pooling head's output, then the average-pooled patch grid, row-major.

        Args:
            frame: uint8 [image_size, image_size, 3], RGB.

        Returns:
            float32 [frame tokens, hidden_size].
        """
        hidden, pooled = self.encode(frame)
        parts = [pooled] if self.config.frame_cls else []
        if self.config.frame_pooled:
            grid = self.config.vision.grid
            parts.append(adaptive_average(hidden.reshape(grid, grid, -1), self.config.frame_pooled))
        return np.concatenate(parts)

    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Last hidden state [patches, hidden_size] and pooler output [1, hidden_size], float32."""
        x = self._patch(self._patches(frame))
        x += self._positions
        for layer in self._layers:
            q, k, v = np.split(layer.qkv(layer.norm1(x)), 3, axis=1)
            x += layer.out(self._mix(q, k, v))
            x += layer.down(gelu_tanh(layer.up(layer.norm2(x))))
        hidden = self._post_norm(x)
        return hidden, self._pool(hidden)

    def _patches(self, frame: np.ndarray) -> np.ndarray:
        """Normalised pixels, float32 [patches, patch_size * patch_size * 3], patches row-major."""
        vision = self.config.vision
        grid, patch = vision.grid, vision.patch_size
        used = grid * patch
        pixels = (frame[:used, :used] * np.float32(1 / 255) - self._mean) / self._std
        cut = pixels.reshape(grid, patch, grid, patch, vision.channels).swapaxes(1, 2)
        return cut.reshape(grid * grid, -1)

    def _mix(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Multi-head attention without mask; q [rows, d], k and v [tokens, d]; returns [rows, d]."""
        heads = self.config.vision.heads
        q, k, v = (x.reshape(len(x), heads, -1).swapaxes(0, 1) for x in (q, k, v))
        weights = (q * np.float32(q.shape[-1] ** -0.5)) @ k.swapaxes(1, 2)
        weights -= weights.max(axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = weights @ v
        return mixed.swapaxes(0, 1).reshape(mixed.shape[1], -1)

    def _pool(self, hidden: np.ndarray) -> np.ndarray:
        """SigLIP's pooling head: one learnt probe attends to every patch; returns [1, hidden_size]."""
        d = hidden.shape[1]
        weight, bias = self._head_qkv.weight, self._head_qkv.bias
        q = self._probe @ weight[:d].T + bias[:d]
        k, v = np.split(hidden @ weight[d:].T + bias[d:], 2, axis=1)
        x = self._head_out(self._mix(q, k, v))
        return x + self._head_down(gelu_tanh(self._head_up(self._head_norm(x))))


def adaptive_average(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Adaptive average pooling: window i of n covers floor(i * length / n) up to ceil((i + 1) * length / n).

    Args:
        grid: float32 [height, width, d].
        size: (rows, columns) of the result.

    Returns:
        float32 [rows * columns, d], row-major.
    """
    height, width, d = grid.shape
    rows, columns = size
    pooled = np.empty((rows, columns, d), dtype=np.float32)
    for r in range(rows):
        band = grid[r * height // rows : -(-(r + 1) * height // rows)]
        for c in range(columns):
            pooled[r, c] = band[:, c * width // columns : -(-(c + 1) * width // columns)].mean(axis=(0, 1))
    return pooled.reshape(rows * columns, d)
