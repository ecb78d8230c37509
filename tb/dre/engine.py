"""What the benches of engines on a memory share: the model on a memory of its own, and comparisons of both.

Every result, beat of K and V and completion is compared, and after each case every byte of both windows.
"""

from typing import Any, Generic, TypeVar

from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre.dre import Dre
from vrex.model.dre.recall import Recall
from vrex.model.dre.registers import REGISTERS
from vrex.model.lib.memory import Memory, Window
from vrex.tb.dre.kvpu import CYCLES_MASK, DETAIL_MASK
from vrex.tb.lib.axi_bench import MemoryBench
from vrex.tb.lib.axi_memory import EmptyMemory
from vrex.tb.lib.axi_memory import Window as BusWindow
from vrex.tb.lib.bench import beats
from vrex.tb.lib.counters import Command
from vrex.tb.lib.streams import Sink

DEVICE, HOST = Window(0x30, 8192), Window(0x4000, 0x20000)
TIMEOUT = 600
"""Cycles: longer than the bench's own stalls and latencies."""


class LooseSink(Sink):
    """Takes any word while `loose`: what a failed command leaves on a stream does not count."""

    loose = False

    def _check_word(self, payload: int) -> None:
        if not self.loose:
            super()._check_word(payload)


class EngineMemory(EmptyMemory):
    """Memory that notes what is read.

    Attributes:
        read_at: first bytes of the bursts read so far.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read_at: list[int] = []

    def _accept(self, name: str, payload: dict[str, int]) -> None:
        super()._accept(name, payload)
        if name == "ar":
            self.read_at.append(payload["addr"])


Model = TypeVar("Model", Dre, Recall)


class EngineBench(MemoryBench, Generic[Model]):
    """Drives commands and expects what the model returns.

    Attributes:
        model_type: its golden model.
        model: golden engine, in step with the design.
        memory: behind the design's port.
        statuses, details, cycles: of the completions so far.
    """

    windows = (BusWindow(DEVICE.base, DEVICE.pages), BusWindow(HOST.base, HOST.pages))
    memory_type = EngineMemory
    memory: EngineMemory
    model_type: type[Model]
    model: Model

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "kv", "cpl"))
        self.loose = [LooseSink(name, self.sinks[name].stalls.rng) for name in ("dout", "kv")]
        self.sinks |= {sink.name: sink for sink in self.loose}
        self.statuses: list[Status] = []
        self.details: list[int] = []
        self.cycles: list[int] = []
        self.sinks["cpl"].on_word = self._completed

    async def reset(self) -> None:
        """Resets design, memory and model; all that was in memory is gone."""
        self.model = self.model_type(self.config, Memory(DEVICE, HOST))
        self.memory.clear()
        # Next free pages of the windows.
        self._pages = [DEVICE.base + 1, HOST.base]
        await super().reset()
        windows = {Register.DEVICE_BASE: DEVICE.base, Register.DEVICE_PAGES: DEVICE.pages}
        windows |= {Register.HOST_BASE: HOST.base, Register.HOST_PAGES: HOST.pages}
        for register, value in (windows | {Register.TIMEOUT: TIMEOUT}).items():
            self.send(self.write(register, value))

    async def finish(self) -> None:
        """Also compares all of memory."""
        await super().finish()
        self.memory.compare(self.model.memory)

    def _completed(self, word: int) -> None:
        completion = Completion.unpack(word.to_bytes(16, "little"))
        self.statuses.append(Status(completion.status))
        self.details.append(completion.detail)
        self.cycles.append(completion.cycles)

    def poke(self, address: int, content: bytes) -> None:
        """Writes both memories."""
        self.model.memory.write(address, content)
        self.memory.write(address, content)

    def send(self, command: Command) -> Completion:
        """Queues one command and its expectations; returns the model's completion."""
        descriptor, payload = command
        payload = commands.to_beats(self.config, payload)
        completion, result, kv = self.run_model(descriptor, payload)
        self.queue(descriptor, payload)
        what, after = f"{descriptor}", None
        for name, content in (("dout", result), ("kv", kv)):
            sink = self.sinks[name]
            sink.expect(what, beats(content, self.config.bus_bytes))
            after = (sink, sink.asked) if content else after
        mask = (1 << 128) - 1 & ~CYCLES_MASK
        if descriptor.opcode == Opcode.GETREG and self._counts(descriptor.count):
            mask &= ~DETAIL_MASK
        self.sinks["cpl"].expect(what, beats(completion.pack(), 16), mask, after=after)
        name = Opcode(descriptor.opcode).name if descriptor.opcode in list(Opcode) else "reserved opcode"
        self.coverage.hit(f"{name} ends with {Status(completion.status).name}")
        return completion

    def run_model(self, descriptor: Descriptor, payload: bytes) -> tuple[Completion, bytes, bytes]:
        """What the model answers; benches count corner cases here."""
        return self.model.execute(descriptor, payload)

    def _counts(self, register: int) -> bool:
        """Whether it is a counter: the model has no clock."""
        return register in list(REGISTERS) and not REGISTERS[Register(register)].writable

    def queue(self, descriptor: Descriptor, payload: bytes) -> None:
        """Puts a command on the design's ports."""
        self.sources["cmd"].send(beats(descriptor.pack(), 32))
        self.sources["din"].send(beats(payload, self.config.bus_bytes))

    async def run_into(self, command: Command, status: Status) -> None:
        """Runs a command in whose way the memory stands, to its end; the model does not run it."""
        descriptor, payload = command
        self.queue(descriptor, payload)
        cycles_size_detail = (1 << 128) - (1 << 32)
        expected = Completion(descriptor.tag, status)
        self.sinks["cpl"].expect(
            f"{descriptor}", beats(expected.pack(), 16), (1 << 128) - 1 & ~cycles_size_detail
        )
        for sink in self.loose:
            sink.loose = True
        await self.drain(lambda: not self.sinks["cpl"].expected)
        self.memory.bad_beats.clear()
        await self.clear()
        for sink in self.loose:
            sink.loose = False
        self.coverage.hit(f"{Opcode(descriptor.opcode).name} ends with {status.name}")

    def tag(self) -> dict[str, int]:
        """Fields that do not change what a command does."""
        bits = self.random.getrandbits
        return {"tag": bits(16), "sequence": bits(16), "layer": bits(16)}

    def write(self, register: int, value: int) -> Command:
        """SETREG."""
        return Descriptor(Opcode.SETREG, count=register, param=value, **self.tag()), b""

    def read(self, register: int) -> Command:
        """GETREG."""
        return Descriptor(Opcode.GETREG, count=register, **self.tag()), b""
