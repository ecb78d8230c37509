"""vrex run: stream a video through the video LLM while the retrieval engine chooses what it attends to."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vrex.errors import UserError
from vrex.files import is_plain
from vrex.sw.cli.arguments import (
    CACHE_FILE,
    INPUT_FOLDER,
    INPUT_VIDEO,
    OUTPUT_JSON,
    OUTPUT_PNG,
    at_least,
    backend,
    byte_size,
    knob,
    layer_list,
    positive_float,
    question,
    unique_knobs,
)
from vrex.sw.cli.config_options import add_config_options, load_config
from vrex.sw.cli.paths import CommandFiles
from vrex.sw.evaluation.reports.table import format_row, format_run
from vrex.sw.retrieval.policies import DEFAULT, FALLBACK, NAMES
from vrex.sw.session.options import (
    ARITHMETIC,
    CACHE_BITS,
    CHIP,
    CHIP_PRESET,
    LXE_PRESET,
    MODES,
    NO_ACCELERATOR,
    OFFLOADS,
    PRESET,
    WITHOUT_MEANING,
    option,
)
from vrex.text import printable

if TYPE_CHECKING:
    from vrex.model.config import Config
    from vrex.sw.session.session import VideoSession

CHECK_FAILED = 1
DEFAULT_PICTURE = Path("vrex-run.png")

KNOBS = ("rule", "th_hd", "th_r", "n_hp", "scope", "sinks", "window", "predict", "seed")
"""Options that set a knob of `resv`; other policies take those that they have as well."""

ROOMS = {
    "table_clusters": "room of each HC table in the DRE's memory, in clusters",
    "table_segments": "room of each KV store there, in segments of tokens of one cluster",
    "ring_segments": "segments of it that stay in accelerator memory, a power of two or 0",
}
"""Options that give the tables in the DRE's memory room."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex run``."""
    _add_video(parser.add_argument_group("video and model"))
    _add_policy(parser.add_argument_group("retrieval"))
    _add_engine(parser.add_argument_group("engine"))
    _add_cache(parser.add_argument_group("cache that leaves memory"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=OUTPUT_JSON, metavar="OUT", help="write the figures to this file; - is stdout"
    )
    output.add_argument(
        "--png", type=OUTPUT_PNG, metavar="FILE", help="heat map (default: OUT.png, else vrex-run.png)"
    )


def _add_video(video: argparse._ArgumentGroup) -> None:
    video.add_argument(
        "--video",
        type=INPUT_VIDEO,
        required=True,
        metavar="FILE|procstream:[LEVEL:]SEED",
        help="what the model watches",
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
        choices=MODES,
        default="quiet",
        help="may the model speak unasked? (default: %(default)s)",
    )
    video.add_argument(
        "--model",
        type=INPUT_FOLDER,
        metavar="DIR",
        help="checkpoint, or with --adapter and --vision its language model (default: the shipped one)",
    )
    video.add_argument(
        "--adapter", type=INPUT_FOLDER, metavar="DIR", help="LoRA adapter with the connector (PEFT)"
    )
    video.add_argument("--vision", type=INPUT_FOLDER, metavar="DIR", help="SigLIP model")
    video.add_argument(
        "--stream-weights",
        action="store_true",
        help="read each decoder layer's weights when it is needed, for models larger than memory",
    )


def _add_policy(policy: argparse._ArgumentGroup) -> None:
    policy.add_argument(
        "--policy",
        choices=NAMES,
        help=f"default: {DEFAULT}; with --paper, --cache, a board, or an --offload but kvpu: {FALLBACK}",
    )
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


def _add_engine(engine: argparse._ArgumentGroup) -> None:
    add_config_options(engine, default=f"{PRESET}; with --offload chip: {CHIP_PRESET}")
    engine.add_argument(
        "--backend",
        type=backend,
        default="golden",
        metavar="{golden,rtl,serial:PORT}",
        help="golden model, simulated Verilog, or a board behind a serial port such as serial:/dev/ttyUSB0, "
        "at 2 Mbaud unless the name ends with @BAUD (default: %(default)s)",
    )
    engine.add_argument(
        "--offload",
        choices=OFFLOADS,
        default="kvpu",
        help="what it does: kvpu predicts; dre also keeps the KV cache in its memory; core also computes "
        "hash-bits and scores; layer also runs the decoder layers of --layers; chip runs the whole decoder "
        "by itself (default: %(default)s)",
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
            option(name), type=at_least(0), metavar="N", help=f"{what} (default: by the video's length)"
        )
    engine.add_argument(
        option("segment_tokens"),
        type=at_least(1),
        metavar="N",
        help="tokens of one cluster that lie behind each other there, a power of two (default: the preset's)",
    )
    engine.add_argument(
        "--check", action="store_true", help="compare RTL or board with the golden model at every call"
    )
    engine.add_argument(
        "--arithmetic",
        choices=ARITHMETIC,
        default=ARITHMETIC[0],
        help="of the core that --offload chip simulates: its Verilog, or with dpi C++ functions for MAC "
        "trees and vector lanes, the same bits in the same cycles in less time (default: %(default)s)",
    )


def _add_cache(cache: argparse._ArgumentGroup) -> None:
    cache.add_argument(
        "--cache",
        type=CACHE_FILE,
        metavar="FILE",
        help="keys and values beyond the two budgets go to this file; if it is there, go on where it ends",
    )
    cache.add_argument("--device-bytes", type=byte_size, metavar="SIZE", help="device memory (default: 16MB)")
    cache.add_argument("--host-bytes", type=byte_size, metavar="SIZE", help="host memory (default: 64MB)")
    cache.add_argument(
        "--cache-bits",
        type=int,
        choices=CACHE_BITS,
        help="of a value in the file; 4 is a quarter as large, and no longer exact (default: 16)",
    )


def execute(args: argparse.Namespace) -> int:
    """Runs the video, prints the conversation and the table, writes the figures and the picture.

    Returns:
        0, or 1 if RTL and golden model differ.

    Raises:
        UserError: options contradict each other, what they name is not there or broken, or a question lies
            behind an end that was not known; then everything else is written.
    """
    knobs = given_knobs(args)
    config = load_config(args, CHIP_PRESET if args.offload == CHIP else PRESET)
    from vrex.sw.videollm.stream import PastTheEndError

    picture, calibration = add_files(args, args.files)
    with open_run(args, knobs, config, calibration) as session:
        try:
            watch(session, args.files.out)
        except PastTheEndError:
            # Known only now, so that what came before is answered; it is kept.
            if session.frames:
                finish(session.figures(), args.json, picture, args.files)
            raise
        finally:
            warn_of_damage(session)
    return finish(session.figures(), args.json, picture, args.files)


def warn_of_damage(session: "VideoSession") -> None:
    """Says on stderr where the video was damaged."""
    if session.source.reader is not None and (damage := session.source.reader.damage()):
        print(printable(f"vrex: warning: {damage}"), file=sys.stderr)


def open_run(
    args: argparse.Namespace, knobs: dict[str, Any], config: "Config", calibration: Path | None
) -> "VideoSession":
    """The session of a command line; a calibration is kept beside the figures."""
    from vrex.sw.session.session import open_session

    return open_session(
        args.video,
        frames=args.frames,
        fps=args.fps,
        ask=args.ask,
        mode=args.mode,
        model=args.model,
        adapter=args.adapter,
        vision=args.vision,
        stream_weights=args.stream_weights,
        policy=args.policy,
        knobs=knobs,
        paper=args.paper,
        calibration=calibration,
        config=config,
        backend=args.backend,
        offload=args.offload,
        layers=args.layers,
        lxe_preset=args.lxe_preset,
        table_clusters=args.table_clusters,
        table_segments=args.table_segments,
        ring_segments=args.ring_segments,
        segment_tokens=args.segment_tokens,
        check=args.check,
        arithmetic=args.arithmetic,
        cache=args.cache,
        device_bytes=args.device_bytes,
        host_bytes=args.host_bytes,
        cache_bits=args.cache_bits,
    )


def given_knobs(args: argparse.Namespace) -> dict[str, Any]:
    """Knobs that the command line sets; the others keep their defaults.

    Raises:
        UserError: one is set twice, or the policy takes none.
    """
    given = {knob: getattr(args, knob) for knob in KNOBS if getattr(args, knob) is not None}
    if args.policy == "full" and given:
        named = option(next(iter(given)))
        raise UserError(
            WITHOUT_MEANING.format(option=named, value=args.policy, does=NO_ACCELERATOR[args.policy])
        )
    return unique_knobs(args.set, given)


def add_files(args: argparse.Namespace, files: CommandFiles) -> tuple[Path, Path | None]:
    """Adds what no option names: the video's sidecar, and by default the picture beside the figures.

    Returns:
        The picture, and the file that keeps a calibration, None where figures go to no file.

    Raises:
        UserError: see `CommandFiles`.
    """
    video = Path(args.video)
    if video.name not in ("", "..") and not args.video.startswith("procstream:"):
        for sidecar in {video.with_suffix(".json"), video.resolve().with_suffix(".json")}:
            files.add_input(sidecar, "the video or its sidecar")
    beside = args.json if args.json is not None and is_plain(args.json) else None
    if args.png is None:
        args.png = beside.with_suffix(".png") if beside else DEFAULT_PICTURE
        files.add_output(args.png, "--png (by default)")
    calibration = beside and beside.with_suffix(".calibration.npz")
    if calibration is not None:
        files.add_output(calibration, "the calibration", kept=True, needed=False)
    return args.png, calibration


def watch(session: "VideoSession", out: TextIO) -> None:
    """Streams the video and prints the conversation as it happens."""
    from tqdm import tqdm

    from vrex.sw.videollm.stream import Answered, FrameSeen, Spoke

    if (past := session.resumed) is not None:
        lost = f"; lost {past.lost_bytes:,} bytes of a chunk that was not whole" if past.lost_bytes else ""
        print(
            f"cache {session.options.cache} holds {past.frames} frames, {past.tokens:,} tokens: "
            f"going on{lost}",
            file=out,
        )
    # disable=None: no bar where stderr is no terminal.
    with tqdm(total=session.source.frame_count, unit="frame", disable=None) as bar:
        for event in session.stream():
            match event:
                case FrameSeen():
                    bar.update()
                case Spoke():
                    tqdm.write(f"{event.time:7.1f} s  {event.text}", file=out)
                case Answered():
                    verdict = _verdict(session.conversation[-1])
                    tqdm.write(f"{event.time:7.1f} s  {event.question}? {event.text}{verdict}", file=out)


def _verdict(turn: dict[str, Any]) -> str:
    """What follows an answer on the terminal, when the right one is known."""
    if turn["expected"] is None:
        return ""
    return "  (right)" if turn["answer"] == turn["expected"] else f"  (wrong: {turn['expected']})"


def picture_title(result: dict[str, Any]) -> str:
    """What the heat map's title says about the run."""
    from vrex.sw.evaluation.reports.title import shown

    settings = result["settings"]
    title = f"{shown(Path(settings['video']).name)}, {result['frames']} frames, policy {settings['policy']}"
    if resv := settings["resv"]:
        title += f"\n{resv['rule']}, Th_r {resv['th_r']:g}, Th_hd {resv['th_hd']}"
        title += f", {resv['sinks']} sinks, window of {resv['window']} frames"
    return title


def finish(result: dict[str, Any], json_path: Path | None, picture: Path, files: CommandFiles) -> int:
    """Writes the figures, prints the table, draws the picture, and says whether the check held."""
    out = files.out
    written = json_path is not None and files.write_json(json_path, result, indent=2)
    print(format_run(result), file=out)
    if written:
        print(format_row("figures", json_path), file=out)

    def draw() -> bytes:
        from vrex.sw.evaluation.reports.heatmap import ratio_heatmap

        return ratio_heatmap(result["ratio"]["per_layer_head"], picture_title(result))

    if files.try_write(picture, draw, f"the heat map {picture}"):
        print(format_row("heat map", picture), file=out)
    mismatches = result["rtl"]["mismatches"] + result.get("lxe", {}).get("mismatches", 0)
    if mismatches:
        print(
            f"vrex: check failed: the RTL gave {mismatches:,} results that the golden model does not",
            file=sys.stderr,
        )
        return CHECK_FAILED
    return 0
