"""Both ends of the link in Python over a line that damages, loses, doubles and repeats."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.model.config import preset
from vrex.model.serial.board import RECEIVE_SLOTS, SEND_SLOTS, BoardEnd
from vrex.model.serial.capabilities import capabilities
from vrex.model.serial.frames import Frame, Kind, Splitter, decode, encode, line_bytes
from vrex.model.serial.host import FIRST_WAIT, BoardResetError, HostEnd
from vrex.model.serial.line import BITS, throughput

CAPABILITIES = capabilities(preset("tiny"), "kvpu", RECEIVE_SLOTS)
STEPS = 20_000
SECONDS = 0.02
"""Of a step of the two ends."""


@dataclass
class Line:
    """What happens to bytes and to whole frames, each by chance."""

    rng: random.Random
    byte: float
    frame: float

    def over(self, data: bytes) -> bytes:
        """What arrives of a frame."""
        if self.rng.random() < self.frame:
            return self.rng.choice([b"", data + data, data[: len(data) // 2]])
        out = bytearray()
        for byte in data:
            if self.rng.random() < self.byte:
                out += self.rng.choice([b"", bytes([byte, byte]), bytes([byte ^ 1 << self.rng.randrange(8)])])
            else:
                out.append(byte)
        return bytes(out)


class Pair:
    """A host and a board whose unit answers each frame with words of its own."""

    def __init__(self, rng: random.Random, line: Line) -> None:
        self.rng, self.line = rng, line
        self.board = BoardEnd(CAPABILITIES)
        self.now = 0.0
        self.host = HostEnd(rng.randrange(1, 256), self.now)
        self.taken: list[tuple[int, bytes]] = []
        self.given: list[tuple[int, bytes]] = []
        self.words: list[tuple[int, bytes]] = []
        self.came: list[tuple[int, bytes]] = []
        self.most_waiting = 0

    def step(self) -> None:
        self.now += SECONDS
        while data := self.host.send(self.now):
            self.board.receive(self.line.over(data))
            self.most_waiting = max(self.most_waiting, len(self.board.received))
        while self.board.received and self.rng.random() < 0.8:
            self.taken.append(self.board.take())
            for _ in range(self.rng.randrange(3)):
                kind = self.rng.choice([Kind.RESULT, Kind.RESULT, Kind.KV])
                self.words.append((kind, self.rng.randbytes(64)))
            self.words.append((Kind.COMPLETION, self.rng.randbytes(16)))
        while self.words and self.board.put(*self.words[0]):
            self.given.append(self.words.pop(0))
        while data := self.board.send():
            self.host.receive(self.line.over(data), self.now)
        while self.host.delivered:
            came, payload = self.host.delivered.popleft()
            size = 16 if came == Kind.COMPLETION else 64
            self.came += [(came, payload[first : first + size]) for first in range(0, len(payload), size)]


def sent_frames(rng: random.Random, n: int) -> list[tuple[int, bytes]]:
    kinds = [Kind.DESCRIPTOR, Kind.PAYLOAD]
    return [(rng.choice(kinds), rng.randbytes(rng.choice([0, 1, 32, 256]))) for _ in range(n)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1e-4, 1e-3]), st.sampled_from([0, 0.02, 0.2]))
def test_nothing_is_lost_doubled_or_out_of_order(seed: int, byte: float, frame: float) -> None:
    rng = random.Random(seed)
    pair = Pair(rng, Line(rng, byte, frame))
    sent = sent_frames(rng, rng.choice([1, 40, 300]))
    for item in sent:
        pair.host.put(*item)
    for _ in range(STEPS):
        pair.step()
        if len(pair.taken) == len(sent) and not pair.words and len(pair.came) == len(pair.given):
            break
    assert pair.taken == sent
    assert pair.came == pair.given
    assert len(pair.given) >= len(sent)
    assert pair.most_waiting <= RECEIVE_SLOTS
    figures = pair.host.figures
    assert figures.frames == len(sent)
    if not byte and not frame:
        assert (figures.resent, figures.repeated, figures.damaged, figures.waited) == (0, 0, 0, 0)
        assert pair.host.unsent == 0


def test_a_unit_that_takes_nothing_stops_the_host() -> None:
    rng = random.Random(1)
    board, host = BoardEnd(CAPABILITIES), HostEnd(5, 0.0)
    for item in sent_frames(rng, 100):
        host.put(*item)
    for now in range(20):
        while data := host.send(float(now)):
            board.receive(data)
        while data := board.send():
            host.receive(data, float(now))
    assert len(board.received) == RECEIVE_SLOTS
    assert host.unsent == 100 - RECEIVE_SLOTS
    assert host.figures.frames == RECEIVE_SLOTS
    board.take()
    while data := board.send():
        host.receive(data, 20.0)
    assert host.send(20.0) != b""
    assert host.figures.frames == RECEIVE_SLOTS + 1


def test_a_host_that_listens_to_nothing_stops_the_unit() -> None:
    board = BoardEnd(CAPABILITIES)
    assert all(board.put(Kind.COMPLETION, bytes(16)) for _ in range(SEND_SLOTS))
    assert not board.put(Kind.COMPLETION, bytes(16))


def session(rng: random.Random) -> Pair:
    """A pair in the middle of its work."""
    pair = Pair(rng, Line(rng, 0, 0))
    for item in sent_frames(rng, 60):
        pair.host.put(*item)
    steps(pair, 4)
    assert pair.host.unsent
    return pair


def steps(pair: Pair, n: int) -> None:
    for _ in range(n):
        pair.step()


@pytest.mark.parametrize("seed", range(5))
def test_a_reset_in_the_middle_is_noticed_at_once(seed: int) -> None:
    pair = session(random.Random(seed))
    pair.board = BoardEnd(CAPABILITIES)
    with pytest.raises(BoardResetError):
        pair.step()
    assert pair.board.received == type(pair.board.received)()


def test_a_reset_whose_hello_was_lost_is_noticed_too() -> None:
    pair = session(random.Random(1))
    pair.board = BoardEnd(CAPABILITIES)
    assert decode(Splitter().split(pair.board.send())[0]).kind == Kind.HELLO
    with pytest.raises(BoardResetError):
        steps(pair, 1000)
    assert not pair.board.received


def test_another_host_is_noticed() -> None:
    pair = session(random.Random(1))
    other = pair.host.session % 255 + 1
    pair.board.receive(HostEnd(other, 0.0).send(0.0))
    with pytest.raises(BoardResetError):
        pair.step()


def test_the_host_resets_until_it_is_answered() -> None:
    host, now = HostEnd(7, 0.0), 0.0
    resets = 0
    for _ in range(100):
        now += FIRST_WAIT
        while data := host.send(now):
            [part] = Splitter().split(data)
            assert decode(part).kind == Kind.RESET
            resets += 1
    assert 5 < resets < 30
    # What a board sends in an older session is not listened to.
    host.receive(encode(Frame(Kind.COMPLETION, 6, payload=bytes(16))), now)
    host.receive(encode(Frame(Kind.HELLO, 6, payload=CAPABILITIES.pack())), now)
    assert host.capabilities is None
    host.receive(encode(Frame(Kind.HELLO, 7, payload=CAPABILITIES.pack())), now)
    assert host.capabilities == CAPABILITIES
    assert not host.delivered


def test_no_session_of_a_board_after_power_up() -> None:
    for number in (0, 256):
        with pytest.raises(ValueError, match=f"from 1 to 255, not {number}"):
            HostEnd(number, 0.0)


def test_throughput() -> None:
    byte = BITS / 3e6
    assert throughput(3e6, 16) == pytest.approx(256 / (line_bytes(256) * byte))
    slow = throughput(3e6, 16, latency=0.05)
    assert slow == pytest.approx(16 * 256 / (0.05 + (line_bytes(256) + line_bytes(0)) * byte))
    assert throughput(3e6, 1) < throughput(3e6, 2) <= throughput(3e6, 16)
