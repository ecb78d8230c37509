"""The Verilog of an accelerator in simulation, with a clock."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from vrex.hw.tools.build import Notify, library, to_stderr
from vrex.model.commands import COMPLETION, Completion, Status, to_beats
from vrex.model.config import Config
from vrex.model.lib.memory import Memory
from vrex.sw.driver.transport import (
    DELIVERING,
    Batch,
    DriverError,
    Outcome,
    Results,
    TransportReport,
    describe,
    write_memory,
)

CYCLE_LIMIT = 20_000_000
STALL_UNITS = 1 << 16
LATENCY = 16
"""Cycles until the simulated memory answers; 20 ns at the paper's 800 MHz."""


class RtlTransport:
    """Runs commands on a cycle-accurate simulation of the generated Verilog (see `Transport`).

    Attributes:
        cycle_limit: cycles without a completion after which a batch is given up.
    """

    def __init__(
        self,
        config: Config,
        memory: Memory | None = None,
        *,
        mutate: Callable[[str], str] | None = None,
        stall: float = 0.0,
        seed: int = 0,
        latency: int = LATENCY,
        cycle_limit: int = CYCLE_LIMIT,
        notify: Notify = to_stderr,
    ) -> None:
        """Opens a simulation, built on first use: of the KVPU, or with a memory of the DRE.

        Args:
            config: accelerator.
            memory: what the DRE's AXI port reaches; elsewhere it is answered with DECERR.
            mutate: changes the Verilog before the build; tests plant faults with it.
            stall: chance that a port of the host's or of the memory's stalls in a cycle, 0 <= stall < 1; the
                memory then also answers reads of different ids out of order.
            seed: of the stalls.
            latency: cycles until the memory answers.
            cycle_limit: see the attribute.
            notify: gets a sentence before a build.

        Raises:
            UserError: the simulator can't be built.
        """
        unit = "kvpu" if memory is None else "dre"
        self.config, self.memory = config, memory
        self.report = TransportReport(unit)
        self.cycle_limit = cycle_limit
        self._library = load_library(library(config, unit, mutate, notify))
        self._simulation: int | None = self._library.vrex_open(seed, int(stall * STALL_UNITS))
        if memory is not None:
            self._map(memory, latency)

    def submit(self, batch: Batch) -> Results:
        """Executes commands in order (see `Transport`)."""
        descriptors = b"".join(command.pack() for command, _ in batch)
        payload = b"".join(to_beats(self.config, data) for _, data in batch)
        ended = self._library.vrex_run(
            self._simulation, descriptors, *[len(batch)] * 2, payload, len(payload), self.cycle_limit
        )
        ends = self._fetch(self._library.vrex_completions)
        completions = [
            Completion.unpack(ends[first : first + COMPLETION.size])
            for first in range(0, len(ends), COMPLETION.size)
        ]
        results = self._fetch(self._library.vrex_results)
        kv = self._fetch(self._library.vrex_kv)
        if not ended:
            self._give_up(batch, len(completions))
        delivered = [
            completion.detail * self.config.bus_bytes if command.opcode in DELIVERING else 0
            for (command, _), completion in zip(batch, completions, strict=True)
        ]
        if sum(completion.size for completion in completions) != len(results) or sum(delivered) != len(kv):
            self._library.vrex_reset(self._simulation)
            raise DriverError(
                f"the accelerator returned {len(results) + len(kv)} bytes up to {describe(batch[-1][0])}, "
                "which is not what the completions say: its Verilog is at fault, so run vrex regress"
            )
        answers = _split(completions, results, delivered, kv)
        self.report.count(batch, answers)
        return answers

    def write(self, address: int, data: bytes) -> None:
        """Writes the DRE's memory (see `Transport`)."""
        write_memory(self.memory, address, data)

    def close(self) -> None:
        """Ends the simulation; a second call does nothing."""
        if self._simulation is not None:
            self._library.vrex_close(self._simulation)
            self._simulation = None

    def __del__(self) -> None:
        # Nothing was opened where the build failed.
        if getattr(self, "_simulation", None) is not None:
            self.close()

    def _map(self, memory: Memory, latency: int) -> None:
        """Lets the simulation work on the bytes that the host sees."""
        for number, window in enumerate((memory.device, memory.host)):
            size = window.stop - window.start
            content = memory.view(window.start, size)
            self._library.vrex_map(self._simulation, number, window.start, size, content.ctypes.data)
        self._library.vrex_set_latency(self._simulation, latency)

    def _fetch(self, getter: Callable[..., int]) -> bytes:
        assert self._simulation is not None
        return fetched(getter, self._simulation)

    def _give_up(self, batch: Batch, done: int) -> None:
        """Resets the simulation and says which command it was that did not complete."""
        self._library.vrex_reset(self._simulation)
        if done == len(batch):
            raise DriverError(
                f"the accelerator completed {describe(batch[-1][0])} without taking all of its payload: "
                "its Verilog is at fault, so run vrex regress"
            )
        raise DriverError(
            f"no completion of {describe(batch[done][0])} after {self.cycle_limit} cycles: "
            "its Verilog is at fault, so run vrex regress"
        )


def _split(completions: list[Completion], results: bytes, delivered: list[int], kv: bytes) -> Results:
    """Gives every command its bytes of both streams; those of `kv` that a failed one left are dropped."""
    answers: Results = []
    first = first_kv = 0
    for completion, size in zip(completions, delivered, strict=True):
        result = results[first : first + completion.size]
        first += completion.size
        good = kv[first_kv : first_kv + size] if completion.status == Status.OK else b""
        first_kv += size
        answers.append(Outcome(completion, result, good))
    return answers


def fetched(getter: Callable[..., int], simulation: int) -> bytes:
    """What one of the library's getters has of the last run."""
    size = ctypes.c_size_t()
    pointer = getter(simulation, ctypes.byref(size))
    return ctypes.string_at(pointer, size.value) if size.value else b""


@lru_cache
def load_library(path: Path) -> ctypes.CDLL:
    """The shared library with its functions' types set."""
    loaded = ctypes.CDLL(str(path))
    handle, size, pointer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    getter: tuple[type, list[type]] = (pointer, [handle, ctypes.POINTER(ctypes.c_size_t)])
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "vrex_open": (handle, [ctypes.c_uint64, ctypes.c_uint32]),
        "vrex_close": (None, [handle]),
        "vrex_reset": (None, [handle]),
        "vrex_run": (
            ctypes.c_int,
            [handle, ctypes.c_char_p, size, size, ctypes.c_char_p, size, ctypes.c_uint64],
        ),
        "vrex_results": getter,
        "vrex_completions": getter,
        "vrex_kv": getter,
        "vrex_map": (None, [handle, size, ctypes.c_uint64, ctypes.c_uint64, pointer]),
        "vrex_set_latency": (None, [handle, ctypes.c_uint64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded
