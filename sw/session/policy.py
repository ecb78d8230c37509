"""Makes a session's policy, with its accelerator, calibration or cache file behind it."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.model.config import Config, preset
from vrex.model.dre.token_store import MAX_TOKENS
from vrex.sw import driver
from vrex.sw.driver.command_interface import KVPU, VOTER
from vrex.sw.driver.recall import StoreLayout
from vrex.sw.retrieval.policies import memory_codes, memory_tables, registry
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.calibration import Calibration, calibration_at
from vrex.sw.retrieval.policies.narrow import BF16_BITS
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_bits import ResvBitsSettings
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.session.options import CACHE, CHIP, IN_MEMORY, LXE_PRESET, ON_LXE, TABLE_SIZES, SessionOptions
from vrex.sw.session.source import Source
from vrex.sw.videollm.calibration import calibrate
from vrex.sw.videollm.decoder import Decoder
from vrex.sw.videollm.videollm import VideoLLM

if TYPE_CHECKING:
    from vrex.sw.driver.lxe import LxeEngine

UNKNOWN_FRAMES = 4096
"""Frames to make room for when a video does not say its length."""

TALK_TOKENS = 128
"""Text to make room for at every occasion to speak: the longest answer and what comes with it."""

TURN_TOKENS = 28
"""Of them, those of the question; a longer one gets more room."""


def open_lxe(options: SessionOptions) -> "LxeEngine | None":
    """The LXE of the offload that was asked for, if it has one.

    Raises:
        UserError: no such preset, or the simulator can't be built.
    """
    if options.offload not in ON_LXE:
        return None
    try:
        config = preset(options.lxe_preset or LXE_PRESET)
    except ValueError as error:
        raise UserError(f"--lxe-preset: {error}") from error
    return driver.open_lxe(options.backend, config, options.check)


def load_model(options: SessionOptions, lxe: "LxeEngine | None") -> VideoLLM:
    """The model, with some of its decoder layers on the LXE where that was asked for.

    Raises:
        UserError: as `VideoLLM.load`, or a loaded model can't be given to the LXE.
    """
    make: Callable[..., Decoder] = Decoder
    if options.offload == "layer" and lxe is not None:
        from vrex.sw.videollm.offload import OffloadedDecoder

        make = functools.partial(OffloadedDecoder, lxe=lxe, layers=list(options.layers or [0]))
    if options.offload == CHIP:
        from vrex.sw.videollm.chip_decoder import ChipDecoder

        make = ChipDecoder
    if isinstance(options.model, VideoLLM):
        if make is not Decoder:
            raise UserError(
                f"--offload {options.offload} makes the decoder itself; give the folder of the model"
            )
        return options.model
    model, adapter, vision = map(_path, (options.model, options.adapter, options.vision))
    return VideoLLM.load(model, adapter, vision, not options.stream_weights, make)


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)


def make_policy(
    options: SessionOptions,
    config: Config,
    model: VideoLLM,
    source: Source,
    lxe: "LxeEngine | None",
    files: contextlib.ExitStack,
) -> tuple[Reporting, dict[str, Any]]:
    """The policy and its settings; what has to be closed after the session is put on `files`.

    Raises:
        UserError: a knob is unknown or out of range, the simulator can't be built, or the calibration or the
            cache there is another model's.
    """
    shape = Shape.of(model.config)
    chosen = options.chosen
    if not isinstance(chosen, str):
        if options.knobs:
            raise UserError("knobs belong to a policy by its name; give them to your own policy yourself")
        return chosen(shape), {}
    entry = registry.entry(chosen)
    settings = registry.make_settings(chosen, dict(options.knobs), paper=options.paper)
    plain = dataclasses.asdict(settings)
    _check_store(options, getattr(settings, "kv_bits", BF16_BITS))
    if options.offload in IN_MEMORY:
        turns = [len(model.tokenizer.turn(text)) for _, text in source.questions]
        if entry.accelerator == VOTER:
            return _codes_in_memory(options, settings, config, shape, source, turns), plain
        return _in_memory(options, settings, config, shape, source, turns, lxe), plain
    if options.offload == CHIP:
        turns = [len(model.tokenizer.turn(text)) for _, text in source.questions]
        return _on_chip(options, settings, config, model, source, turns), plain
    if options.cache is not None:
        return _on_file(options, settings, config, shape, model, files), plain
    calibration = _calibration(options, model) if entry.calibrated else None
    transport = None
    if entry.accelerator == KVPU:
        transport = driver.open_transport(
            options.backend, config.with_hash_bits(settings.n_hp), options.check
        )
    elif entry.accelerator == VOTER and options.gates == "rtl":
        transport = driver.open_voter(options.backend, config.with_code_bits(settings.bits), options.check)
    policy = registry.make_policy(chosen, settings, shape, calibration=calibration, transport=transport)
    return policy, plain


def _check_store(options: SessionOptions, bits: int) -> None:
    """Keys and values of fewer bits than BF16's must have a store that packs them.

    Raises:
        UserError: it does not.
    """
    if bits == BF16_BITS:
        return
    if options.offload in (*IN_MEMORY, CHIP) and options.policy_name != "resv-bits":
        raise UserError(
            f"--offload {options.offload} keeps keys and values in BF16, but kv_bits is {bits}; "
            "leave one of the two out"
        )
    if options.cache is not None:
        raise UserError(f"--cache packs by --cache-bits, not by kv_bits {bits}; give --cache-bits {bits}")


def _calibration(options: SessionOptions, model: VideoLLM) -> Calibration:
    """What was measured before, or now."""
    measure = functools.partial(calibrate, model)
    path = _path(options.calibration)
    return calibration_at(path, model, measure) if path else measure()


def _in_memory(
    options: SessionOptions,
    settings: ResvSettings,
    config: Config,
    shape: Shape,
    source: Source,
    turns: Sequence[int],
    lxe: "LxeEngine | None",
) -> Resv:
    """Policy `resv` with tables, keys and values in the memory of a DRE, hash-bits and scores from an LXE.

    `turns` are the tokens of each question with the words around it.

    Raises:
        UserError: the DRE can't serve the model or the settings, the machine has too little memory, or the
            simulator can't be built.
    """
    from vrex.sw.driver.products import LxeProducts

    config = memory_tables.fitted(config, settings, shape, options.segment_tokens)
    given = (getattr(options, name) for name in TABLE_SIZES)
    most = most_tokens(source, options.mode, shape.step_tokens, turns)
    capacity = memory_tables.capacity_for(most, config, *given)
    layout = memory_tables.lay_out(config, settings, shape, capacity, near=options.is_on_board)
    transport = driver.open_transport(options.backend, config, options.check, layout.new_memory())
    products = None if lxe is None else LxeProducts(lxe)
    tables = memory_tables.MemoryTables(settings, shape, transport, layout, products)
    return Resv(settings, shape, tables)


def _codes_in_memory(
    options: SessionOptions,
    settings: ResvBitsSettings,
    config: Config,
    shape: Shape,
    source: Source,
    turns: Sequence[int],
) -> Reporting:
    """Policy `resv-bits` with codes, keys and values in the memory of a unit `recall`; `turns` as above.

    Raises:
        UserError: the unit can't serve the model or the settings, the machine has too little memory, or the
            simulator can't be built.
    """
    config = memory_codes.fitted(config, settings, shape)
    most = min(most_tokens(source, options.mode, shape.step_tokens, turns), MAX_TOKENS)
    packs = settings.kv_bits != BF16_BITS
    layout = StoreLayout.of(config, shape.layers * shape.kv_heads, most, is_packed=packs)
    transport = driver.open_recall(options.backend, config, options.check, layout.new_memory())
    return memory_codes.ResvBitsInMemory(settings, shape, transport, layout)


def _on_chip(
    options: SessionOptions,
    settings: ResvSettings,
    config: Config,
    model: VideoLLM,
    source: Source,
    turns: Sequence[int],
) -> Reporting:
    """The whole decoder on a core, or on all cores of a chip; what is returned stands for the policy.

    Raises:
        UserError: the core can't serve the model or the settings, the machine has too little memory, or the
            backend has no core.
    """
    from tqdm import tqdm

    from vrex.sw.videollm.chip import check_settings
    from vrex.sw.videollm.chip_decoder import ChipDecoder, ChipSequence
    from vrex.sw.videollm.chip_layout import ChipLayout, ChipShape

    shape = Shape.of(model.config)
    config = memory_tables.fitted(config, settings, shape, options.segment_tokens)
    most = most_tokens(source, options.mode, shape.step_tokens, turns)
    given = (getattr(options, name) for name in TABLE_SIZES)
    capacity = memory_tables.capacity_for(most, config, *given)
    # One video has all cores.
    chip_shape = ChipShape(
        config,
        model.config.text,
        settings,
        shape.step_tokens,
        capacity,
        most,
        team=config.cores,
        is_near=options.is_on_board,
    )
    check_settings(chip_shape)
    layout = ChipLayout(chip_shape)
    transport = driver.open_core(
        options.backend, config, options.check, layout.new_memory(), functions=options.arithmetic == "dpi"
    )
    assert isinstance(model.decoder, ChipDecoder)
    # Over a serial line that takes a minute.
    quiet = None if options.is_on_board else True
    with tqdm(total=chip_shape.team * shape.layers, desc="weights", unit="layer", disable=quiet) as bar:
        chip = model.decoder.put_on(layout, transport, bar.update)
    return ChipSequence(chip, 0, shape)


def _on_file(
    options: SessionOptions,
    settings: ResvSettings,
    config: Config,
    shape: Shape,
    model: VideoLLM,
    files: contextlib.ExitStack,
) -> Resv:
    """Policy `resv` with keys and values in device memory, host memory and a file.

    Raises:
        UserError: the file can't be used, or a budget is too small.
    """
    from vrex.sw.retrieval.cache.tables import StoredTables
    from vrex.sw.retrieval.cache.tiers import Budgets

    assert options.cache is not None
    transport = driver.open_transport(options.backend, config.with_hash_bits(settings.n_hp), options.check)
    device, host, bits = (
        default if getattr(options, name) is None else getattr(options, name)
        for name, default in CACHE.items()
    )
    tables = StoredTables(
        settings,
        shape,
        transport,
        Path(options.cache),
        Budgets(device, host),
        model=model.decoder.fingerprint(),
        bits=bits,
    )
    files.callback(tables.close)
    return Resv(settings, shape, tables, past=(tables.tokens, tables.tabled))


def most_tokens(source: Source, mode: str, step_tokens: int, turns: Sequence[int] = ()) -> int:
    """Tokens that a video may bring, every answer as long as can be.

    Args:
        source: the video.
        mode: see `SessionOptions`.
        step_tokens: of a frame.
        turns: tokens of each question with the words around it.
    """
    frames = UNKNOWN_FRAMES if source.frame_count is None else source.frame_count
    talks = len(source.questions) + (frames if mode == "narrate" else 0)
    longer = sum(max(0, turn - TURN_TOKENS) for turn in turns)
    return frames * step_tokens + (1 + talks) * TALK_TOKENS + longer
