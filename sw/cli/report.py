"""vrex report: show what `vrex synth` measured as a page: areas, the paper's Table III, clocks, history."""

import argparse
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.sw.cli.arguments import INPUT_FILE, OUTPUT_HTML
from vrex.text import from_json

_RESULT, _ENTRY = ("versions", "preset", "library", "units"), ("unit", "preset", "commit", "area", "ecp5")
"""Keys by which a result and an entry of the history are known."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex report``."""
    parser.add_argument(
        "synth", type=INPUT_FILE, nargs="+", metavar="FILE", help="what `vrex synth --json FILE` wrote"
    )
    parser.add_argument(
        "--history",
        type=INPUT_FILE,
        metavar="FILE",
        help="areas by commit, as in the project's docs/synth-history.json",
    )
    parser.add_argument(
        "--html", type=OUTPUT_HTML, required=True, metavar="OUT", help="where the page goes; needs no network"
    )


def execute(args: argparse.Namespace) -> int:
    """Writes the page.

    Raises:
        UserError: a file can't be read, or is not what it should be, or the page can't be written.
    """
    results = [_read(path) for path in args.synth]
    for path, result in zip(args.synth, results, strict=True):
        if not isinstance(result, dict) or not all(key in result for key in _RESULT):
            raise UserError(f"{path} is not what vrex synth writes; name a file of vrex synth --json")
    history = [] if args.history is None else _read(args.history)
    if not isinstance(history, list) or not all(_is_entry(entry) for entry in history):
        raise UserError(f"{args.history} is no history of areas; name a file such as docs/synth-history.json")
    from vrex.hw.tools.synth.page import page

    args.files.write(args.html, page(results, history).encode())
    print(f"page in {args.html}", file=args.files.out)
    return 0


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(key in entry for key in _ENTRY)


def _read(path: Path) -> Any:
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name a file of vrex synth --json") from error
    except ValueError as error:
        raise UserError(f"{path} holds no JSON; name a file of vrex synth --json") from error
