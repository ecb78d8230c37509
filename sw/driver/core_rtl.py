"""The Verilog of a core in simulation, alone or watched by the golden model."""

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from vrex.hw.tools import verilator
from vrex.hw.tools.build import Notify, library, to_stderr
from vrex.model.config import Config
from vrex.model.core.core import JobEnd
from vrex.model.core.instructions import JOB_END
from vrex.model.core.registers import Register
from vrex.model.core.top import BUSY as TOP_BUSY
from vrex.model.core.top import IRQ as TOP_IRQ
from vrex.model.core.top import PAGE_BYTES, core_address
from vrex.model.lib.memory import PAGE, Memory
from vrex.sw.driver.core import CoreReport, CoreTransport
from vrex.sw.driver.core_golden import GoldenCoreTransport
from vrex.sw.driver.rtl import CYCLE_LIMIT, LATENCY, STALL_UNITS
from vrex.sw.driver.top_golden import GoldenTopTransport
from vrex.sw.driver.transport import DriverError

OKAY = 0

TIMED = (Register.JOB_HEAD, Register.STATUS, Register.IRQ, Register.END_TAIL)
"""Registers that depend on how far a job is."""


class RtlCoreTransport:
    """A cycle-accurate simulation of a core's, or a chip's, generated Verilog (see `CoreTransport`).

    Attributes:
        cycle_limit: cycles without an interrupt after which `wait` gives up.
        unit: `core` or `top`.
    """

    def __init__(
        self,
        config: Config,
        memory: Memory,
        *,
        stall: float = 0.0,
        seed: int = 0,
        latency: int = LATENCY,
        cycle_limit: int = CYCLE_LIMIT,
        notify: Notify = to_stderr,
        functions: bool = False,
        unit: str = "core",
    ) -> None:
        """Opens a simulation, built on first use.

        Args:
            config: accelerator.
            memory: what the AXI4 port reaches; every other address is answered with DECERR.
            stall: chance that the memory stalls in a cycle, 0 <= stall < 1; it then also answers reads of
                different
                ids out of order.
            seed: of the stalls.
            latency: cycles until the memory answers.
            cycle_limit: see the attribute.
            notify: gets a sentence before a build.
            functions: simulate MAC trees and vector lanes as C++ functions (`vrex.hw.tools.arithmetic`).
            unit: `core`, or `top` for the chip with all cores of the configuration.

        Raises:
            UserError: the simulator can't be built.
        """
        self.config, self.memory, self.cycle_limit, self.unit = config, memory, cycle_limit, unit
        self.report = CoreReport()
        self._library = _load(library(config, unit, notify=notify, functions=functions))
        self._simulation: int | None = self._library.vrex_open(seed, int(stall * STALL_UNITS))
        for number, window in enumerate((memory.device, memory.host)):
            size = window.stop - window.start
            if size:
                content = memory.view(window.start, size)
                self._library.vrex_map(self._simulation, number, window.start, size, content.ctypes.data)
        self._library.vrex_set_latency(self._simulation, latency)

    def read_register(self, address: int) -> int:
        """See `CoreTransport`."""
        value = ctypes.c_uint32()
        response = self._library.vrex_read(self._simulation, int(address), ctypes.byref(value))
        self._check(response, address, "read")
        return value.value

    def write_register(self, address: int, value: int) -> None:
        """See `CoreTransport`."""
        self._check(self._library.vrex_write(self._simulation, int(address), value), address, "written")

    def wait(self) -> None:
        """See `CoreTransport`; the core's clock runs only here and during accesses to registers."""
        if not self._library.vrex_wait(self._simulation, self.cycle_limit):
            raise DriverError(
                f"the core raised no interrupt in {self.cycle_limit} cycles: its Verilog is at fault, so run "
                "vrex regress"
            )

    def inject_faults(self, chance: float, seed: int, start: int) -> None:
        """Has bursts from an address on answered with SLVERR, with such a chance."""
        self._library.vrex_set_faults(self._simulation, seed, int(chance * STALL_UNITS), start)

    @property
    def violations(self) -> int:
        """What the AXI4 port did against the protocol so far."""
        return int(self._library.vrex_violations(self._simulation))

    def longest_wait(self, *, writes: bool) -> int:
        """The most cycles in a row in which an answer waited to be taken, or memory for beats of a write."""
        return int(self._library.vrex_longest_wait(self._simulation, int(writes)))

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return int(self._library.vrex_cycles(self._simulation))

    def work(self, cycles: int) -> bool:
        """Lets the core work for so many cycles, or until its interrupt is high; returns whether it is."""
        return bool(self._library.vrex_wait(self._simulation, cycles))

    def close(self) -> None:
        """See `CoreTransport`."""
        if self._simulation is not None:
            self._library.vrex_close(self._simulation)
            self._simulation = None

    def __del__(self) -> None:
        # Nothing was opened where the build failed.
        if getattr(self, "_simulation", None) is not None:
            self.close()

    @staticmethod
    def _check(response: int, address: int, what: str) -> None:
        if response != OKAY:
            name = Register(address).name if address in list(Register) else f"at {int(address):#x}"
            answer = "SLVERR" if response > 0 else "no answer"
            raise DriverError(f"register {name} can't be {what} ({answer}); see the table of registers")


class HostMemory(Memory):
    """The golden model's memory as the host sees it: what it writes goes to that of the Verilog too.

    The golden model itself works on its memory alone, or it would write its results into the other one.

    Attributes:
        other: memory of the Verilog.
    """

    def __init__(self, golden: Memory, other: Memory) -> None:
        # Of the same bytes.
        vars(self).update(vars(golden))
        self.other = other

    def write(self, address: int, data: bytes) -> None:
        """Writes both."""
        super().write(address, data)
        self.other.write(address, data)


class SimulatedCore(CoreTransport, Protocol):
    """A transport to a core's Verilog, or to a chip's.

    Attributes:
        unit: `core` or `top`.
    """

    unit: str


class CheckedCoreTransport:
    """A simulated core or chip watched by the golden model, which works on memory of its own.

    Once all jobs that the host has posted have ended, their ends and all of memory are compared. The host
    sees the golden model's memory, so one fault is counted once: what differs is put right in the other one.
    See `CoreTransport`.

    Attributes:
        report: see `CoreReport`.
    """

    def __init__(self, device: SimulatedCore) -> None:
        """Watches a core, or all of a chip, whose memory holds nothing but zeros yet."""
        self.config, self._device = device.config, device
        golden = Memory(device.memory.device, device.memory.host)
        self.memory: Memory = HostMemory(golden, device.memory)
        self._golden: GoldenCoreTransport | GoldenTopTransport
        if device.unit == "top":
            self._golden = GoldenTopTransport(device.config, golden)
            self._cores = [core_address(core) for core in range(device.config.cores)]
        else:
            self._golden, self._cores = GoldenCoreTransport(device.config, golden), [0]
        self.report = CoreReport()
        # A simulation leaves the other core to the golden model.
        self._worker = ThreadPoolExecutor(1)
        self._jobs: Future[None] | None = None

    def read_register(self, address: int) -> int:
        """See `CoreTransport`; the golden model has no counters."""
        value = self._device.read_register(address)
        if not self._depends_on_time(address):
            self._finish()
            self.report.compared += 1
            self.report.mismatches += value != self._golden.read_register(address)
        return value

    def _depends_on_time(self, address: int) -> bool:
        """Whether what a register reads depends on how far a job is, or on the clock."""
        page, offset = divmod(address, PAGE_BYTES)
        if page < self._cores[0] // PAGE_BYTES:
            return offset in (*TOP_IRQ, *TOP_BUSY)
        return offset >= Register.CYCLES or offset in TIMED

    def write_register(self, address: int, value: int) -> None:
        """See `CoreTransport`."""
        self._finish()
        self._device.write_register(address, value)
        if address in [core + Register.JOB_TAIL for core in self._cores]:
            self._jobs = self._worker.submit(self._golden.write_register, address, value)
        else:
            self._golden.write_register(address, value)

    def wait(self) -> None:
        """See `CoreTransport`."""
        self._device.wait()
        # Other cores may still be at work; reading lets them go on.
        while any(self._device.read_register(core + Register.STATUS) & 1 for core in self._cores):
            pass
        self._finish()
        for window in (self.memory.device, self.memory.host):
            if window.pages:
                self._compare(window.start, window.pages)

    def close(self) -> None:
        """See `CoreTransport`."""
        self._device.close()

    def _finish(self) -> None:
        """Waits for the golden model."""
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.result()

    def _compare(self, start: int, pages: int) -> None:
        """Compares a window, ends of jobs without their cycles, which the model does not have."""
        wanted = self.memory.view(start, pages * PAGE)
        got = self._device.memory.view(start, pages * PAGE)
        for core in self._cores:
            self._hide_cycles(core, start, pages, wanted, got)
        wrong = (wanted != got).reshape(pages, -1).any(axis=1)
        self.report.compared += pages
        self.report.mismatches += int(wrong.sum())
        got.reshape(pages, -1)[wrong] = wanted.reshape(pages, -1)[wrong]

    def _hide_cycles(self, core: int, start: int, pages: int, wanted: np.ndarray, got: np.ndarray) -> None:
        """Gives the golden model's ends the cycles of the Verilog's, where the ring lies in the window."""
        base = self._golden.read_register(core + Register.END_BASE) * PAGE - start
        entries = 1 << self._golden.read_register(core + Register.JOB_SIZE)
        if not 0 <= base < pages * PAGE:
            return
        for place in range(base, base + entries * JOB_END.size, JOB_END.size):
            span = slice(place, place + JOB_END.size)
            end = replace(
                JobEnd.unpack(wanted[span].tobytes()), cycles=JobEnd.unpack(got[span].tobytes()).cycles
            )
            wanted[span] = np.frombuffer(end.pack(), dtype=np.uint8)


@lru_cache
def _load(path: Path) -> ctypes.CDLL:
    """The shared library with its functions' types set."""
    loaded = verilator.load(path)
    handle, pointer, size = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
    word, long = ctypes.c_uint32, ctypes.c_uint64
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "vrex_open": (handle, [long, word]),
        "vrex_close": (None, [handle]),
        "vrex_map": (None, [handle, size, long, long, pointer]),
        "vrex_set_latency": (None, [handle, long]),
        "vrex_write": (ctypes.c_int, [handle, word, word]),
        "vrex_read": (ctypes.c_int, [handle, word, ctypes.POINTER(word)]),
        "vrex_wait": (ctypes.c_int, [handle, long]),
        "vrex_cycles": (long, [handle]),
        "vrex_set_faults": (None, [handle, long, word, long]),
        "vrex_violations": (long, [handle]),
        "vrex_longest_wait": (long, [handle, ctypes.c_int]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded
