"""What reader and writer share: the port, requests cut into bursts inside the windows, the time-out."""

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.signature import ID_BITS, AddressChannel
from vrex.hw.lib.stream import delay

ADDRESS_BITS = 48
"""Of a request; the port has 64, the upper ones 0."""

PAGE_BITS = 12
PAGE_NUMBER_BITS = ADDRESS_BITS - PAGE_BITS
LENGTH_BITS = 24
INCR = 1
CACHE = 0b0011
"""AxCACHE: normal memory, not cached, bufferable."""
PROT = 0b010
"""AxPROT: unprivileged, not secure, data."""

REQUEST = data.StructLayout({"address": ADDRESS_BITS, "bytes": LENGTH_BITS})
"""Bytes [address, address + bytes), at least one."""


class Windows(wiring.PureInterface):
    """The two windows that accesses must stay in; see `WindowsSignature`."""

    device_base: Signal
    device_pages: Signal
    host_base: Signal
    host_pages: Signal


class WindowsSignature(wiring.Signature):
    """The two windows that accesses must stay in, from the side that sets them.

    Members:
        device_base, host_base: number of the window's first 4 KiB page.
        device_pages, host_pages: its pages, 0 for an empty window.
    """

    def __init__(self) -> None:
        names = ("device_base", "device_pages", "host_base", "host_pages")
        super().__init__({name: Out(PAGE_NUMBER_BITS) for name in names})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WindowsSignature) and self.members == other.members

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> Windows:
        """The windows' signals."""
        return Windows(self, path=path, src_loc_at=1 + src_loc_at)


class Error(enum.Enum, shape=2):
    """How a request ended; the memory's data are good only with NONE."""

    NONE = 0
    RESPONSE = 1
    TIMEOUT = 2
    OUTSIDE = 3


def beat_layout(bus_bits: int) -> data.StructLayout:
    """A beat of a request's answer; `last` marks the last of the request."""
    return data.StructLayout({"data": bus_bits, "last": 1, "error": Error})


def beat_shift(bus_bits: int) -> int:
    """Address bits within a beat."""
    return (bus_bits // 8).bit_length() - 1


def request_beats(bus_bits: int, request: Any) -> Any:
    """Beats that hold a request's bytes."""
    shift = beat_shift(bus_bits)
    # The whole beats, and up to two more for the offset in the first beat and the rest in the last.
    low = request.address[:shift] + request.bytes[:shift]
    one, two = low[:shift].any(), low[shift]
    return (Cat(C(1, 1), request.bytes[shift:]) + Cat(one, two))[1 : LENGTH_BITS - shift + 2]


def burst_layout(bus_bits: int, burst_beats: int) -> data.StructLayout:
    """A burst: number of its first beat, beats, whether it is the request's last and may be issued."""
    return data.StructLayout(
        {
            "beat": ADDRESS_BITS - beat_shift(bus_bits),
            "beats": range(burst_beats + 1),
            "last": 1,
            "inside": 1,
        }
    )


def drive_address(m: Module, channel: AddressChannel, bus_bits: int, burst_beats: int) -> Any:
    """Registers behind an address channel; returns them, a burst and its id, for the caller to set."""
    held: Any = Signal(
        data.StructLayout({"burst": burst_layout(bus_bits, burst_beats), "id": ID_BITS}), name="burst_held"
    )
    shift = beat_shift(bus_bits)
    m.d.comb += [
        channel.addr.eq(held.burst.beat << shift),
        channel.len.eq(held.burst.beats - 1),
        channel.size.eq(shift),
        channel.burst.eq(INCR),
        channel.id.eq(held.id),
        channel.cache.eq(CACHE),
        channel.prot.eq(PROT),
    ]
    return held


class BurstPlanner(wiring.Component):
    """Cuts requests into bursts, one every other cycle; a request's first comes three cycles after it.

    A burst that is not inside a window ends its request. So does one past the last address, and a request for
    no bytes.

    Args:
        bus_bits: width of a beat.
        burst_beats: most beats of a burst, a power of two.

    Members:
        windows: where bursts may go.
        request: what to cut.
        burst: bursts in order.
        drop: with a burst that is taken: its request ends with it.
        busy: a request is being cut or a burst waits.
    """

    windows: Windows
    request: stream.Interface
    burst: stream.Interface
    drop: Signal
    busy: Signal

    def __init__(self, bus_bits: int, *, burst_beats: int) -> None:
        self.bus_bits, self.burst_beats = bus_bits, burst_beats
        super().__init__(
            {
                "windows": In(WindowsSignature()),
                "request": In(stream.Signature(REQUEST)),
                "burst": Out(stream.Signature(burst_layout(bus_bits, burst_beats))),
                "drop": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: address and beat counters that emit a burst a step, and the comparison with the windows.

        Three stages: `at` and `left` (what is still to be cut), `cut` (a burst), `burst` (compared). They
        advance together whenever the last is empty, and `request.ready` is a register.
        """
        m = Module()
        shift, longest = beat_shift(self.bus_bits), self.burst_beats
        request, burst = self.request.payload, self.burst
        # One bit more than an address has, to notice a request that runs past the end.
        at = Signal(ADDRESS_BITS - shift + 1)
        left = Signal(LENGTH_BITS - shift + 1)
        cutting = Signal()
        empty = Signal()
        cut: Any = Signal(burst_layout(self.bus_bits, longest))
        cut_valid = Signal()
        last = Signal()
        # Beats from `at` to the next multiple of `burst_beats`: the most that a burst may have there.
        to_boundary = Signal(range(longest + 1))
        ends = left <= to_boundary
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
                cut.beats.eq(Mux(ends, left, to_boundary)),
                cut.last.eq(ends),
                cut_valid.eq(cutting),
                at.eq(at + to_boundary),
                left.eq(left - to_boundary),
                to_boundary.eq(longest),
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
                to_boundary.eq(longest - (request.address >> shift)[: longest.bit_length() - 1]),
                left.eq(request_beats(self.bus_bits, request)),
                empty.eq(request.bytes == 0),
                cutting.eq(self.request.valid),
            ]
        return m

    def _inside(self, m: Module, page: Any, empty: Any, go: Any) -> Any:
        """Whether a window holds the page (one bit more than a page number has), one `go` later."""
        hits, windows = [], self.windows
        for name, base, pages in (
            ("device", windows.device_base, windows.device_pages),
            ("host", windows.host_base, windows.host_pages),
        ):
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
    """Counts cycles without progress and reports when there were too many.

    Members:
        timeout: cycles, 0 for never.
        running: a transfer is awaited.
        moved: a transfer took place.
        expired: one cycle after the last of `timeout` cycles in a row that ran without a move; something may
            move just then.
    """

    timeout: Signal
    running: Signal
    moved: Signal
    expired: Signal

    def __init__(self) -> None:
        super().__init__({"timeout": In(32), "running": In(1), "moved": In(1), "expired": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a down-counter, reloaded in every cycle with progress."""
        m = Module()
        left = Signal(32)
        last = Signal()
        # Without a time-out the counter passes 0, and would come to 2 after 2^32 - 2 cycles.
        counts = Signal()
        # Registered: `running` and `moved` arrive late, and `expired` starts long paths.
        waiting = delay(m, self.running & ~self.moved, 1, "waiting", reset=True)
        m.d.sync += [
            counts.eq(self.timeout != 0),
            left.eq(self.timeout),
            last.eq(self.timeout == 1),
        ]
        with m.If(waiting):
            m.d.sync += [left.eq(left - 1), last.eq((left == 2) & counts)]
        m.d.comb += self.expired.eq(waiting & last)
        return m
