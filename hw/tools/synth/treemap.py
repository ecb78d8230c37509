"""Rectangles whose areas are given numbers, packed into one (squarified: Bruls, Huizing, van Wijk, 2000)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Box:
    """What a rectangle stands for, and its size in any unit."""

    name: str
    size: float


class Place(NamedTuple):
    """A rectangle: its left and upper edge, its width and height."""

    x: float
    y: float
    width: float
    height: float


def arrange(boxes: Iterable[Box], place: Place) -> Iterator[tuple[Box, Place]]:
    """Places of the boxes that have a size, the largest first, in a rectangle that they fill."""
    x, y, width, height = place
    left = sorted((box for box in boxes if box.size > 0), key=lambda box: -box.size)
    if not left or width <= 0 or height <= 0:
        return
    scale = width * height / sum(box.size for box in left)
    while left:
        # A row along the shorter side takes boxes as long as that makes its worst one squarer.
        side = min(width, height)
        count = 1
        while count < len(left) and _worst(left[: count + 1], side, scale) <= _worst(
            left[:count], side, scale
        ):
            count += 1
        row, left = left[:count], left[count:]
        depth = scale * sum(box.size for box in row) / side
        at = 0.0
        for box in row:
            length = scale * box.size / depth
            if width >= height:
                yield box, Place(x, y + at, depth, length)
            else:
                yield box, Place(x + at, y, length, depth)
            at += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth


def _worst(row: list[Box], side: float, scale: float) -> float:
    """The largest ratio of sides in a row of boxes."""
    depth = scale * sum(box.size for box in row) / side
    return max(max(depth**2 / (scale * box.size), scale * box.size / depth**2) for box in row)
