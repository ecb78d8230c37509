"""vrex fpga: build a bitstream of the engine for a board, with area by unit and the clock it reaches."""

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.model.serial import BAUD
from vrex.sw.cli.arguments import OUTPUT_FOLDER, OUTPUT_JSON, PROGRAM, at_least, positive_float
from vrex.sw.cli.config_options import add_config_options, load_config

if TYPE_CHECKING:
    from vrex.hw.tools.fpga.flow import Built, Job

DETAIL = 50
"""Characters of the progress in a step."""

DEFAULT_SEEDS = 3
DEFAULT_PRESET = "tiny"
MISSED = 1
"""Exit code when no placement reaches the clock."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex fpga``."""
    parser.add_argument("--board", required=True, metavar="B", help="board to build for, such as ulx3s")
    parser.add_argument(
        "--design", default="kvpu", metavar="D", help="kvpu, dre or core (default: %(default)s)"
    )
    add_config_options(parser, default=DEFAULT_PRESET)
    parser.add_argument(
        "--frequency",
        type=positive_float,
        metavar="MHZ",
        help="clock (default: 50, where the board has no PLL its oscillator's)",
    )
    parser.add_argument(
        "--baud",
        type=at_least(1),
        default=BAUD,
        metavar="N",
        help="bits a second on the serial line (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=at_least(1),
        default=DEFAULT_SEEDS,
        metavar="N",
        help="placements, of which the fastest becomes the bitstream (default: %(default)s)",
    )
    parser.add_argument(
        "--nextpnr",
        type=PROGRAM,
        metavar="PROGRAM",
        help="nextpnr of this machine's own, such as nextpnr-ecp5 of the OSS CAD Suite, which is faster "
        "than the Python package's WebAssembly (default: that)",
    )
    parser.add_argument("-o", "--output", type=OUTPUT_FOLDER, metavar="DIR", help="folder for the bitstream")
    parser.add_argument("--json", type=OUTPUT_JSON, metavar="OUT", help="where the figures go; - is stdout")


def execute(args: argparse.Namespace) -> int:
    """Builds, writes the figures and the bitstream, and prints tables.

    Returns:
        0, or 1 when no placement reaches the clock; there is no bitstream then.

    Raises:
        UserError: there is no such board, design or configuration, the board can't hold it, a tool is missing
            or failed, or a file can't be written.
    """
    nextpnr = _program(args)
    config = load_config(args, DEFAULT_PRESET)
    from tqdm import tqdm

    from vrex.hw.fpga.boards import find
    from vrex.hw.tools.fpga.flow import Job, build
    from vrex.model.config_file import own_config

    job = Job(find(args.board), args.design, config, args.frequency, args.baud, args.seeds, nextpnr)
    with tqdm(total=job.steps, unit="step", disable=None) as bar:
        begun = 0

        def progress(step: str, detail: str = "") -> None:
            nonlocal begun
            # What nextpnr says may be longer than a line of the terminal.
            bar.set_postfix_str(detail.removeprefix("Info: ").strip()[:DETAIL])
            if not detail:
                bar.update(begun - bar.n)
                bar.set_description(step)
                begun += 1

        built = build(job, progress)
        bar.update(begun - bar.n)
    return _give(args, job, built, own_config(config))


def _program(args: argparse.Namespace) -> Path | None:
    """The program of --nextpnr: a path, or a name in PATH."""
    if args.nextpnr is None:
        return None
    found = shutil.which(args.nextpnr)
    if found is None:
        raise UserError(f"--nextpnr {args.nextpnr}: no such program; give its path, or a name in PATH")
    return Path(found).absolute()


def _give(args: argparse.Namespace, job: "Job", built: "Built", own: dict[str, Any]) -> int:
    """Writes and prints what was built."""
    from vrex.hw.tools.fpga.report import summary, table

    out = args.files.out
    if args.output is not None:
        for name in built.files:
            path = args.output / name
            args.files.add_output(path, f"the file {name} of --output", needed=path.parent.exists())
    written = args.json is not None and args.files.write_json(args.json, built.figures | own, indent=2)
    print(table(built.figures), file=out)
    print(file=out)
    print(summary(built.figures), file=out)
    if written:
        print(f"figures in {args.json}", file=out)
    if args.output is not None and built.files:
        args.output.mkdir(parents=True, exist_ok=True)
        for name, content in built.files.items():
            args.files.write(args.output / name, content)
            print(args.output / name, file=out)
    return 0 if built.figures.get("meets_clock", True) else MISSED
