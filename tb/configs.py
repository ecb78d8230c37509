"""Configurations that the regression builds: every distinct core of the presets, and odd ones.

Presets `edge8` and `server48` repeat `edge`'s core. The odd ones reach what the presets do not: one and two
lanes, rows wider and narrower than the bus, the means of a whole beat at once, the narrowest and the widest
bus, hash-bits of several words, segments of one token and of many, bursts of one beat and of a page, and
a DPE of one tree, of trees in scheme `tree`, and of trees wider than long. `mini` is as small as a core can
be that runs the bench's programs.
"""

import dataclasses
from typing import Any

from vrex.model.config import (
    CodesConfig,
    Config,
    CoreConfig,
    DpeConfig,
    HcuConfig,
    KvmuConfig,
    LxeConfig,
    MeanConfig,
    VpeConfig,
    WtuConfig,
    preset,
)

SMALLEST_CORE = "mini"

CONFIGS = {
    "tiny": preset("tiny"),
    "small": preset("small"),
    "ulx3s": preset("ulx3s"),
    "edge": preset("edge"),
    "lane1": Config(
        name="lane1",
        bus_bits=64,
        hcu=HcuConfig(lanes=1, hash_bits=16, chunk_tokens=8, tile_clusters=32),
        wtu=WtuConfig(lanes=1, row_clusters=256, mask_clusters=1024, buckets=4),
        kvmu=KvmuConfig(head_dim=16, kv_heads=3, segment_tokens=1, outstanding=1, burst_beats=1),
        mean=MeanConfig(lanes=1, rounding="dithered"),
        codes=CodesConfig(lanes=1, bits=16, tokens=256, residents=64),
        vpe=VpeConfig(lanes=1),
        dpe=DpeConfig(trees=2, inputs=8, rows=4, scheme="tree"),
        lxe=LxeConfig(memory_kib=6, banks=1),
    ),
    "lane2": Config(
        name="lane2",
        bus_bits=512,
        hcu=HcuConfig(lanes=2, hash_bits=128, chunk_tokens=16, tile_clusters=64),
        wtu=WtuConfig(lanes=2, row_clusters=512, mask_clusters=512, buckets=32),
        kvmu=KvmuConfig(head_dim=32, kv_heads=1, segment_tokens=16, outstanding=2, burst_beats=64),
        codes=CodesConfig(lanes=2, bits=128, tokens=512, residents=512),
        vpe=VpeConfig(lanes=2),
        dpe=DpeConfig(trees=1, inputs=64, rows=8),
        lxe=LxeConfig(memory_kib=64, banks=2),
    ),
    "wide": Config(
        name="wide",
        bus_bits=64,
        hcu=HcuConfig(lanes=16, hash_bits=64, chunk_tokens=32, tile_clusters=128),
        wtu=WtuConfig(lanes=8, row_clusters=1024, mask_clusters=4096, buckets=2),
        kvmu=KvmuConfig(head_dim=32, kv_heads=2, segment_tokens=64, outstanding=32, burst_beats=4),
        mean=MeanConfig(lanes=4),
        codes=CodesConfig(lanes=16, bits=32, tokens=2048, residents=128),
        vpe=VpeConfig(lanes=16),
        dpe=DpeConfig(trees=8, inputs=32, rows=16, fraction_bits=32),
        lxe=LxeConfig(memory_kib=32, banks=8),
    ),
    SMALLEST_CORE: Config(
        name=SMALLEST_CORE,
        bus_bits=64,
        hcu=HcuConfig(lanes=2, chunk_tokens=16, tile_clusters=16),
        wtu=WtuConfig(lanes=2, row_clusters=64, mask_clusters=128, buckets=4),
        kvmu=KvmuConfig(head_dim=16, kv_heads=2, outstanding=4, burst_beats=8),
        dpe=DpeConfig(trees=4, inputs=4, rows=16),
        vpe=VpeConfig(lanes=2),
        lxe=LxeConfig(memory_kib=64),
        core=CoreConfig(stream_lines=16, kv_tokens=8, queue=4),
    ),
}
"""Configurations by name."""


def core(config: Config) -> dict[str, Any]:
    """What the hardware of one core depends on: everything but the name and the number of cores."""
    fields = dataclasses.asdict(config)
    del fields["name"], fields["cores"]
    return fields
