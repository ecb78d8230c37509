"""vrex bench: measure a part side by side with its reference."""

import argparse
import json
from pathlib import Path

from vrex.sw.files import check_writable, write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex bench``."""
    parser.add_argument(
        "part", choices=["decoder"], help="decoder: numpy against transformers (needs extra hf)"
    )
    parser.add_argument(
        "--json", type=Path, required=True, metavar="OUT", help="where the figures go; - is stdout"
    )


def execute(args: argparse.Namespace) -> int:
    """Measures, prints one line (on stderr, when stdout takes the JSON) and writes the figures."""
    to_stdout = str(args.json) == "-"
    if not to_stdout:
        check_writable(args.json)
    from tqdm import tqdm

    from vrex.sw.bench.decoder import bench_decoder

    with tqdm(unit="run", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        figures = bench_decoder(progress=progress)
    text = json.dumps(figures, indent=2) + "\n"
    if to_stdout:
        print(text, end="")
        return 0
    write_file(args.json, text.encode())
    fps = {name: figures[name]["fps"] for name in ("numpy", "transformers")}
    print(
        f"numpy {fps['numpy']:.1f} frames/s, transformers {fps['transformers']:.1f} frames/s,"
        f" ratio {figures['ratio']:.2f}; figures in {args.json}"
    )
    return 0
