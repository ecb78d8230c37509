"""Rectangles that fill a rectangle."""

import pytest

from vrex.hw.tools.synth.treemap import Box, Place, arrange

WHOLE = Place(10, 20, 600, 400)


def test_areas_are_as_given_and_fill_all() -> None:
    sizes = [6, 6, 4, 3, 2, 2, 1, 0]
    placed = list(arrange([Box(str(size), size) for size in sizes], WHOLE))
    assert [box.size for box, _ in placed] == sizes[:-1]
    for box, place in placed:
        assert place.width * place.height == pytest.approx(600 * 400 * box.size / 24)
        assert place.x >= 10 - 1e-6
        assert place.y >= 20 - 1e-6
        assert place.x + place.width <= 610 + 1e-6
        assert place.y + place.height <= 420 + 1e-6


def test_rectangles_do_not_overlap() -> None:
    places = [place for _, place in arrange([Box("", size) for size in range(1, 20)], WHOLE)]
    for number, one in enumerate(places):
        for other in places[:number]:
            beside = one.x + one.width <= other.x + 1e-6 or other.x + other.width <= one.x + 1e-6
            above = one.y + one.height <= other.y + 1e-6 or other.y + other.height <= one.y + 1e-6
            assert beside or above


def test_rectangles_are_not_long() -> None:
    """The example of the paper that the method is from: no ratio of sides above 25/9."""
    sizes = [6, 6, 4, 3, 2, 2, 1]
    for _, place in arrange([Box("", size) for size in sizes], Place(0, 0, 6, 4)):
        assert max(place.width / place.height, place.height / place.width) <= 25 / 9 + 1e-6


def test_nothing_fits_into_nothing() -> None:
    assert list(arrange([Box("a", 1)], Place(0, 0, 0, 5))) == []
    assert list(arrange([], WHOLE)) == []
