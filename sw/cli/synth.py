"""vrex synth: measure area and timing of the hardware units."""

import argparse
from typing import TYPE_CHECKING

from vrex.errors import UserError
from vrex.sw.cli.arguments import INPUT_FILE, OUTPUT_JSON, at_least
from vrex.sw.cli.config_options import add_config_options, check_units, load_config

if TYPE_CHECKING:
    from vrex.hw.tools.synth.mapping import CellLibrary

DEFAULT_SEEDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex synth``."""
    parser.add_argument("--unit", metavar="U", help="measure only this unit (default: each of them)")
    add_config_options(parser)
    add_library_options(parser, "standard cells (default: gates)")
    parser.add_argument(
        "--ecp5", action="store_true", help="also map to an ECP5-85F of speed grade 6 and place it"
    )
    parser.add_argument(
        "--seeds",
        type=at_least(1),
        default=DEFAULT_SEEDS,
        metavar="N",
        help="placements on the ECP5 (default: %(default)s)",
    )
    parser.add_argument(
        "--json", type=OUTPUT_JSON, required=True, metavar="OUT", help="where the figures go; - is stdout"
    )


def add_library_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--liberty`` and ``--fetch-liberty``.

    Args:
        parser: gets them.
        what: the help of the former.
    """
    library = parser.add_mutually_exclusive_group()
    library.add_argument("--liberty", type=INPUT_FILE, metavar="FILE", help=what)
    library.add_argument(
        "--fetch-liberty",
        metavar="NAME",
        help="standard cells of a Debian package, downloaded once: osu018 (180 nm)",
    )


def execute(args: argparse.Namespace) -> int:
    """Measures, writes the figures and prints a table (on stderr, when stdout takes the JSON).

    Raises:
        UserError: there is no such unit, configuration or library, a tool is missing or failed, or the file
            can't be written.
    """
    config = load_config(args)
    units = _units(args.unit)
    check_units(config, units)
    library = cell_library(args)
    from tqdm import tqdm

    from vrex.hw.tools.synth.report import steps, synthesise, table
    from vrex.model.config_file import own_config

    seeds = args.seeds if args.ecp5 else None
    with tqdm(total=steps(len(units), seeds), unit="step", disable=None) as bar:
        begun = 0

        def progress(part: str, detail: str = "") -> None:
            nonlocal begun
            bar.set_postfix_str(detail)
            if not detail:
                bar.update(begun - bar.n)
                bar.set_description(part)
                begun += 1

        result = synthesise(units, config, library, seeds, progress) | own_config(config)
        bar.update(begun - bar.n)
    out = args.files.out
    written = args.files.write_json(args.json, result, indent=2)
    cells = result["library"] or "generic gates"
    print(f"preset {config.name} in {cells}\n", file=out)
    print(table(result), file=out)
    print(file=out)
    for tool, flags in result["flags"].items():
        print(f"{tool}: {flags}", file=out)
    if written:
        print(f"figures in {args.json}", file=out)
    return 0


def _units(unit: str | None) -> list[str]:
    from vrex.hw.tools.generate import UNITS

    if unit is None:
        # A chip is as many cores as it has, each of which would be measured anew.
        return [unit for unit in UNITS if unit != "top"]
    if unit not in UNITS:
        raise UserError(f"--unit: unknown unit {unit!r}; choose one of {', '.join(UNITS)}")
    return [unit]


def cell_library(args: argparse.Namespace) -> "CellLibrary | None":
    """The standard cells that the command line names."""
    from vrex.hw.tools.synth.mapping import CellLibrary

    if args.liberty is not None:
        return CellLibrary.load(args.liberty)
    if args.fetch_liberty is None:
        return None
    from vrex.files import cache_folder
    from vrex.hw.tools.synth.fetch import SOURCES, fetch

    if args.fetch_liberty not in SOURCES:
        raise UserError(
            f"--fetch-liberty: unknown library {args.fetch_liberty!r}; choose one of {', '.join(SOURCES)}"
        )
    return CellLibrary.load(fetch(args.fetch_liberty, cache_folder()))
