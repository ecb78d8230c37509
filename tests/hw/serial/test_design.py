"""What a board's design is made of; `tests/sw/driver` runs it."""

import gc

import pytest

from vrex.hw.core.core import CORE_ID_BITS
from vrex.hw.fpga import designs
from vrex.hw.fpga.boards import BOARDS
from vrex.hw.serial.design import SerialDesign
from vrex.model.config import preset

CONFIG = preset("tiny")

# Designs whose ports are all that is looked at, and those that are refused.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


def test_ports() -> None:
    kvpu, dre, core = (designs.make(BOARDS["ulx3s"], name, CONFIG, 25) for name in ("kvpu", "dre", "core"))
    bytes_only = SerialDesign(CONFIG, unit="dre", divisor=None, memory_bytes=1 << 25)
    assert set(kvpu.signature.members) == {"rx", "tx"}
    assert set(dre.signature.members) == {"rx", "tx", "m_axi", "memory_reset"}
    assert set(bytes_only.signature.members) == {"received", "send", "m_axi", "memory_reset"}
    assert core.signature.members.keys() == dre.signature.members.keys()
    assert dre.memory_bytes == core.memory_bytes == 32 << 20
    # An id more than the DRE's own has bits: whose a burst is.
    assert (len(dre.m_axi.ar.id), len(dre.m_axi.r.data)) == (5, CONFIG.bus_bits)
    assert len(core.m_axi.ar.id) == CORE_ID_BITS + 1
    del kvpu, dre, core, bytes_only
    gc.collect()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"unit": "lxe", "divisor": 4}, "no design of unit 'lxe': choose one of kvpu, dre, core"),
        ({"unit": "core", "divisor": 4}, "memory_bytes must be a power of two above 4096, not 0"),
        ({"unit": "kvpu", "divisor": 4, "memory_bytes": 1 << 25}, "a KVPU has no memory"),
        ({"unit": "kvpu", "divisor": 3}, "at least 4 clock cycles, not 3"),
        ({"unit": "dre", "divisor": 4}, "memory_bytes must be a power of two above 4096, not 0"),
    ],
)
def test_designs_that_there_are_not(options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SerialDesign(CONFIG, **options)  # type: ignore[arg-type]
    gc.collect()
