"""The synthetic world of ProcStream: shapes, actions, colours and the recipes that chain them into steps.

The names and recipes are those that the shipped checkpoint was trained on, so its `config.json`
(key `procstream`) is their only source.
"""

import json
from importlib import resources
from typing import Any, Final

import numpy as np

CHECKPOINT_CONFIG: Final = "checkpoints/procstream-tiny/config.json"


def _load() -> dict[str, Any]:
    text = (resources.files("vrex.sw.videollm") / CHECKPOINT_CONFIG).read_text(encoding="utf-8")
    return json.loads(text)["procstream"]


_config = _load()

SHAPES: Final = tuple(_config["shapes"])
ACTIONS: Final = tuple(_config["actions"])
COLORS: Final = tuple(_config["colors"])
RECIPES: Final = tuple(tuple(recipe) for recipe in _config["tasks"])
"""Each recipe is 4 to 6 distinct step numbers (shape * 6 + action). Recipe n is called `taskn`."""

RGB: Final = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.2, 0.3, 1.0),
    "yellow": (1.0, 1.0, 0.1),
    "magenta": (1.0, 0.1, 1.0),
    "cyan": (0.1, 1.0, 1.0),
    "white": (1.0, 1.0, 1.0),
    "orange": (1.0, 0.55, 0.1),
}
"""Red, green and blue of each colour, 0 to 1. The checkpoint names the colours but not these values."""

GREY: Final = len(COLORS)
"""Colour number of objects that belong to no recipe; nobody asks about it."""
PALETTE: Final = np.array([*(RGB[name] for name in COLORS), (0.5, 0.5, 0.5)])
"""float64 [colours + 1, 3], row i = colour number i, the last one `GREY`."""

STEPS: Final = len(SHAPES) * len(ACTIONS)
"""Step numbers count from 0 up to here."""


def step_name(step: int) -> str:
    """`SHAPE ACTION` of a step number, e.g. `"circle slide"` for 0."""
    shape, action = divmod(step, len(ACTIONS))
    return f"{SHAPES[shape]} {ACTIONS[action]}"
