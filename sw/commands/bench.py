"""vrex bench: measure a part side by side with its reference."""

import argparse
import json
from pathlib import Path
from typing import Any

from vrex.sw.commands.common import DEFAULT_PRESET, load_preset
from vrex.sw.files import check_writable, write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex bench``."""
    parser.add_argument(
        "part",
        choices=["decoder", "dre"],
        help="decoder: numpy against transformers (needs extra hf); dre: the retrieval engine's units in RTL",
    )
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, metavar="NAME", help="of dre (default: %(default)s)"
    )
    parser.add_argument(
        "--json", type=Path, required=True, metavar="OUT", help="where the figures go; - is stdout"
    )


def execute(args: argparse.Namespace) -> int:
    """Measures, prints one line (on stderr, when stdout takes the JSON) and writes the figures."""
    to_stdout = str(args.json) == "-"
    if not to_stdout:
        check_writable(args.json)
    figures, summary = (_decoder if args.part == "decoder" else _dre)(args)
    text = json.dumps(figures, indent=2) + "\n"
    if to_stdout:
        print(text, end="")
        return 0
    write_file(args.json, text.encode())
    print(f"{summary}; figures in {args.json}")
    return 0


def _decoder(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and a line that sums them up."""
    from tqdm import tqdm

    from vrex.sw.bench.decoder import bench_decoder

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

    config = load_preset(args.preset)

    from vrex.sw.bench.dre import STEPS, bench_dre, table

    with tqdm(total=len(STEPS), unit="step", disable=None) as bar:

        def progress(step: str) -> None:
            bar.set_description(step)
            bar.update(STEPS.index(step) - bar.n)

        figures = bench_dre(config, progress)
        bar.update(len(STEPS) - bar.n)
    return figures, table(figures)
