"""A video session: frames and questions come when they come, ReSV chooses what is attended to.

A ProcStream video streams through the shipped checkpoint, its questions are asked when they arise, and the
retrieval runs on the accelerator: its golden model, or with `--backend rtl` the simulated Verilog, every
result of which is then compared with the model.

    python examples/video_session.py [--backend rtl]

It takes extra `llm`, with `rtl` extra `sim` and g++ as well. It ends with exit code 1 if an answer is wrong
or a result of the hardware differs.
"""

import argparse
import sys

from vrex.model.config import preset
from vrex.sw.driver import open_transport
from vrex.sw.retrieval.policies import registry
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.live import LiveInfer
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.videollm import VideoLLM

FRAMES = 64


def main() -> int:
    """Streams, asks and reports."""
    parser = argparse.ArgumentParser(description="A video session with retrieval.")
    parser.add_argument("--backend", choices=("golden", "rtl"), default="golden", help="default: %(default)s")
    backend = parser.parse_args().backend

    model = VideoLLM.load()
    transport = open_transport(backend, preset("tiny"), check=backend == "rtl")
    settings = registry.make_settings("resv", {"th_r": 0.3, "window": 4})
    policy = registry.make_policy("resv", settings, Shape.of(model.config), transport=transport)

    video = make(1, FRAMES)
    session = LiveInfer(model, policy=lambda: policy, frame_fps=video.fps)
    session.load_video(video.frames)
    wrong = 0
    for question in video.questions:
        session.input_video_stream(question.time)
        session.input_query_stream(question.text, video_time=question.time)
        _, answer = session()
        wrong += answer != question.answer
        print(f"{question.time:5.1f} s  {question.text}: {answer}")
    report = policy.report()
    print(f"{report['ratio']['frame']:.0%} of the past attended to, {report['clusters']} clusters")
    print(f"{report['rtl']['calls']} commands, {report['rtl']['compared']} results compared")
    return 1 if wrong or report["rtl"]["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main())
