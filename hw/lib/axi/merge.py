"""Several AXI4 ports behind one, which can be emptied while what stands behind the ports is reset."""

import operator
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from amaranth import Cat, Module, Mux, ResetInserter, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature, WriteChannel
from vrex.hw.lib.stream import Skid, reduce_tree

AHEAD = 8
"""Write bursts of which not all beats have come: the most whose addresses are taken."""

ADDRESS = ("id", "addr", "len", "size", "burst", "cache", "prot")
READ = ("id", "data", "resp", "last")
WRITE = ("data", "strb", "last")
RESPONSE = ("id", "resp")
"""Signals of AR and AW, of R, of W and of B, besides the handshake."""

EMPTY: Mapping[int, int] = MappingProxyType({})


def choose(chosen: Any, values: list[Any]) -> Any:
    """The value whose bit is set, 0 for none."""
    words = [Value.cast(value) for value in values]
    masked = [word & chosen[i].replicate(len(word)) for i, word in enumerate(words)]
    return reduce_tree(masked, operator.or_)


def from_first(bits: Any) -> Value:
    """All bits from the lowest one that is set on, none if none is."""
    return Cat(bits[: i + 1].any() for i in range(len(bits)))


class Turns(wiring.Component):
    """Words of several ports in turn, one a cycle.

    A word that waits lets every other port go first once at most. Latency one cycle, and one more if it is
    not the port's turn yet.

    Args:
        shape: of a word.
        ports: number of ports.

    Members:
        i: the ports' words.
        hold: no word is taken in this cycle.
        o: words, each with its port, one bit a port.
        taken: high in each cycle in which a word is taken.
    """

    i: list[stream.Interface]
    hold: Signal
    o: stream.Interface
    taken: Signal

    def __init__(self, shape: Any, ports: int) -> None:
        self.ports = ports
        self.layout = data.StructLayout({"word": shape, "port": ports})
        super().__init__(
            {
                "i": In(stream.Signature(shape)).array(ports),
                "hold": In(1),
                "o": Out(stream.Signature(self.layout)),
                "taken": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a register with the port whose turn it is, a multiplexer behind it, a skid buffer."""
        m = Module()
        m.submodules.skid = skid = Skid(self.layout)
        connect(m, skid.o, flipped(self.o))
        # One bit a port: whose turn it is, and whose it is next. A turn is known a cycle ahead, since it
        # steers a word's many bits.
        asks = Signal(self.ports)
        turn = Signal(self.ports, init=1)
        # Not one signal: some of its bits are found with others, which a simulator would take for a loop.
        following = Cat(Signal(name=f"following_{i}") for i in range(self.ports))
        # Those behind the port whose turn it is come first, then those before it.
        from_turn = from_first(turn)
        behind, before = asks & (from_turn << 1), asks & ~from_turn
        found = from_first(Mux(behind.any(), behind, before))
        m.d.comb += following.eq(found & ~(found << 1))
        asked = (turn & asks).any()
        m.d.comb += [
            asks.eq(Cat(port.valid for port in self.i)),
            skid.i.valid.eq(asked & ~self.hold),
            skid.i.payload.port.eq(turn),
            skid.i.payload.word.eq(choose(turn, [port.payload for port in self.i])),
            *(port.ready.eq(turn[i] & skid.i.ready & ~self.hold) for i, port in enumerate(self.i)),
            self.taken.eq(skid.i.valid & skid.i.ready),
        ]
        with m.If(following.any() & (self.taken | ~asked)):
            m.d.sync += turn.eq(following)
        return m


class Owed(wiring.Component):
    """Counts what was asked for and has not come.

    Args:
        most: that may be owed, at least two.

    Members:
        asked, came: one more in this cycle, one fewer; what nobody asked for does not count.
        full: nothing may be asked for.
        none: nothing is owed.
    """

    asked: Signal
    came: Signal
    full: Signal
    none: Signal

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__({"asked": In(1), "came": In(1), "full": Out(1), "none": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a counter; one more may be asked for until its limit shows."""
        m = Module()
        count = Signal(range(self.most + 1))
        m.d.sync += [
            count.eq(count + self.asked - (self.came & ~self.none)),
            self.full.eq(count >= self.most - 1),
        ]
        m.d.comb += self.none.eq(count == 0)
        return m


class ReadBuffer(wiring.Component):
    """A port that reads whose beats always have room, however long their taker waits.

    A burst goes on once there is room for all its beats; one that is longer than the buffer never does.
    Latency three cycles on AR, which takes an address every other cycle, and two on R.

    Args:
        data_width: bits of a beat.
        id_width: bits of an id.
        beats: that there is room for.

    Members:
        s_axi: AXI4 subordinate, channels AR and R.
        m_axi: AXI4 manager, channels AR and R; `r` is always taken.
    """

    s_axi: Axi4Interface
    m_axi: Axi4Interface

    def __init__(self, data_width: int, *, id_width: int, beats: int) -> None:
        self.beats = beats
        signature = Axi4Signature(data_width=data_width, id_width=id_width, write=False)
        super().__init__({"s_axi": In(signature), "m_axi": Out(signature)})

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a FIFO, a counter of free beats, skid buffers before and after its comparison."""
        m = Module()
        came, goes, port = self.s_axi, self.m_axi, self.s_axi.ar
        address = data.StructLayout({field: len(getattr(port, field)) for field in ADDRESS})
        m.submodules.asked, m.submodules.allowed = asked, allowed = Skid(address), Skid(address)
        # One more than may be asked for: the FIFO's output register may be empty while its memory is full.
        width = sum(len(getattr(came.r, field)) for field in READ)
        fifo: Any = SyncFIFOBuffered(width=width, depth=self.beats + 1)
        m.submodules.fifo = fifo
        free = Signal(range(self.beats + 1), init=self.beats)
        # One less than the beats of the burst that waits, whether they have room: known a cycle ahead.
        less = Signal.like(free)
        room = Signal()
        goes_on, popped = allowed.i.valid & allowed.i.ready, fifo.r_rdy & fifo.r_en
        m.d.comb += less.eq(asked.o.payload.len)
        m.d.sync += [
            room.eq(asked.o.valid & ~goes_on & (free > asked.o.payload.len)),
            free.eq(free + popped + Mux(goes_on, ~less, 0)),
        ]
        m.d.comb += [
            *(asked.i.payload[field].eq(getattr(port, field)) for field in ADDRESS),
            asked.i.valid.eq(port.valid),
            port.ready.eq(asked.i.ready),
            allowed.i.payload.eq(asked.o.payload),
            allowed.i.valid.eq(asked.o.valid & room),
            asked.o.ready.eq(allowed.i.ready & room),
            *(getattr(goes.ar, field).eq(allowed.o.payload[field]) for field in ADDRESS),
            goes.ar.valid.eq(allowed.o.valid),
            allowed.o.ready.eq(goes.ar.ready),
            fifo.w_data.eq(Cat(getattr(goes.r, field) for field in READ)),
            fifo.w_en.eq(goes.r.valid),
            goes.r.ready.eq(1),
            Cat(getattr(came.r, field) for field in READ).eq(fifo.r_data),
            came.r.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(came.r.ready),
        ]
        return m


class WriteBuffer(wiring.Component):
    """A port that writes whose bursts go on once all their beats are there.

    A burst that is longer than the buffer never does. Latency two cycles from a burst's last beat to its
    address.

    Args:
        data_width: bits of a beat.
        id_width: bits of an id.
        beats: that there is room for.

    Members:
        s_axi: AXI4 subordinate, channels AW, W and B.
        m_axi: AXI4 manager, channels AW, W and B.
    """

    s_axi: Axi4Interface
    m_axi: Axi4Interface

    def __init__(self, data_width: int, *, id_width: int, beats: int) -> None:
        self.beats = beats
        signature = Axi4Signature(data_width=data_width, id_width=id_width, read=False)
        super().__init__({"s_axi": In(signature), "m_axi": Out(signature)})

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a FIFO, a counter of whole bursts in it, skid buffers before and after the comparison."""
        m = Module()
        came, goes, port = self.s_axi, self.m_axi, self.s_axi.aw
        address = data.StructLayout({field: len(getattr(port, field)) for field in ADDRESS})
        m.submodules.asked, m.submodules.allowed = asked, allowed = Skid(address), Skid(address)
        width = sum(len(getattr(came.w, field)) for field in WRITE)
        fifo: Any = SyncFIFOBuffered(width=width, depth=self.beats)
        m.submodules.fifo = fifo
        # Bursts whose last beats have come and whose addresses have not gone on.
        whole = Signal(range(self.beats + 1))
        ended = fifo.w_en & fifo.w_rdy & came.w.last
        m.d.sync += whole.eq(whole + ended - (allowed.i.valid & allowed.i.ready))
        m.d.comb += [
            *(asked.i.payload[field].eq(getattr(port, field)) for field in ADDRESS),
            asked.i.valid.eq(port.valid),
            port.ready.eq(asked.i.ready),
            allowed.i.payload.eq(asked.o.payload),
            allowed.i.valid.eq(asked.o.valid & (whole != 0)),
            asked.o.ready.eq(allowed.i.ready & (whole != 0)),
            *(getattr(goes.aw, field).eq(allowed.o.payload[field]) for field in ADDRESS),
            goes.aw.valid.eq(allowed.o.valid),
            allowed.o.ready.eq(goes.aw.ready),
            fifo.w_data.eq(Cat(getattr(came.w, field) for field in WRITE)),
            fifo.w_en.eq(came.w.valid),
            came.w.ready.eq(fifo.w_rdy),
            Cat(getattr(goes.w, field) for field in WRITE).eq(fifo.r_data),
            goes.w.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(goes.w.ready),
            *(getattr(came.b, field).eq(getattr(goes.b, field)) for field in RESPONSE),
            came.b.valid.eq(goes.b.valid),
            goes.b.ready.eq(came.b.ready),
        ]
        return m


class AxiMerge(wiring.Component):
    """Ports that read and ports that write, in turn behind one port.

    An address shows a cycle after it came, two if it's not the port's turn; a beat or a response passes in
    one, and R and W move a beat a cycle. Write bursts go in the order of their addresses, and their beats
    from two cycles after the address shows. A port must take its beats and its responses, and give the beats
    of its bursts: until it does, it holds back all others. One that has a buffer may take them and give them
    as late as it likes; it waits some cycles longer for both (`ReadBuffer`, `WriteBuffer`).

    While `drain` is high the ports move nothing. Bursts whose addresses were taken go on without them: beats
    that are missing are made up, with no byte enabled, and answers are swallowed. `m_axi` keeps to the
    protocol throughout, so what stands behind the ports may be reset from the first cycle of `drain` on;
    `drain` must stay high until `idle` is. A memory that never answers is drained for ever.

    Args:
        data_width: bits of a beat.
        reads, writes: number of ports of either kind.
        id_width: bits of the ports' ids.
        outstanding: most bursts without an answer, of all ports that read, and of all that write.
        buffered: beats of the buffer of each reading port that has one, by its number.
        gathered: the same of each writing port.

    Members:
        read_axi: AXI4 subordinates, channels AR and R.
        write_axi: AXI4 subordinates, channels AW, W and B.
        drain: see above.
        idle: no address waits, and no burst is without its answer.
        m_axi: AXI4 manager. Its ids are the ports' with the port's number above them.
        read_beats, write_beats: high in each cycle in which a beat arrives, is accepted.

    Raises:
        ValueError: there are too few ports or bursts, or a buffer is for none of them.
    """

    read_axi: list[Axi4Interface]
    write_axi: list[Axi4Interface]
    drain: Signal
    idle: Signal
    m_axi: Axi4Interface
    read_beats: Signal
    write_beats: Signal

    def __init__(
        self,
        data_width: int,
        *,
        reads: int,
        writes: int,
        id_width: int = ID_BITS,
        outstanding: int = 256,
        buffered: Mapping[int, int] = EMPTY,
        gathered: Mapping[int, int] = EMPTY,
    ) -> None:
        if min(reads, writes) < 1:
            raise ValueError(f"there must be a port that reads and one that writes, not {reads} and {writes}")
        if outstanding < 2:
            raise ValueError(f"outstanding must be at least 2, not {outstanding}")
        for name, numbers, ports in (("buffered", buffered, reads), ("gathered", gathered, writes)):
            if not set(numbers) <= set(range(ports)):
                raise ValueError(f"{name} names ports {sorted(numbers)}, and there are {ports}")
        self.data_width, self.id_width, self.outstanding = data_width, id_width, outstanding
        self.buffered, self.gathered = dict(buffered), dict(gathered)
        merged = id_width + (max(reads, writes) - 1).bit_length()
        read = Axi4Signature(data_width=data_width, id_width=id_width, write=False)
        write = Axi4Signature(data_width=data_width, id_width=id_width, read=False)
        super().__init__(
            {
                "read_axi": In(read).array(reads),
                "write_axi": In(write).array(writes),
                "drain": In(1),
                "idle": Out(1),
                "m_axi": Out(Axi4Signature(data_width=data_width, id_width=merged)),
                "read_beats": Out(1),
                "write_beats": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: turns of the addresses, counters, a queue of write bursts, buffers on R, W and B."""
        m = Module()
        m.submodules.reading = reading = Owed(self.outstanding)
        m.submodules.writing = writing = Owed(self.outstanding)
        m.submodules.unfinished = unfinished = Owed(AHEAD)
        reads = [self._buffer(m, i) if i in self.buffered else port for i, port in enumerate(self.read_axi)]
        writes = [self._gather(m, i) if i in self.gathered else port for i, port in enumerate(self.write_axi)]
        ar = self._addresses(m, "ar", reads, reading.full)
        aw = self._addresses(m, "aw", writes, writing.full | unfinished.full)
        r = self._answers(m, "r", reads, READ)
        b = self._answers(m, "b", writes, RESPONSE)
        finished = self._beats(m, aw.o, [port.w for port in writes])
        port = self.m_axi
        m.d.comb += [
            reading.asked.eq(ar.taken),
            reading.came.eq(r.valid & r.ready & r.payload.last),
            writing.asked.eq(aw.taken),
            writing.came.eq(b.valid & b.ready),
            unfinished.asked.eq(aw.taken),
            unfinished.came.eq(finished),
            self.idle.eq(reading.none & writing.none & unfinished.none),
            self.read_beats.eq(port.r.valid & port.r.ready),
            self.write_beats.eq(port.w.valid & port.w.ready),
        ]
        return m

    def _buffer(self, m: Module, number: int) -> Axi4Interface:
        """A buffer behind a port that reads, emptied by a drain; returns the port that takes its place."""
        port = self.read_axi[number]
        buffer = ReadBuffer(self.data_width, id_width=self.id_width, beats=self.buffered[number])
        m.submodules[f"buffer_{number}"] = ResetInserter(self.drain)(buffer)
        inner = buffer.s_axi
        m.d.comb += [
            *(getattr(inner.ar, field).eq(getattr(port.ar, field)) for field in ADDRESS),
            inner.ar.valid.eq(port.ar.valid),
            port.ar.ready.eq(inner.ar.ready & ~self.drain),
            *(getattr(port.r, field).eq(getattr(inner.r, field)) for field in READ),
            port.r.valid.eq(inner.r.valid & ~self.drain),
            inner.r.ready.eq(port.r.ready),
        ]
        return buffer.m_axi

    def _gather(self, m: Module, number: int) -> Axi4Interface:
        """The same of a port that writes."""
        port = self.write_axi[number]
        buffer = WriteBuffer(self.data_width, id_width=self.id_width, beats=self.gathered[number])
        m.submodules[f"gather_{number}"] = ResetInserter(self.drain)(buffer)
        inner = buffer.s_axi
        m.d.comb += [
            *(getattr(inner.aw, field).eq(getattr(port.aw, field)) for field in ADDRESS),
            inner.aw.valid.eq(port.aw.valid),
            port.aw.ready.eq(inner.aw.ready & ~self.drain),
            *(getattr(inner.w, field).eq(getattr(port.w, field)) for field in WRITE),
            inner.w.valid.eq(port.w.valid),
            port.w.ready.eq(inner.w.ready & ~self.drain),
            *(getattr(port.b, field).eq(getattr(inner.b, field)) for field in RESPONSE),
            port.b.valid.eq(inner.b.valid),
            inner.b.ready.eq(port.b.ready),
        ]
        return buffer.m_axi

    def _addresses(self, m: Module, name: str, ports: list[Axi4Interface], full: Any) -> Turns:
        """Leads addresses of all ports to AR or AW."""
        channels, to = [getattr(port, name) for port in ports], getattr(self.m_axi, name)
        shape = data.StructLayout({field: len(getattr(channels[0], field)) for field in ADDRESS})
        m.submodules[name] = turns = Turns(shape, len(ports))
        for channel, word in zip(channels, turns.i, strict=True):
            m.d.comb += [
                *(word.payload[field].eq(getattr(channel, field)) for field in ADDRESS),
                word.valid.eq(channel.valid),
                channel.ready.eq(word.ready),
            ]
        burst, bits = turns.o.payload, len(to.id) - self.id_width
        number = reduce_tree(
            [burst.port[i].replicate(bits) & i for i in range(len(ports))],
            operator.or_,
        )
        m.d.comb += [
            turns.hold.eq(self.drain | full),
            *(getattr(to, field).eq(burst.word[field]) for field in ADDRESS if field != "id"),
            to.id.eq(Cat(burst.word.id, number[:bits])),
            to.valid.eq(turns.o.valid),
            turns.o.ready.eq(to.ready),
        ]
        return turns

    def _answers(
        self, m: Module, name: str, ports: list[Axi4Interface], fields: tuple[str, ...]
    ) -> stream.Interface:
        """Leads R or B to its port, or to nobody if it has none; returns it as it arrives."""
        channel = getattr(self.m_axi, name)
        shape = data.StructLayout({field: len(getattr(channel, field)) for field in fields})
        m.submodules[name] = skid = Skid(shape)
        answer = skid.o
        m.d.comb += [
            *(skid.i.payload[field].eq(getattr(channel, field)) for field in fields),
            skid.i.valid.eq(channel.valid),
            channel.ready.eq(skid.i.ready),
            answer.ready.eq(1),
        ]
        number = answer.payload.id[self.id_width :]
        for i, port in enumerate(ports):
            to = getattr(port, name)
            m.d.comb += [getattr(to, field).eq(answer.payload[field]) for field in fields]
            with m.If((number == i) & ~self.drain):
                m.d.comb += [to.valid.eq(answer.valid), answer.ready.eq(to.ready)]
        return answer

    def _beats(self, m: Module, address: stream.Interface, writes: list[WriteChannel]) -> Any:
        """Leads beats to W in the order of the addresses; returns whether a burst's last one is taken."""
        burst = address.payload
        # By port and length, from the cycle in which the address shows: memory may want beats to accept it.
        m.submodules.order = order = SyncFIFO(width=len(writes) + 8, depth=AHEAD)
        shown = Signal()
        m.d.sync += shown.eq(address.valid & ~address.ready)
        m.d.comb += [
            order.w_data.eq(Cat(burst.word.len, burst.port)),
            order.w_en.eq(address.valid & ~shown),
        ]
        size = self.data_width // 8
        shape = data.StructLayout({"data": self.data_width, "strb": size, "last": 1})
        m.submodules.w = w = Skid(shape)
        # Of the burst in work: its port, one bit a port; beats behind the next one, whether that is the last.
        turn = Signal(len(writes))
        left = Signal(8)
        last = Signal()
        active = Signal()
        given = (turn & Cat(channel.valid for channel in writes)).any()
        taken = w.i.valid & w.i.ready
        m.d.comb += [
            w.i.valid.eq(active & (given | self.drain)),
            w.i.payload.data.eq(choose(turn, [channel.data for channel in writes])),
            w.i.payload.strb.eq(Mux(self.drain, 0, choose(turn, [channel.strb for channel in writes]))),
            w.i.payload.last.eq(last),
            *(channel.ready.eq(turn[i] & w.i.ready & ~self.drain) for i, channel in enumerate(writes)),
            self.m_axi.w.data.eq(w.o.payload.data),
            self.m_axi.w.strb.eq(w.o.payload.strb),
            self.m_axi.w.last.eq(w.o.payload.last),
            self.m_axi.w.valid.eq(w.o.valid),
            w.o.ready.eq(self.m_axi.w.ready),
            order.r_en.eq(~active | (taken & last)),
        ]
        with m.If(order.r_en):
            length = order.r_data[:8]
            m.d.sync += [
                active.eq(order.r_rdy),
                turn.eq(Mux(order.r_rdy, order.r_data[8:], 0)),
                left.eq(length),
                last.eq(length == 0),
            ]
        with m.Elif(taken):
            m.d.sync += [left.eq(left - 1), last.eq(left == 1)]
        return taken & last
