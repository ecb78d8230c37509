"""AXI4 as an Amaranth signature: the five channels of a port, with the standard's signal names.

In generated Verilog `m_axi.ar.addr` is `m_axi_araddr`, as usual (`vrex.hw.tools.export`).
"""

from typing import Any

from amaranth import Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ID_BITS = 4
"""Bits of a transaction's id, unless a port says otherwise."""


class AddressChannel(wiring.PureInterface):
    """AR or AW: the first address of a burst and its shape."""

    id: Signal
    addr: Signal
    len: Signal
    size: Signal
    burst: Signal
    cache: Signal
    prot: Signal
    valid: Signal
    ready: Signal


class ReadChannel(wiring.PureInterface):
    """R: a beat of a read burst."""

    id: Signal
    data: Signal
    resp: Signal
    last: Signal
    valid: Signal
    ready: Signal


class WriteChannel(wiring.PureInterface):
    """W: a beat of a write burst."""

    data: Signal
    strb: Signal
    last: Signal
    valid: Signal
    ready: Signal


class ResponseChannel(wiring.PureInterface):
    """B: the response to a write burst."""

    id: Signal
    resp: Signal
    valid: Signal
    ready: Signal


class Axi4Interface(wiring.PureInterface):
    """An AXI4 port; see `Axi4Signature`."""

    ar: AddressChannel
    r: ReadChannel
    aw: AddressChannel
    w: WriteChannel
    b: ResponseChannel


class ChannelSignature(wiring.Signature):
    """A channel, from the side that drives `valid`.

    Args:
        interface: class of its interface.
        widths: of its signals but `valid` and `ready`, by name.
    """

    def __init__(self, interface: type[wiring.PureInterface], widths: dict[str, int]) -> None:
        self._interface = interface
        members = {name: Out(width) for name, width in widths.items()}
        super().__init__({**members, "valid": Out(1), "ready": In(1)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChannelSignature) and self.members == other.members

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> Any:
        """The channel's signals."""
        return self._interface(self, path=path, src_loc_at=1 + src_loc_at)


class Axi4Signature(wiring.Signature):
    """An AXI4 port, from the manager's side; without LOCK, QOS, REGION and USER signals.

    Args:
        addr_width: bits of an address.
        data_width: bits of a beat.
        id_width: bits of a transaction's id.
        read: with channels AR and R.
        write: with channels AW, W and B.

    Members:
        ar, aw (out): `id`, `addr`, `len`, `size`, `burst`, `cache`, `prot`, and the handshake.
        r (in): `id`, `data`, `resp`, `last`, and the handshake.
        w (out): `data`, `strb`, `last`, and the handshake.
        b (in): `id`, `resp`, and the handshake.
    """

    def __init__(
        self,
        *,
        addr_width: int = 64,
        data_width: int,
        id_width: int = ID_BITS,
        read: bool = True,
        write: bool = True,
    ) -> None:
        fields = {"addr": addr_width, "len": 8, "size": 3, "burst": 2, "cache": 4, "prot": 3}
        address = ChannelSignature(AddressChannel, {"id": id_width, **fields})
        members: dict[str, wiring.Member] = {}
        if read:
            beat = {"id": id_width, "data": data_width, "resp": 2, "last": 1}
            members |= {"ar": Out(address), "r": In(ChannelSignature(ReadChannel, beat))}
        if write:
            beat = {"data": data_width, "strb": data_width // 8, "last": 1}
            response = ChannelSignature(ResponseChannel, {"id": id_width, "resp": 2})
            members |= {
                "aw": Out(address),
                "w": Out(ChannelSignature(WriteChannel, beat)),
                "b": In(response),
            }
        super().__init__(members)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Axi4Signature) and self.members == other.members

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> Axi4Interface:
        """The port's signals."""
        return Axi4Interface(self, path=path, src_loc_at=1 + src_loc_at)
