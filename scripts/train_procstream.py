"""Trains a streaming video LLM on ProcStream, in pieces: the same command goes on where the last one stopped.

    python scripts/train_procstream.py --level hard --out build/procstream-hard --device cuda --workers 12

DIR then holds the model as `vrex run --model DIR` takes it; DIR.training holds state, log and plot.
"""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.sw.cli.arguments import at_least, positive_float

SHAPE_OPTIONS = (
    *("patch", "vision_width", "vision_layers", "vision_heads"),
    *("width", "layers", "heads", "kv_heads", "head_dim", "ffn"),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    what = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder")
    what.add_argument("--minutes", type=positive_float, default=9.5, help="of this piece (default: 9.5)")
    what.add_argument("--device", default="cpu", help="cpu, or cuda with BF16 (default: %(default)s)")
    what.add_argument("--threads", type=at_least(1), metavar="N", help="of torch (default: its own choice)")
    what.add_argument("--workers", type=at_least(0), default=0, metavar="N", help="that draw videos")
    mix = what.add_argument_group("what is learnt; all pieces need the same")
    mix.add_argument("--level", default="easy", help="easy or hard (default: %(default)s)")
    mix.add_argument("--kinds", metavar="NAME,NAME", help="questions (default: all)")
    mix.add_argument(
        "--no-older", action="store_true", help="ask nothing about earlier recipes, as the shipped model was"
    )
    mix.add_argument("--lengths", default="96", metavar="N,N", help="frames of a video (default: 96)")
    how = what.add_argument_group("how; all pieces need the same")
    how.add_argument("--steps", type=at_least(1), metavar="N")
    how.add_argument("--batch", type=at_least(1), metavar="N", help="videos of the first length a step")
    how.add_argument("--rate", type=positive_float, metavar="R", help="peak of the learning rate")
    how.add_argument("--warmup", type=at_least(1), metavar="N", help="steps")
    how.add_argument("--seed", type=at_least(0), metavar="N")
    how.add_argument("--init", type=Path, metavar="DIR", help="begin with its weights, where they fit")
    how.add_argument("--test-every", type=at_least(1), metavar="N", help="steps")
    how.add_argument("--test-videos", type=at_least(1), metavar="N")
    shape = what.add_argument_group("shape (default: the shipped model's); all pieces need the same")
    for name in SHAPE_OPTIONS:
        shape.add_argument("--" + name.replace("_", "-"), type=at_least(1), metavar="N")
    return what


def make_plan(args: argparse.Namespace) -> Any:
    """The run that the words describe.

    Raises:
        UserError: a value is out of range or unknown.
    """
    from vrex.sw.videollm.procstream import level_named
    from vrex.sw.videollm.training.model import ModelShape
    from vrex.sw.videollm.training.samples import Mix
    from vrex.sw.videollm.training.trainer import Plan

    level = replace(level_named(args.level), older=not args.no_older)
    mix = Mix(level, tuple(args.kinds.split(","))) if args.kinds else Mix(level)
    shape = ModelShape(**_given(args, SHAPE_OPTIONS))
    try:
        lengths = tuple(map(at_least(1), args.lengths.split(",")))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--lengths: {error}") from error
    names = [each.name for each in fields(Plan) if each.name not in ("mix", "shape", "lengths")]
    return Plan(mix=mix, shape=shape, lengths=lengths, **_given(args, names))


def _given(args: argparse.Namespace, names: Any) -> dict[str, Any]:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def train(args: argparse.Namespace) -> None:
    """One piece of the run, behind a progress bar; says how far it is."""
    import torch
    from tqdm import tqdm

    from vrex.sw.videollm.training.trainer import Trainer

    if args.threads:
        torch.set_num_threads(args.threads)
    plan = make_plan(args)
    trainer = Trainer(plan, args.out, args.device, args.workers)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    print(f"{parameters:,} parameters, {2 * parameters / 1e6:.1f} MB in BF16; at step {trainer.step}")
    with tqdm(total=plan.steps, initial=trainer.step, unit="step", disable=None) as bar:

        def progress(step: int, entry: dict[str, Any]) -> None:
            bar.update(step - bar.n)
            if entry and entry["loss"] is not None:
                bar.set_postfix(loss=f"{entry['loss']:.3f}", skipped=entry["skipped"], refresh=False)

        finished = trainer.run(60 * args.minutes, progress)
    if trainer.log:
        entry = trainer.log[-1]
        shown = ", ".join(f"{kind} {right}/{asked}" for kind, (right, asked) in entry["accuracy"].items())
        loss = "none" if entry["loss"] is None else f"{entry['loss']:.4f}"
        print(f"step {entry['step']}: loss {loss}; right on test videos: {shown}")
    print(
        f"step {trainer.step} of {plan.steps}, model in {args.out}, log and plot in {trainer.folder}"
        + ("" if finished else "; the same command goes on")
    )


def main(words: list[str] | None = None) -> int:
    """Runs one command line; 2 is the user's mistake, told in one sentence."""
    args = parser().parse_args(words)
    try:
        train(args)
    except UserError as error:
        print(f"train_procstream: error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"train_procstream: error: {error.name} is missing; run make setup-dev", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train_procstream: interrupted; the same command goes on from the last state", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
