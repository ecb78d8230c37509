"""vrex bench: measure a part side by side with its reference."""

import argparse
from typing import Any

from vrex.files import is_plain
from vrex.sw.cli.arguments import INPUT_FILE, OUTPUT_JSON, knob, unique_knobs
from vrex.sw.cli.config_options import add_config_options, load_config
from vrex.sw.session.options import ARITHMETIC, CHIP_PRESET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex bench``."""
    parser.add_argument(
        "part",
        choices=["cache", "codes", "core", "decoder", "dre", "hf", "lxe"],
        help="cache: the cache that leaves memory, over 100,000 tokens; codes: bytes and recall of resv-bits "
        "on one level and two, to 400,000 tokens (extra eval); core: a decoder layer on the core; "
        "decoder: numpy against transformers; dre: the retrieval engine's units in RTL; hf: retrieval in "
        "transformers; lxe: schemes of the MAC tree, and the DPE in RTL (decoder and hf need extra hf)",
    )
    add_config_options(parser, of="of core, dre and lxe: ")
    parser.add_argument(
        "--lengths",
        type=numbers,
        metavar="N,N",
        help="tokens of the past: of hf (default: 1000 to 40000), of core (default: 300 and 4000), of "
        "codes (default: 1000 to 400000), of cache one number (default: 100000)",
    )
    cells = parser.add_mutually_exclusive_group()
    cells.add_argument("--liberty", type=INPUT_FILE, metavar="FILE", help="of lxe: standard cells")
    cells.add_argument("--fetch-liberty", metavar="NAME", help="of lxe: get these cells, such as osu018")
    parser.add_argument(
        "--rows", type=numbers, metavar="N,N", help="of core: rows of a chunk (default: 1, 11 and 32)"
    )
    parser.add_argument(
        "--layer",
        type=numbers,
        metavar="N,N,N,N,N",
        help="of core: hidden size, feed-forward size, query heads, KV heads and head_dim of a layer with "
        "random weights, such as 2048,8192,32,8,64 (default: a layer of the shipped checkpoint)",
    )
    parser.add_argument(
        "--set",
        type=knob,
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="of core: set a knob of policy resv, as in --set mean_bits=8 (repeatable)",
    )
    parser.add_argument(
        "--arithmetic",
        choices=ARITHMETIC,
        default=ARITHMETIC[0],
        help="of core: its Verilog, or with dpi C++ functions for MAC trees and vector lanes, the same bits "
        "in the same cycles in less time (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="of hf: cpu, cuda (default: %(default)s)"
    )
    parser.add_argument(
        "--policies",
        metavar="NAME,NAME",
        help="of hf: policies, and transformers for the model without the plug-in (default: transformers, "
        "full, resv, rekv and resv-bits)",
    )
    parser.add_argument(
        "--json",
        type=OUTPUT_JSON,
        required=True,
        metavar="OUT",
        help="where the figures go, codes, core and lxe with a plot beside them; - is stdout",
    )


def execute(args: argparse.Namespace) -> int:
    """Measures, writes the figures and prints one line (on stderr, when stdout takes the JSON)."""
    picture = None
    if args.part in PLOTS and is_plain(args.json):
        picture = args.json.with_suffix(".png")
        args.files.add_output(picture, "the plot beside --json")
    figures, summary = PARTS[args.part](args)
    written = args.files.write_json(args.json, figures, indent=2)
    print(f"{summary}; figures in {args.json}" if written else summary, file=args.files.out)

    def draw() -> bytes:
        return PLOTS[args.part](figures)

    if picture is not None:
        args.files.try_write(picture, draw, f"the plot {picture}")
    return 0


def numbers(text: str) -> list[int]:
    """Whole numbers, apart by commas."""
    return [int(part) for part in text.split(",")]


def _cache(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a table that sums them up."""
    from tqdm import tqdm

    from vrex.sw.evaluation.benches.cache import TOKENS, bench_cache, table

    tokens = max(args.lengths) if args.lengths else TOKENS
    with tqdm(total=tokens, unit="token", disable=None) as bar:

        def progress(done: int) -> None:
            bar.update(done - bar.n)

        figures = bench_cache(tokens, progress=progress)
    return figures, table(figures)


def _codes(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a table that sums them up."""
    from tqdm import tqdm

    from vrex.sw.evaluation.benches.code_sources import text_sources, video_sources
    from vrex.sw.evaluation.benches.codes import LENGTHS, bench_codes, table
    from vrex.sw.evaluation.text.gguf import find_weights

    weights = find_weights()
    with tqdm(unit="step", disable=None) as bar:

        def progress(step: str) -> None:
            bar.set_description(step)
            bar.update()

        progress("ProcStream")
        sources = video_sources()
        progress("SmolLM2")
        figures = bench_codes([*sources, *text_sources(weights)], args.lengths or LENGTHS, progress)
    return figures, table(figures)


def _core(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a table that sums them up."""
    from tqdm import tqdm

    from vrex.model.config_file import own_config
    from vrex.sw.evaluation.benches.core import PAST, ROWS, bench_core, layer_text, table
    from vrex.sw.retrieval.policies.registry import make_settings

    config, rows, past = load_config(args, CHIP_PRESET), args.rows or ROWS, args.lengths or PAST
    text = None if args.layer is None else layer_text(args.layer)
    settings = make_settings("resv", unique_knobs(args.set))
    with tqdm(total=len(past) * (1 + len(rows)), unit="step", disable=None) as bar:
        begun = 0

        def progress(step: str) -> None:
            nonlocal begun
            bar.update(begun - bar.n)
            bar.set_description(step)
            begun += 1

        figures = bench_core(config, rows, past, progress, args.arithmetic, text, settings)
        bar.update(begun - bar.n)
    return figures | own_config(config), table(figures)


def _decoder(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a line that sums them up."""
    from tqdm import tqdm

    from vrex.sw.evaluation.benches.decoder import bench_decoder

    with tqdm(unit="run", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        figures = bench_decoder(progress=progress)
    fps = {name: figures[name]["fps"] for name in ("numpy", "transformers")}
    return figures, (
        f"numpy {fps['numpy']:.1f} frames/s, transformers {fps['transformers']:.1f} frames/s,"
        f" ratio {figures['ratio']:.2f}"
    )


def _dre(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a table that sums them up."""
    from tqdm import tqdm

    config = load_config(args)

    from vrex.sw.evaluation.benches.dre import STEPS, bench_dre, table

    with tqdm(total=len(STEPS), unit="step", disable=None) as bar:

        def progress(step: str) -> None:
            bar.set_description(step)
            bar.update(STEPS.index(step) - bar.n)

        figures = bench_dre(config, progress)
        bar.update(len(STEPS) - bar.n)
    return figures, table(figures)


def _hf(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a table that sums them up."""
    from tqdm import tqdm

    from vrex.sw.evaluation.benches.hf import LENGTHS, POLICIES, bench_hf, table

    lengths = args.lengths or LENGTHS
    policies = POLICIES if args.policies is None else args.policies.split(",")
    with tqdm(total=len(policies) * len(lengths), unit="length", disable=None) as bar:
        begun = 0

        def progress(step: str) -> None:
            nonlocal begun
            bar.update(begun - bar.n)
            bar.set_description(step)
            begun += 1

        figures = bench_hf(lengths, args.device, policies=policies, progress=progress)
        bar.update(begun - bar.n)
    return figures, table(figures)


def _lxe(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a table that sums them up."""
    from tqdm import tqdm

    from vrex.model.config_file import own_config
    from vrex.sw.cli.synth import cell_library
    from vrex.sw.evaluation.benches.lxe import bench_lxe, steps, table

    config, library = load_config(args), cell_library(args)
    with tqdm(total=steps(), unit="step", disable=None) as bar:
        begun = 0

        def progress(step: str) -> None:
            nonlocal begun
            bar.update(begun - bar.n)
            bar.set_description(step)
            begun += 1

        figures = bench_lxe(config, library, progress=progress)
        bar.update(begun - bar.n)
    return figures | own_config(config), table(figures)


def _codes_plot(figures: dict[str, Any]) -> bytes:
    from vrex.sw.evaluation.benches.codes import plot

    return plot(figures)


def _core_plot(figures: dict[str, Any]) -> bytes:
    from vrex.sw.evaluation.reports.core import lanes_plot

    return lanes_plot(figures)


def _lxe_plot(figures: dict[str, Any]) -> bytes:
    from vrex.sw.evaluation.reports.lxe import schemes_plot

    return schemes_plot(figures)


PARTS = {
    "cache": _cache,
    "codes": _codes,
    "core": _core,
    "decoder": _decoder,
    "dre": _dre,
    "hf": _hf,
    "lxe": _lxe,
}
PLOTS = {"codes": _codes_plot, "core": _core_plot, "lxe": _lxe_plot}
