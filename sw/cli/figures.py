"""vrex figures: the paper's figures, and what it leaves open, measured on the benchmark's videos."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.files import check_writable, write_file
from vrex.sw.cli.arguments import at_least

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
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the figures go")
    parser.add_argument("--png", type=Path, metavar="OUT", help="where the plot goes (default: beside them)")
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
    parser.add_argument("--model", type=Path, metavar="DIR", help="checkpoint (default: the shipped one)")


def _lengths(words: str) -> list[int]:
    return list(dict.fromkeys(at_least(1)(word) for word in words.split(",")))


def execute(args: argparse.Namespace) -> int:
    """Measures, prints the table and writes figures and plot."""
    picture = args.png or args.json.with_suffix(".png")
    for path in (args.json, picture):
        check_writable(path)
    if picture == args.json:
        raise UserError(f"--json and the plot both name {picture}; give them different names")

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
    figures, text, plot = (_sweep if args.name in sweeps.POINTS else _watch)(args, clips, folder)
    figures = {"figure": args.name, **_describe(folder), **figures}
    write_file(args.json, (json.dumps(figures, indent=1) + "\n").encode())
    write_file(picture, plot)
    print(text)
    print(f"figures in {args.json}, plot in {picture}")
    return 0


def _describe(folder: Path) -> dict[str, Any]:
    """What was measured."""
    from importlib.metadata import version

    from vrex.sw.videollm.checkpoint import model_digest

    return {"vrex": version("vrex"), "model": model_digest(folder)}


def _watch(args: argparse.Namespace, clips: "list[Clip]", folder: Path) -> tuple[dict[str, Any], str, bytes]:
    """A figure of its own module."""
    from importlib import import_module

    module = import_module(f"vrex.sw.evaluation.figures.{args.name}")
    figures = module.measure(_bench(args, folder), clips)
    return figures, module.table(figures), module.plot(figures)


def _bench(args: argparse.Namespace, folder: Path) -> Any:
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
    return Shown(folder, _calibration(args))


def _calibration(args: argparse.Namespace) -> Path:
    path: Path = args.json.with_name(args.json.stem + ".calibration.npz")
    return path


def _sweep(args: argparse.Namespace, clips: "list[Clip]", folder: Path) -> tuple[dict[str, Any], str, bytes]:
    """A figure out of cells, which are kept beside it."""
    from vrex.sw.evaluation.figures import clustering, sweeps
    from vrex.sw.evaluation.rows import make_rows
    from vrex.sw.evaluation.store import open_store, store_path

    points = sweeps.POINTS[args.name]
    with open_store(store_path(args.json), _describe(folder)["model"]) as store:
        _run_cells(args, points, clips, store)
        rows = make_rows(store, points, clips)
    figures: dict[str, Any] = {"clips": [vars(clip) for clip in clips], "rows": rows}
    if args.name == "sensitivity":
        figures["values"] = sweeps.by_value(rows)
    text = sweeps.table(args.name, figures)
    if args.name == "clustering":
        figures["work"] = clustering.measure(_bench(args, folder), clips)
        text += "\n\n" + clustering.table(figures["work"])
    return figures, text, sweeps.plot(args.name, figures)


def _run_cells(args: argparse.Namespace, points: "list[Point]", clips: "list[Clip]", store: Any) -> None:
    """Runs the missing cells behind a progress bar."""
    from tqdm import tqdm

    from vrex.sw.evaluation.cells import VideoCell
    from vrex.sw.evaluation.pool import run_cells

    cells = [VideoCell(point, clip) for clip in clips for point in points]
    jobs = args.jobs or len(os.sched_getaffinity(0))
    with tqdm(total=len(cells), unit="cell", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.update(done - bar.n)

        run_cells(cells, store, args.model, _calibration(args), jobs, progress)
