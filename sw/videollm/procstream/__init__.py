"""ProcStream: synthetic videos of recipes, made of coloured shapes in motion, with questions and answers."""

from vrex.sw.videollm.procstream.files import Sidecar, read_sidecar, sidecar_path, write_mp4
from vrex.sw.videollm.procstream.levels import EASY, HARD, LEVELS, Level, level_named
from vrex.sw.videollm.procstream.needles import make_needles
from vrex.sw.videollm.procstream.procvideo import ProcVideo, make
from vrex.sw.videollm.procstream.script import Motion, Question, RecipeStep

__all__ = [
    "EASY",
    "HARD",
    "LEVELS",
    "Level",
    "Motion",
    "ProcVideo",
    "Question",
    "RecipeStep",
    "Sidecar",
    "level_named",
    "make",
    "make_needles",
    "read_sidecar",
    "sidecar_path",
    "write_mp4",
]
