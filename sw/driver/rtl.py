"""The Verilog of the KVPU in simulation, as an accelerator with a clock."""

import ctypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from vrex.model.commands import COMPLETION, Completion, to_beats
from vrex.model.config import Config
from vrex.sw.driver.build import Notify, library, to_stderr
from vrex.sw.driver.transport import Batch, DriverError, Results, TransportReport, describe

CYCLE_LIMIT = 20_000_000
STALL_UNITS = 1 << 16


class RtlTransport:
    """Runs commands on a cycle-accurate simulation of the generated Verilog (see `Transport`).

    Attributes:
        cycle_limit: cycles without a completion after which a batch is given up.
    """

    def __init__(
        self,
        config: Config,
        *,
        mutate: Callable[[str], str] | None = None,
        stall: float = 0.0,
        seed: int = 0,
        cycle_limit: int = CYCLE_LIMIT,
        notify: Notify = to_stderr,
    ) -> None:
        """Opens a simulation, built on first use.

        Args:
            config: accelerator.
            mutate: changes the Verilog before the build; tests plant faults with it.
            stall: chance that a port of the host's stalls in a cycle, 0 <= stall < 1.
            seed: of the stalls.
            cycle_limit: see the attribute.
            notify: gets a sentence before a build.

        Raises:
            UserError: the simulator can't be built.
        """
        self.config = config
        self.report = TransportReport()
        self.cycle_limit = cycle_limit
        self._library = _load(library(config, mutate, notify))
        self._simulation: int | None = self._library.vrex_open(seed, int(stall * STALL_UNITS))

    def submit(self, batch: Batch) -> Results:
        """Executes commands in order (see `Transport`)."""
        descriptors = b"".join(command.pack() for command, _ in batch)
        payload = b"".join(to_beats(self.config, data) for _, data in batch)
        ended = self._library.vrex_run(
            self._simulation, descriptors, len(batch), payload, len(payload), self.cycle_limit
        )
        completions = [
            Completion(*fields)
            for fields in COMPLETION.iter_unpack(self._fetch(self._library.vrex_completions))
        ]
        results = self._fetch(self._library.vrex_results)
        if not ended:
            self._give_up(batch, len(completions))
        if sum(completion.size for completion in completions) != len(results):
            self._library.vrex_reset(self._simulation)
            raise DriverError(
                f"the accelerator returned {len(results)} result bytes up to {describe(batch[-1][0])}, "
                "which is not what the completions say: its Verilog is at fault, so run vrex regress"
            )
        answers = _split(completions, results)
        self.report.count(batch, answers)
        return answers

    def close(self) -> None:
        """Ends the simulation; a second call does nothing."""
        if self._simulation is not None:
            self._library.vrex_close(self._simulation)
            self._simulation = None

    def __del__(self) -> None:
        # Nothing was opened where the build failed.
        if getattr(self, "_simulation", None) is not None:
            self.close()

    def _fetch(self, getter: Callable[..., int]) -> bytes:
        size = ctypes.c_size_t()
        pointer = getter(self._simulation, ctypes.byref(size))
        return ctypes.string_at(pointer, size.value) if size.value else b""

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


def _split(completions: list[Completion], results: bytes) -> Results:
    answers: Results = []
    first = 0
    for completion in completions:
        answers.append((completion, results[first : first + completion.size]))
        first += completion.size
    return answers


@lru_cache
def _load(path: Path) -> ctypes.CDLL:
    """The shared library with its functions' types set."""
    loaded = ctypes.CDLL(str(path))
    handle, size, pointer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "vrex_open": (handle, [ctypes.c_uint64, ctypes.c_uint32]),
        "vrex_close": (None, [handle]),
        "vrex_reset": (None, [handle]),
        "vrex_run": (ctypes.c_int, [handle, ctypes.c_char_p, size, ctypes.c_char_p, size, ctypes.c_uint64]),
        "vrex_results": (pointer, [handle, ctypes.POINTER(ctypes.c_size_t)]),
        "vrex_completions": (pointer, [handle, ctypes.POINTER(ctypes.c_size_t)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded
