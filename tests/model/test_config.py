import dataclasses
import json
import re
from typing import Any

import pytest

from vrex.model.config import PRESETS, Config, HcuConfig, KvmuConfig, MeanConfig, WtuConfig, preset


def test_edge_is_the_papers_core() -> None:
    edge = preset("edge")
    assert (edge.hcu.lanes, edge.wtu.lanes, edge.hcu.hash_bits, edge.cores) == (16, 16, 32, 1)
    assert edge.hcu.chunk_tokens * 32 // 8 == 128
    assert edge.hcu.tile_clusters * 32 // 8 == 4 * 1024
    assert edge.hcu.memory_bytes == 128 + 4 * 1024
    assert edge.wtu.memory_bytes == 2 * 8 * 1024
    assert edge.kvpu_memory_bytes / 1024 == 20.125


@pytest.mark.parametrize(("name", "cores"), [("edge", 1), ("edge8", 8), ("server48", 48)])
def test_papers_chips_are_many_edge_cores(name: str, cores: int) -> None:
    assert dataclasses.replace(preset(name), name="edge", cores=1) == preset("edge")
    assert preset(name).cores == cores


def test_presets_know_their_names() -> None:
    assert list(PRESETS) == ["tiny", "small", "ulx3s", "edge", "edge8", "server48"]
    assert all(preset(name).name == name for name in PRESETS)


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"unknown preset 'huge': choose one of tiny, small, ulx3s, edge, edge8, server48"
    ):
        preset("huge")


@pytest.mark.parametrize("name", PRESETS)
def test_to_dict_is_json(name: str) -> None:
    config = preset(name)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("unit", "name", "low", "high"),
    [
        (HcuConfig, "lanes", 1, 64),
        (HcuConfig, "hash_bits", 8, 128),
        (HcuConfig, "chunk_tokens", 2, 256),
        (HcuConfig, "tile_clusters", 64, 65536),
        (WtuConfig, "lanes", 1, 64),
        (WtuConfig, "row_clusters", 64, 65536),
        (WtuConfig, "mask_clusters", 4096, 65536),
        (WtuConfig, "buckets", 2, 64),
        (KvmuConfig, "head_dim", 16, 256),
        (KvmuConfig, "segment_tokens", 1, 64),
        (KvmuConfig, "outstanding", 1, 32),
        (KvmuConfig, "burst_beats", 1, 64),
        (MeanConfig, "lanes", 1, 32),
        (Config, "bus_bits", 64, 512),
    ],
)
def test_powers_of_two(unit: Any, name: str, low: int, high: int) -> None:
    path = f"{unit.__name__.removesuffix('Config').lower()}.{name}".removeprefix(".")
    for good in (low, high):
        assert getattr(unit(**{name: good}), name) == good
    for bad in (low // 2, high * 2, low + 1 if low > 1 else 3, 0, -low, low + 0.5, float(high), "16", True):
        with pytest.raises(
            ValueError,
            match=rf"^{path} must be a power of two from {low} to {high}, not {re.escape(repr(bad))}$",
        ):
            unit(**{name: bad})


@pytest.mark.parametrize("cores", [0, -1, 1025, 1.5, True])
def test_cores(cores: int) -> None:
    with pytest.raises(ValueError, match=f"^cores must be a whole number from 1 to 1024, not {cores}"):
        Config(cores=cores)


@pytest.mark.parametrize("unit", [HcuConfig, WtuConfig])
def test_memories_hold_four_cycles_of_all_lanes(unit: Any) -> None:
    entries = "tile_clusters" if unit is HcuConfig else "row_clusters"
    unit(lanes=64, **{entries: 256})
    with pytest.raises(ValueError, match=f"{entries} must be a power of two from 256"):
        unit(lanes=64, **{entries: 128})


def test_a_tile_holds_four_beats() -> None:
    small = HcuConfig(lanes=1, hash_bits=8, tile_clusters=64)
    Config(bus_bits=128, hcu=small)
    with pytest.raises(ValueError, match="at least four bus beats"):
        Config(bus_bits=256, hcu=small)


def test_a_hash_fits_into_a_beat() -> None:
    """The HCU takes tokens' hashes out of beats, several a beat or one."""
    Config(bus_bits=64, hcu=HcuConfig(hash_bits=64))
    with pytest.raises(ValueError, match="hash_bits must fit into a bus beat"):
        Config(bus_bits=64, hcu=HcuConfig(hash_bits=128))


def test_the_score_memory_holds_a_beat() -> None:
    small = WtuConfig(lanes=1, row_clusters=8)
    Config(bus_bits=128, wtu=small)
    with pytest.raises(ValueError, match="at least one bus beat"):
        Config(bus_bits=256, wtu=small)


def test_the_lanes_of_the_mean_fit_into_a_beat() -> None:
    Config(bus_bits=64, mean=MeanConfig(lanes=4))
    with pytest.raises(ValueError, match=r"mean\.lanes x 16 bits must fit into a bus beat"):
        Config(bus_bits=64, mean=MeanConfig(lanes=8))


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("edge").cores = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("items", "bits", "beats"), [(0, 16, 0), (1, 16, 1), (16, 16, 1), (17, 16, 2), (257, 1, 2)]
)
def test_beats_of_a_field(items: int, bits: int, beats: int) -> None:
    assert preset("edge").beats(items, bits) == beats
    assert preset("edge").bus_bytes == 32


@pytest.mark.parametrize(("n_hp", "width"), [(1, 32), (32, 32), (33, 64), (64, 64), (65, 128), (128, 128)])
def test_hash_widens_for_n_hp(n_hp: int, width: int) -> None:
    wide = preset("edge").with_hash_bits(n_hp)
    assert wide.hcu.hash_bits == width
    assert dataclasses.replace(wide, hcu=HcuConfig()) == preset("edge")


@pytest.mark.parametrize("n_hp", [0, -1, 129])
def test_n_hp_out_of_range(n_hp: int) -> None:
    with pytest.raises(ValueError, match=f"N_hp must be from 1 to 128, not {n_hp}"):
        preset("edge").with_hash_bits(n_hp)
