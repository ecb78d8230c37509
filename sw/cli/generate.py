"""vrex generate: write the Verilog of the engine, or of one of its units, and its parameters."""

import argparse
import os
from pathlib import Path

from vrex.errors import UserError
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
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write to")


def execute(args: argparse.Namespace) -> int:
    """Writes the files and names them.

    Raises:
        UserError: there is no such unit or configuration, or the folder can't be written.
    """
    config = load_config(args)
    _check_folder(args.output)
    from vrex.hw.tools.generate import UNITS, generate

    if args.unit not in UNITS:
        raise UserError(f"--unit: unknown unit {args.unit!r}; choose one of {', '.join(UNITS)}")
    check_units(config, [args.unit])
    try:
        paths = generate(config, args.output, args.unit, initial=args.initial)
    except OSError as error:
        raise UserError(f"cannot write to {args.output}: {error.strerror}; choose another folder") from error
    for path in paths:
        print(path)
    return 0


def _check_folder(folder: Path) -> None:
    """Says before the work, not after it, that nothing can be written there."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"cannot write to {folder}: {existing} is a file; name a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"cannot write to {folder}: {existing} is read-only; choose another folder")
