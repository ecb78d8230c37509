"""A board in Python: the model of its end of the link around the golden KVPU."""

import random
from collections.abc import Callable

from vrex.model.commands import DESCRIPTOR, Descriptor
from vrex.model.config import Config
from vrex.model.dre.kvpu import Kvpu
from vrex.model.serial.board import RECEIVE_SLOTS, BoardEnd
from vrex.model.serial.capabilities import Capabilities, capabilities
from vrex.model.serial.frames import Kind


class ModelBoard:
    """What `vrex.sw.driver.serial_board.Terminal` serves, without a simulator.

    Args:
        config: accelerator.
        says: its capabilities, if not the right ones.
        over: what becomes of bytes on the line.
        spoil: changes results.
    """

    waiting = 0

    def __init__(
        self,
        config: Config,
        says: Capabilities | None = None,
        over: Callable[[bytes], bytes] = bytes,
        spoil: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.config, self.over, self.spoil = config, over, spoil
        self.says = says or capabilities(config, "kvpu", RECEIVE_SLOTS)
        self.silent = False
        self.deaf_after = -1
        self.executed = 0
        self.resets_at: list[int] = []
        """Numbers of commands after which its button is pressed."""
        self.press()

    def press(self) -> None:
        """Its button."""
        self.end = BoardEnd(self.says)
        self._begin()

    def _begin(self) -> None:
        self.unit = Kvpu(self.config)
        self.descriptors = self.payload = b""
        self.words: list[tuple[int, bytes]] = []
        self.resets = self.end.resets

    def run(self, data: bytes) -> tuple[bytes, bool]:
        """Bytes from the host; bytes to it, and that there is nothing else to do."""
        if self.silent:
            return b"", True
        self.end.receive(self.over(data))
        if self.end.resets != self.resets:
            self._begin()
        while self.end.received and self.executed != self.deaf_after:
            kind, payload = self.end.take()
            if kind == Kind.DESCRIPTOR:
                self.descriptors += payload
            else:
                self.payload += payload
            self._execute()
        while self.words and self.end.put(*self.words[0]):
            del self.words[0]
        out = b""
        while frame := self.end.send():
            out += self.over(frame)
        return out, not self.words

    def _execute(self) -> None:
        """All commands that are whole."""
        while len(self.descriptors) >= DESCRIPTOR.size:
            command = Descriptor.unpack(self.descriptors[: DESCRIPTOR.size])
            if len(self.payload) < command.length:
                return
            payload = self.payload[: command.length]
            self.descriptors = self.descriptors[DESCRIPTOR.size :]
            self.payload = self.payload[len(payload) :]
            completion, result = self.unit.execute(command, payload)
            size = self.config.bus_bytes
            result = self.spoil(result) if result else result
            self.words += [(Kind.RESULT, result[i : i + size]) for i in range(0, len(result), size)]
            self.words.append((Kind.COMPLETION, completion.pack()))
            self.executed += 1
            if self.executed in self.resets_at:
                self.press()
                return


def noisy(rng: random.Random, rate: float) -> Callable[[bytes], bytes]:
    """A line on which bytes are flipped, lost or doubled by chance."""

    def over(data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if rng.random() < rate:
                out += rng.choice([b"", bytes([byte, byte]), bytes([byte ^ 1 << rng.randrange(8)])])
            else:
                out.append(byte)
        return bytes(out)

    return over
