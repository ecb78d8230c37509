"""Parts of a build are made once, and again when anything that they depend on or they themselves changed."""

from pathlib import Path

import pytest

from vrex.errors import UserError
from vrex.files import sum_of
from vrex.hw.tools.fpga.pieces import Pieces


class Maker:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, int]:
        self.times += 1
        return {"made": self.times}


def test_a_part_is_made_once(tmp_path: Path) -> None:
    make, pieces = Maker(), Pieces(tmp_path / "cache")
    first = pieces.make("cells", ["design", "flags"], make)
    again = Pieces(tmp_path / "cache").make("cells", ["design", "flags"], make)
    assert (first.value, first.reused) == ({"made": 1}, False)
    assert (again.value, again.reused, again.digest) == ({"made": 1}, True, first.digest)
    assert again.seconds == first.seconds


@pytest.mark.parametrize(
    ("step", "depends"),
    [
        ("place", ["design", "flags"]),
        ("cells", ["design"]),
        ("cells", ["design", "other"]),
        ("cells", ["designflags"]),
    ],
)
def test_another_part_is_made_anew(step: str, depends: list[str], tmp_path: Path) -> None:
    make, pieces = Maker(), Pieces(tmp_path)
    pieces.make("cells", ["design", "flags"], make)
    assert pieces.make(step, depends, make).value == {"made": 2}


def test_a_damaged_part_is_made_anew(tmp_path: Path) -> None:
    make, pieces = Maker(), Pieces(tmp_path)
    path = pieces.path("cells", ["design"])
    for damage in (
        lambda: path.write_bytes(path.read_bytes()[:-1]),
        lambda: path.write_bytes(b"an older one"),
        lambda: sum_of(path).unlink(),
        lambda: path.unlink(),
    ):
        before = pieces.make("cells", ["design"], make).value["made"]
        damage()
        made = pieces.make("cells", ["design"], make)
        assert (made.value, made.reused) == ({"made": before + 1}, False)


def test_what_failed_is_not_kept(tmp_path: Path) -> None:
    def fail() -> None:
        raise UserError("no room")

    pieces = Pieces(tmp_path)
    with pytest.raises(UserError, match="no room"):
        pieces.make("place", ["design"], fail)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the build can't be kept in .*; set VREX_CACHE"):
        Pieces(tmp_path / "file" / "cache").make("cells", [], Maker())
