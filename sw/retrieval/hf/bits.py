"""Policy `resv-bits` with codes as torch tensors on the model's device."""

from typing import Any

import numpy as np
import torch

from vrex.model.dre import codes
from vrex.model.lib import arith
from vrex.sw.retrieval.hf import code_kernels
from vrex.sw.retrieval.policies.account import BF16_BYTES
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.code_table import Ranking
from vrex.sw.retrieval.policies.resv_bits import ResvBits, ResvBitsSettings, causal_rows
from vrex.sw.retrieval.policies.shape import Shape


class _Codes:
    """Codes of one layer's KV heads, in token order.

    Attributes:
        planes: rows of R, float32 [heads, bits, dim].
        size: tokens.
    """

    def __init__(self, planes: torch.Tensor, keys: torch.Tensor) -> None:
        """None yet; keys are those whose mean is the centre, bfloat16 [heads, n, dim]."""
        heads, bits, _ = planes.shape
        self.planes, self.size = planes, 0
        self._centre = code_kernels.centre(keys)[:, None]
        self._signs = torch.empty((heads, 0, bits), dtype=torch.int8, device=planes.device)
        self._scales = torch.empty((heads, 0), dtype=torch.bfloat16, device=planes.device)

    def centred(self, keys: torch.Tensor) -> torch.Tensor:
        """bf16(k - mu), bfloat16 [heads, n, dim]."""
        return (keys.to(torch.bfloat16).float() - self._centre.float()).to(torch.bfloat16)

    def add(self, keys: torch.Tensor) -> None:
        """Codes the next tokens, [heads, n, dim]."""
        signs, scales = code_kernels.encode(self.centred(keys), self.planes)
        end = self.size + keys.shape[1]
        if end > self._signs.shape[1]:
            room = max(end, 2 * self.size) - self._signs.shape[1]
            self._signs = torch.nn.functional.pad(self._signs, (0, 0, 0, room))
            self._scales = torch.nn.functional.pad(self._scales, (0, room))
        self._signs[:, self.size : end], self._scales[:, self.size : end] = signs, scales
        self.size = end

    def of(self, head: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Signs [size, bits] and scales [size] of one KV head."""
        return self._signs[head, : self.size], self._scales[head, : self.size]

    @property
    def nans(self) -> int:
        """Tokens, summed over the heads, that are never selected."""
        return int(self._scales[:, : self.size].isnan().sum())


class TorchBits(ResvBits):
    """`ResvBits` whose chunks hold tensors (see `TorchTables`); one level."""

    def __init__(self, settings: ResvBitsSettings, shape: Shape, device: torch.device) -> None:
        """A policy that has seen nothing yet."""
        super().__init__(settings, shape)
        self._device = device
        self._heads: list[_Codes | None] = [None] * shape.layers

    def _code(self, chunk: Chunk, last: int) -> int:
        """See `ResvBits._code`."""
        layer, settings, shape = chunk.layer, self.settings, self._shape
        first, keys = self._coded[layer], torch.as_tensor(chunk.keys)
        if last <= first:
            return 0
        held = self._heads[layer]
        if held is None:
            rows = [
                codes.planes(settings.seed, layer, head, settings.bits, shape.head_dim)
                for head in range(shape.kv_heads)
            ]
            planes = torch.from_numpy(arith.from_bf16(np.stack(rows))).to(self._device)
            held = self._heads[layer] = _Codes(planes, keys[:, settings.sinks :].to(torch.bfloat16))
        held.add(keys[:, first:last])
        self._coded[layer] = last
        return shape.kv_heads * (last - first) * (shape.head_dim * BF16_BYTES + self._code_bytes)

    @property
    def _code_bytes(self) -> int:
        return self.settings.bits // 8 + BF16_BYTES

    def _best(self, chunk: Chunk, first: int, last: int) -> list[Ranking]:
        """See `ResvBits._best`."""
        heads, held = self._shape.kv_heads, self._heads[chunk.layer]
        assert held is not None
        q, keys, own = (torch.as_tensor(x) for x in (chunk.q, chunk.keys, chunk.k))
        queries = q.reshape(heads, -1, self._shape.head_dim).to(torch.bfloat16)
        around = held.centred(torch.cat([keys[:, :first], keys[:, last:], own], dim=1))
        seen = torch.from_numpy(causal_rows(chunk, queries.shape[1], first + chunk.start - last))
        exact = (queries.float() @ around.float().mT).to(torch.bfloat16)
        exact.masked_fill_(~seen.to(self._device), torch.nan)
        components, scales = code_kernels.rotate(queries, held.planes)
        chosen = []
        for head in range(heads):
            counted = code_kernels.votes(
                exact[head], components[head], scales[head], *held.of(head), self._scale
            )
            chosen.append(code_kernels.select(counted, self.settings.wanted(chunk)))
        self._rows += queries.shape[0] * queries.shape[1]
        self._silent += int((~queries.isfinite().all(dim=-1)).sum())
        return [Ranking(tokens.cpu().numpy(), held.size * self._code_bytes, 0) for tokens in chosen]

    def report(self) -> dict[str, Any]:
        """See `ResvBits.report`."""
        return super().report() | {"nan_keys": sum(held.nans for held in self._heads if held is not None)}
