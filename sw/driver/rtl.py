"""The Verilog of an accelerator in simulation, with a clock."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from vrex.hw.tools import verilator
from vrex.hw.tools.build import Notify, library, to_stderr
from vrex.model.lib.memory import Memory
from vrex.sw.driver.transport import (
    Answer,
    AnyReport,
    DriverError,
    Interface,
    Response,
    Sent,
    Transport,
)

CYCLE_LIMIT = 20_000_000
STALL_UNITS = 1 << 16
LATENCY = 16
"""Cycles until the simulated memory answers; 20 ns at the paper's 800 MHz."""


class RtlTransport(Transport[Sent, Answer, AnyReport]):
    """Runs commands on a cycle-accurate simulation of the generated Verilog (see `Transport`).

    Attributes:
        cycle_limit: cycles without a completion after which a batch is given up.
    """

    def __init__(
        self,
        interface: Interface[Sent, Answer, AnyReport],
        *,
        mutate: Callable[[str], str] | None = None,
        stall: float = 0.0,
        seed: int = 0,
        latency: int = LATENCY,
        cycle_limit: int = CYCLE_LIMIT,
        notify: Notify = to_stderr,
    ) -> None:
        """Opens a simulation, built on first use.

        Args:
            interface: of the accelerator; outside of its memory's windows its AXI port is answered with
                DECERR.
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
        super().__init__(interface, interface.new_report())
        self.cycle_limit = cycle_limit
        self._library = _load(library(self.config, interface.unit, mutate, notify))
        self._simulation: int | None = self._library.vrex_open(seed, int(stall * STALL_UNITS))
        if self.memory is not None:
            self._map(self.memory, latency)

    def submit(self, sent: Sent, /) -> Answer:
        """Executes commands in order (see `Transport`)."""
        request = self.interface.pack(sent)
        ended = self._library.vrex_run(
            self._simulation,
            request.descriptors,
            request.count,
            request.completions,
            request.payload,
            len(request.payload),
            self.cycle_limit,
        )
        response = Response(
            self._fetch(self._library.vrex_completions),
            self._fetch(self._library.vrex_results),
            self._fetch(self._library.vrex_kv),
        )
        try:
            if not ended:
                raise DriverError(self.interface.unanswered(sent, response, self.cycle_limit))
            answer = self.interface.unpack(sent, response)
        except DriverError:
            self._library.vrex_reset(self._simulation)
            raise
        self.report.count(sent, answer)
        return answer

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
        """Maps the memory that the host sees into the simulation."""
        for number, window in enumerate((memory.device, memory.host)):
            size = window.stop - window.start
            content = memory.view(window.start, size)
            self._library.vrex_map(self._simulation, number, window.start, size, content.ctypes.data)
        self._library.vrex_set_latency(self._simulation, latency)

    def _fetch(self, getter: Callable[..., int]) -> bytes:
        """The bytes of the last run that one of the library's getters returns."""
        size = ctypes.c_size_t()
        pointer = getter(self._simulation, ctypes.byref(size))
        return ctypes.string_at(pointer, size.value) if size.value else b""


@lru_cache
def _load(path: Path) -> ctypes.CDLL:
    """The shared library with its functions' types set."""
    loaded = verilator.load(path)
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
