"""Policy `resv-bits` on torch tensors against the golden model and the policy on the host."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from vrex.model.dre import codes
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.resv_bits import ResvBits, ResvBitsSettings
from vrex.sw.retrieval.policies.shape import Shape

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from vrex.sw.retrieval.hf import code_kernels  # noqa: E402  the names below need torch
from vrex.sw.retrieval.hf.bits import TorchBits  # noqa: E402
from vrex.sw.retrieval.hf.kernels import bf16_from_bits  # noqa: E402

CPU = torch.device("cpu")
SCALE = Scale.from_float(64**-0.5)


def tensor(bits: np.ndarray) -> Any:
    return bf16_from_bits(bits, CPU)


def normal(rng: np.random.Generator, *shape: int, spread: float = 1.0) -> np.ndarray:
    return arith.to_bf16((rng.normal(size=shape) * spread).astype(np.float32))


def case(seed: int) -> dict[str, Any]:
    """Codes, rotated queries and scores of residents of any size, some of them not finite."""
    rng = np.random.default_rng(seed)
    n, rows, m = int(rng.integers(1, 300)), int(rng.integers(1, 30)), int(rng.integers(0, 20))
    dim, bits = int(rng.choice([24, 64, 128])), int(rng.choice([32, 64, 128]))
    spreads = 10.0 ** rng.integers(-5, 5, size=3)
    keys = normal(rng, n, dim, spread=spreads[0])
    queries = normal(rng, rows, dim, spread=spreads[1])
    residents = normal(rng, rows, m, spread=spreads[2])
    if seed % 3 == 0:
        keys[rng.integers(0, n), 0] = arith.NAN
        queries[0, 0] = 0x7F80
        residents[0, :1], residents[:, 1:2], residents[-1, 2:3] = 0xFF80, arith.NAN, 0x7F80
    return {
        "planes": codes.planes(seed, 0, 0, bits, dim),
        "keys": keys,
        "queries": queries,
        "around": residents,
    }


@pytest.mark.parametrize("seed", range(60))
def test_votes_and_selection_are_the_golden_models(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_kernels, "_BLOCK", 1000)
    given = case(seed)
    past = codes.encode(given["keys"], given["planes"])
    components, scales = codes.rotate(given["queries"], given["planes"])
    wanted = codes.vote(given["around"], codes.score(components, scales, past), SCALE)
    bits = np.unpackbits(past.words.view(np.uint8), axis=1, bitorder="little", count=len(given["planes"]))
    got = code_kernels.votes(
        tensor(given["around"]),
        torch.from_numpy(components).float(),
        torch.from_numpy(arith.from_bf16(scales)),
        torch.from_numpy(2 * bits.astype(np.int8) - 1),
        tensor(past.scales),
        SCALE,
    )
    np.testing.assert_array_equal(got.numpy(), wanted)
    # Ties too: of equal votes the lower tokens are selected.
    for votes in (wanted, wanted // max(1, int(wanted.max()) // 2)):
        for count in {1, (len(votes) + 1) // 2, len(votes)}:
            chosen = code_kernels.select(torch.from_numpy(votes), count)
            np.testing.assert_array_equal(chosen.numpy(), codes.select(votes, count))


@pytest.mark.parametrize("seed", range(30))
def test_codes_and_rotated_queries_are_the_golden_models(seed: int) -> None:
    """But for the last bit of a scale, and a component or bit whose sum is next to a boundary."""
    given = case(seed)
    planes = torch.from_numpy(arith.from_bf16(given["planes"]).copy())[None]
    past = codes.encode(given["keys"], given["planes"])
    signs, scales = code_kernels.encode(tensor(given["keys"])[None], planes)
    bits = np.unpackbits(past.words.view(np.uint8), axis=1, bitorder="little", count=len(given["planes"]))
    assert (signs[0].numpy() == 2 * bits.astype(np.int8) - 1).mean() > 0.999
    wanted = arith.from_bf16(past.scales)
    np.testing.assert_allclose(scales[0].float().numpy(), wanted, rtol=2.0**-7)
    assert np.isclose(scales[0].float().numpy(), wanted, rtol=0, equal_nan=True).mean() > 0.97
    components, factors = codes.rotate(given["queries"], given["planes"])
    got = code_kernels.rotate(tensor(given["queries"])[None], planes)
    assert (got[0][0].numpy() == components).mean() > 0.99
    np.testing.assert_allclose(got[1][0].numpy(), arith.from_bf16(factors), rtol=2.0**-7)


def test_the_centre_is_that_of_finite_keys() -> None:
    rng = np.random.default_rng(1)
    keys = normal(rng, 3, 40, 24)
    keys[1, 7, 3], keys[2, :, 0] = arith.NAN, 0x7F80
    got = code_kernels.centre(tensor(keys)).float().numpy()
    finite = [keys[0], np.delete(keys[1], 7, axis=0)]
    wanted = [arith.from_bf16(codes.centre(part)) for part in finite]
    np.testing.assert_allclose(got[:2], wanted, rtol=2.0**-8)
    assert not got[2].any()


def chunks(shape: Shape, sizes: list[int], seed: int) -> list[Chunk]:
    """A stream of chunks of one layer, rounded to BF16."""
    rng = np.random.default_rng(seed)
    total, start, made = sum(sizes), 0, []
    k, v = (arith.from_bf16(normal(rng, shape.kv_heads, total, shape.head_dim)) for _ in range(2))
    for size in sizes:
        end = start + size
        q = arith.from_bf16(normal(rng, shape.query_heads, size, shape.head_dim, spread=2.0))
        k_own, v_own = k[:, start:end], v[:, start:end]
        made.append(Chunk(0, "frame", start, q, k_own, v_own, k[:, :start], np.zeros, q, k_own))
        start = end
    return made


@pytest.mark.parametrize("bits", [32, 64, 128])
def test_the_policy_selects_what_the_host_does(bits: int) -> None:
    shape = Shape(layers=1, query_heads=4, kv_heads=2, head_dim=64, frame_tokens=4)
    settings = ResvBitsSettings(k=12, bits=bits, window=2, seed=3)
    host, device = ResvBits(settings, shape), TorchBits(settings, shape, CPU)
    stream = chunks(shape, [5] * 20 + [1, 1, 7], seed=bits)
    stream[-1].q[0, 0, 0] = np.nan
    stream[10].k[:, 2] = np.inf
    equal = total = 0
    for chunk in stream:
        names = ("q", "k", "v", "keys")
        as_tensors: dict[str, Any] = {name: torch.from_numpy(getattr(chunk, name).copy()) for name in names}
        wanted = host.select(chunk)
        got = device.select(dataclasses.replace(chunk, **as_tensors))
        for left, right in zip(got, wanted, strict=True):
            assert len(left) == len(right)
            equal += len(np.intersect1d(left, right))
            total += len(right)
    # A scale whose last bit differs may exchange tokens whose votes are nearly equal.
    assert equal >= 0.99 * total
    report = device.report()
    assert report == host.report()
    assert (report["nan_keys"], report["degenerate_rows"]) == (2, 1)
