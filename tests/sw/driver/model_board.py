"""A board in Python: the model of its end of the link around the golden KVPU, DRE or core."""

import random
from collections.abc import Callable

import numpy as np

from vrex.model.commands import DESCRIPTOR, Descriptor
from vrex.model.config import Config
from vrex.model.dre.dre import Dre
from vrex.model.dre.kvpu import Kvpu
from vrex.model.lib.memory import PAGE, BusError, Memory, Window
from vrex.model.serial.board import RECEIVE_SLOTS, BoardEnd
from vrex.model.serial.capabilities import Capabilities, capabilities
from vrex.model.serial.frames import Kind
from vrex.model.serial.line import SIMULATED_MEMORY
from vrex.model.serial.memory import ACCESS, REGISTERS, Access, AccessStatus, execute
from vrex.sw.driver.core_golden import GoldenCoreTransport
from vrex.sw.driver.transport import DriverError


class GoldenRegisters:
    """Those of the golden core, which answer SLVERR as a bus does."""

    def __init__(self, config: Config, memory: Memory) -> None:
        self._core = GoldenCoreTransport(config, memory)

    def read_register(self, address: int) -> int:
        try:
            return self._core.read_register(address)
        except DriverError:
            raise BusError from None

    def write_register(self, address: int, value: int) -> None:
        try:
            self._core.write_register(address, value)
        except DriverError:
            raise BusError from None


class ModelBoard:
    """What `vrex.sw.driver.serial_board.Terminal` serves, without a simulator.

    Args:
        config: accelerator.
        says: its capabilities, if not the right ones.
        over: what becomes of bytes on the line.
        spoil: changes results.
        unit: `kvpu`, `dre` or `core`.
    """

    waiting = 0

    def __init__(
        self,
        config: Config,
        says: Capabilities | None = None,
        over: Callable[[bytes], bytes] = bytes,
        spoil: Callable[[bytes], bytes] = bytes,
        unit: str = "kvpu",
    ) -> None:
        self.config, self.over, self.spoil, self.kind = config, over, spoil, unit
        memory_bytes = 0 if unit == "kvpu" else SIMULATED_MEMORY
        self.memory = Memory(Window(0, memory_bytes // PAGE), Window(0, 0))
        self.says = says or capabilities(config, unit, RECEIVE_SLOTS, memory_bytes)
        self.silent = False
        self.deaf_after = -1
        self.executed = self.accessed = 0
        self.resets_at: list[int] = []
        """Numbers of commands after which its button is pressed."""
        self.cut_off_at: list[int] = []
        """Numbers of accesses before which its button is pressed."""
        self.broken: range = range(0)
        """Addresses that memory answers with an error."""
        self.press()

    def press(self) -> None:
        """Its button; memory keeps what it holds."""
        self.end = BoardEnd(self.says)
        self._begin()

    def _begin(self) -> None:
        self.core = GoldenRegisters(self.config, self.memory) if self.kind == "core" else None
        self.unit = Dre(self.config, self.memory) if self.kind == "dre" else Kvpu(self.config)
        self.descriptors = self.payload = self.accesses = self.data = b""
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
            match kind:
                case Kind.DESCRIPTOR:
                    self.descriptors += payload
                case Kind.PAYLOAD:
                    self.payload += payload
                case Kind.ACCESS:
                    self.accesses += payload
                case Kind.DATA:
                    self.data += payload
            self._execute()
            self._access()
        while self.words and self.end.put(*self.words[0]):
            del self.words[0]
        out = b""
        while frame := self.end.send():
            out += self.over(frame)
        return out, not self.words

    def _give(self, kind: Kind, data: bytes) -> None:
        size = self.config.bus_bytes
        self.words += [(kind, data[i : i + size]) for i in range(0, len(data), size)]

    def _execute(self) -> None:
        """All commands that are whole."""
        while len(self.descriptors) >= DESCRIPTOR.size:
            command = Descriptor.unpack(self.descriptors[: DESCRIPTOR.size])
            if len(self.payload) < command.length:
                return
            payload = self.payload[: command.length]
            self.descriptors = self.descriptors[DESCRIPTOR.size :]
            self.payload = self.payload[len(payload) :]
            completion, result, *kv = self.unit.execute(command, payload)
            self._give(Kind.RESULT, self.spoil(result) if result else result)
            for delivered in kv:
                self._give(Kind.KV, delivered)
            self.words.append((Kind.COMPLETION, completion.pack()))
            self.executed += 1
            if self.executed in self.resets_at:
                self.press()
                return

    def _view(self, address: int, size: int) -> np.ndarray:
        if address in self.broken:
            raise BusError
        return self.memory.view(address, size)

    def _access(self) -> None:
        """All accesses that are whole; data that no write wants are thrown away."""
        size, memory_bytes = self.config.bus_bytes, self.says.memory
        while len(self.accesses) >= ACCESS.size:
            access = Access.unpack(self.accesses[: ACCESS.size])
            wanted = 0
            registers = 0 if self.core is None else REGISTERS * size
            if access.write and access.status(memory_bytes, registers) == AccessStatus.OK:
                wanted = access.beats(size) * size
            if len(self.data) < wanted:
                return
            self.accesses = self.accesses[ACCESS.size :]
            data, self.data = self.data[:wanted], self.data[wanted:]
            self.accessed += 1
            if self.accessed in self.cut_off_at:
                self.press()
                return
            end, beats = execute(access, data, self._view, memory_bytes, size, self.core)
            self._give(Kind.READ, beats)
            self.words.append((Kind.END, end.pack()))
        self.data = b""


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
