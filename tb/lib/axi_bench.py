"""A bench with an `AxiMemory` behind the design's AXI4 port."""

import itertools
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from amaranth import Shape
from cocotbext.axi import AxiBus, AxiRam

from vrex.hw.lib.axi.signature import Axi4Signature
from vrex.model.config import Config
from vrex.tb.lib.axi_memory import CHANNELS, MASTER_FIELDS, MEMORY_FIELDS, AxiMemory, Window
from vrex.tb.lib.axi_monitor import AxiMonitor
from vrex.tb.lib.bench import Bench
from vrex.tb.lib.streams import PROFILES, Source, StreamError

TIMEOUT = 400
"""Cycles: longer than the benches' own stalls and latencies."""


class Joined:
    """Signals of a channel as one payload.

    Args:
        signals: the first in the lowest bits.
        widths: of them.
    """

    def __init__(self, signals: Sequence[Any], widths: Sequence[int]) -> None:
        self._signals, self._widths = signals, widths

    def __len__(self) -> int:
        return sum(self._widths)

    @property
    def value(self) -> str:
        """All bits, the highest first."""
        return "".join(str(signal.value) for signal in reversed(self._signals))

    @value.setter
    def value(self, word: int) -> None:
        for signal, width in zip(self._signals, self._widths, strict=True):
            signal.value = word & (1 << width) - 1
            word >>= width


def channel_widths(signature: Axi4Signature) -> dict[str, dict[str, int]]:
    """Bits of the signals of each channel of a port, by name, without the handshake; an id comes first."""

    def widths(members: Any) -> dict[str, int]:
        return {
            name: Shape.cast(member.shape).width
            for name, member in members.items()
            if name not in ("valid", "ready")
        }

    return {name: widths(channel.signature.members) for name, channel in signature.members.items()}


def channel_stream(dut: Any, prefix: str, widths: Mapping[str, int]) -> tuple[Any, Any, Any]:
    """An AXI channel as a stream: its valid, its ready and all other signals as the payload.

    Args:
        dut: the design.
        prefix: of the signals' names.
        widths: of the other signals by the rest of their names, the first in the lowest bits.
    """
    signals = [getattr(dut, f"{prefix}{field}") for field in widths]
    valid, ready = (getattr(dut, f"{prefix}{part}") for part in ("valid", "ready"))
    return valid, ready, Joined(signals, list(widths.values()))


class AxiWires:
    """A memory on the signals of a design, by their standard names.

    Args:
        dut: the design.
        memory: on its port.
        channels: that the port has.
    """

    def __init__(self, dut: Any, memory: AxiMemory, channels: Sequence[str] = CHANNELS) -> None:
        self.memory = memory
        self.from_master = {name: keys for name, keys in MASTER_FIELDS.items() if name in channels}
        self.to_master = {name: keys for name, keys in MEMORY_FIELDS.items() if name in channels}
        fields = self.from_master | self.to_master
        names = [f"{name}{key}" for name, keys in fields.items() for key in ("valid", "ready", *keys)]
        self.signals = {name: getattr(dut, f"m_axi_{name}") for name in names}

    def reset(self) -> None:
        """Deasserts the memory's signals and drops all transactions in flight."""
        self.memory.reset()
        for name in self.from_master:
            self.signals[f"{name}ready"].value = 0
        for name, keys in self.to_master.items():
            for key in ("valid", *keys):
                self.signals[f"{name}{key}"].value = 0

    def drive(self) -> None:
        """At the falling edge."""
        for name, value in self.memory.drive().items():
            if name in self.signals:
                self.signals[name].value = value

    def sample(self) -> bool:
        """Just before the rising edge; returns whether anything moved."""
        values = {
            name: {key: self._number(f"{name}{key}") for key in keys}
            if self._number(f"{name}valid")
            else None
            for name, keys in self.from_master.items()
        }
        ready = {name: bool(self._number(f"{name}ready")) for name in self.to_master}
        return self.memory.end(values, ready)

    def _number(self, name: str) -> int:
        value = str(self.signals[name].value)
        try:
            return int(value, 2)
        except ValueError:
            raise StreamError(f"m_axi_{name} is {value}") from None


class AxiProbe:
    """Shows a port to a monitor of its own.

    Args:
        dut: the design.
        prefix: of the signals' names.
        beat_bytes: of the port.
        channels: that the port has.
    """

    def __init__(self, dut: Any, prefix: str, beat_bytes: int, channels: Sequence[str] = CHANNELS) -> None:
        self.monitor = AxiMonitor(beat_bytes, name=prefix.strip("_"))
        fields = {**MASTER_FIELDS, **MEMORY_FIELDS}
        self._handshakes = {
            name: [getattr(dut, f"{prefix}{name}{part}") for part in ("valid", "ready")] for name in channels
        }
        self._payloads = {
            name: {key: getattr(dut, f"{prefix}{name}{key}") for key in fields[name]} for name in channels
        }

    def sample(self) -> None:
        """Just before the rising edge.

        Raises:
            StreamError: a rule is broken, or a signal that matters is unknown.
        """
        shown: dict[str, dict[str, int] | None] = {}
        ready: dict[str, bool] = {}
        for name, (valid, takes) in self._handshakes.items():
            ready[name] = bool(self._number(takes, f"{name}ready"))
            shown[name] = None
            if self._number(valid, f"{name}valid"):
                fields = self._payloads[name].items()
                shown[name] = {key: self._number(signal, f"{name}{key}") for key, signal in fields}
        self.monitor.end(shown, ready)

    def _number(self, signal: Any, name: str) -> int:
        value = str(signal.value)
        try:
            return int(value, 2)
        except ValueError:
            raise StreamError(f"{self.monitor.name}: {name} is {value}") from None


class MemoryBench(Bench):
    """A bench whose cycles move the memory as well.

    Attributes:
        memory: behind the port.
    """

    windows: tuple[Window, ...]
    ids: int
    channels: Sequence[str] = CHANNELS
    memory_type: type[AxiMemory] = AxiMemory

    def __init__(
        self, dut: Any, config: Config, seed: str, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        super().__init__(dut, config, seed, inputs, outputs)
        self.memory = self.memory_type(config, Random(self.random.getrandbits(64)), self.windows, self.ids)
        self.wires = AxiWires(dut, self.memory, self.channels)

    def stall(self, profile: str | None = None) -> None:
        """Every port's and every channel's profile."""
        super().stall(profile)
        self.memory.stall(PROFILES[profile] if profile else None)

    async def reset(self) -> None:
        """Resets the design, and the memory with it."""
        self.wires.reset()
        await super().reset()

    def _drive(self) -> None:
        super()._drive()
        self.wires.drive()

    def _sample(self) -> list[Source]:
        taken = super()._sample()
        self._moved |= self.wires.sample()
        return taken

    async def clear(self) -> None:
        """Lets a memory that fell silent answer, until nothing is owed any more."""
        self.memory.allow.clear()
        while not self.memory.idle:
            await self.step()
        await self.steps(10)


class RamSide(MemoryBench):
    """Mixin, first of a bench's bases, that puts cocotbext-axi's memory in the place of ours.

    Attributes:
        ram: the memory, from address 0 on.
    """

    ram: Any

    def attach(self, size: int) -> None:
        """Makes the memory, of so many bytes."""
        dut = self.dut
        self.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=size)
        for log in (self.ram.write_if.log, self.ram.read_if.log):
            log.setLevel("WARNING")
        self.probe = AxiProbe(dut, "m_axi_", self.config.bus_bytes)

    def _drive(self) -> None:
        Bench._drive(self)

    def _sample(self) -> list[Source]:
        taken = Bench._sample(self)
        self.probe.sample()
        return taken

    def pauses(self, profile: str, *more: Any) -> None:
        """Stalls the memory's channels, and more of cocotbext-axi's, at random."""
        reads, writes = self.ram.read_if, self.ram.write_if
        channels = (reads.ar_channel, reads.r_channel, writes.aw_channel, writes.w_channel, writes.b_channel)
        for channel in (*channels, *more):
            rng = Random(self.random.getrandbits(64))
            chance = PROFILES[profile].chance
            channel.set_pause_generator(
                rng.random() < chance for rng, chance in itertools.repeat((rng, chance))
            )


class WindowBench(MemoryBench):
    """A bench of a design whose windows and time-out are ports.

    Attributes:
        windows: of the device and of the host.
    """

    async def reset(self) -> None:
        """Sets windows and time-out, then resets as every bench."""
        for name, window in zip(("device", "host"), self.windows, strict=True):
            getattr(self.dut, f"{name}_base").value = window.base
            getattr(self.dut, f"{name}_pages").value = window.pages
        self.dut.timeout.value = TIMEOUT
        await super().reset()
