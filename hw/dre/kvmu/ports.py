"""Signatures of what the KVMU shares with the DRE: its engines' commands, an HCU and a WTU."""

from amaranth import Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre import hcu
from vrex.hw.dre.wtu import wtu


class EnginePort(wiring.PureInterface):
    """Commands of one engine; see `EngineSignature`."""

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    done: stream.Interface
    busy: Signal


class EngineSignature(wiring.Signature):
    """Commands of one engine, from its side.

    Args:
        command, done: layouts of a command and of its end.
        bus_bits: width of a beat.
        results: whether commands have results.

    Members:
        cmd (in): commands.
        din (in): their payloads; what is left of one when `done` comes early is not taken.
        dout (out): their results, before `done`; only with `results`.
        done (out): how a command ended.
        busy (out): a command is in work.
    """

    def __init__(
        self, command: data.StructLayout, done: data.StructLayout, bus_bits: int, *, results: bool = True
    ) -> None:
        members = {
            "cmd": In(stream.Signature(command)),
            "din": In(stream.Signature(bus_bits)),
            "done": Out(stream.Signature(done)),
            "busy": Out(1),
        }
        if results:
            members["dout"] = Out(stream.Signature(bus_bits))
        super().__init__(members)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EngineSignature) and self.members == other.members

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> EnginePort:
        """The port's signals."""
        return EnginePort(self, path=path, src_loc_at=1 + src_loc_at)


class HcuPort(wiring.PureInterface):
    """The other side of an HCU; see `HcuSignature`."""

    cmd: stream.Interface
    din: stream.Interface
    closed: Signal
    dout: stream.Interface
    done: stream.Interface


class HcuSignature(wiring.Signature):
    """The other side of the ports of an `Hcu` that knows closed clusters.

    Args:
        bus_bits: width of a beat.
        founders: hashes of founders that a beat holds, or begins to hold.

    Members:
        cmd, din, closed (out), dout, done (in): see `vrex.hw.dre.hcu.Hcu`.
    """

    def __init__(self, bus_bits: int, founders: int) -> None:
        super().__init__(
            {
                "cmd": Out(stream.Signature(hcu.COMMAND)),
                "din": Out(stream.Signature(bus_bits)),
                "closed": Out(founders),
                "dout": In(stream.Signature(hcu.DECISION)),
                "done": In(stream.Signature(hcu.DONE)),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HcuSignature) and self.members == other.members

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> HcuPort:
        """The port's signals."""
        return HcuPort(self, path=path, src_loc_at=1 + src_loc_at)


class WtuPort(wiring.PureInterface):
    """The other side of a WTU; see `WtuSignature`."""

    start: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    done: stream.Interface


class WtuSignature(wiring.Signature):
    """The other side of the ports of a `Wtu`, but for most fields of its command.

    Args:
        bus_bits: width of a beat.

    Members:
        start (out): the WTU's command may start, for so many clusters.
        din (out), dout, done (in): see `vrex.hw.dre.wtu.wtu.Wtu`.
    """

    def __init__(self, bus_bits: int) -> None:
        super().__init__(
            {
                "start": Out(stream.Signature(16)),
                "din": Out(stream.Signature(bus_bits)),
                "dout": In(stream.Signature(bus_bits)),
                "done": In(stream.Signature(wtu.DONE)),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WtuSignature) and self.members == other.members

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> WtuPort:
        """The port's signals."""
        return WtuPort(self, path=path, src_loc_at=1 + src_loc_at)
