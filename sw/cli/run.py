"""vrex run: stream a video through the video LLM while the retrieval engine chooses what it attends to."""

import argparse
import contextlib
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vrex.errors import UserError
from vrex.files import check_writable, write_file
from vrex.sw.cli.arguments import at_least, byte_size, knob, layer_list, positive_float, question
from vrex.sw.cli.common import DEFAULT_PRESET, load_preset
from vrex.sw.evaluation.reports.table import format_row, format_run
from vrex.sw.retrieval.policies import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from vrex.model.config import Config
    from vrex.sw.cli.source import Source
    from vrex.sw.driver.command_interface import CommandTransport
    from vrex.sw.driver.lxe import LxeEngine
    from vrex.sw.retrieval.policies.account import Reporting
    from vrex.sw.retrieval.policies.resv import Resv
    from vrex.sw.retrieval.policies.resv_settings import ResvSettings
    from vrex.sw.retrieval.policies.shape import Shape
    from vrex.sw.videollm.decoder import Decoder
    from vrex.sw.videollm.stream import Stream, VideoLLM

CHECK_FAILED = 1
DEFAULT_PICTURE = Path("vrex-run.png")

PAPER_FIXES = ("rule", "th_hd", "th_r", "n_hp", "scope", "sinks", "window")
"""Options that --paper sets (ResvSettings.paper)."""

KNOBS = ("rule", "th_hd", "th_r", "n_hp", "scope", "sinks", "window", "predict", "seed")
"""Options that set a knob of `resv`; other policies take those that they have as well."""

ROOMS = {
    "table_clusters": "room of each HC table in the DRE's memory, in clusters",
    "table_segments": "room of each KV store there, in segments of tokens of one cluster",
    "ring_segments": "segments of it that stay in accelerator memory, a power of two or 0",
}
"""Options that give its tables room."""

SIZES = (*ROOMS, "segment_tokens")
"""Options that size the DRE's memory."""

CACHE = {"device_bytes": 16_000_000, "host_bytes": 64_000_000, "cache_bits": 16}
"""Options of the cache and their defaults."""

IN_MEMORY = ("dre", "core", "layer")
"""Offloads with the KV cache in the engine's memory."""

ON_LXE = ("core", "layer")
"""Offloads with an LXE."""

LXE_PRESET = "tiny"
"""What a simulator of an LXE can be built for in a minute."""

UNKNOWN_FRAMES = 4096
"""Frames to make room for when a video does not say its length."""

TALK_TOKENS = 128
"""Text to make room for at every occasion to speak: the longest answer and what comes with it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex run``."""
    video = parser.add_argument_group("video and model")
    video.add_argument(
        "--video", required=True, metavar="FILE|procstream:[LEVEL:]SEED", help="what the model watches"
    )
    video.add_argument("--frames", type=at_least(1), metavar="N", help="watch at most N frames")
    video.add_argument("--fps", type=positive_float, help="frames a second (default: the sidecar's, else 2)")
    video.add_argument(
        "--ask",
        type=question,
        action="append",
        default=[],
        metavar="'SECONDS: QUESTION'",
        help="ask this then, instead of the video's own questions (repeatable)",
    )
    video.add_argument(
        "--mode",
        choices=["narrate", "quiet"],
        default="quiet",
        help="may the model speak unasked? (default: %(default)s)",
    )
    video.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="checkpoint, or with --adapter and --vision its language model (default: the shipped one)",
    )
    video.add_argument("--adapter", type=Path, metavar="DIR", help="LoRA adapter with the connector (PEFT)")
    video.add_argument("--vision", type=Path, metavar="DIR", help="SigLIP model")
    video.add_argument(
        "--stream-weights",
        action="store_true",
        help="read each decoder layer's weights when it is needed, for models larger than memory",
    )

    policy = parser.add_argument_group("retrieval")
    policy.add_argument("--policy", choices=NAMES, default="resv", help="default: %(default)s")
    policy.add_argument(
        "--set",
        type=knob,
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="set a knob of any policy, as in --policy topk --set ratio=0.05 (repeatable)",
    )
    policy.add_argument(
        "--paper", action="store_true", help="the paper's own setting of the options from --rule to --window"
    )
    policy.add_argument("--rule", choices=["raw", "shift", "exp"], help="transform of a score (default: raw)")
    policy.add_argument(
        "--th-hd", type=at_least(0), metavar="BITS", help="join a cluster below it (default: 5)"
    )
    policy.add_argument("--th-r", type=float, metavar="RATIO", help="share of a row's weight (default: 0.3)")
    policy.add_argument("--n-hp", type=at_least(1), metavar="N", help="hyperplanes (default: 32)")
    policy.add_argument("--scope", choices=["layer", "head"], help="one HC table per what (default: layer)")
    policy.add_argument("--sinks", type=at_least(0), metavar="TOKENS", help="first tokens kept (default: 4)")
    policy.add_argument(
        "--window", type=at_least(0), metavar="FRAMES", help="recent frames kept (default: 10)"
    )
    policy.add_argument(
        "--predict", choices=["same", "next", "reuse"], help="whose queries select (default: same)"
    )
    policy.add_argument("--seed", type=at_least(0), metavar="N", help="of the hyperplanes (default: 0)")

    engine = parser.add_argument_group("engine")
    engine.add_argument("--preset", default=DEFAULT_PRESET, metavar="NAME", help="default: %(default)s")
    engine.add_argument("--backend", choices=["golden", "rtl"], default="golden", help="default: %(default)s")
    engine.add_argument(
        "--offload",
        choices=["kvpu", *IN_MEMORY],
        default="kvpu",
        help="what it does: kvpu predicts; dre also keeps the KV cache in its memory; core also computes "
        "hash-bits and scores; layer also runs the decoder layers of --layers (default: %(default)s)",
    )
    engine.add_argument(
        "--layers",
        type=layer_list,
        metavar="N,N",
        help="decoder layers that --offload layer runs (default: 0)",
    )
    engine.add_argument(
        "--lxe-preset",
        metavar="NAME",
        help=f"of the LXE; the numbers do not depend on it (default: {LXE_PRESET})",
    )
    for name, what in ROOMS.items():
        engine.add_argument(
            _option(name), type=at_least(0), metavar="N", help=f"{what} (default: by the video's length)"
        )
    engine.add_argument(
        _option("segment_tokens"),
        type=at_least(1),
        metavar="N",
        help="tokens of one cluster that lie behind each other there, a power of two (default: the preset's)",
    )
    engine.add_argument(
        "--check", action="store_true", help="compare the RTL with the golden model at every call"
    )

    cache = parser.add_argument_group("cache that leaves memory")
    cache.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="keys and values beyond the two budgets go to this file; if it is there, go on where it ends",
    )
    cache.add_argument("--device-bytes", type=byte_size, metavar="SIZE", help="device memory (default: 16MB)")
    cache.add_argument("--host-bytes", type=byte_size, metavar="SIZE", help="host memory (default: 64MB)")
    cache.add_argument(
        "--cache-bits",
        type=int,
        choices=[16, 4],
        help="of a value in the file; 4 is a quarter as large, and no longer exact (default: 16)",
    )

    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="OUT", help="write the figures to this file; - is stdout")
    output.add_argument(
        "--png", type=Path, metavar="FILE", help="heat map (default: OUT.png, else vrex-run.png)"
    )


def execute(args: argparse.Namespace) -> int:
    """Runs the video, prints the conversation and the table, writes the figures and the picture."""
    knobs = given_knobs(args)
    config = load_preset(args.preset)
    json_path, picture_path = output_paths(args)
    for path in (json_path, picture_path):
        if path is not None:
            check_writable(path)
    # With the figures on stdout, everything a person reads goes to stderr.
    out = sys.stderr if args.json == "-" else sys.stdout

    from vrex.sw.cli.source import open_source
    from vrex.sw.videollm.stream import Stream, VideoLLM

    lxe = open_lxe(args)
    model = VideoLLM.load(
        args.model, args.adapter, args.vision, not args.stream_weights, decoder_class(args, lxe)
    )
    source = open_source(args.video, model.config.vision.image_size, args.frames, args.fps, args.ask)
    with contextlib.ExitStack() as files:
        policy, settings = make_policy(args, knobs, config, model, json_path, source, files, lxe)
        stream = Stream(model, policy=policy, mode=args.mode, fps=source.fps)
        if args.cache is not None:
            go_on(stream, policy, args.cache, out)
        conversation, frames, seconds = watch(stream, source, out)
    result = summarise(args, source, policy, settings, conversation, frames, seconds)
    if lxe is not None:
        result["lxe"] = lxe_figures(lxe, model)
    return finish(result, json_path, picture_path, out)


def open_lxe(args: argparse.Namespace) -> "LxeEngine | None":
    """The LXE of the offload that was asked for, if it has one.

    Raises:
        UserError: no such preset, or the simulator can't be built.
    """
    if args.offload not in ON_LXE:
        return None
    from vrex.sw.driver import backends

    config = load_preset(args.lxe_preset or LXE_PRESET, "--lxe-preset")
    return backends.open_lxe(args.backend, config, args.check)


def decoder_class(args: argparse.Namespace, lxe: "LxeEngine | None") -> "Callable[..., Decoder]":
    """What makes the decoder: with some of its layers on the LXE, or all in software."""
    from vrex.sw.videollm.decoder import Decoder
    from vrex.sw.videollm.offload import OffloadedDecoder

    if args.offload != "layer" or lxe is None:
        return Decoder
    return functools.partial(OffloadedDecoder, lxe=lxe, layers=args.layers or [0])


def lxe_figures(lxe: "LxeEngine", model: "VideoLLM") -> dict[str, Any]:
    """What the LXE did, and how its layers compare with software."""
    from vrex.sw.videollm.offload import OffloadedDecoder

    figures = {"preset": lxe.config.name, **dataclasses.asdict(lxe.report)}
    if isinstance(model.decoder, OffloadedDecoder):
        figures |= model.decoder.comparison.to_dict()
    return figures


def given_knobs(args: argparse.Namespace) -> dict[str, Any]:
    """Knobs that the command line sets; the others keep their defaults.

    Raises:
        UserError: options that contradict each other.
    """
    given = {knob: getattr(args, knob) for knob in KNOBS if getattr(args, knob) is not None}
    if args.policy != "resv":
        does = "retrieves nothing" if args.policy == "full" else "does not run on the accelerator"
        given_to_full = given if args.policy == "full" else {}
        extra = [*given_to_full, *(["paper"] if args.paper else []), *(["check"] if args.check else [])]
        options = [*map(_option, extra), *(["--backend rtl"] if args.backend == "rtl" else [])]
        options += [f"--offload {args.offload}"] if args.offload in IN_MEMORY else []
        if options:
            option = options[0]
            raise UserError(
                f"{option} has no meaning with --policy {args.policy}, which {does}; leave one out"
            )
    rooms = [name for name in SIZES if getattr(args, name) is not None]
    if rooms and args.offload not in IN_MEMORY:
        raise UserError(f"{_option(rooms[0])} sizes the DRE's memory; add --offload dre, or leave it out")
    if args.layers is not None and args.offload != "layer":
        raise UserError("--layers names what --offload layer runs; add it, or leave --layers out")
    if args.lxe_preset is not None and args.offload not in ON_LXE:
        raise UserError("--lxe-preset needs an LXE; add --offload core or layer, or leave it out")
    sizes = [name for name in CACHE if getattr(args, name) is not None]
    if sizes and args.cache is None:
        raise UserError(f"{_option(sizes[0])} is about the cache file; add --cache, or leave it out")
    if args.cache is not None and (args.policy != "resv" or args.offload in IN_MEMORY):
        other = f"--offload {args.offload}" if args.policy == "resv" else f"--policy {args.policy}"
        raise UserError(f"--cache needs policy resv with --offload kvpu, not {other}; leave one out")
    if args.check and args.backend != "rtl":
        raise UserError(
            "--check compares the RTL with the golden model; add --backend rtl, or leave --check out"
        )
    for name, value in args.set:
        if name in given:
            raise UserError(f"--set {name}={value} sets {name} a second time; leave one of the two out")
        given[name] = value
    clash = [name for name in given if name in PAPER_FIXES]
    if args.paper and clash:
        raise UserError(f"--paper sets {_option(clash[0])} itself; leave one of the two out")
    return given


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def output_paths(args: argparse.Namespace) -> tuple[Path | None, Path]:
    """Where the figures (None is stdout or nowhere) and the picture go."""
    json_path = Path(args.json) if args.json not in (None, "-") else None
    picture = args.png or (json_path.with_suffix(".png") if json_path else DEFAULT_PICTURE)
    if picture == json_path:
        raise UserError(f"--json and --png both name {picture}; give them different names")
    video = Path(args.video).absolute()
    taken = (video, video.parent / f"{video.stem}.json")
    for path in (json_path, picture):
        if path is not None and path.absolute() in taken:
            raise UserError(f"{path} would overwrite the video or its sidecar; choose another name")
    return json_path, picture


def make_policy(
    args: argparse.Namespace,
    knobs: dict[str, Any],
    config: "Config",
    model: "VideoLLM",
    json_path: Path | None,
    source: "Source",
    files: contextlib.ExitStack,
    lxe: "LxeEngine | None",
) -> tuple["Reporting", dict[str, Any]]:
    """The policy, with its engine or its calibration behind it, and its settings.

    A calibration is kept beside the figures. What has to be closed after the run is put on `files`.

    Raises:
        UserError: a knob is unknown or out of range, the simulator can't be built, or the calibration or the
            cache there is another model's.
    """
    from vrex.sw.driver import open_transport
    from vrex.sw.retrieval.policies import registry
    from vrex.sw.retrieval.policies.calibration import calibration_at
    from vrex.sw.retrieval.policies.shape import Shape
    from vrex.sw.videollm.calibration import calibrate

    entry = registry.entry(args.policy)
    settings = registry.make_settings(args.policy, knobs, paper=args.paper)
    if args.offload in IN_MEMORY:
        return in_memory(args, settings, config, model, source, lxe), dataclasses.asdict(settings)
    calibration = transport = None
    if entry.calibrated:
        beside = json_path.with_suffix(".calibration.npz") if json_path else None
        measure = functools.partial(calibrate, model)
        calibration = calibration_at(beside, model, measure) if beside else measure()
    if entry.accelerated:
        transport = open_transport(args.backend, config.with_hash_bits(settings.n_hp), check=args.check)
    shape = Shape.of(model.config)
    if args.cache is not None:
        assert transport is not None
        return on_file(args, settings, shape, transport, model, files), dataclasses.asdict(settings)
    policy = registry.make_policy(args.policy, settings, shape, calibration=calibration, transport=transport)
    return policy, dataclasses.asdict(settings)


def in_memory(
    args: argparse.Namespace,
    settings: "ResvSettings",
    config: "Config",
    model: "VideoLLM",
    source: "Source",
    lxe: "LxeEngine | None",
) -> "Resv":
    """Policy `resv` with tables, keys and values in the memory of a DRE, hash-bits and scores from an LXE.

    Raises:
        UserError: the DRE can't serve the model or the settings, the machine has too little memory, or the
            simulator can't be built.
    """
    from vrex.sw.driver import open_transport
    from vrex.sw.driver.products import LxeProducts
    from vrex.sw.retrieval.policies import memory_tables
    from vrex.sw.retrieval.policies.resv import Resv
    from vrex.sw.retrieval.policies.shape import Shape

    shape = Shape.of(model.config)
    config = memory_tables.fitted(config, settings, shape, args.segment_tokens)
    given = (args.table_clusters, args.table_segments, args.ring_segments)
    capacity = memory_tables.capacity_for(most_tokens(source, args.mode, shape.step_tokens), config, *given)
    layout = memory_tables.lay_out(config, settings, shape, capacity)
    transport = open_transport(args.backend, config, args.check, layout.new_memory())
    products = None if lxe is None else LxeProducts(lxe)
    return Resv(settings, shape, memory_tables.MemoryTables(settings, shape, transport, layout, products))


def on_file(
    args: argparse.Namespace,
    settings: "ResvSettings",
    shape: "Shape",
    transport: "CommandTransport",
    model: "VideoLLM",
    files: contextlib.ExitStack,
) -> "Resv":
    """Policy `resv` with keys and values in device memory, host memory and a file.

    Raises:
        UserError: the file can't be used, or a budget is too small.
    """
    from vrex.sw.retrieval.cache.tables import StoredTables
    from vrex.sw.retrieval.cache.tiers import Budgets
    from vrex.sw.retrieval.policies.resv import Resv

    device, host, bits = (
        default if getattr(args, name) is None else getattr(args, name) for name, default in CACHE.items()
    )
    tables = StoredTables(
        settings,
        shape,
        transport,
        args.cache,
        Budgets(device, host),
        model=model.decoder.fingerprint(),
        bits=bits,
    )
    files.callback(tables.close)
    return Resv(settings, shape, tables, past=(tables.tokens, tables.tabled))


def go_on(stream: "Stream", policy: "Reporting", path: Path, out: TextIO) -> None:
    """Lets the stream go on behind what the cache holds, and says what that is."""
    from vrex.sw.retrieval.cache.tables import StoredTables
    from vrex.sw.retrieval.policies.resv import Resv

    assert isinstance(policy, Resv)
    tables = policy.tables
    assert isinstance(tables, StoredTables)
    if tables.stage is None:
        return
    stream.resume(tables.frames, tables.tokens, tables.stage)
    lost = f"; lost {tables.lost_bytes:,} bytes of a chunk that was not whole" if tables.lost_bytes else ""
    print(f"cache {path} holds {tables.frames} frames, {tables.tokens:,} tokens: going on{lost}", file=out)


def most_tokens(source: "Source", mode: str, step_tokens: int) -> int:
    """Tokens that a video may bring, every answer as long as can be."""
    frames = UNKNOWN_FRAMES if source.frame_count is None else source.frame_count
    talks = len(source.questions) + (frames if mode == "narrate" else 0)
    return frames * step_tokens + (1 + talks) * TALK_TOKENS


def watch(stream: "Stream", source: "Source", out: TextIO) -> tuple[list[dict[str, Any]], int, float]:
    """Streams the video and prints the conversation as it happens.

    Returns:
        (conversation, frames seen, seconds it took): a conversation's item holds ``time`` (seconds of the
        video), ``question`` (None when the model spoke unasked), ``answer`` and ``expected`` (None: unknown).
    """
    from tqdm import tqdm

    from vrex.sw.videollm.stream import Answered, FrameSeen, Spoke

    conversation: list[dict[str, Any]] = []
    known = zip(source.questions, source.answers or [], strict=False)
    expected = iter([answer for (asked, _), answer in known if not stream.is_past(asked)])
    frames = 0
    start = time.perf_counter()
    # disable=None: no bar where stderr is no terminal.
    with tqdm(total=source.frame_count, unit="frame", disable=None) as bar:
        for event in stream.run(source.frames, source.questions, frame_count=source.frame_count):
            match event:
                case FrameSeen():
                    frames += 1
                    bar.update()
                case Spoke():
                    conversation.append(_turn(event.time, None, event.text, None))
                    tqdm.write(f"{event.time:7.1f} s  {event.text}", file=out)
                case Answered():
                    turn = _turn(event.time, event.question, event.text, next(expected, None))
                    conversation.append(turn)
                    tqdm.write(
                        f"{event.time:7.1f} s  {event.question}? {event.text}{_verdict(turn)}", file=out
                    )
    return conversation, frames, time.perf_counter() - start


def _turn(seconds: float, asked: str | None, answer: str, expected: str | None) -> dict[str, Any]:
    return {"time": seconds, "question": asked, "answer": answer, "expected": expected}


def _verdict(turn: dict[str, Any]) -> str:
    """What follows an answer on the terminal, when the right one is known."""
    if turn["expected"] is None:
        return ""
    return "  (right)" if turn["answer"] == turn["expected"] else f"  (wrong: {turn['expected']})"


def summarise(
    args: argparse.Namespace,
    source: "Source",
    policy: "Reporting",
    knobs: dict[str, Any],
    conversation: list[dict[str, Any]],
    frames: int,
    seconds: float,
) -> dict[str, Any]:
    """The figures of a run as ``--json`` writes them; README, "What a run writes", says what they mean."""
    from importlib.metadata import version

    asked = [turn for turn in conversation if turn["question"] is not None]
    on_accelerator = args.policy == "resv"
    known = source.answers is not None
    return {
        "frames": frames,
        "fps": frames / seconds,
        "questions": len(asked),
        "correct": sum(turn["answer"] == turn["expected"] for turn in asked) if known else None,
        "offload": args.offload if on_accelerator else None,
        **policy.report(),
        "conversation": conversation,
        "settings": {
            "vrex": version("vrex"),
            "video": args.video,
            "frames": source.frame_count,
            "video_fps": source.fps,
            "ask": [list(item) for item in source.questions],
            "mode": args.mode,
            "model": str(args.model) if args.model else None,
            "policy": args.policy,
            "knobs": knobs,
            "resv": knobs if on_accelerator else None,
            "preset": args.preset,
            "backend": args.backend,
            "offload": args.offload,
            "layers": args.layers,
            "lxe_preset": args.lxe_preset,
            **{name: getattr(args, name) for name in SIZES},
            "check": args.check,
            "cache": str(args.cache) if args.cache else None,
            **{name: getattr(args, name) for name in CACHE},
        },
    }


def picture_title(result: dict[str, Any]) -> str:
    """What the heat map's title says about the run."""
    settings = result["settings"]
    title = f"{Path(settings['video']).name}, {result['frames']} frames, policy {settings['policy']}"
    if resv := settings["resv"]:
        title += f"\n{resv['rule']}, Th_r {resv['th_r']:g}, Th_hd {resv['th_hd']}"
        title += f", {resv['sinks']} sinks, window of {resv['window']} frames"
    return title


def finish(result: dict[str, Any], json_path: Path | None, picture_path: Path, out: TextIO) -> int:
    """Prints the table, writes the files, and says whether the check held."""
    from vrex.sw.evaluation.reports.heatmap import ratio_heatmap

    print(format_run(result), file=out)
    write_file(picture_path, ratio_heatmap(result["ratio"]["per_layer_head"], picture_title(result)))
    print(format_row("heat map", picture_path), file=out)
    text = json.dumps(result, indent=2) + "\n"
    if json_path is not None:
        write_file(json_path, text.encode())
        print(format_row("figures", json_path), file=out)
    elif out is sys.stderr:
        sys.stdout.write(text)
    mismatches = result["rtl"]["mismatches"] + result.get("lxe", {}).get("mismatches", 0)
    if mismatches:
        print(
            f"vrex: check failed: the RTL gave {mismatches:,} results that the golden model does not",
            file=sys.stderr,
        )
        return CHECK_FAILED
    return 0
