"""The stream drivers and checkers against small designs in Python, good ones and broken ones."""

from collections import deque
from random import Random

import pytest

from vrex.tb.lib.streams import PROFILES, Sink, Source, Stalls, StreamError, left_over, standstill

WIDTH = 16


class Echo:
    """A register between two streams that obeys every rule."""

    def __init__(self) -> None:
        self.word: int | None = None
        self.cycle = 0

    def outputs(self) -> tuple[bool, bool, int]:
        """(ready of the input, valid and payload of the output) in this cycle."""
        return self.word is None, self.word is not None, self.word or 0

    def edge(self, taken: int | None, gone: bool) -> None:
        """Clock edge: a word was taken, the output's word has gone."""
        if gone:
            self.word = None
        if taken is not None:
            self.word = taken
        self.cycle += 1


class DropsValid(Echo):
    """Withdraws valid every fifth cycle."""

    def outputs(self) -> tuple[bool, bool, int]:
        ready, valid, word = super().outputs()
        return ready, valid and self.cycle % 5 != 4, word


class ChangesPayload(Echo):
    """Changes the payload while it is stalled."""

    def outputs(self) -> tuple[bool, bool, int]:
        ready, valid, word = super().outputs()
        return ready, valid, word ^ (self.cycle % 7 == 6)


class Repeats(Echo):
    """Sends every tenth word twice."""

    sent = 0

    def edge(self, taken: int | None, gone: bool) -> None:
        word = self.word
        super().edge(taken, gone)
        if gone:
            self.sent += 1
            if self.sent % 10 == 0:
                self.word = word


class Loses(Echo):
    """Loses the last word."""

    taken = 0

    def edge(self, taken: int | None, gone: bool) -> None:
        self.taken += taken is not None
        super().edge(None if self.taken == 100 else taken, gone)


class Wrong(Echo):
    """Inverts a bit of one word."""

    def edge(self, taken: int | None, gone: bool) -> None:
        super().edge(None if taken is None else taken ^ (taken == 57), gone)


def exchange(design: Echo, profile: str, words: int = 100, cycles: int = 5000) -> tuple[Source, Sink]:
    """Sends words through a design, as the bench does."""
    source, sink = Source("din", WIDTH, Random(1)), Sink("dout", Random(2))
    for port in (source, sink):
        port.stalls.profile = PROFILES[profile]
    source.send(range(words))
    sink.expect("echo", range(words))
    for cycle in range(cycles):
        source.present()
        sink.prepare()
        ready, valid, payload = design.outputs()
        word = source.payload
        taken = source.valid and ready
        if source.valid:
            source.end(ready)
        gone = sink.end(valid, payload, cycle)
        design.edge(word if taken else None, gone)
    return source, sink


@pytest.mark.parametrize("profile", PROFILES)
def test_a_good_design_passes_under_every_profile(profile: str) -> None:
    source, sink = exchange(Echo(), profile)
    assert (source.sent, sink.received) == (100, 100)
    assert left_over([source], [sink]) == []
    assert (source.starved > 0) == (profile != "none")
    assert (sink.blocked > 0) == (profile != "none")


@pytest.mark.parametrize(
    ("design", "message"),
    [
        (DropsValid(), "dout: valid was withdrawn before word"),
        (ChangesPayload(), "dout: the payload of word"),
        (Repeats(), "dout: word 10 of echo is 0x9, not 0xa"),
        (Wrong(), "dout: word 57 of echo is 0x38, not 0x39"),
    ],
)
def test_a_bad_design_is_caught(design: Echo, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        exchange(design, "heavy")


def test_a_lost_word_is_left_over() -> None:
    source, sink = exchange(Loses(), "light")
    assert left_over([source], [sink]) == ["dout: 1 words have not come"]
    assert standstill([source], [sink], 9) == (
        "standstill for 9 cycles: dout: 1 words of echo are due and valid stays low"
    )


def test_a_word_too_many_is_caught() -> None:
    sink = Sink("dout", Random(1))
    sink.ready = True
    with pytest.raises(StreamError, match="a word came that nobody asked for"):
        sink.end(True, 1, 0)


def test_only_masked_bits_are_compared() -> None:
    sink = Sink("cpl", Random(1))
    sink.expect("command", [0x1200, 0x1200], mask=0xFF00)
    sink.ready = True
    assert sink.end(True, 0x1234, 0)
    with pytest.raises(StreamError, match="under the mask 0xff00"):
        sink.end(True, 0x1334, 1)


def test_a_completion_must_come_after_the_result() -> None:
    dout, cpl = Sink("dout", Random(1)), Sink("cpl", Random(1))
    dout.expect("command", [1, 2])
    cpl.expect("command", [3], after=(dout, dout.asked))
    dout.ready = cpl.ready = True
    dout.end(True, 1, 0)
    with pytest.raises(StreamError, match="1 words of its result are still to leave on dout"):
        cpl.end(True, 3, 0)


def test_a_design_that_takes_nothing_is_named() -> None:
    source = Source("din", WIDTH, Random(1))
    source.send([1, 2])
    source.present()
    source.end(ready=False)
    assert standstill([source], [], 9) == "standstill for 9 cycles: din: 2 words wait and ready stays low"
    assert source.blocked == 1


def test_a_shown_word_stays_until_it_is_taken() -> None:
    source = Source("din", WIDTH, Random(3))
    source.stalls.profile = PROFILES["heavy"]
    source.send([5, 6])
    while not source.present():
        pass
    for _ in range(50):
        assert not source.present()
        assert (source.valid, source.payload) == (True, 5)
        assert not source.end(ready=False)
    assert source.end(ready=True)
    assert not source.valid


def test_a_lazy_sink_waits_for_valid() -> None:
    sink = Sink("dout", Random(1))
    sink.stalls.profile = PROFILES["lazy"]
    for cycle in range(20):
        sink.prepare()
        assert not sink.ready
        sink.end(False, 0, cycle)


def test_reset_forgets() -> None:
    source, sink = Source("din", WIDTH, Random(1)), Sink("dout", Random(1))
    source.send([1])
    sink.expect("command", [1, 2])
    source.present()
    sink.end(True, 1, 0)
    source.clear()
    sink.clear()
    assert (source.valid, sink.asked) == (False, 0)
    assert left_over([source], [sink]) == []
    sink.end(False, 0, 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_stalls_repeat_under_their_seed(profile: str) -> None:
    def draw() -> deque[bool]:
        stalls = Stalls(Random(7), PROFILES[profile])
        return deque(stalls.next() for _ in range(500))

    assert draw() == draw()
    assert any(draw()) == (profile != "none")
