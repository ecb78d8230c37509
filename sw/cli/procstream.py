"""vrex procstream: write a synthetic test video and the answers to its questions."""

import argparse

from vrex.errors import UserError
from vrex.files import is_plain
from vrex.sw.cli.arguments import OUTPUT_JSON, OUTPUT_MP4, at_least, positive_float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex procstream``."""
    parser.add_argument(
        "seed", type=at_least(0), nargs="?", metavar="SEED", help="which video: any number from 0 on"
    )
    parser.add_argument("--level", default="easy", metavar="NAME", help="easy or hard (default: %(default)s)")
    parser.add_argument(
        "--frames", type=at_least(1), default=96, metavar="N", help="length (default: %(default)s)"
    )
    parser.add_argument(
        "--fps", type=positive_float, default=2.0, help="frames a second (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=OUTPUT_MP4, metavar="FILE.mp4", help="where to write it")
    parser.add_argument(
        "--bayes",
        action="store_true",
        help="instead of a video: print which share of the level's questions anybody can answer at best",
    )
    parser.add_argument(
        "--json", type=OUTPUT_JSON, metavar="OUT", help="of --bayes: where the table goes, a plot beside it"
    )


def execute(args: argparse.Namespace) -> int:
    """Writes FILE.mp4 and FILE.json and names them, or prints the level's Bayes accuracies."""
    if args.bayes:
        return _bayes(args)
    if args.seed is None or args.output is None:
        raise UserError(
            "a video needs a SEED and --output FILE.mp4; give both, or --bayes for the level's table"
        )
    if args.json is not None:
        raise UserError("--json goes with --bayes; a video's answers are written beside it anyway")
    if args.output.suffix != ".mp4":
        raise UserError(f"--output {args.output} does not end in .mp4; give it that ending")
    from vrex.sw.videollm.procstream import level_named, make, write_mp4
    from vrex.sw.videollm.procstream.ideal import ideal_answers

    level = level_named(args.level)
    sidecar = args.output.with_suffix(".json")
    args.files.add_output(sidecar, "the sidecar of --output")
    video = make(args.seed, args.frames, args.fps, level=level)
    write_mp4(video, args.output)
    best = float(sum(share for _, share in ideal_answers(video)))
    print(
        f"{args.output}: {args.frames} frames at {args.fps:g}/s; {sidecar}: {len(video.questions)} questions,"
        f" of which an ideal observer answers {best:.1f} on average"
    )
    return 0


def _bayes(args: argparse.Namespace) -> int:
    if args.seed is not None or args.output is not None:
        raise UserError("--bayes is about a level, not a video; leave SEED and --output out")
    from vrex.sw.videollm.procstream import level_named
    from vrex.sw.videollm.procstream.ideal import describe, table

    level = level_named(args.level)
    picture = None
    if args.json is not None and is_plain(args.json):
        picture = args.json.with_suffix(".png")
        args.files.add_output(picture, "the plot beside --json")
    out = args.files.out
    description = describe(level)
    written = args.json is not None and args.files.write_json(args.json, description, indent=1)
    print(table(description), file=out)

    def draw() -> bytes:
        from vrex.sw.evaluation.reports.bayes import bayes_plot

        return bayes_plot(description)

    drawn = picture is not None and args.files.try_write(picture, draw, f"the plot {picture}")
    places = [f"figures in {args.json}"] * written + [f"plot in {picture}"] * drawn
    if places:
        print(", ".join(places), file=out)
    return 0
