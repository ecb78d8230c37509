"""A store of 4 bits behind a policy: what attention gets, and what it costs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.dre import packed
from vrex.model.lib import arith
from vrex.sw.retrieval.policies.base import Delivered
from vrex.sw.retrieval.policies.registry import make_policy, make_settings
from vrex.sw.retrieval.policies.shape import Shape

Tapes = Callable[[int], Any]

CASES = [
    ("resv-bits", {"k": 7, "sinks": 4, "window": 2}),
    ("resv-bits", {"k": 5, "sinks": 0, "window": 0, "seed": 3, "rotate": True}),
    ("resv-bits", {"k": 6, "sinks": 1, "window": 1, "rotate": True}),
    ("resv", {"sinks": 2, "window": 1, "th_hd": 9}),
    ("resv", {"sinks": 0, "window": 0, "th_hd": 9, "cluster_first": True}),
    ("resv", {"sinks": 1, "window": 1, "th_hd": 9, "cluster_first": True}),
]


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_the_same_tokens_as_they_read_back(
    make_tape: Tapes, shape: Shape, name: str, knobs: dict[str, Any]
) -> None:
    """Each token by itself: exact where it is resident, else packed and unpacked."""
    turns = knobs.get("rotate", False)
    bare = {knob: value for knob, value in knobs.items() if knob != "rotate"}
    plain = make_policy(name, make_settings(name, {**bare, "kv_bits": 16}), shape)
    narrow = make_policy(name, make_settings(name, {**knobs, "kv_bits": 4}), shape)
    read_back = 0
    for chunk in make_tape(1).chunks():
        chosen, delivered = plain.select(chunk), narrow.select(chunk)
        assert isinstance(chosen, list)
        assert isinstance(delivered, Delivered)
        assert delivered.keeps
        ahead = chunk.k.shape[1] if knobs.get("cluster_first") else 0
        window = chunk.start + ahead - knobs["window"] * shape.step_tokens
        for head, tokens in enumerate(chosen):
            assert delivered.kv[head].shape == (2, len(tokens), shape.head_dim)
            for at, token in enumerate(tokens):
                # On the tape a value is its key.
                key = arith.to_bf16(chunk.keys[head, token])
                kv = np.stack([key, key])
                if knobs["sinks"] <= token < window:
                    rows = packed.rotation(knobs.get("seed", 0), chunk.layer, head, shape.head_dim)
                    if turns:
                        kv[:1] = packed.rotate(kv[:1], rows)
                    kv = packed.unpack(packed.pack(kv[None]), 2, shape.head_dim)[0]
                    if turns:
                        kv[:1] = packed.rotate_back(kv[:1], rows)
                    read_back += 1
                np.testing.assert_array_equal(arith.to_bf16(delivered.kv[head][:, at]), kv)
    assert read_back > 50


@pytest.mark.parametrize("name", ["resv", "resv-bits"])
def test_bytes_are_those_of_the_records(make_tape: Tapes, shape: Shape, name: str) -> None:
    knobs = {"sinks": 2, "window": 1}
    reports = []
    chunks = list(make_tape(2).chunks())
    for bits in (16, 4):
        policy = make_policy(name, make_settings(name, {**knobs, "kv_bits": bits}), shape)
        for chunk in chunks:
            policy.select(chunk)
        reports.append(policy.report()["fetched"])
    exact, narrow = reports
    record = 2 * shape.head_dim // 2 + 2 * 2
    assert narrow["tokens"] == exact["tokens"] > 0
    assert narrow["bytes"] == narrow["tokens"] * record
    # resv retires a chunk before the next one's selection; the store packs what has left by then.
    last = chunks[-1].start - 2 - knobs["window"] * shape.step_tokens
    moved = last * shape.layers * shape.kv_heads * (2 * shape.head_dim + record)
    assert narrow["metadata_bytes"] == exact["metadata_bytes"] + moved


@pytest.mark.parametrize("name", ["resv", "resv-bits"])
@pytest.mark.parametrize("bits", [8, 5, 0])
def test_other_widths(name: str, bits: int) -> None:
    with pytest.raises(UserError, match=f"kv_bits must be 16 or 4, not {bits}"):
        make_settings(name, {"kv_bits": bits})
