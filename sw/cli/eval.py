"""vrex eval: compare retrieval policies on the questions of the ProcStream benchmark."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.files import check_writable, write_file
from vrex.sw.cli.arguments import at_least, numbers
from vrex.sw.cli.common import saying_what_is_kept

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
    videos.add_argument("--model", type=Path, metavar="DIR", help="checkpoint (default: the shipped one)")
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the rows go")
    output.add_argument("--html", type=Path, metavar="OUT", help="where a page of tables and plots goes")
    output.add_argument("--jobs", type=at_least(1), metavar="N", help="processes (default: all cores)")


def _suites(words: str) -> list[str]:
    names = words.split(",")
    for name in names:
        if name not in SUITES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SUITES)}")
    return list(dict.fromkeys(names))


def execute(args: argparse.Namespace) -> int:
    """Runs what the store lacks, prints the table, and writes rows and page."""
    seeds = _seeds(args)
    for path in (args.json, args.html):
        if path is not None:
            check_writable(path)
    if args.html == args.json:
        raise UserError(f"--json and --html both name {args.json}; give them different names")

    from vrex.sw.evaluation.cells import Clip, VideoCell, check_clips
    from vrex.sw.evaluation.page import make_page
    from vrex.sw.evaluation.points import make_points
    from vrex.sw.evaluation.reports.rows import format_rows
    from vrex.sw.evaluation.rows import make_rows
    from vrex.sw.evaluation.store import open_store, store_path
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
    with open_store(store_path(args.json), digest) as store:
        _run(args, cells, store)
        rows = make_rows(store, points, clips)
    result = {**_describe(args, seeds, digest), "rows": rows}
    write_file(args.json, (json.dumps(result, indent=1) + "\n").encode())
    if args.html is not None:
        write_file(args.html, make_page(result).encode())
    print(format_rows(rows))
    print(f"rows in {args.json}, answers in {store_path(args.json)}")
    if args.html is not None:
        print(f"page in {args.html}")
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


def _run(args: argparse.Namespace, cells: "list[VideoCell]", store: "Store") -> None:
    """Runs the missing cells behind a progress bar; says what is kept when the user stops it."""
    from tqdm import tqdm

    from vrex.sw.evaluation.pool import run_cells

    jobs = args.jobs or len(os.sched_getaffinity(0))
    calibration = args.json.with_name(args.json.stem + ".calibration.npz")
    with tqdm(total=len(cells), unit="cell", disable=None) as bar, saying_what_is_kept(cells, store):

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        run_cells(cells, store, args.model, calibration, jobs, progress)


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
