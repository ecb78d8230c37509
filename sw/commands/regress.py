"""vrex regress: run the testbenches of the hardware units against the golden model."""

import argparse

from vrex.sw.commands.arguments import at_least


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex regress``."""
    parser.add_argument("--unit", metavar="U", help="only this unit (default: all)")
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=1,
        metavar="N",
        help="of the random stimuli (default: %(default)s)",
    )
    parser.add_argument("--waves", action="store_true", help="write a waveform of each run")


def execute(args: argparse.Namespace) -> int:
    """Runs them; the exit code is 1 when a testbench fails."""
    from vrex.tb.regress import main

    return main(unit=args.unit, seed=args.seed, waves=args.waves)
