"""vrex eval: compare retrieval policies on the questions of the ProcStream benchmark."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.sw.cli.arguments import INPUT_FOLDER, OUTPUT_HTML, OUTPUT_JSON, at_least, numbers
from vrex.sw.cli.common import saying_what_is_kept
from vrex.sw.cli.paths import Kept, kept_beside

if TYPE_CHECKING:
    from vrex.sw.evaluation.cells import VideoCell
    from vrex.sw.evaluation.store import Store

FIRST_SEED = 1000
"""Seeds of the benchmark's videos count from here."""
DEFAULT_VIDEOS = 4
SUITES = ("tasks", "needles", "speak")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex eval``."""
    what = parser.add_argument_group("what is compared")
    what.add_argument("--policies", default="full,resv", metavar="NAME,NAME", help="default: %(default)s")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[POLICY.]KNOB=VALUE,VALUE",
        help="values of a knob, combined with those of other --set (repeatable); knobs joined by + take each "
        "value together",
    )
    videos = parser.add_argument_group("videos")
    videos.add_argument(
        "--suites",
        type=_suites,
        default=["tasks"],
        metavar="NAME,NAME",
        help=f"of {', '.join(SUITES)} (default: tasks)",
    )
    videos.add_argument(
        "--lengths", type=numbers(1), default=[96], metavar="N,N", help="frames of a video (default: 96)"
    )
    videos.add_argument("--videos", type=at_least(1), metavar="N", help="videos of each length (default: 4)")
    videos.add_argument(
        "--seeds", type=numbers(0), metavar="N,N", help=f"of the videos (default: {FIRST_SEED} and up)"
    )
    videos.add_argument("--level", default="easy", metavar="NAME", help="easy or hard (default: %(default)s)")
    videos.add_argument(
        "--model", type=INPUT_FOLDER, metavar="DIR", help="checkpoint (default: the shipped one)"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=OUTPUT_JSON, required=True, metavar="OUT", help="where the rows go; - is stdout"
    )
    output.add_argument(
        "--html", type=OUTPUT_HTML, metavar="OUT", help="where a page of tables and plots goes"
    )
    output.add_argument("--jobs", type=at_least(1), metavar="N", help="processes (default: all cores)")


def _suites(words: str) -> list[str]:
    names = words.split(",")
    for name in names:
        if name not in SUITES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SUITES)}")
    return list(dict.fromkeys(names))


def execute(args: argparse.Namespace) -> int:
    """Runs what the store lacks, and writes rows, table and page."""
    seeds = _seeds(args)
    with kept_beside(args.json, args.files) as kept:
        return _evaluate(args, seeds, kept)


def _evaluate(args: argparse.Namespace, seeds: list[int], kept: Kept) -> int:
    from vrex.sw.evaluation.cells import Clip, VideoCell, check_clips
    from vrex.sw.evaluation.points import make_points
    from vrex.sw.evaluation.reports.rows import format_rows
    from vrex.sw.evaluation.rows import make_rows
    from vrex.sw.evaluation.store import open_store
    from vrex.sw.videollm.checkpoint import SHIPPED, model_digest
    from vrex.sw.videollm.procstream import level_named

    level = level_named(args.level)
    points = make_points(args.policies.split(","), args.set)
    clips = [
        Clip(suite, frames, seed, level.name)
        for seed in seeds
        for frames in args.lengths
        for suite in args.suites
    ]
    folder = args.model or SHIPPED
    if not folder.is_dir():
        raise UserError(f"--model {folder}: is not a folder; give the folder of a checkpoint")
    digest = model_digest(folder)
    check_clips(clips)
    # All policies on one video before the next video: an unfinished run compares them on the same questions.
    cells = [VideoCell(point, clip) for clip in clips for point in points]
    with open_store(kept.cells, digest) as store:
        _run(args, cells, store, kept)
        rows = make_rows(store, points, clips)
    result = {**_describe(args, seeds, digest), "rows": rows}
    out = args.files.out
    written = args.files.write_json(args.json, result, indent=1)
    print(format_rows(rows), file=out)
    if written:
        print(kept.where("rows", args.json, "answers"), file=out)

    def page() -> bytes:
        from vrex.sw.evaluation.page import make_page

        return make_page(result).encode()

    if args.html is not None and args.files.try_write(args.html, page, f"the page {args.html}"):
        print(f"page in {args.html}", file=out)
    return 0


def _seeds(args: argparse.Namespace) -> list[int]:
    """Seeds of the videos.

    Raises:
        UserError: --videos and --seeds contradict each other.
    """
    if args.seeds is None:
        return list(range(FIRST_SEED, FIRST_SEED + (args.videos or DEFAULT_VIDEOS)))
    seeds: list[int] = args.seeds
    if args.videos not in (None, len(seeds)):
        raise UserError(f"--videos is {args.videos}, but --seeds names {len(seeds)}; leave one of them out")
    return seeds


def _run(args: argparse.Namespace, cells: "list[VideoCell]", store: "Store", kept: Kept) -> None:
    """Runs the missing cells behind a progress bar; says what is kept when the user stops it."""
    from tqdm import tqdm

    from vrex.sw.evaluation.pool import run_cells

    jobs = args.jobs or len(os.sched_getaffinity(0))
    saying = saying_what_is_kept(cells, store, kept.lasting)
    with tqdm(total=len(cells), unit="cell", disable=None) as bar, saying:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        run_cells(cells, store, args.model, kept.calibration, jobs, progress)


def _describe(args: argparse.Namespace, seeds: list[int], digest: str) -> dict[str, Any]:
    """What the rows were measured on."""
    from importlib.metadata import version

    from vrex.sw.evaluation.bootstrap import CONFIDENCE, RESAMPLES

    return {
        "vrex": version("vrex"),
        "model": digest,
        "seeds": seeds,
        "lengths": args.lengths,
        "suites": args.suites,
        "level": args.level,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
    }
