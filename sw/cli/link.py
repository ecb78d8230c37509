"""vrex link: test a board behind a serial port, or simulate one behind a pseudo-terminal."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.model.serial import SCHEME
from vrex.sw.cli.arguments import OUTPUT_JSON, at_least, chance
from vrex.sw.cli.config_options import add_config_options, load_config
from vrex.sw.evaluation.reports.table import format_row
from vrex.sw.session.options import ARITHMETIC

if TYPE_CHECKING:
    from vrex.model.config import Config

CHECK_FAILED = 1
UNITS = ("kvpu", "dre", "core")
DEFAULT_COMMANDS = 1000
NOISE = ("flip", "drop", "repeat")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex link``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--selftest",
        metavar="PORT[@BAUD]",
        help="send random commands to the board there, a core chunks of a video, and compare with the golden "
        "model",
    )
    what.add_argument(
        "--simulate",
        choices=UNITS,
        help="open a pseudo-terminal with a simulated board of this unit behind it, until Ctrl-C",
    )
    add_config_options(parser)
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="of commands or noise (default: %(default)s)"
    )
    test = parser.add_argument_group("with --selftest")
    test.add_argument(
        "--commands", type=at_least(1), metavar="N", help=f"how many (default: {DEFAULT_COMMANDS})"
    )
    test.add_argument(
        "--json", type=OUTPUT_JSON, metavar="OUT", help="write the figures to this file; - is stdout"
    )
    parser.add_argument(
        "--pins",
        action="store_true",
        help="with --simulate kvpu: bit by bit at the pins of the UART, which takes ten times as long",
    )
    parser.add_argument(
        "--arithmetic",
        choices=ARITHMETIC,
        default=ARITHMETIC[0],
        help="with --simulate core: its Verilog, or with dpi C++ functions for MAC trees and vector lanes, "
        "the same bits in the same cycles in less time (default: %(default)s)",
    )
    noise = parser.add_argument_group("with --simulate, what is wrong with the line, in both directions")
    noise.add_argument("--noise", type=chance, metavar="RATE", help="the next three at once")
    noise.add_argument("--flip", type=chance, metavar="RATE", help="chance that a bit flips (default: 0)")
    noise.add_argument("--drop", type=chance, metavar="RATE", help="chance that a byte is lost (default: 0)")
    noise.add_argument(
        "--repeat", type=chance, metavar="RATE", help="chance that a byte comes twice (default: 0)"
    )
    noise.add_argument(
        "--reset-every",
        type=at_least(1),
        metavar="BYTES",
        help="press the board's button after each so many bytes to it (default: never)",
    )


def execute(args: argparse.Namespace) -> int:
    """Tests or simulates.

    Returns:
        0, or 1 if the board's results differ from the golden model's.

    Raises:
        UserError: options contradict each other, there is no such port, configuration or board, or the
            simulator can't be built.
    """
    if args.selftest is None and args.simulate is None:
        raise UserError("vrex link needs something to do; give --selftest PORT or --simulate kvpu")
    others = ("noise", *NOISE, "reset_every") if args.simulate is None else ("commands", "json")
    for name in others:
        if getattr(args, name) is not None:
            wanted = "--simulate" if args.simulate is None else "--selftest"
            raise UserError(f"--{name.replace('_', '-')} belongs to {wanted}; leave it out")
    if args.pins and args.simulate != "kvpu":
        raise UserError("--pins belongs to --simulate kvpu; leave it out")
    if args.arithmetic != ARITHMETIC[0] and args.simulate != "core":
        raise UserError("--arithmetic belongs to --simulate core; leave it out")
    config = load_config(args)
    return _selftest(args, config) if args.simulate is None else _simulate(args, config)


def _selftest(args: argparse.Namespace, config: "Config") -> int:
    from tqdm import tqdm

    from vrex.sw.driver.serial import identify

    commands = args.commands or DEFAULT_COMMANDS
    port = args.selftest.removeprefix(SCHEME)
    test = _test_core if identify(SCHEME + port).unit_name == "core" else _test_commands
    with tqdm(total=commands, unit="command", disable=None) as bar:
        result = {"port": port, "preset": config.name}
        result |= test(SCHEME + port, config, commands, args.seed, bar.update)
    out = args.files.out
    written = args.json is not None and args.files.write_json(args.json, result, indent=2)
    for row in _rows(result):
        print(format_row(*row), file=out)
    if written:
        print(format_row("figures", args.json), file=out)
    if result["mismatches"]:
        print(
            f"vrex: check failed: the board gave {result['mismatches']:,} results that the golden model "
            "does not",
            file=sys.stderr,
        )
        return CHECK_FAILED
    return 0


def _test_commands(
    name: str, config: "Config", commands: int, seed: int, step: Callable[[int], Any]
) -> dict[str, Any]:
    """Of a KVPU or a DRE."""
    from vrex.sw.driver.selftest import open_board, run

    board = open_board(name, config)
    try:
        return run(board, commands, seed, step)
    finally:
        board.close()


def _test_core(
    name: str, config: "Config", commands: int, seed: int, step: Callable[[int], Any]
) -> dict[str, Any]:
    """Of a core, whose commands are chunks of a video for a small decoder."""
    from vrex.sw.videollm.chip_selftest import run

    return run(name, config, commands, seed, step)


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The table of a self-test."""
    link = result["link"]
    rate = link["payload_bytes"] / link["seconds"] / 1000 if link["seconds"] else 0.0
    frames = link["frames"] + link["received"]
    return [
        ("unit", result["unit"].upper()),
        ("commands", f"{result['answered']:,} of {result['commands']:,} answered (seed {result['seed']})"),
        ("check", f"{result['compared']:,} results compared, {result['mismatches']:,} mismatches"),
        ("throughput", f"{rate:,.1f} KB/s ({link['payload_bytes']:,} bytes in {link['seconds']:.1f} s)"),
        ("frames", f"{frames:,}, {link['resent']:,} sent and {link['repeated']:,} received again"),
        ("errors", f"{link['damaged']:,} damaged, {link['waited']:,} time-outs, {link['resets']} resets"),
    ]


def _simulate(args: argparse.Namespace, config: "Config") -> int:
    import signal

    from vrex.sw.driver.serial_board import Noise, SimulatedBoard, Terminal

    # A shell's background jobs do not get Ctrl-C, so `kill` ends them the same way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    chances = {name: getattr(args, name) for name in NOISE}
    chances = {name: (args.noise or 0.0) if value is None else value for name, value in chances.items()}
    noise = Noise(**chances, seed=args.seed, reset_every=args.reset_every or 0)
    functions = args.arithmetic == "dpi"
    board = SimulatedBoard(config, noise, unit=args.simulate, pins=args.pins, functions=functions)
    terminal = Terminal(board)
    try:
        print(terminal.name, flush=True)
        print(
            f"vrex: a {args.simulate.upper()} of {config.name} is behind it, seed {noise.seed}; Ctrl-C or "
            "kill ends it",
            file=sys.stderr,
        )
        terminal.serve()
    except KeyboardInterrupt:
        # How a simulation ends.
        print(file=sys.stderr)
    finally:
        terminal.close()
        board.close()
    harm = ", ".join(f"{count:,} {what}" for what, count in board.harm().items())
    print(format_row("cycles", f"{board.cycles:,}"))
    print(format_row("bytes", f"{board.sent:,} to the board, {board.received:,} from it"))
    print(format_row("harm", harm))
    if args.simulate != "kvpu":
        print(format_row("memory port", f"{board.violations:,} offences against AXI4"))
    return 0
