"""What reader and writer share: the port, requests cut into bursts inside the windows, the time-out."""

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.stream import delay
from vrex.model.config import Config

ADDRESS_BITS = 48
"""Of a request; the port has 64, the upper ones 0."""

PAGE_BITS = 12
PAGE_NUMBER_BITS = ADDRESS_BITS - PAGE_BITS
LENGTH_BITS = 24
ID_BITS = 4
INCR = 1
CACHE = 0b0011
"""AxCACHE: normal memory, not cached, bufferable."""
PROT = 0b010
"""AxPROT: unprivileged, not secure, data."""

REQUEST = data.StructLayout({"address": ADDRESS_BITS, "bytes": LENGTH_BITS})
"""Bytes [address, address + bytes), at least one."""

LIMITS = {
    "device_base": In(PAGE_NUMBER_BITS),
    "device_pages": In(PAGE_NUMBER_BITS),
    "host_base": In(PAGE_NUMBER_BITS),
    "host_pages": In(PAGE_NUMBER_BITS),
    "timeout": In(32),
}
"""Members: first 4 KiB page and pages of both windows, and the time-out in cycles (0: never)."""


class Error(enum.Enum, shape=2):
    """How a request ended; the memory's data are good only with NONE."""

    NONE = 0
    RESPONSE = 1
    TIMEOUT = 2
    OUTSIDE = 3


def beat_layout(bus_bits: int) -> data.StructLayout:
    """A beat of a request's answer; `last` marks the last of the request."""
    return data.StructLayout({"data": bus_bits, "last": 1, "error": Error})


def _address_channel(name: str) -> dict[str, Any]:
    fields = {"addr": 64, "len": 8, "size": 3, "burst": 2, "id": ID_BITS, "cache": 4, "prot": 3}
    members = {f"m_axi_{name}{field}": Out(bits) for field, bits in fields.items()}
    return members | {f"m_axi_{name}valid": Out(1), f"m_axi_{name}ready": In(1)}


def read_members(config: Config) -> dict[str, Any]:
    """Members AR and R of the port, by their standard names."""
    fields = {"data": config.bus_bits, "id": ID_BITS, "resp": 2, "last": 1, "valid": 1}
    members = {f"m_axi_r{field}": In(bits) for field, bits in fields.items()}
    return _address_channel("ar") | members | {"m_axi_rready": Out(1)}


def write_members(config: Config) -> dict[str, Any]:
    """Members AW, W and B of the port, by their standard names."""
    fields = {"data": config.bus_bits, "strb": config.bus_bytes, "last": 1, "valid": 1}
    members = {f"m_axi_w{field}": Out(bits) for field, bits in fields.items()}
    members |= {"m_axi_wready": In(1), "m_axi_bready": Out(1)}
    return (
        _address_channel("aw")
        | members
        | {f"m_axi_b{field}": In(bits) for field, bits in {"id": ID_BITS, "resp": 2, "valid": 1}.items()}
    )


def axi_members(config: Config) -> dict[str, Any]:
    """Members of a whole AXI4 master port, `m_axi_*`."""
    return read_members(config) | write_members(config)


def connect_members(m: Module, owner: Any, part: Any, members: dict[str, Any]) -> None:
    """Leads members of an inner component to the members of the same names of its owner."""
    for name, member in members.items():
        inner, outer = getattr(part, name), getattr(owner, name)
        m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)


def beat_shift(config: Config) -> int:
    """Address bits within a beat."""
    return config.bus_bytes.bit_length() - 1


def request_beats(config: Config, request: Any) -> Any:
    """Beats that hold a request's bytes."""
    shift = beat_shift(config)
    # Whole beats of them, and up to two for what the offset in the first beat and the rest in the last make.
    low = request.address[:shift] + request.bytes[:shift]
    some, two = low[:shift].any(), low[shift]
    return (Cat(C(1, 1), request.bytes[shift:]) + Cat(some, two))[1 : LENGTH_BITS - shift + 2]


def burst_layout(config: Config) -> data.StructLayout:
    """A burst: number of its first beat, beats, whether it is the request's last and may be issued."""
    return data.StructLayout(
        {
            "beat": ADDRESS_BITS - beat_shift(config),
            "beats": range(config.kvmu.burst_beats + 1),
            "last": 1,
            "inside": 1,
        }
    )


def drive_address(m: Module, port: Any, name: str, config: Config) -> Signal:
    """Registers of an address channel; returns them, a burst with its id, to be set where it is issued."""
    held = Signal(data.StructLayout({"burst": burst_layout(config), "id": ID_BITS}), name=f"held_{name}")
    shift = beat_shift(config)
    values = {
        "addr": held.burst.beat << shift,
        "len": held.burst.beats - 1,
        "size": shift,
        "burst": INCR,
        "id": held.id,
        "cache": CACHE,
        "prot": PROT,
    }
    m.d.comb += [getattr(port, f"m_axi_{name}{field}").eq(value) for field, value in values.items()]
    return held


class BurstPlanner(wiring.Component):
    """Cuts requests into bursts, one every other cycle; a request's first comes three cycles after it.

    Whether it moves on is a register, and so is whether it takes a request. A burst outside the windows ends
    its request. So does one past the last address, and a request for no bytes.

    Args:
        config: accelerator; `bus_bits` and `kvmu.burst_beats` matter.

    Members:
        LIMITS (without the time-out).
        request: what to cut.
        burst: bursts in order.
        drop: with a burst that is taken: its request ends with it.
        busy: a request or a burst is in work.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        windows = {name: member for name, member in LIMITS.items() if name != "timeout"}
        super().__init__(
            windows
            | {
                "request": In(stream.Signature(REQUEST)),
                "burst": Out(stream.Signature(burst_layout(config))),
                "drop": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        shift, longest = beat_shift(self.config), self.config.kvmu.burst_beats
        request, burst = self.request.payload, self.burst
        # One bit more than an address has, to notice a request that runs past the end.
        at, left = Signal(ADDRESS_BITS - shift + 1), Signal(LENGTH_BITS - shift + 1)
        cutting, empty = Signal(), Signal()
        cut, cut_valid, last = Signal(burst_layout(self.config)), Signal(), Signal()
        # Beats up to the end of the burst that begins at `at`.
        room = Signal(range(longest + 1))
        ends = left <= room
        go = ~burst.valid
        inside = self._inside(m, at[PAGE_BITS - shift :], empty, go)
        m.d.comb += self.busy.eq(cutting | cut_valid | burst.valid)
        with m.If(go):
            m.d.sync += [
                burst.payload.eq(cut),
                burst.payload.inside.eq(inside),
                burst.payload.last.eq(cut.last | ~inside),
                burst.valid.eq(cut_valid),
                last.eq(cut.last),
                cut.beat.eq(at),
                cut.beats.eq(Mux(ends, left, room)),
                cut.last.eq(ends),
                cut_valid.eq(cutting),
                at.eq(at + room),
                left.eq(left - room),
                room.eq(longest),
                cutting.eq(cutting & ~ends),
            ]
        with m.Elif(burst.ready):
            m.d.sync += burst.valid.eq(0)
            # The request's next burst, if it has one, is in the stage before.
            with m.If((self.drop | ~burst.payload.inside) & ~last):
                m.d.sync += [cut_valid.eq(0), cutting.eq(cutting & cut.last)]
        m.d.comb += self.request.ready.eq(~cutting)
        with m.If(self.request.ready):
            m.d.sync += [
                at.eq(request.address[shift:]),
                room.eq(longest - (request.address >> shift)[: longest.bit_length() - 1]),
                left.eq(request_beats(self.config, request)),
                empty.eq(request.bytes == 0),
                cutting.eq(self.request.valid),
            ]
        return m

    def _inside(self, m: Module, page: Any, empty: Any, go: Any) -> Any:
        """Whether a window holds the page (one bit more than a page number has), one `go` later."""
        hits = []
        for name in ("device", "host"):
            base, pages = getattr(self, f"{name}_base"), getattr(self, f"{name}_pages")
            distance = Signal(PAGE_NUMBER_BITS, name=f"{name}_distance")
            below = Signal(name=f"{name}_below")
            with m.If(go):
                m.d.sync += Cat(distance, below).eq(page[:PAGE_NUMBER_BITS] - base)
            hits.append(~below & (distance < pages))
        good = Signal()
        with m.If(go):
            m.d.sync += good.eq(~page[-1] & ~empty)
        return good & (hits[0] | hits[1])


class Watchdog(wiring.Component):
    """Notices that nothing has moved for too long.

    Members:
        timeout: cycles, 0 for never.
        running: something is awaited.
        moved: something came or went.
        expired: one cycle after the last of `timeout` cycles in a row that ran without a move; something may
            move just then.
    """

    def __init__(self) -> None:
        super().__init__({"timeout": In(32), "running": In(1), "moved": In(1), "expired": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        left, last = Signal(32), Signal()
        # What runs and moves is at the end of long paths, what expires a time-out at the start of others.
        waiting = delay(m, self.running & ~self.moved, 1, "waiting", reset=True)
        m.d.sync += [left.eq(self.timeout), last.eq(self.timeout == 1)]
        with m.If(waiting):
            m.d.sync += [left.eq(left - 1), last.eq(left == 2)]
        m.d.comb += self.expired.eq(waiting & last)
        return m
