"""vrex generate: write the Verilog of the engine, or of one of its units, and its parameters."""

import argparse

from vrex.errors import UserError
from vrex.sw.cli.arguments import OUTPUT_FOLDER
from vrex.sw.cli.config_options import add_config_options, check_units, load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex generate``."""
    parser.add_argument("--unit", default="dre", metavar="U", help="what to write (default: %(default)s)")
    add_config_options(parser)
    parser.add_argument(
        "--no-initial",
        dest="initial",
        action="store_false",
        help="without initial values of registers and written memories, which then start unknown",
    )
    parser.add_argument(
        "-o", "--output", type=OUTPUT_FOLDER, required=True, metavar="DIR", help="folder to write to"
    )


def execute(args: argparse.Namespace) -> int:
    """Writes the files and names them.

    Raises:
        UserError: there is no such unit or configuration, or the folder can't be written.
    """
    config = load_config(args)
    from vrex.hw.tools.generate import UNITS, generate, paths_of

    if args.unit not in UNITS:
        raise UserError(f"--unit: unknown unit {args.unit!r}; choose one of {', '.join(UNITS)}")
    check_units(config, [args.unit])
    for path in paths_of(args.output, args.unit):
        args.files.add_output(path, f"the file {path.name} of --output", needed=path.parent.exists())
    try:
        paths = generate(config, args.output, args.unit, initial=args.initial)
    except OSError as error:
        raise UserError(f"cannot write to {args.output}: {error.strerror}; choose another folder") from error
    for path in paths:
        print(path)
    return 0
