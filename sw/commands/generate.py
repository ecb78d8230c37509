"""vrex generate: write the Verilog of the retrieval engine and its parameters."""

import argparse
from pathlib import Path

from vrex.sw.commands.common import DEFAULT_PRESET, load_preset
from vrex.sw.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex generate``."""
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, metavar="NAME", help="configuration (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write to")


def execute(args: argparse.Namespace) -> int:
    """Writes the files and names them."""
    config = load_preset(args.preset)
    from vrex.hw.generate import generate

    try:
        files = generate(config, args.output)
    except OSError as error:
        raise UserError(f"Cannot write to {args.output}: {error.strerror}.") from error
    for path in files:
        print(path)
    return 0
