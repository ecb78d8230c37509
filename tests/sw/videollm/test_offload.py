"""Decoder layers on the LXE against float32 software, on the shipped checkpoint."""

from functools import partial

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.config import preset
from vrex.model.lib import arith
from vrex.sw.driver.backends import open_lxe
from vrex.sw.driver.lxe import LxeEngine
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.videollm.checkpoint import SHIPPED, Checkpoint
from vrex.sw.videollm.config import load_config
from vrex.sw.videollm.decoder import Decoder
from vrex.sw.videollm.offload import OffloadedDecoder, row_ulps
from vrex.sw.videollm.videollm import VideoLLM

LAYERS = (0, 3, 7)
"""First, middle and last."""


class Everything:
    """Delivers the whole past."""

    name = "everything"

    def __init__(self) -> None:
        self._past: dict[int, list[np.ndarray]] = {}

    def select(self, chunk: Chunk) -> Delivered:
        past = self._past.setdefault(chunk.layer, [])
        shape = (2, chunk.k.shape[0], 0, chunk.k.shape[2])
        held = np.concatenate([np.zeros(shape, dtype=np.float32), *past], axis=2)
        past.append(np.stack([chunk.k, chunk.v]))
        return Delivered([held[:, head] for head in range(held.shape[1])])


def stream(
    lxe: LxeEngine, layers: tuple[int, ...], frames: int
) -> tuple[OffloadedDecoder, np.ndarray, np.ndarray]:
    """Frames through the offloaded decoder and through software; both their last logits."""
    decoder = partial(OffloadedDecoder, lxe=lxe, layers=layers)
    model, plain = VideoLLM.load(decoder=decoder), VideoLLM.load()
    policy, caches = Everything(), (model.decoder.new_cache(), plain.decoder.new_cache())
    pictures = np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8)
    offloaded = software = np.empty(0)
    for picture in pictures:
        x = model.embed_frame(picture)
        offloaded = model.decoder.forward(x, caches[0], policy=policy)
        software = plain.decoder.forward(x, caches[1])
    assert isinstance(model.decoder, OffloadedDecoder)
    return model.decoder, model.decoder.logits(offloaded), plain.decoder.logits(software)


def test_layers_are_within_two_ulps_and_logits_near() -> None:
    decoder, offloaded, software = stream(open_lxe("golden", preset("tiny")), LAYERS, 4)
    comparison = decoder.comparison
    assert set(comparison.ulps) == set(LAYERS)
    assert max(comparison.ulps.values()) <= 2
    assert comparison.rows == 40
    assert comparison.logits < 0.05
    np.testing.assert_allclose(offloaded, software, atol=0.05 * np.abs(software).max())
    assert not np.array_equal(offloaded, software)


@pytest.mark.slow
def test_a_layer_of_the_rtl_is_the_models_and_within_two_ulps() -> None:
    lxe = open_lxe("rtl", preset("tiny"), check=True)
    decoder, _, _ = stream(lxe, (0, 7), 3)
    assert max(decoder.comparison.ulps.values()) <= 2
    assert lxe.report.mismatches == 0
    assert lxe.report.compared > 1000
    print(lxe.report, decoder.comparison)


def test_wrong_weights_would_be_seen() -> None:
    """The comparison is not of a thing with itself."""
    lxe = open_lxe("golden", preset("tiny"))
    decoder = OffloadedDecoder(
        Checkpoint(SHIPPED), load_config(SHIPPED / "config.json").text, True, lxe=lxe, layers=[2]
    )
    weights = decoder._engines[2]._weights
    weights["down_proj"] = arith.to_bf16(arith.from_bf16(weights["down_proj"]) * np.float32(1.25))
    x = np.random.default_rng(1).standard_normal((10, 256)).astype(np.float32)
    decoder.forward(x, decoder.new_cache(), policy=Everything())
    assert decoder.comparison.ulps[2] > 4
    assert isinstance(decoder, Decoder)


def test_ulps_of_a_row() -> None:
    expected = np.array([[1.0, 0.5], [-3.0, 0.0]], dtype=np.float32)
    assert row_ulps(expected, expected) == 0
    # A BF16 ulp is 2^-7 from 1 on and 2^-6 from 2 on.
    assert row_ulps(expected + np.array([[0, 2**-7], [0, 0]]), expected) == 1
    assert row_ulps(expected + np.array([[0, 0], [0, 2**-7]]), expected) == 0.5
    assert row_ulps(np.full_like(expected, np.nan), expected) == float("inf")


def test_mistakes_are_sentences() -> None:
    config, checkpoint = load_config(SHIPPED / "config.json").text, Checkpoint(SHIPPED)
    lxe = open_lxe("golden", preset("tiny"))
    with pytest.raises(UserError, match="there is no layer 8: the model has layers 0 to 7"):
        OffloadedDecoder(checkpoint, config, True, lxe=lxe, layers=[1, 8])
    decoder = OffloadedDecoder(checkpoint, config, True, lxe=open_lxe("golden", preset("ulx3s")), layers=[0])
    x = np.zeros((200, 256), dtype=np.float32)
    with pytest.raises(UserError, match="the LXE's memory can't hold the layer"):
        decoder.forward(x, decoder.new_cache(), policy=Everything())
