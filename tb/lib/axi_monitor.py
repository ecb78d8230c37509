"""The rules of AXI4 at one port, whoever stands on its two sides.

Every channel is stable until it is taken. Bursts are INCR, of the port's width, and cross no 4 KiB edge.
Beats of a write come in the order of the addresses, at most a burst ahead of them, those of a read in the
order of its id, and WLAST and RLAST in their places. Answers come after what they answer, and for nothing
else. The proof of our own master uses the same rules as hardware (`tests/hw/lib/axi_rules.py`). Like
`vrex.tb.lib.streams` this knows no simulator: `vrex.tb.lib.axi_bench` looks at the signals.
"""

from collections import deque
from collections.abc import Mapping

from vrex.hw.lib.axi.burst import INCR
from vrex.tb.lib.streams import StreamError

PAGE = 4096
CHANNELS = ("ar", "r", "aw", "w", "b")
LONGEST = 256
"""Beats of the longest burst that AXI4 has."""

Shown = Mapping[str, Mapping[str, int] | None]
"""Payload of each channel that there is by field, None while its valid is low."""


class AxiMonitor:
    """Follows a port cycle by cycle.

    Attributes:
        beat_bytes: of the port.
        longest: most beats of a burst.
        name: of the port, for messages.
        early: whether a write's beats may come before its address shows, as AXI4 allows; our masters' don't.
    """

    def __init__(
        self, beat_bytes: int, longest: int = LONGEST, name: str = "m_axi", *, early: bool = True
    ) -> None:
        self.beat_bytes, self.longest, self.name, self.early = beat_bytes, longest, name, early
        self.reset()

    def reset(self) -> None:
        """Nothing is under way, and no channel waits."""
        self._held: dict[str, tuple[int, ...]] = {}
        # Beats left of each read by id, beats of each write, their ids; beats that came and belong to no
        # write yet.
        self._reads: dict[int, deque[int]] = {}
        self._writes: deque[tuple[int, int]] = deque()
        self._beats: deque[int] = deque()
        self._beat = 0
        # Writes without a response, all of whose beats have come, by id.
        self._complete: dict[int, int] = {}

    @property
    def idle(self) -> bool:
        """Whether all that was asked for is answered."""
        return not (any(self._reads.values()) or self._writes or self._beats or any(self._complete.values()))

    def end(self, shown: Shown, ready: Mapping[str, bool]) -> None:
        """Ends a cycle.

        Args:
            shown: payloads.
            ready: of each channel that there is.

        Raises:
            StreamError: a rule is broken.
        """
        for name, payload in shown.items():
            self._check_stable(name, payload, ready[name])
        # What is asked for in this cycle can't be answered yet.
        for name, answer in (("r", self._read_beat), ("b", self._response)):
            if (payload := shown.get(name)) is not None:
                answer(payload, ready[name])
        for name, ask in (("ar", self._read), ("aw", self._write), ("w", self._write_beat)):
            if (payload := shown.get(name)) is not None and ready[name]:
                ask(payload)
        if self._beats and not self.early and shown.get("aw") is None:
            raise StreamError(f"{self.name}: a beat of w came before its address showed")

    def _check_stable(self, name: str, payload: Mapping[str, int] | None, ready: bool) -> None:
        held = self._held.pop(name, None)
        if payload is None:
            if held is not None:
                raise StreamError(f"{self.name}: {name}valid was withdrawn before {name}ready")
            return
        word = tuple(payload.values())
        if held is not None and word != held:
            raise StreamError(f"{self.name}: the payload of {name} changed while it was stalled")
        if not ready:
            self._held[name] = word

    def _check_burst(self, name: str, payload: Mapping[str, int]) -> None:
        address, beats = payload["addr"], payload["len"] + 1
        first = address // self.beat_bytes * self.beat_bytes
        rules = {
            "size": 1 << payload["size"] == self.beat_bytes,
            "type": payload["burst"] == INCR,
            "length": beats <= self.longest,
            "4 KiB edge": first % PAGE + beats * self.beat_bytes <= PAGE,
        }
        report_broken(f"{self.name}: {name}", address, beats, rules)

    def _read(self, payload: Mapping[str, int]) -> None:
        self._check_burst("ar", payload)
        self._reads.setdefault(payload["id"], deque()).append(payload["len"] + 1)

    def _read_beat(self, payload: Mapping[str, int], taken: bool) -> None:
        bursts = self._reads.get(payload["id"])
        if not bursts:
            raise StreamError(f"{self.name}: a beat of r came that nobody asked for, with id {payload['id']}")
        if payload["last"] != (bursts[0] == 1):
            raise StreamError(f"{self.name}: rlast is {payload['last']} with {bursts[0]} beats to come")
        if taken:
            bursts[0] -= 1
            if not bursts[0]:
                bursts.popleft()

    def _write(self, payload: Mapping[str, int]) -> None:
        self._check_burst("aw", payload)
        self._writes.append((payload["id"], payload["len"] + 1))
        self._match()

    def _write_beat(self, payload: Mapping[str, int]) -> None:
        self._beats.append(payload["last"])
        self._match()
        if len(self._beats) > self.longest:
            raise StreamError(f"{self.name}: more than a burst of data came before its address")

    def _match(self) -> None:
        """Gives beats to their bursts."""
        while self._beats and self._writes:
            key, beats = self._writes[0]
            last = self._beats.popleft()
            self._beat += 1
            if last != (self._beat == beats):
                raise StreamError(f"{self.name}: wlast is {last} on beat {self._beat} of {beats}")
            if last:
                self._writes.popleft()
                self._beat = 0
                self._complete[key] = self._complete.get(key, 0) + 1

    def _response(self, payload: Mapping[str, int], taken: bool) -> None:
        key = payload["id"]
        if not self._complete.get(key):
            raise StreamError(f"{self.name}: a response came that nobody waits for, with id {key}")
        self._complete[key] -= taken


def report_broken(what: str, address: int, beats: int, rules: Mapping[str, bool]) -> None:
    """Raises an error that names the rules that a burst does not keep, if there are any.

    Raises:
        StreamError: there are.
    """
    broken = [rule for rule, kept in rules.items() if not kept]
    if broken:
        raise StreamError(f"{what}: a burst of {beats} beats at {address:#x} breaks: {', '.join(broken)}")
