"""The rules of AXI4 at a port as hardware: what its master has to keep, and what its memory may do.

They are those of `vrex.tb.lib.axi_monitor`, which every simulation watches a port with, under the same names;
`test_axi_rules.py` shows that both say the same of any traffic. Beyond the protocol the master keeps limits
of its own: windows, ids, attributes, lengths, bursts without an answer, and a write's beats come only once
its address is shown.
"""

from dataclasses import dataclass, field
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal

PAGE = 4096
ADDRESS = ("addr", "len", "size", "burst", "id", "cache", "prot")
CHANNELS = {
    "ar": ADDRESS,
    "aw": ADDRESS,
    "w": ("data", "strb", "last"),
    "r": ("data", "id", "resp", "last"),
    "b": ("id", "resp"),
}
"""Payloads of the channels."""

MASTER = ("ar", "aw", "w")
LIVE_BITS = 4
"""Of the ids that are followed."""


@dataclass
class PortRules:
    """Follows a port and says in each cycle which rules hold.

    Args:
        m: gets the registers that follow it.
        port: with channels `ar`, `r`, `aw`, `w`, `b`.
        beat_bytes: of the port.
        ids: read ids in use, from 0 on.
        outstanding: most bursts of an id without an answer.
        longest: most beats of a burst.

    Attributes:
        master, memory: conditions by name, high while the rule holds.
        reads: per id, reads accepted and not answered to their end.
        writes: writes shown and not answered.
        idle: nothing is under way.
    """

    m: Module
    port: Any
    beat_bytes: int
    ids: int
    outstanding: int
    longest: int
    master: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    reads: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, fields in CHANNELS.items():
            rules = self.master if name in MASTER else self.memory
            rules |= self._stable(name, fields)
        for name in ("ar", "aw"):
            self.master |= self._burst(name)
        self._follow_reads()
        self._follow_writes()

    def _register(self, bits: int | range, name: str) -> Signal:
        return Signal(bits, name=f"rules_{name}")

    def moves(self, name: str) -> Any:
        """Whether a channel transfers something."""
        channel = getattr(self.port, name)
        return channel.valid & channel.ready

    def _stable(self, name: str, fields: tuple[str, ...]) -> dict[str, Any]:
        channel = getattr(self.port, name)
        payload = Cat(getattr(channel, key) for key in fields)
        waits, kept = self._register(1, f"{name}_waits"), self._register(len(payload), f"{name}_kept")
        self.m.d.sync += [waits.eq(channel.valid & ~channel.ready), kept.eq(payload)]
        return {
            f"{name} is withdrawn": ~waits | channel.valid,
            f"{name} changes": ~waits | ~channel.valid | (payload == kept),
        }

    def _burst(self, name: str) -> dict[str, Any]:
        channel, shift = getattr(self.port, name), (self.beat_bytes - 1).bit_length()
        first = channel.addr[shift : PAGE.bit_length() - 1]
        rules = {
            "size": channel.size == shift,
            "type": channel.burst == 1,
            "length": channel.len < self.longest,
            "4 KiB edge": first + channel.len < PAGE // self.beat_bytes,
            "alignment": channel.addr[:shift] == 0,
            "id": channel.id < (self.ids if name == "ar" else 1),
            "attributes": (channel.cache == 0b0011) & (channel.prot == 0b010),
        }
        return {f"{name}: {rule}": ~channel.valid | holds for rule, holds in rules.items()}

    def _follow_reads(self) -> None:
        """Per id the lengths of the bursts that are owed, the oldest in the lowest bits."""
        ar, r, m = self.port.ar, self.port.r, self.m
        asked, ends = [], []
        bits = max(1, (self.longest - 1).bit_length())
        for i in range(self.ids):
            lengths = self._register(bits * self.outstanding, f"lengths_{i}")
            owed = self._register(range(self.outstanding + 1), f"owed_{i}")
            done = self._register(bits, f"done_{i}")
            here, new = r.id == i, self.moves("ar") & (ar.id == i)
            last = done == lengths[:bits]
            popped = self.moves("r") & here & last
            left = Mux(popped, lengths >> bits, lengths)
            place = owed - popped
            m.d.sync += owed.eq(place + new)
            m.d.sync += lengths.eq(left)
            for k in range(self.outstanding):
                with m.If(new & (place == k)):
                    m.d.sync += lengths[bits * k : bits * (k + 1)].eq(ar.len)
            with m.If(self.moves("r") & here):
                m.d.sync += done.eq(Mux(last, 0, done + 1))
            self.reads.append(owed)
            asked.append(~here | (owed != 0))
            ends.append(~here | (r.last == last))
            self.master[f"ar: bursts of id {i} in flight"] = (
                ~ar.valid | (ar.id != i) | (owed < self.outstanding)
            )
        known = r.id < self.ids
        self.memory["r: nobody asked"] = ~r.valid | (known & Cat(asked).all())
        self.memory["r: rlast"] = ~r.valid | Cat(ends).all()

    def _follow_writes(self) -> None:
        """Lengths of writes whose address was shown and whose beats have not all come, in their order."""
        aw, w, b, m = self.port.aw, self.port.w, self.port.b, self.m
        bits, most = max(1, (self.longest - 1).bit_length()), self.outstanding
        lengths = self._register(bits * most, "lengths_w")
        owed, done = self._register(range(most + 1), "owed_w"), self._register(bits, "done_w")
        seen = self._register(1, "aw_seen")
        new = aw.valid & ~seen
        m.d.sync += seen.eq(aw.valid & ~aw.ready)
        # A beat may come in the very cycle in which its address shows.
        length = Mux(owed == 0, aw.len, lengths[:bits])
        there = (owed != 0) | new
        last = done == length
        popped = self.moves("w") & last & there
        place = owed - (popped & (owed != 0))
        kept = new & ~(popped & (owed == 0))
        m.d.sync += [owed.eq(place + kept), lengths.eq(Mux(popped, lengths >> bits, lengths))]
        for k in range(most):
            with m.If(kept & (place == k)):
                m.d.sync += lengths[bits * k : bits * (k + 1)].eq(aw.len)
        with m.If(self.moves("w")):
            m.d.sync += done.eq(Mux(last, 0, done + 1))
        # Accepted addresses, and complete bursts, without a response.
        accepted, complete = (self._register(range(most + 2), name) for name in ("accepted", "complete"))
        answered = self.moves("b")
        m.d.sync += [
            accepted.eq(accepted + self.moves("aw") - answered),
            complete.eq(complete + popped - answered),
        ]
        self.master["w: beat before its address"] = ~w.valid | there
        self.master["w: wlast"] = ~w.valid | ~there | (w.last == last)
        self.master["aw: bursts in flight"] = ~aw.valid | (accepted < most)
        self.memory["b: nobody waits"] = ~b.valid | ((accepted != 0) & (complete != 0) & (b.id == 0))
        self.writes, self.complete, self.done, self.shown = accepted, complete, done, owed + new
        self._write_lengths = [lengths[bits * k : bits * (k + 1)] for k in range(most)]
        self._new_length = new, owed, aw.len
        self.idle = ~Cat(*(owed != 0 for owed in self.reads), accepted != 0, complete != 0, owed != 0).any()

    def write_length(self, k: int) -> Any:
        """Length, less 1, of the burst that is the k-th of `shown`, as of this cycle."""
        new, owed, length = self._new_length
        kept = self._write_lengths[k] if k < len(self._write_lengths) else C(0, 1)
        return Mux(new & (owed == k), length, kept)


def window_rule(port: Any, name: str, windows: list[tuple[Any, Any]]) -> Any:
    """Whether what a channel asks for lies in a window of (base, pages)."""
    channel = getattr(port, name)
    page = channel.addr[12:48]
    hits = [(page >= base) & (page - base < pages)[0] for base, pages in windows]
    return ~channel.valid | (Cat(hits).any() & (channel.addr[48:] == C(0, 16)))
