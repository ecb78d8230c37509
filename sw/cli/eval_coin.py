"""vrex eval-coin: compare retrieval policies on COIN's five tasks, on your copy of its videos."""

import argparse
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.sw.cli.arguments import (
    INPUT_FILE,
    INPUT_FOLDER,
    OUTPUT_JSON,
    SEARCHED_FOLDER,
    at_least,
    positive_float,
)
from vrex.sw.cli.common import run_missing
from vrex.sw.cli.paths import Kept, kept_beside
from vrex.sw.evaluation.coin.annotations import SPLITS, TASKS

if TYPE_CHECKING:
    from vrex.sw.evaluation.coin.annotations import Annotations, Case

NAMES = ("policy", "settings", "task", "video", "index", "conditions")
"""What a cell is known by."""
HEADER = ("policy", "settings", "task", "accuracy", "n", "to full", "ratio", "MB/case")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex eval-coin``."""
    data = parser.add_argument_group("data")
    data.add_argument("--annotations", type=INPUT_FILE, required=True, metavar="FILE", help="COIN.json")
    data.add_argument(
        "--videos", type=SEARCHED_FOLDER, required=True, metavar="DIR", help="holds NAME.mp4, NAME.webm, ..."
    )
    data.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    data.add_argument(
        "--tasks",
        type=_tasks,
        default=list(TASKS),
        metavar="NAME,NAME",
        help=f"of {', '.join(TASKS)} (default: all)",
    )
    data.add_argument("--limit", type=at_least(1), metavar="N", help="at most N questions of each task")
    data.add_argument(
        "--fps", type=positive_float, default=2.0, help="frames a second (default: %(default)s)"
    )
    what = parser.add_argument_group("model and policies")
    what.add_argument(
        "--model",
        type=INPUT_FOLDER,
        metavar="DIR",
        help="checkpoint, or with --adapter and --vision its language model (default: the shipped one)",
    )
    what.add_argument(
        "--adapter", type=INPUT_FOLDER, metavar="DIR", help="LoRA adapter with the connector (PEFT)"
    )
    what.add_argument("--vision", type=INPUT_FOLDER, metavar="DIR", help="SigLIP model")
    what.add_argument("--stream-weights", action="store_true", help="as for vrex run")
    what.add_argument(
        "--max-answer", type=at_least(1), default=512, metavar="N", help="tokens (default: %(default)s)"
    )
    what.add_argument("--policies", default="full,resv", metavar="NAME,NAME", help="default: %(default)s")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[POLICY.]KNOB=VALUE,VALUE",
        help="values of a knob, as for vrex eval (repeatable)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=OUTPUT_JSON, required=True, metavar="OUT", help="where the rows go; - is stdout"
    )


def _tasks(words: str) -> list[str]:
    names = words.split(",")
    for name in names:
        if name not in TASKS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(TASKS)}")
    return list(dict.fromkeys(names))


def execute(args: argparse.Namespace) -> int:
    """Runs what the store lacks, and writes rows and table."""
    with kept_beside(args.json, args.files) as kept:
        return _evaluate(args, kept)


def _evaluate(args: argparse.Namespace, kept: Kept) -> int:
    from vrex.sw.evaluation.coin.annotations import read_annotations
    from vrex.sw.evaluation.coin.cells import CoinCell, Watcher, find_videos
    from vrex.sw.evaluation.coin.rows import make_rows
    from vrex.sw.evaluation.points import make_points
    from vrex.sw.evaluation.store import open_store
    from vrex.sw.videollm.videollm import VideoLLM

    points = make_points(args.policies.split(","), args.set)
    annotations, videos = read_annotations(args.annotations, args.split), find_videos(args.videos)
    for video in videos.values():
        args.files.add_input(video, "a video of --videos")
    cases = _cases(args, annotations, set(videos))
    model = VideoLLM.load(args.model, args.adapter, args.vision, not args.stream_weights)
    digest = _model_digest(args)
    watcher = Watcher(model, digest, annotations, videos, args.fps, args.max_answer, kept.calibration)
    conditions = _conditions(args)
    cells = [
        CoinCell(point, case, conditions) for group in cases.values() for case in group for point in points
    ]
    with open_store(kept.cells, digest, NAMES, ["vrex.sw.evaluation.coin"]) as store:
        run_missing(cells, store, watcher.run, kept.lasting)
        rows = make_rows(store, points, cases, conditions)
    missing = [video.name for video in annotations.videos if video.name not in videos]
    result = {**_describe(args, digest), "missing_videos": missing, "rows": rows}
    out = args.files.out
    written = args.files.write_json(args.json, result, indent=1)
    print(_table(rows), file=out)
    if missing:
        print(
            f"{len(missing)} of {len(annotations.videos)} videos are not in {args.videos} and were left out",
            file=out,
        )
    if written:
        print(kept.where("rows", args.json, "answers"), file=out)
    return 0


def _cases(args: argparse.Namespace, annotations: "Annotations", there: set[str]) -> dict[str, "list[Case]"]:
    """Questions by task, about the videos that are there.

    Raises:
        UserError: a task has none.
    """
    from vrex.sw.evaluation.coin.annotations import make_cases

    known = [video for video in annotations.videos if video.name in there]
    if not known:
        raise UserError(
            f"--videos {args.videos}: holds none of the {len(annotations.videos)} videos of split "
            f"{args.split!r}; name them as the annotations do"
        )
    cases = {task: make_cases(known, task)[: args.limit] for task in args.tasks}
    for task, group in cases.items():
        if not group:
            raise UserError(
                f"the {len(known)} videos give no question of task {task}; leave it out of --tasks"
            )
    return cases


def _model_digest(args: argparse.Namespace) -> str:
    """Of all files that the model is made of."""
    from vrex.sw.videollm.checkpoint import SHIPPED, model_digest

    return "+".join(model_digest(path) for path in (args.model or SHIPPED, args.adapter, args.vision) if path)


def _conditions(args: argparse.Namespace) -> str:
    """What answers depend on besides model, policy and question."""
    import hashlib

    read = hashlib.sha256(args.annotations.read_bytes()).hexdigest()
    return f"annotations {read[:16]}, {args.fps:g} frames/s, {args.max_answer} tokens"


def _describe(args: argparse.Namespace, digest: str) -> dict[str, Any]:
    """What the rows were measured on."""
    from importlib.metadata import version

    from vrex.sw.evaluation.bootstrap import CONFIDENCE, RESAMPLES

    return {
        "vrex": version("vrex"),
        "model": digest,
        "annotations": args.annotations.name,
        "split": args.split,
        "fps": args.fps,
        "limit": args.limit,
        "conditions": _conditions(args),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    """The rows, aligned; the ratio is frame / text in percent."""
    from vrex.sw.evaluation.reports.rows import (
        difference_text,
        interval_text,
        percent,
        settings_text,
        shown_knobs,
    )
    from vrex.sw.evaluation.reports.table import aligned

    knobs = shown_knobs(rows)
    lines: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        accuracy = f"{row['accuracy']:.3f} [{interval_text(row)}]"
        ratio = f"{percent(row['ratio_frame'])}/{percent(row['ratio_text'])}"
        size = f"{row['bytes'] / 1e6:.1f}"
        start = (row["policy"], settings_text(row, knobs), row["task"], accuracy)
        lines.append((*start, str(row["n"]), difference_text(row), ratio, size))
    return aligned(lines)
