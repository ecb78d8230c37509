"""vrex procstream: write a synthetic test video and the answers to its questions."""

import argparse
from pathlib import Path

from vrex.sw.commands.arguments import at_least, positive_float
from vrex.sw.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex procstream``."""
    parser.add_argument("seed", type=at_least(0), metavar="SEED", help="which video: any number from 0 on")
    parser.add_argument(
        "--frames", type=at_least(1), default=96, metavar="N", help="length (default: %(default)s)"
    )
    parser.add_argument(
        "--fps", type=positive_float, default=2.0, help="frames a second (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE.mp4", help="where to write it"
    )


def execute(args: argparse.Namespace) -> int:
    """Writes FILE.mp4 and FILE.json and names them."""
    if args.output.suffix != ".mp4":
        raise UserError(f"--output {args.output} does not end in .mp4; give it that ending")
    from vrex.sw.files import check_writable
    from vrex.sw.videollm.procstream import make, write_mp4

    check_writable(args.output)
    video = make(args.seed, args.frames, args.fps)
    write_mp4(video, args.output)
    sidecar = args.output.with_suffix(".json")
    print(
        f"{args.output}: {args.frames} frames at {args.fps:g}/s; {sidecar}: {len(video.questions)} questions"
    )
    return 0
