"""What the WTU publishes about its time."""

import pytest

from vrex.hw.dre.wtu.wtu import Wtu, search_cycles
from vrex.model.config import preset
from vrex.model.dre.wtu import Transform

EDGE = preset("edge")


@pytest.mark.parametrize(("clusters", "limit"), [(1024, 258), (4096, 834)])
def test_a_search_takes_three_passes_and_little_more(clusters: int, limit: int) -> None:
    """The testbench holds the unit to what this function says."""
    assert 3 * clusters // 16 < search_cycles(EDGE.wtu, clusters) <= limit
    for transform in Transform:
        assert search_cycles(EDGE.wtu, clusters, transform) <= limit + 27


def test_a_command_takes_its_load_and_its_searches() -> None:
    one, two = (
        Wtu.cycles(EDGE.wtu, 1024, 1, heads, Transform.RAW, bus_bits=EDGE.bus_bits) for heads in (1, 2)
    )
    row = 64 + search_cycles(EDGE.wtu, 1024)
    assert row + 64 < two - one < row + 80
    longer = Wtu.cycles(EDGE.wtu, 65_535, 1, 1, bus_bits=EDGE.bus_bits)
    assert 7 * 4096 < longer < 8.5 * 4096
