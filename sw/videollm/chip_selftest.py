"""Random chunks for a core on a board, which runs a small random decoder, beside the golden model."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vrex.model.config import Config
from vrex.sw.driver.dre import Capacity
from vrex.sw.driver.serial_core import CheckedBoardCore, open_serial_core
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.chip_decoder import ChipDecoder, ChipSequence
from vrex.sw.videollm.chip_layout import ChipLayout, ChipShape
from vrex.sw.videollm.config import TextConfig
from vrex.sw.videollm.random_weights import RandomWeights

LAYERS, GROUP, STEP = 2, 2, 4
"""Decoder layers, query heads of a KV head, and tokens of a frame."""

TOKENS, MOST_ROWS = 160, 8
"""Of a video, after which a new one begins, and of a chunk at most."""

SCENES = 6
"""Directions around which embeddings lie, so that their keys cluster."""


def _shape(config: Config) -> ChipShape:
    """A decoder as small as the configuration's KV heads let it be; it retrieves after few tokens."""
    kv_heads, head_dim = config.kvmu.kv_heads, config.kvmu.head_dim
    text = TextConfig(
        vocab_size=16,
        hidden_size=head_dim,
        intermediate_size=2 * head_dim,
        layers=LAYERS,
        heads=GROUP * kv_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rope_theta=10000.0,
        eps=1e-5,
        tied=True,
        bos=1,
        eos=(2,),
    )
    settings = ResvSettings(sinks=2, window=2, th_r=0.5, n_hp=config.hcu.hash_bits)
    ring = 1 << (4 * config.hcu.chunk_tokens - 1).bit_length()
    room = Capacity(clusters=TOKENS, segments=TOKENS, ring=ring)
    return ChipShape(config, text, settings, STEP, room, TOKENS, is_near=True)


def run(
    name: str, config: Config, chunks: int, seed: int, step: Callable[[int], Any] = lambda _: None
) -> dict[str, Any]:
    """Sends random chunks to a board and compares all that is read back.

    Args:
        name: `serial:PORT` or `serial:PORT@BAUD`.
        config: accelerator.
        chunks: how many; after `TOKENS` tokens a new video begins.
        seed: of them.
        step: called with 1 after each.

    Returns:
        As of `vrex.sw.driver.selftest.run`.

    Raises:
        DriverError: there is no such port, or no such core behind it, or it does not answer.
    """
    shape = _shape(config)
    layout = ChipLayout(shape)
    transport = open_serial_core(name, config, layout.new_memory(), check=True)
    assert isinstance(transport, CheckedBoardCore)
    try:
        chip = ChipDecoder(RandomWeights(), shape.text).put_on(layout, transport)
        text = shape.text
        policy = Shape(text.layers, text.heads, text.kv_heads, text.head_dim, STEP)
        rng = np.random.default_rng(seed)
        scenes = rng.standard_normal((SCENES, text.hidden_size))
        sequence = ChipSequence(chip, 0, policy)
        for _ in range(chunks):
            rows = int(rng.integers(1, MOST_ROWS + 1))
            if sequence.start + rows > TOKENS:
                sequence = ChipSequence(chip, 0, policy)
            noise = 0.3 * rng.standard_normal((rows, text.hidden_size))
            x = (scenes[rng.integers(0, SCENES, rows)] + noise).astype(np.float32)
            sequence.run(x, "frame")
            step(1)
        cycles = chip.engine.counters()["busy"]
    finally:
        transport.close()
    report = transport.report.to_dict()
    return {
        "unit": "core",
        "commands": chunks,
        "answered": chunks,
        "refused": 0,
        "compared": report["compared"],
        "mismatches": report["mismatches"],
        "seed": seed,
        "cycles": cycles,
        "link": report["link"],
    }
