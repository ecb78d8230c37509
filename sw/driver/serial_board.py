"""A simulated board behind a pseudo-terminal, for whoever talks to serial ports."""

import ctypes
import os
import select
import threading
import tty
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from vrex.hw.tools import verilator
from vrex.hw.tools.build import Notify, library, to_stderr
from vrex.model.config import Config
from vrex.model.serial.line import BITS, SIMULATED_BYTE, SIMULATED_DIVISOR, SIMULATED_MEMORY
from vrex.sw.driver.rtl import LATENCY

CHANCE_UNITS = 1 << 32
CHUNK = 500
"""Bytes that may go over the line between two looks at the pseudo-terminal."""

QUIET = 200_000
"""Cycles with nothing on the line after which the clock stands still until a byte comes."""

BACKLOG = 512
"""Bytes on their way to the board beyond which the host has to wait, as at a real port."""

UNREAD = 1 << 16
"""Bytes from the board that the host has not read beyond which the clock stands still: it may have gone."""

UNITS = {"kvpu": "serial_kvpu", "dre": "serial_dre", "core": "serial_core"}
"""Hardware units (`vrex.hw.tools.generate`) by what is behind the line, without their UART."""

PINS = {"kvpu": "serial"}
"""The same with it."""

PAUSE = 0.05
"""Seconds between two looks at `stop` while the clock stands still."""


@dataclass(frozen=True)
class Noise:
    """What is wrong with a line; each is a chance, 0 <= chance < 1, in both directions.

    Attributes:
        flip: that a bit flips.
        drop: that a byte gets lost.
        repeat: that a byte comes twice.
        seed: of the chances.
        reset_every: bytes to the board after which its button is pressed, again and again; 0: never.
    """

    flip: float = 0.0
    drop: float = 0.0
    repeat: float = 0.0
    seed: int = 0
    reset_every: int = 0


class Board(Protocol):
    """What may be at the far end of a `Terminal`."""

    @property
    def waiting(self) -> int:
        """Bytes still on their way to the board."""
        ...

    def run(self, data: bytes, /) -> tuple[bytes, bool]:
        """Goes on a little with more bytes for the board.

        Returns:
            Bytes that came back, and whether nothing more will come without a byte.
        """
        ...


class SimulatedBoard:
    """The design of a board in simulation (`vrex.hw.serial.design`), its UART left out or, of a KVPU, in it.

    Attributes:
        cycles: clocked so far.
        sent, received: bytes to and from the board, before noise.
        resets: how often its button was pressed.
        memory: of a DRE or a core: uint8 [bytes], what is behind its port; a reset leaves it as it is. Of a
            KVPU nothing.
    """

    def __init__(
        self,
        config: Config,
        noise: Noise | None = None,
        *,
        unit: str = "kvpu",
        pins: bool = False,
        functions: bool = False,
        mutate: Callable[[str], str] | None = None,
        notify: Notify = to_stderr,
    ) -> None:
        """Opens a simulation, built on first use.

        Args:
            config: accelerator.
            noise: of the line.
            unit: of `UNITS`.
            pins: simulate the line bit by bit at the UART's pins, a KVPU's; else bytes go in and out.
            functions: simulate a core's MAC trees and vector lanes as C++ functions
                (`vrex.hw.tools.arithmetic`).
            mutate: changes the Verilog before the build; tests plant faults with it.
            notify: gets a sentence before a build.

        Raises:
            UserError: the simulator can't be built.
            ValueError: there is no such unit, or none with pins.
        """
        designs = PINS if pins else UNITS
        if unit not in designs:
            raise ValueError(f"no simulated board of unit {unit!r}: choose one of {', '.join(designs)}")
        self.noise = noise or Noise()
        self.cycles = self.sent = self.received = self.resets = 0
        self._byte_cycles = BITS * SIMULATED_DIVISOR if pins else SIMULATED_BYTE
        self._library = _load(library(config, designs[unit], mutate, notify, functions))
        self._simulation: int | None = self._library.vrex_open()
        self.memory = np.zeros(0 if unit == "kvpu" else SIMULATED_MEMORY, dtype=np.uint8)
        self._library.vrex_map(self._simulation, 0, len(self.memory), self.memory.ctypes.data)
        self._library.vrex_set_latency(self._simulation, LATENCY)
        chances = (int(getattr(self.noise, name) * CHANCE_UNITS) for name in ("flip", "drop", "repeat"))
        self._library.vrex_set_noise(self._simulation, self.noise.seed, *chances)
        self._harm: dict[str, int] = {}
        self._violations = 0
        self._until_reset = self.noise.reset_every

    def run(self, data: bytes, cycles: int | None = None, quiet: int = QUIET) -> tuple[bytes, bool]:
        """Puts bytes on the line and clocks the board, by default for as long as `CHUNK` bytes take.

        Returns:
            What came back, and whether nothing has been on the line for `quiet` cycles.
        """
        cycles = CHUNK * self._byte_cycles if cycles is None else cycles
        if self.noise.reset_every:
            self._until_reset -= len(data)
            if self._until_reset <= 0:
                self._until_reset += self.noise.reset_every
                self.resets += 1
                self._library.vrex_reset(self._simulation)
        done = self._library.vrex_run(self._simulation, data, len(data), cycles, quiet)
        size = ctypes.c_size_t()
        pointer = self._library.vrex_received(self._simulation, ctypes.byref(size))
        got = ctypes.string_at(pointer, size.value) if size.value else b""
        self.cycles += done
        self.sent += len(data)
        self.received += len(got)
        return got, done < cycles

    @property
    def waiting(self) -> int:
        """Bytes still on their way to the board."""
        return int(self._library.vrex_waiting(self._simulation))

    @property
    def violations(self) -> int:
        """Offences of the memory's port against AXI4."""
        if self._simulation is None:
            return self._violations
        return int(self._library.vrex_violations(self._simulation))

    def harm(self) -> dict[str, int]:
        """What the line did so far: bits flipped, bytes lost and repeated, resets."""
        if self._simulation is None:
            return self._harm
        counts = (ctypes.c_uint64 * 3)()
        self._library.vrex_noise(self._simulation, counts)
        names = ("flipped bits", "lost bytes", "repeated bytes")
        return {**dict(zip(names, map(int, counts), strict=True)), "resets": self.resets}

    def close(self) -> None:
        """Ends the simulation; a second call does nothing."""
        if self._simulation is not None:
            self._harm, self._violations = self.harm(), self.violations
            self._library.vrex_close(self._simulation)
            self._simulation = None


class Terminal:
    """A pseudo-terminal with a board at its far end.

    Attributes:
        name: of the port for the host, such as /dev/pts/3.
        board: at the other end.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        # The near end stays open here, so that hosts may come and go.
        self._far, self._near = os.openpty()
        tty.setraw(self._near)
        os.set_blocking(self._far, False)
        self.name = os.ttyname(self._near)
        self._out = b""
        self._stop = threading.Event()

    def serve(self) -> None:
        """Runs the board until `stop` is called."""
        quiet = False
        while not self._stop.is_set():
            if len(self._out) > UNREAD:
                self._wait(PAUSE)
                self._write()
                continue
            # A clock that stands still waits for bytes, or for room for them; one that runs looks.
            self._wait(PAUSE if quiet else 0.0)
            data = self._read()
            if quiet and not data:
                self._write()
                continue
            # Not faster than the host takes it.
            got, quiet = self.board.run(data)
            self._out += got
            self._write()

    def stop(self) -> None:
        """Makes `serve` return; may be called by another thread."""
        self._stop.set()

    def close(self) -> None:
        """Takes the port away from the host."""
        for file in (self._far, self._near):
            with suppress(OSError):
                os.close(file)

    def _wait(self, seconds: float) -> None:
        select.select([self._far], [self._far] if self._out else [], [], seconds)

    def _read(self) -> bytes:
        room = BACKLOG - self.board.waiting
        if room <= 0:
            return b""
        with suppress(BlockingIOError):
            return os.read(self._far, room)
        return b""

    def _write(self) -> None:
        with suppress(BlockingIOError):
            if self._out:
                self._out = self._out[os.write(self._far, self._out) :]


@lru_cache
def _load(path: Path) -> ctypes.CDLL:
    """The shared library with its functions' types set."""
    loaded = verilator.load(path)
    handle, size, pointer, u64, u32 = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_void_p,
        ctypes.c_uint64,
        ctypes.c_uint32,
    )
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "vrex_open": (handle, []),
        "vrex_close": (None, [handle]),
        "vrex_reset": (None, [handle]),
        "vrex_set_noise": (None, [handle, u64, u32, u32, u32]),
        "vrex_map": (None, [handle, u64, u64, pointer]),
        "vrex_set_latency": (None, [handle, u64]),
        "vrex_violations": (u64, [handle]),
        "vrex_run": (u64, [handle, ctypes.c_char_p, size, u64, u64]),
        "vrex_received": (pointer, [handle, ctypes.POINTER(size)]),
        "vrex_waiting": (size, [handle]),
        "vrex_noise": (None, [handle, ctypes.POINTER(u64)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded
