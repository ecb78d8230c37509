"""A video session: a video streams in, questions are asked, codes and votes choose what is attended to.

A ProcStream video streams through the shipped checkpoint with its own questions, and one of ours at the end.
The retrieval runs on the host, or with `--backend rtl` on the simulated Verilog of a voter, every selection
of which is then compared with the golden model.

    python examples/video_session.py [--backend rtl]

It takes extra `llm`, with `rtl` extra `sim` and g++ as well. It ends with exit code 1 if an answer is wrong
or a result of the hardware differs.
"""

import argparse
import sys

import vrex
from vrex.sw.videollm.stream import Answered


def main() -> int:
    """Streams, asks and reports."""
    parser = argparse.ArgumentParser(description="A video session with retrieval.")
    parser.add_argument("--backend", choices=("golden", "rtl"), default="golden", help="default: %(default)s")
    backend = parser.parse_args().backend

    with vrex.open_session(
        "procstream:1",  # or the path of a video
        frames=64,
        knobs={"k": 64, "window": 4},
        config="tiny",
        backend=backend,
        check=backend == "rtl",
    ) as session:
        for event in session.stream():
            if isinstance(event, Answered):
                print(f"{event.time:5.1f} s  {event.question}: {event.text}")
        own = len(session.conversation)
        print(f"at the end  now: {session.ask('now')}")
        figures = session.figures()

    wrong = [turn for turn in figures["conversation"][:own] if turn["answer"] != turn["expected"]]
    print(f"{figures['ratio']['frame']:.0%} of the past attended to")
    print(f"{figures['rtl']['calls']} votes on the voter, {figures['rtl']['compared']} compared")
    return 1 if wrong or not own or figures["rtl"]["mismatches"] else 0


if __name__ == "__main__":
    sys.exit(main())
