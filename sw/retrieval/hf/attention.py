"""Attention of a chunk over chosen past tokens, in torch."""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from vrex.sw.retrieval.policies.base import Choice, Compacted, Delivered


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """RoPE with half-split pairs, as transformers' Llama has it; x [..., rows, head_dim]."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, choice: Choice, scaling: float, inv_freq: torch.Tensor
) -> torch.Tensor:
    """Grouped-query attention of a chunk over the chosen past and, causally, over itself.

    Args:
        q: [query heads, rows, head_dim]; consecutive query heads share a KV head.
        k, v: [KV heads, past + rows, head_dim], RoPE applied.
        choice: a policy's answer; what is delivered stands for the cache's own past.
        scaling: of the scores.
        inv_freq: RoPE's frequencies, float32 [head_dim / 2], for `Compacted`.

    Returns:
        [query heads, rows, head_dim].
    """
    rows, group = q.shape[1], len(q) // len(k)
    past = k.shape[1] - rows
    if isinstance(choice, Compacted):
        k, v = _compacted(k, v, choice.tokens, past, inv_freq)
        choice = None
    if choice is None:
        mask = _mask(k.shape[1] - rows, rows, q.device)
        return scaled_dot_product_attention(
            q[None], k[None], v[None], attn_mask=mask, scale=scaling, enable_gqa=group > 1
        )[0]
    taken = [
        tuple(torch.cat([chosen, x[head, past:]]) for chosen, x in zip(parts, (k, v), strict=True))
        for head, parts in enumerate(_chosen(choice, head, k, v) for head in range(len(k)))
    ]
    # KV heads with as many tokens as each other, as a count of tokens gives them, go at once.
    lengths = {len(keys) for keys, _ in taken}
    together = range(0, len(k), len(k) if len(lengths) == 1 else 1)
    out = torch.empty_like(q)
    for first in together:
        some = slice(first, first + together.step)
        taken_k, taken_v = (torch.stack(x)[None] for x in zip(*taken[some], strict=True))
        queries = slice(some.start * group, some.stop * group)
        mask = _mask(taken_k.shape[2] - rows, rows, q.device)
        out[queries] = scaled_dot_product_attention(
            q[None, queries], taken_k, taken_v, attn_mask=mask, scale=scaling, enable_gqa=group > 1
        )[0]
    return out


def _chosen(
    choice: list[np.ndarray] | Delivered, head: int, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a head's chosen past, [n, head_dim] each."""
    if isinstance(choice, Delivered):
        keys, values = torch.as_tensor(choice.kv[head]).to(k.device, k.dtype)
        return keys, values
    index = torch.as_tensor(choice[head], dtype=torch.int64, device=k.device)
    return k[head].index_select(0, index), v[head].index_select(0, index)


def _mask(past: int, rows: int, device: Any) -> torch.Tensor | None:
    """Which keys each row sees, bool [rows, past + rows]; None where it is all of them."""
    if rows == 1:
        return None
    return torch.ones((rows, past + rows), dtype=torch.bool, device=device).tril(past)


def _compacted(
    k: torch.Tensor, v: torch.Tensor, tokens: np.ndarray, past: int, inv_freq: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chosen tokens and the chunk, the former moved to the positions right before it (see `Compacted`)."""
    taken = torch.as_tensor(tokens, dtype=torch.int64, device=k.device)
    steps = torch.arange(past - len(tokens), past, device=k.device) - taken
    angles = steps[:, None].float() * inv_freq.to(k.device)
    cos, sin = (torch.cat([f(angles)] * 2, dim=-1) for f in (torch.cos, torch.sin))
    moved = rotate(k[:, taken].float(), cos, sin).to(k.dtype)
    return torch.cat([moved, k[:, past:]], dim=1), torch.cat([v[:, taken], v[:, past:]], dim=1)
