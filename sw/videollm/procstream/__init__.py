"""ProcStream: synthetic videos of recipes, made of coloured shapes in motion, with questions and answers."""

from vrex.sw.videollm.procstream.files import Sidecar, read_sidecar, sidecar_path, write_mp4
from vrex.sw.videollm.procstream.needles import make_needles
from vrex.sw.videollm.procstream.procvideo import ProcVideo, make
from vrex.sw.videollm.procstream.script import Question, Step

__all__ = [
    "ProcVideo",
    "Question",
    "Sidecar",
    "Step",
    "make",
    "make_needles",
    "read_sidecar",
    "sidecar_path",
    "write_mp4",
]
