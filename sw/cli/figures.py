"""vrex figures: the paper's figures, and what it leaves open, measured on the benchmark's videos."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.files import is_plain
from vrex.sw.cli.arguments import INPUT_FOLDER, OUTPUT_JSON, OUTPUT_PNG, at_least
from vrex.sw.cli.paths import Kept, kept_beside

if TYPE_CHECKING:
    from vrex.sw.evaluation.cells import Clip
    from vrex.sw.evaluation.points import Point

FIRST_SEED = 1000
"""Seeds of the benchmark's videos count from here."""

FRAMES = 192

NAMES = {
    "hamming": "cosine against Hamming distance on real keys (Fig. 7)",
    "clustering": "with and without clustering (Fig. 19)",
    "ratio": "retrieval ratio per layer and KV head (Fig. 20)",
    "recall": "attention mass that each policy recalls",
    "drift": "running BF16 mean against the exact one",
    "quantised": "resv on a 4-bit KV cache",
    "sensitivity": "resv's knobs over three seeds of hyperplanes",
    "predict": "whose queries select",
    "lengths": "accuracy and bytes over the video's length",
}
ONE_VIDEO = ("hamming", "ratio", "recall", "drift")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex figures``."""
    listed = "; ".join(f"{name}: {what}" for name, what in NAMES.items())
    parser.add_argument("name", choices=list(NAMES), metavar="NAME", help=listed)
    parser.add_argument(
        "--json", type=OUTPUT_JSON, required=True, metavar="OUT", help="where the figures go; - is stdout"
    )
    parser.add_argument(
        "--png", type=OUTPUT_PNG, metavar="OUT", help="where the plot goes (default: beside them)"
    )
    parser.add_argument(
        "--lengths",
        type=_lengths,
        metavar="N,N",
        help=f"frames of a video (default: {FRAMES}, or the figure's)",
    )
    parser.add_argument(
        "--videos", type=at_least(1), default=2, metavar="N", help="of each length (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=at_least(1), metavar="N", help="processes (default: all cores)")
    parser.add_argument(
        "--model", type=INPUT_FOLDER, metavar="DIR", help="checkpoint (default: the shipped one)"
    )


def _lengths(words: str) -> list[int]:
    return list(dict.fromkeys(at_least(1)(word) for word in words.split(",")))


def execute(args: argparse.Namespace) -> int:
    """Measures, and writes figures, table and plot; no plot by default where figures go to no file."""
    picture = args.png
    if picture is None and is_plain(args.json):
        picture = args.json.with_suffix(".png")
        args.files.add_output(picture, "--png (by default)")
    with kept_beside(args.json, args.files) as kept:
        return _measure(args, picture, kept)


def _measure(args: argparse.Namespace, picture: Path | None, kept: Kept) -> int:
    from vrex.sw.evaluation.cells import Clip, check_clips
    from vrex.sw.evaluation.figures import sweeps
    from vrex.sw.videollm.checkpoint import SHIPPED

    if args.model is not None and not args.model.is_dir():
        raise UserError(f"--model {args.model}: is not a folder; give the folder of a checkpoint")
    lengths = args.lengths or sweeps.LENGTHS.get(args.name, (FRAMES,))
    if args.name in ONE_VIDEO and len(lengths) > 1:
        raise UserError(f"--lengths names {len(lengths)}, but figure {args.name} watches one video; give one")
    videos = 1 if args.name in ONE_VIDEO else args.videos
    clips = [Clip("tasks", frames, FIRST_SEED + at) for at in range(videos) for frames in lengths]
    # Of long videos fewer, and then the shortest first: an unfinished run has whole lengths.
    clips = sweeps.kept_clips(sorted(clips, key=lambda clip: clip.frames))
    if args.name not in ("hamming", "drift"):
        check_clips(clips)
    folder = args.model or SHIPPED
    figures, text, plot = (_sweep if args.name in sweeps.POINTS else _watch)(args, clips, folder, kept)
    figures = {"figure": args.name, **_describe(folder), **figures}
    out = args.files.out
    written = args.files.write_json(args.json, figures, indent=1)
    print(text, file=out)
    drawn = picture is not None and args.files.try_write(picture, plot, f"the plot {picture}")
    places = [f"figures in {args.json}"] * written + [f"plot in {picture}"] * drawn
    if places:
        print(", ".join(places), file=out)
    return 0


def _describe(folder: Path) -> dict[str, Any]:
    """What was measured."""
    from importlib.metadata import version

    from vrex.sw.videollm.checkpoint import model_digest

    return {"vrex": version("vrex"), "model": model_digest(folder)}


Measured = tuple[dict[str, Any], str, Callable[[], bytes]]
"""Figures, their table, and what draws them."""


def _watch(args: argparse.Namespace, clips: "list[Clip]", folder: Path, kept: Kept) -> Measured:
    """A figure of its own module."""
    from importlib import import_module

    module = import_module(f"vrex.sw.evaluation.figures.{args.name}")
    figures = module.measure(_bench(folder, kept), clips)
    return figures, module.table(figures), lambda: module.plot(figures)


def _bench(folder: Path, kept: Kept) -> Any:
    """A model whose cells show progress."""
    from tqdm import tqdm

    from vrex.sw.evaluation.cells import Bench, VideoCell
    from vrex.sw.retrieval.policies.account import Reporting

    class Shown(Bench):
        def run(
            self, cell: VideoCell, wrap: Callable[[Reporting], Reporting] = lambda policy: policy
        ) -> dict[str, Any]:
            bar.set_description(f"{cell.point.policy}, {cell.clip.frames} frames")
            result = super().run(cell, wrap)
            bar.update()
            return result

    # disable=None: no bar where stderr is no terminal.
    bar = tqdm(unit="video", disable=None)
    return Shown(folder, kept.calibration)


def _sweep(args: argparse.Namespace, clips: "list[Clip]", folder: Path, kept: Kept) -> Measured:
    """A figure out of cells, which are kept beside it."""
    from vrex.sw.evaluation.figures import clustering, sweeps
    from vrex.sw.evaluation.rows import make_rows
    from vrex.sw.evaluation.store import open_store

    points = sweeps.POINTS[args.name]
    with open_store(kept.cells, _describe(folder)["model"]) as store:
        _run_cells(args, points, clips, store, kept)
        rows = make_rows(store, points, clips)
    figures: dict[str, Any] = {"clips": [vars(clip) for clip in clips], "rows": rows}
    if args.name == "sensitivity":
        figures["values"] = sweeps.by_value(rows)
    text = sweeps.table(args.name, figures)
    if args.name == "clustering":
        figures["work"] = clustering.measure(_bench(folder, kept), clips)
        text += "\n\n" + clustering.table(figures["work"])
    return figures, text, lambda: sweeps.plot(args.name, figures)


def _run_cells(
    args: argparse.Namespace, points: "list[Point]", clips: "list[Clip]", store: Any, kept: Kept
) -> None:
    """Runs the missing cells behind a progress bar."""
    from tqdm import tqdm

    from vrex.sw.evaluation.cells import VideoCell
    from vrex.sw.evaluation.pool import run_cells

    cells = [VideoCell(point, clip) for clip in clips for point in points]
    jobs = args.jobs or len(os.sched_getaffinity(0))
    with tqdm(total=len(cells), unit="cell", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        run_cells(cells, store, args.model, kept.calibration, jobs, progress)
