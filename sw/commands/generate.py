"""vrex generate: write the Verilog of the retrieval engine and its parameters."""

import argparse
from pathlib import Path

from vrex.sw.commands.common import DEFAULT_PRESET, load_preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex generate``."""
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, metavar="NAME", help="configuration (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write to")


def execute(args: argparse.Namespace) -> int:
    """Writes the files and names them."""
    load_preset(args.preset)
    from vrex.hw.generate import generate

    for path in generate(args.preset, args.output):
        print(path)
    return 0
