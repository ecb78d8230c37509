"""The bridge against `vrex.model.serial.board`, byte for byte: one event at a time, until all is quiet."""

import random
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from vrex.hw.serial.bridge import SerialBridge
from vrex.hw.serial.receiver import FrameReceiver
from vrex.hw.serial.sender import FrameSender
from vrex.hw.serial.slots import Carried
from vrex.hw.tools import verilated
from vrex.model.serial.board import RECEIVE_SLOTS, SEND_SLOTS, BoardEnd
from vrex.model.serial.capabilities import Capabilities
from vrex.model.serial.frames import (
    NO_SESSION,
    PAYLOAD_BYTES,
    Frame,
    Kind,
    Splitter,
    cobs_encode,
    decode,
    encode,
)

CAPABILITIES = Capabilities(unit=1, bus_bytes=4, slots=RECEIVE_SLOTS, digest=0x0123456789ABCDEF)
WORDS = {Kind.DESCRIPTOR: 8, Kind.PAYLOAD: 4, Kind.RESULT: 4, Kind.COMPLETION: 2}
"""Bytes of a word of each stream here."""
SPACING = 4
"""Cycles between two bytes to the bridge; a UART leaves 40."""
FRAME_CYCLES = 2000
"""More than a frame takes in a slot and out of one, read three times, and on its way to the line."""

WORD_CYCLES = 50
"""More than a word takes into a slot."""

TO_UNIT = {"cmd": Carried(Kind.DESCRIPTOR, 64), "din": Carried(Kind.PAYLOAD, 32)}
FROM_UNIT = {"dout": Carried(Kind.RESULT, 32), "cpl": Carried(Kind.COMPLETION, 16)}


class Pins(NamedTuple):
    """Ports of the module around the bridge, for `verilated`."""

    inputs: list[Signal]
    outputs: list[Signal]


def around(m: Module, dut: Any) -> Pins:
    """Puts a register in front of each stream from the unit, and makes all ports narrow."""
    m.submodules.dut = dut
    i = {name: Signal(bits, name=name) for name, bits in INPUTS.items()}
    o = {name: Signal(bits, name=name) for name, bits in OUTPUTS.items()}
    m.d.comb += [
        dut.received.valid.eq(i["byte_valid"]),
        dut.received.payload.eq(i["byte"]),
        dut.send.ready.eq(1),
        o["sent_valid"].eq(dut.send.valid),
        o["sent"].eq(dut.send.payload),
        o["unit_reset"].eq(dut.unit_reset),
        o["din_valid"].eq(dut.din.valid & dut.din.ready),
        o["din"].eq(dut.din.payload),
        o["cmd_valid"].eq(dut.cmd.valid & dut.cmd.ready),
        o["cmd_low"].eq(dut.cmd.payload[:32]),
        o["cmd_high"].eq(dut.cmd.payload[32:]),
        dut.din.ready.eq(i["takes"]),
        dut.cmd.ready.eq(i["takes"]),
    ]
    for stream, put, waits in ((dut.dout, "put_dout", "dout_waits"), (dut.cpl, "put_cpl", "cpl_waits")):
        m.d.comb += o[waits].eq(stream.valid)
        with m.If(stream.ready | i["withdraw"]):
            m.d.sync += stream.valid.eq(0)
        with m.If(i[put]):
            m.d.sync += [stream.valid.eq(1), stream.payload.eq(i["word"])]
    return Pins(list(i.values()), list(o.values()))


INPUTS = {"byte": 8, "byte_valid": 1, "word": 32, "put_dout": 1, "put_cpl": 1, "withdraw": 1, "takes": 1}
OUTPUTS = {
    "sent": 8,
    "sent_valid": 1,
    "unit_reset": 1,
    "din": 32,
    "din_valid": 1,
    "cmd_low": 32,
    "cmd_high": 32,
    "cmd_valid": 1,
    "dout_waits": 1,
    "cpl_waits": 1,
}


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    m = Module()
    # The registers in front of the streams drive what the bridge only reads.
    dut = SerialBridge(CAPABILITIES, to_unit=TO_UNIT, from_unit=FROM_UNIT)
    return verilated.build(m, *around(m, dut), tmp_path_factory.mktemp("bridge"))


class Script:
    """Stimuli for the bridge and what the model says of each; then both are compared, event by event."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.model = rng, BoardEnd(CAPABILITIES)
        self.rows: list[dict[str, int]] = []
        self.spans: list[tuple[str, int, int]] = []
        self.expected: list[tuple[bytes, list[tuple[int, bytes]], int, bool]] = []
        self.session = self.sequence = self.acked = 0
        self.takes = True
        self.answer("power-up", [], 1)

    def answer(self, what: str, rows: list[dict[str, int]], frames: int, waits: bool = False) -> None:
        """An event that is over: what the model sends, and hands to the unit."""
        resets = self.model.resets - sum(before for _, _, before, _ in self.expected)
        sent, words = everything(self.model), []
        while self.takes and self.model.received:
            words += words_of([self.model.take()])
            sent += everything(self.model)
        self.expected.append((sent, words, resets, waits))
        takes = {"takes": int(self.takes)}
        wait = WORD_CYCLES + FRAME_CYCLES * (frames + len(Splitter().split(sent)))
        start = len(self.rows)
        self.rows += [row | takes for row in rows] + [takes] * wait
        if waits:
            self.rows[-1] = takes | {"withdraw": 1}
        self.spans.append((what, start, len(self.rows)))

    def receive(self, what: str, data: bytes) -> None:
        """Bytes from the host."""
        self.model.receive(data)
        rows: list[dict[str, int]] = []
        for byte in data:
            rows += [{"byte": byte, "byte_valid": 1}, *[{}] * (SPACING - 1)]
        self.answer(what, rows, 2)

    def put(self, kind: Kind, word: bytes) -> bool:
        """A word of the unit's; whether there is room."""
        taken = self.model.put(kind, word)
        row = {
            "word": int.from_bytes(word, "little"),
            f"put_{'cpl' if kind == Kind.COMPLETION else 'dout'}": 1,
        }
        self.answer("put" if taken else "full", [row], 0 if taken else 1, waits=not taken)
        return taken

    def frame(self, kind: int, payload: bytes = b"", **changed: int) -> bytes:
        header = {"session": self.session, "sequence": self.sequence, "ack": self.acked} | changed
        return encode(Frame(kind, payload=payload, **header))

    def in_order(self, kind: Kind, payload: bytes) -> None:
        data = self.frame(kind, payload)
        self.sequence = (self.sequence + 1) % 256
        self.receive("in order", data)

    def reset(self, session: int) -> None:
        self.session = session
        self.sequence = self.acked = 0
        self.receive("reset", self.frame(Kind.RESET))

    def event(self) -> None:
        """A random one."""
        rng = self.rng
        kind = rng.choice([Kind.DESCRIPTOR, Kind.PAYLOAD])
        size = rng.choice([0, 4, 8, 32, 250, 253, 254, 256])
        payload = rng.randbytes(size) if rng.random() < 0.5 else bytes(size)
        match rng.randrange(13):
            case 0 | 1 | 2 | 3:
                self.in_order(kind, payload)
            case 4:
                self.receive("old", self.frame(kind, payload, sequence=(self.sequence - 1) % 256))
            case 5:
                self.receive("early", self.frame(kind, payload, sequence=(self.sequence + 3) % 256))
            case 6:
                damaged = bytearray(self.frame(kind, payload))
                damaged[rng.randrange(len(damaged) - 1)] ^= 1 << rng.randrange(8)
                self.receive("damaged", bytes(damaged))
            case 7:
                self.receive("another session", self.frame(kind, payload, session=99))
            case 8:
                self.acked = rng.choice([self.model._fill, self.model._base, self.acked])
                self.receive("ack", self.frame(Kind.ACK))
            case 9:
                self.receive("resend", self.frame(Kind.RESEND))
            case 10:
                self.receive("wrong ack", self.frame(Kind.ACK, ack=(self.model._fill + 5) % 256))
            case 11:
                for _ in range(rng.choice([1, 3, PAYLOAD_BYTES // 4 + 1])):
                    kind = rng.choice([Kind.RESULT] * 8 + [Kind.COMPLETION])
                    if not self.put(kind, rng.randbytes(WORDS[kind])):
                        break
            case 12 if rng.random() < 0.3:
                self.reset(rng.randrange(1, 90))

    def compare(self, bridge: verilated.Simulation) -> None:
        """Runs the bridge, and compares what it did in each event."""
        columns = {
            name: np.array([row.get(name, 0) for row in self.rows], dtype=np.uint32) for name in INPUTS
        }
        got = bridge(**columns)
        for (what, start, end), (sent, words, resets, waits) in zip(self.spans, self.expected, strict=True):
            span = {name: values[start:end] for name, values in got.items()}
            line = span["sent"][span["sent_valid"] == 1].astype(np.uint8).tobytes()
            frames = [[decode(part) for part in Splitter().split(data)] for data in (line, sent)]
            assert frames[0] == frames[1], (what, start)
            assert line == sent, (what, start)
            din = span["din"][span["din_valid"] == 1].astype("<u4").tobytes()
            rows = span["cmd_valid"] == 1
            cmd = np.stack([span["cmd_low"][rows], span["cmd_high"][rows]], axis=1).astype("<u4").tobytes()
            assert din == b"".join(word for kind, word in words if kind == Kind.PAYLOAD), (what, start)
            assert cmd == b"".join(word for kind, word in words if kind == Kind.DESCRIPTOR), (what, start)
            assert span["unit_reset"].sum() == resets, (what, start)
            assert bool(span["dout_waits"][-1] | span["cpl_waits"][-1]) == waits, (what, start)


def everything(board: BoardEnd) -> bytes:
    """What the model sends until it has nothing to say."""
    sent = b""
    while data := board.send():
        sent += data
    return sent


def words_of(frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Words that frames' payloads are; what does not fill one is dropped."""
    return [
        (kind, payload[first : first + WORDS[Kind(kind)]])
        for kind, payload in frames
        for first in range(0, len(payload) - WORDS[Kind(kind)] + 1, WORDS[Kind(kind)])
    ]


@pytest.mark.parametrize("seed", range(6))
def test_each_event_has_the_models_answer(seed: int, bridge: verilated.Simulation) -> None:
    print(f"seed {seed}")
    script = Script(random.Random(seed))
    script.receive("another session", script.frame(Kind.PAYLOAD, bytes(8), session=3))
    script.reset(NO_SESSION + 1)
    for _ in range(60):
        script.event()
    script.compare(bridge)
    assert len({what for what, _, _ in script.spans}) >= 9


def test_full_slots_drop_what_comes_and_say_so(bridge: verilated.Simulation) -> None:
    script = Script(random.Random(1))
    script.reset(1)
    script.takes = False
    for number in range(RECEIVE_SLOTS + 2):
        script.in_order(Kind.PAYLOAD, bytes([number] * 4))
    assert len(script.model.received) == RECEIVE_SLOTS
    script.compare(bridge)


def test_full_frames_wait_for_the_host(bridge: verilated.Simulation) -> None:
    script = Script(random.Random(1))
    for _ in range(SEND_SLOTS):
        assert script.put(Kind.COMPLETION, b"ok")
    assert not script.put(Kind.COMPLETION, b"no")
    script.acked = 1
    script.receive("ack", script.frame(Kind.ACK))
    assert script.put(Kind.COMPLETION, b"ok")
    script.compare(bridge)


def test_receiver_on_frames_that_are_too_long_or_short() -> None:
    receiver = FrameReceiver()
    ends: list[tuple[int, int]] = []

    def body(size: int) -> bytes:
        start = bytes(range(1, 6)) + bytes(size)
        return cobs_encode(start + zlib.crc32(start).to_bytes(4, "little")) + b"\0"

    data = body(256) + body(257) + b"\0\0" + cobs_encode(bytes(8)) + b"\0" + body(600) + body(0) + b"\5\1\0"

    async def bench(ctx: Any) -> None:
        for byte in data:
            ctx.set(receiver.i.payload, byte)
            ctx.set(receiver.i.valid, 1)
            await ctx.tick()
            ctx.set(receiver.i.valid, 0)
            for _ in range(3):
                if ctx.get(receiver.good) or ctx.get(receiver.bad):
                    ends.append((ctx.get(receiver.good), ctx.get(receiver.length)))
                await ctx.tick()

    simulator = Simulator(receiver)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert [good for good, _ in ends] == [1, 0, 0, 0, 1, 0]
    assert [length for good, length in ends if good] == [256, 0]


@pytest.mark.parametrize("length", [0, 1, 244, 245, 246, 256])
def test_sender_on_blocks_of_every_end(length: int) -> None:
    """Runs without a zero that end before, at and behind the 254 bytes of a block."""
    sender = FrameSender()
    payload = bytes(1 + i % 255 for i in range(length))
    sent: list[int] = []

    async def bench(ctx: Any) -> None:
        header = {"kind": 1, "session": 2, "sequence": 3, "ack": 4, "limit": 5}
        ctx.set(sender.head, header)
        ctx.set(sender.length, length)
        ctx.set(sender.start, 1)
        await ctx.tick()
        ctx.set(sender.start, 0)
        ctx.set(sender.o.ready, 1)
        index = 0
        while not ctx.get(sender.idle):
            ctx.set(sender.byte, payload[index] if index < length else 0)
            if ctx.get(sender.o.valid):
                sent.append(ctx.get(sender.o.payload))
            index = ctx.get(sender.index)
            await ctx.tick()

    simulator = Simulator(sender)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert bytes(sent) == encode(Frame(1, 2, 3, 4, 5, payload))


@pytest.mark.parametrize("bits", [0, 12, 24, 4096])
def test_words_that_fill_no_frame(bits: int) -> None:
    with pytest.raises(ValueError, match=f"words of {bits} bits do not fill a frame"):
        _ = Carried(Kind.PAYLOAD, bits).bytes
