"""What every testbench shares: clock, reset, driving and sampling the streams, and the test case decorator.

A cycle has two moments. At the falling edge the inputs change; just before the rising edge everything is
settled and is sampled, which is what the design's registers see. Simulators do not differ there.
"""

import json
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import Timer

from vrex.model.config import Config
from vrex.tb.lib.coverage import Coverage
from vrex.tb.lib.streams import PROFILES, Sink, Source, StreamError, left_over, standstill

PATIENCE = 60_000
"""Cycles without a transfer on any port after which a design counts as stuck."""

IDLE_CYCLES = 40
"""Cycles at the end of a test in which nothing more may come."""

ENV_SETUP = "VREX_TB_SETUP"
"""Environment variable with the JSON object {unit, config, seed, effort, report}."""


def setup() -> dict[str, Any]:
    """What `vrex.tb.regress` asks of this simulation; without it, defaults for an import alone."""
    return json.loads(os.environ.get(ENV_SETUP, '{"effort": 1.0, "config": null}'))


def scaled(amount: int, least: int = 1) -> int:
    """An amount of work under the effort of this run: 1 by default, less on a slow simulator."""
    return max(least, int(amount * setup()["effort"]))


def beats(data: bytes, size: int) -> list[int]:
    """Bytes, filled up with zeros, as little-endian words of `size` bytes."""
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def fields(*values_and_widths: tuple[int, int]) -> int:
    """Packs (value, width) pairs, the first in the lowest bits; negative values in two's complement."""
    word = shift = 0
    for value, width in values_and_widths:
        if not -(1 << width) // 2 <= value < 1 << width:
            raise ValueError(f"{value} does not fit into {width} bits")
        word |= (value & (1 << width) - 1) << shift
        shift += width
    return word


class Bench:
    """A design under test with its streams.

    Attributes:
        config: of the design.
        rng, random: numpy's and Python's generator of this case, both from its seed.
        coverage: bins met so far.
        cycle: cycles since the simulation of this case began.
        resetting: the reset is asserted.
        reset_cycles: of the next reset; one must be enough.
        taken_at_once: inputs on which no word comes before it is waited for.
    """

    unit: str
    taken_at_once: Collection[str] = ()

    def __init__(
        self, dut: Any, config: Config, seed: str, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        self.dut, self.config = dut, config
        self.random = Random(seed)
        self.rng = np.random.default_rng(self.random.getrandbits(64))
        self.coverage = Coverage(self.unit)
        self.cycle, self.resetting, self.reset_cycles = 0, False, 1
        self._half = Timer(5, "ns")
        self._clock = dut.clk
        self.sources: dict[str, Source] = {}
        self.sinks: dict[str, Sink] = {}
        self._signals: dict[str, tuple[Any, Any, Any]] = {}
        for name in (*inputs, *outputs):
            self._signals[name] = self.find(name)
            rng = Random(self.random.getrandbits(64))
            if name in inputs:
                self.sources[name] = Source(name, len(self._signals[name][2]), rng)
            else:
                self.sinks[name] = Sink(name, rng)

    def find(self, name: str) -> tuple[Any, Any, Any]:
        """Valid, ready and payload of a stream."""
        valid, ready, payload = (
            getattr(self.dut, f"{name}__{part}") for part in ("valid", "ready", "payload")
        )
        return valid, ready, payload

    def stall(self, profile: str | None = None) -> None:
        """Sets every port's stall profile: the named one, or one drawn for each port."""
        ports: list[Source | Sink] = [*self.sources.values(), *self.sinks.values()]
        for port in ports:
            port.stalls.profile = PROFILES[profile or self.random.choice(list(PROFILES))]

    async def reset(self) -> None:
        """`reset_cycles` of reset and an idle cycle; forgets what was queued and expected."""
        for source in self.sources.values():
            source.clear()
            valid, _, payload = self._signals[source.name]
            valid.value, payload.value = 0, 0
        for sink in self.sinks.values():
            sink.clear()
            sink.ready = False
            self._signals[sink.name][1].value = 0
        self.resetting = True
        self.dut.rst.value = 1
        for _ in range(self.reset_cycles):
            await self._tick()
        self.resetting = False
        self.dut.rst.value = 0
        await self._tick()

    async def reset_in_work(self) -> None:
        """A reset of one, two or three cycles, as it comes, in all of which a pipeline may still move."""
        self.reset_cycles = self.random.randint(1, 3)
        await self.reset()
        self.reset_cycles = 1

    async def _tick(self) -> None:
        """A clock cycle without any stream activity."""
        self._clock.value = 0
        await self._half
        await self._rise([])

    def _count(self) -> None:
        """Looks at outputs that are no streams before the rising edge, in every cycle."""

    def number(self, name: str) -> int:
        """Value of an output that is no stream, which must be known."""
        return _word(getattr(self.dut, name), name)

    def _drive(self) -> None:
        for name, source in self.sources.items():
            if source.present():
                valid, _, payload = self._signals[name]
                payload.value = source.payload
                valid.value = 1
        for name, sink in self.sinks.items():
            if sink.prepare():
                self._signals[name][1].value = int(sink.ready)

    def _sample(self) -> list[Source]:
        """Looks at all ports before the rising edge; returns the sources whose word is taken."""
        taken = []
        for name, source in self.sources.items():
            if source.valid and source.end(_bit(self._signals[name][1], name)):
                taken.append(source)
        self._moved = bool(taken)
        for name, sink in self.sinks.items():
            valid, _, payload = self._signals[name]
            high = _bit(valid, name)
            self._moved |= sink.end(high, _word(payload, f"the payload of {name}") if high else 0, self.cycle)
        return taken

    async def step(self) -> bool:
        """One cycle; returns whether a word moved on any port."""
        self._clock.value = 0
        self._drive()
        await self._half
        await self._rise(self._sample())
        return self._moved

    async def _rise(self, taken: list[Source]) -> None:
        """The rising edge and the rest of the cycle."""
        self._count()
        self._clock.value = 1
        await self._half
        # Hold time: a word leaves the wires only after the edge that took it.
        for source in taken:
            valid, _, payload = self._signals[source.name]
            valid.value, payload.value = 0, source.payload
        self.cycle += 1

    async def steps(self, cycles: int) -> None:
        """Runs a number of cycles."""
        for _ in range(cycles):
            await self.step()

    async def drain(self, until: Callable[[], bool] | None = None) -> None:
        """Runs until everything queued was sent and everything expected has come.

        Args:
            until: stops there instead.

        Raises:
            StreamError: nothing moved for `PATIENCE` cycles; the message names the ports that are stuck.
        """
        sources, sinks = list(self.sources.values()), list(self.sinks.values())
        idle = 0
        while until is not None or any(s.queue for s in sources) or any(s.expected for s in sinks):
            if until is not None and until():
                return
            idle = 0 if await self.step() else idle + 1
            if idle > PATIENCE:
                raise StreamError(standstill(sources, sinks, idle))

    async def finish(self) -> None:
        """Drains, runs `IDLE_CYCLES` more, checks that nothing is left over, and records the stalls."""
        await self.drain()
        for sink in self.sinks.values():
            sink.stalls.profile = PROFILES["none"]
        await self.steps(IDLE_CYCLES)
        left = left_over(self.sources.values(), self.sinks.values())
        if left:
            raise StreamError("left over at the end: " + "; ".join(left))
        for source in self.sources.values():
            self.coverage.hit(f"{source.name} starved", source.starved)
            if source.name not in self.taken_at_once:
                self.coverage.hit(f"{source.name} blocked", source.blocked)
        for sink in self.sinks.values():
            self.coverage.hit(f"{sink.name} blocked", sink.blocked)

    async def check_ready_is_not_seen_by_valid(self, cycles: int) -> None:
        """Runs a number of cycles, inverting each ready in the middle of each: no valid may change."""
        for _ in range(cycles):
            self._clock.value = 0
            self._drive()
            await self._half
            before = {name: _bit(self._signals[name][0], name) for name in self.sinks}
            for name, sink in self.sinks.items():
                self._signals[name][1].value = int(not sink.ready)
            await self._half
            for name, sink in self.sinks.items():
                if _bit(self._signals[name][0], name) != before[name]:
                    raise StreamError(f"{name}: valid depends on a ready in the same cycle")
                self._signals[name][1].value = int(sink.ready)
            await self._half
            await self._rise(self._sample())


def _bit(signal: Any, name: str) -> bool:
    value = str(signal.value)
    if value not in ("0", "1"):
        raise StreamError(f"{name}: valid or ready is {value}")
    return value == "1"


def _word(signal: Any, name: str) -> int:
    value = str(signal.value)
    try:
        return int(value, 2)
    except ValueError:
        raise StreamError(f"{name} is {value}") from None


def case(bench: Callable[[Any, Config, str], Any], **options: Sequence[Any]) -> Callable[..., Any]:
    """Decorator that makes a cocotb test of `async def body(bench, **parameters)`.

    The test gets a fresh bench after a reset, seeded with (seed, unit, configuration, case), ends with
    `Bench.finish` and adds one line to the report when it passed.

    Args:
        bench: makes the bench of the unit.
        options: parameter values; every combination is a case of its own.
    """

    def decorate(body: Callable[..., Awaitable[None]]) -> Any:
        async def run(dut: Any, **parameters: Any) -> None:
            ask = setup()
            name = body.__name__ + "".join(f"/{key}={value}" for key, value in parameters.items())
            seed = f"{ask['seed']}:{ask['unit']}:{ask['config']['name']}:{name}"
            under_test = bench(dut, Config.from_dict(ask["config"]), seed)
            await under_test.reset()
            await body(under_test, **parameters)
            await under_test.finish()
            _report(ask["report"], name, under_test)

        run.__name__ = run.__qualname__ = body.__name__
        run.__module__, run.__doc__ = body.__module__, body.__doc__
        return cocotb.test()(cocotb.parametrize(**options)(run) if options else run)

    return decorate


def _report(path: str, name: str, bench: Bench) -> None:
    entry = {"case": name, "cycles": bench.cycle, "bins": dict(bench.coverage.hits)}
    with open(path, "a") as report:
        report.write(json.dumps(entry) + "\n")
