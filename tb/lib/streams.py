"""Ready/valid streams of a testbench: drivers, monitors, seeded stalls and the checks of the protocol.

Nothing here knows a simulator: `vrex.tb.lib.bench` moves the signals and calls these objects once a cycle, so
that they can be tested by themselves. The rules checked on every output are those of `vrex.hw.lib.stream`:
the payload is stable while it is stalled, and valid is not withdrawn before the word was taken.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random


class StreamError(AssertionError):
    """A design broke the protocol of a stream, sent a wrong word or came to a standstill."""


@dataclass(frozen=True)
class Profile:
    """How a port stalls.

    Attributes:
        chance: probability that a stall begins in a cycle.
        longest: longest stall in cycles; the length is drawn evenly from 1.
        lazy: a sink becomes ready only after it has seen valid.
    """

    chance: float
    longest: int = 1
    lazy: bool = False


PROFILES = {
    "none": Profile(0.0),
    "light": Profile(0.1, 2),
    "heavy": Profile(0.7, 4),
    "bursts": Profile(0.02, 60),
    "lazy": Profile(0.3, 3, lazy=True),
}
"""Stall profiles by name."""


class Stalls:
    """Decides cycle by cycle whether a port stalls."""

    def __init__(self, rng: Random, profile: Profile) -> None:
        self.rng, self.profile, self._left = rng, profile, 0

    def next(self) -> bool:
        """True: this cycle is a stall."""
        if self._left:
            self._left -= 1
            return True
        if self.profile.chance and self.rng.random() < self.profile.chance:
            self._left = self.rng.randrange(self.profile.longest)
            return True
        return False


class Source:
    """Words on their way into an input stream of the design.

    Attributes:
        valid, payload: what to drive in this cycle; the payload is random while valid is low.
        sent: words the design has taken.
        starved: cycles in which a word was held back although the design could have had it.
        blocked: cycles in which the design let a word wait.
    """

    def __init__(self, name: str, width: int, rng: Random) -> None:
        self.name, self.width = name, width
        self.stalls = Stalls(rng, PROFILES["none"])
        self.queue: deque[int] = deque()
        self.valid, self.payload = False, 0
        self.sent = self.starved = self.blocked = 0

    def send(self, words: Iterable[int]) -> None:
        """Queues words."""
        self.queue.extend(words)

    def clear(self) -> None:
        """Forgets what was not taken yet, as a reset of the design does."""
        self.queue.clear()
        self.valid = False

    def present(self) -> bool:
        """Begins a cycle; returns whether valid or payload changed. A word once shown stays."""
        if self.valid:
            return False
        if self.queue and not self.stalls.next():
            self.valid, self.payload = True, self.queue[0]
            return True
        self.starved += bool(self.queue)
        return False

    def end(self, ready: bool) -> bool:
        """Ends a cycle in which a word was shown; returns whether valid or payload changed."""
        if not ready:
            self.blocked += 1
            return False
        self.queue.popleft()
        self.sent += 1
        self.valid = False
        self.payload = self.stalls.rng.getrandbits(self.width)
        return True


@dataclass(frozen=True)
class Expected:
    """One word that must come.

    Attributes:
        word: its bits.
        mask: bits that are compared.
        what: command it belongs to, for messages.
        index: its place in the command's result.
        after: (sink, words): the words that the other sink must have received before this one is valid.
    """

    word: int
    mask: int
    what: str
    index: int
    after: "tuple[Sink, int] | None"


class Sink:
    """Checks an output stream of the design.

    Attributes:
        ready: what to drive in this cycle.
        received: words taken.
        blocked: cycles in which a word was stalled.
        on_word: called with each word that was taken and found right.
        first_seen: cycle in which valid rose for the word that is shown or was taken last.
    """

    def __init__(self, name: str, rng: Random) -> None:
        self.name = name
        self.stalls = Stalls(rng, PROFILES["none"])
        self.expected: deque[Expected] = deque()
        self.ready = False
        self.received = self.blocked = self.first_seen = self.asked = 0
        self.on_word: Callable[[int], None] | None = None
        self._held: int | None = None

    def expect(
        self, what: str, words: Iterable[int], mask: int = -1, after: "tuple[Sink, int] | None" = None
    ) -> None:
        """Queues words that must come, in this order and none beside them."""
        for index, word in enumerate(words):
            self.expected.append(Expected(word, mask, what, index, after))
            self.asked += 1

    def clear(self) -> None:
        """Forgets what has not come yet, as a reset of the design does."""
        self.asked -= len(self.expected)
        self.expected.clear()
        self._held = None

    def prepare(self) -> bool:
        """Begins a cycle; returns whether ready changed."""
        before = self.ready
        held_back = self.stalls.profile.lazy and self._held is None
        self.ready = not held_back and not self.stalls.next()
        return self.ready != before

    def end(self, valid: bool, payload: int, cycle: int) -> bool:
        """Ends a cycle; returns whether a word was taken.

        Args:
            valid: of the design.
            payload: of the design; does not matter unless valid.
            cycle: its number.

        Raises:
            StreamError: the protocol was broken or the word is wrong.
        """
        if self._held is not None:
            if not valid:
                raise StreamError(f"{self.name}: valid was withdrawn before word {self.received} was taken")
            if payload != self._held:
                raise StreamError(
                    f"{self.name}: the payload of word {self.received} changed while it was stalled, "
                    f"from {self._held:#x} to {payload:#x}"
                )
        if not valid:
            return False
        if self._held is None:
            self.first_seen = cycle
            self._check_order()
        if not self.ready:
            self._held = payload
            self.blocked += 1
            return False
        self._held = None
        self._check_word(payload)
        self.received += 1
        if self.on_word is not None:
            self.on_word(payload)
        return True

    def _check_order(self) -> None:
        if self.expected and self.expected[0].after:
            other, words = self.expected[0].after
            if other.received < words:
                raise StreamError(
                    f"{self.name}: valid for {self.expected[0].what} while {words - other.received} words "
                    f"of its result are still to leave on {other.name}"
                )

    def _check_word(self, payload: int) -> None:
        if not self.expected:
            raise StreamError(f"{self.name}: a word came that nobody asked for, {payload:#x}")
        want = self.expected.popleft()
        if (payload ^ want.word) & want.mask:
            raise StreamError(
                f"{self.name}: word {want.index} of {want.what} is {payload:#x}, not {want.word:#x}"
                + ("" if want.mask == -1 else f" (compared under the mask {want.mask:#x})")
            )


def standstill(sources: Iterable[Source], sinks: Iterable[Sink], cycles: int) -> str:
    """Says which ports of a design are stuck after so many cycles without a transfer."""
    stuck = [
        f"{source.name}: {len(source.queue)} words wait and ready stays low"
        for source in sources
        if source.valid
    ]
    stuck += [
        f"{sink.name}: {len(sink.expected)} words of {sink.expected[0].what} are due and valid stays low"
        for sink in sinks
        if sink.expected
    ]
    return f"standstill for {cycles} cycles: " + "; ".join(stuck)


def left_over(sources: Iterable[Source], sinks: Iterable[Sink]) -> list[str]:
    """Everything that was not sent or has not come; empty at the end of a good test."""
    left = [f"{source.name}: {len(source.queue)} words not taken" for source in sources if source.queue]
    return left + [
        f"{sink.name}: {len(sink.expected)} words have not come" for sink in sinks if sink.expected
    ]
