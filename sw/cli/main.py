"""The command line: ``vrex run|eval|eval-text|eval-coin|figures|config|generate|regress|...``.

Modules of ``vrex.sw.cli`` import what is heavy (numpy, PyAV, matplotlib, Amaranth) only when they run,
so that ``vrex --help`` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vrex.errors import UserError
from vrex.sw.cli import (
    bench,
    config,
    eval,
    eval_coin,
    eval_text,
    explore,
    figures,
    fpga,
    generate,
    link,
    mutate,
    perf,
    power,
    procstream,
    regress,
    report,
    run,
    streams,
    synth,
)
from vrex.sw.cli.paths import CommandFiles
from vrex.text import printable

USER_ERROR = 2
INTERRUPTED = 130

_COMMANDS = {
    "run": run,
    "eval": eval,
    "eval-text": eval_text,
    "eval-coin": eval_coin,
    "figures": figures,
    "config": config,
    "generate": generate,
    "regress": regress,
    "mutate": mutate,
    "synth": synth,
    "power": power,
    "report": report,
    "fpga": fpga,
    "link": link,
    "bench": bench,
    "perf": perf,
    "explore": explore,
    "procstream": procstream,
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are UserErrors, so that every mistake looks the same."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


class _Version(argparse.Action):
    """Prints the version; looks it up only when asked, because that takes longer than all else here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version

        print(f"vrex {version('vrex')}")
        parser.exit()


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command line; ``args.execute(args)`` runs the chosen subcommand.

    That needs ``args.files``, the `CommandFiles` of ``args.options``, as `main` makes them.

    Args:
        words: the command line; only a subcommand that is among them gets its options, because some take
            long to import.
    """
    parser = _Parser(
        prog="vrex",
        description="The V-Rex retrieval engine for streaming video LLMs: run it, generate it, check it.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").partition(": ")[2]
        description = summary[:1].upper() + summary[1:]
        command = subparsers.add_parser(name, help=summary.rstrip("."), description=description)
        if name in words:
            module.add_arguments(command)
        command.set_defaults(execute=module.execute, options=command._actions)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        The exit code: 0 done, 1 a check failed, 2 the user's mistake (one sentence on stderr),
        130 interrupted.
    """
    # OpenBLAS's threads spin while they wait: on the shipped model's small matrices a second one gains little
    # and beside any other busy process costs most of the speed. Who runs larger models sets the variable.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with streams.lasting():
        return _run(argv)


def _run(argv: list[str] | None) -> int:
    """See `main`, whose streams are ready."""
    try:
        words = sys.argv[1:] if argv is None else argv
        args = build_parser(words).parse_args(words)
        args.files = CommandFiles.of(args, args.options)
        code: int = args.execute(args)
        args.files.check_written()
        # A reader of stdout who left is no error.
        error = streams.failure()
        if error is not None and not isinstance(error, BrokenPipeError):
            raise UserError(f"cannot write standard output: {error.strerror}")
        return code
    except UserError as error:
        _complain(str(error))
        return USER_ERROR
    except KeyboardInterrupt:
        print("vrex: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The same, of a stream that a caller from Python has put there.
        return 0
    except OSError as error:
        if error.errno is None:
            raise
        # A disk or a file system failed where nobody expects it to.
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        _complain(f"{where}{error.strerror}")
        return USER_ERROR


def _complain(sentence: str) -> None:
    print(f"vrex: error: {printable(sentence)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
