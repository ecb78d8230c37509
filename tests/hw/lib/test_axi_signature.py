"""AXI4 as a signature: what it connects to, and how its signals are called in Verilog."""

import re
from typing import Any

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.burst import Windows, WindowsSignature
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.tools.export import to_rtlil, to_verilog

READ = {"araddr", "arlen", "arsize", "arburst", "arid", "arcache", "arprot", "arvalid", "arready"}
READ |= {"rid", "rdata", "rresp", "rlast", "rvalid", "rready"}
WRITE = {"awaddr", "awlen", "awsize", "awburst", "awid", "awcache", "awprot", "awvalid", "awready"}
WRITE |= {"wdata", "wstrb", "wlast", "wvalid", "wready", "bid", "bresp", "bvalid", "bready"}


class Bridge(wiring.Component):
    """One port behind the other; says whether the first window is empty."""

    s_axi: Axi4Interface
    m_axi: Axi4Interface
    windows: Windows
    empty: Any

    def __init__(self, signature: Axi4Signature) -> None:
        super().__init__(
            {
                "s_axi": In(signature),
                "m_axi": Out(signature),
                "windows": In(WindowsSignature()),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        connect(m, flipped(self.s_axi), flipped(self.m_axi))
        m.d.comb += self.empty.eq(self.windows.device_pages == 0)
        return m


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("write", [True, False])
def test_ports_have_the_standard_names(read: bool, write: bool) -> None:
    unit = Bridge(Axi4Signature(data_width=32, read=read, write=write))
    verilog = to_verilog(to_rtlil(unit, "bridge"), "bridge")
    ports = set(re.findall(r"^  (?:input|output) (?:\[\d+:0\] )?(\w+);", verilog, re.MULTILINE))
    names = (READ if read else set()) | (WRITE if write else set())
    expected = {f"{side}_axi_{name}" for side in "sm" for name in names}
    windows = {"device_base", "device_pages", "host_base", "host_pages"}
    assert ports - {"clk", "rst"} == expected | windows | {"empty"}


def test_widths() -> None:
    port = Axi4Signature(addr_width=40, data_width=256, id_width=6).create()
    assert [len(signal) for signal in (port.ar.addr, port.r.data, port.w.strb, port.b.id)] == [40, 256, 32, 6]


def test_ports_connect_to_their_equals_only() -> None:
    narrow, wide = (Axi4Signature(data_width=width) for width in (64, 128))
    port, equal, other = narrow.create(), narrow.flip().create(), wide.flip().create()
    m = Module()
    connect(m, port, equal)
    with pytest.raises(wiring.ConnectionError):
        connect(m, port, other)
    to_rtlil(m, "connected", ports=[])
    assert narrow == Axi4Signature(data_width=64) != wide
