"""Each unit of the LXE is built from its own part of the configuration."""

import pytest
from amaranth.lib.wiring import Component

from vrex.hw.lxe.dpe import Dpe
from vrex.hw.lxe.lxe import Lxe
from vrex.hw.lxe.mac_tree import MacTree
from vrex.hw.lxe.sram import Sram
from vrex.hw.lxe.vpe import Vpe
from vrex.hw.tools.export import to_rtlil
from vrex.model.config import DpeConfig, LxeConfig, VpeConfig

DPE = DpeConfig(trees=2, inputs=4, rows=2)
VPE = VpeConfig(lanes=2)
LXE = LxeConfig(memory_kib=1, banks=2)


@pytest.mark.parametrize(
    "unit",
    [MacTree(DPE), Dpe(DPE), Vpe(VPE), Sram(LXE, dpe=DPE, vpe=VPE), Lxe(LXE, dpe=DPE, vpe=VPE)],
    ids=lambda unit: type(unit).__name__,
)
def test_a_unit_stands_by_itself(unit: Component) -> None:
    assert "module \\top" in to_rtlil(unit, "top")


@pytest.mark.parametrize(
    ("lxe", "dpe", "vpe", "message"),
    [
        (LXE, DpeConfig(trees=8, inputs=4), VPE, "must not exceed dpe.inputs"),
        (LXE, DPE, VpeConfig(lanes=8), "must not exceed dpe.inputs"),
        (
            LxeConfig(memory_kib=513),
            DPE,
            VPE,
            "must be whole lines of 2 x dpe.inputs bytes in all banks",
        ),
    ],
)
def test_parts_that_make_no_lxe(lxe: LxeConfig, dpe: DpeConfig, vpe: VpeConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lxe(lxe, dpe=dpe, vpe=vpe)
