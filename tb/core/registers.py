"""Testbench of a core's registers: every address and kind of access, as the register table says."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from vrex.hw.core.registers import COUNTS, STATES, VALUES
from vrex.hw.lib.axi.lite import OKAY, SLVERR
from vrex.model.config import Config
from vrex.model.core.registers import REGISTERS, Register, caps
from vrex.tb.lib.axi_bench import channel_stream
from vrex.tb.lib.bench import Bench, case, scaled
from vrex.tb.lib.streams import Source, StreamError

WHOLE = 0xF
"""Strobe of a whole register."""

LATENCY = 7
"""Cycles from an access that is taken to its answer."""

CHANNELS = {
    "ar": {"addr": 12, "prot": 3},
    "r": {"data": 32, "resp": 2},
    "aw": {"addr": 12, "prot": 3},
    "w": {"data": 32, "strb": 4},
    "b": {"resp": 2},
}
WORD = (1 << 32) - 1


class Reference:
    """The registers, without a clock.

    Attributes:
        values: of all but the counters.
        enable: CONTROL.enable.
        counters: what the counters have counted.
    """

    def __init__(self, config: Config) -> None:
        self.values = {register: info.reset for register, info in REGISTERS.items() if info.access != "COUNT"}
        self.values[Register.CAPS] = caps(config)
        self.counters = {register: 0 for register, info in REGISTERS.items() if info.access == "COUNT"}

    @property
    def enable(self) -> int:
        """CONTROL.enable."""
        return self.values[Register.CONTROL]

    @property
    def works(self) -> int:
        """Whether jobs are taken, or one is in work."""
        return self.enable | self.values[Register.STATUS] & 1

    def read(self, address: int) -> int | None:
        """What a read answers; None for an error."""
        if address not in Register.__members__.values():
            return None
        register = Register(address)
        return self.counters[register] & WORD if register in self.counters else self.values[register]

    def write(self, address: int, word: int, strobe: int) -> bool:
        """Writes; returns whether that is allowed."""
        if address not in Register.__members__.values() or strobe != WHOLE:
            return False
        register = Register(address)
        info = REGISTERS[register]
        if info.access in ("RO", "COUNT") or (info.access == "OFF" and self.works):
            return False
        if info.access == "W1C":
            self.values[register] &= ~word
        elif register == Register.CONTROL:
            self.values[register] = word & 1 if not word & 2 else 0
            if word & 2:
                self.values[Register.JOB_TAIL] = self.values[Register.END_HEAD] = 0
        else:
            self.values[register] = word & (1 << info.bits) - 1
        return True


class RegistersBench(Bench):
    """Reads and writes registers, one after the other.

    Attributes:
        reference: what the registers hold.
        resets: cycles with `reset` high.
        answers: "r" and "b" in the order in which they came.
    """

    unit = "registers"
    inputs: Sequence[str] = ("ar", "aw", "w")
    outputs: Sequence[str] = ("r", "b")

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, self.inputs, self.outputs)
        self.answers: list[str] = []
        for name, sink in self.sinks.items():
            sink.on_word = lambda word, name=name: self.answers.append(name)
        self.counted: Counter[str] = Counter()
        self.resets = self.expected_resets = 0

    def find(self, name: str) -> tuple[Any, Any, Any]:
        """A channel of the port as a stream."""
        return channel_stream(self.dut, f"s_axi_{name}", CHANNELS[name])

    async def reset(self) -> None:
        """All inputs low, and the registers at their reset values."""
        self.reference = Reference(self.config)
        for name, register in STATES.items():
            getattr(self.dut, f"states__{name}").value = self.reference.values[register]
        self.dut.events.value = 0
        self.count({})
        await super().reset()
        self.began = self.cycle

    def count(self, amounts: dict[str, int]) -> None:
        """What the counters count from now on."""
        self.amounts = amounts
        for name in COUNTS:
            getattr(self.dut, f"counts__{name}").value = amounts.get(name, 0)

    def _count(self) -> None:
        if self.resetting:
            return
        for name, amount in self.amounts.items():
            self.reference.counters[COUNTS[name]] += amount
        if self.number("reset"):
            self.resets += 1
            if self.number("enable"):
                raise StreamError("enabled in a reset")

    def ask(self, address: int, write: int | None = None, strobe: int = WHOLE) -> None:
        """Begins an access and expects its answer."""
        prot = self.random.getrandbits(3) << 12
        if write is None:
            self.sources["ar"].send([address | prot])
            word = self.reference.read(address)
            known = address not in (Register.CYCLES,)
            mask = (-1 if word is not None else ~WORD) if known else ~WORD
            answer = SLVERR << 32 if word is None else word | OKAY << 32
            self.sinks["r"].expect(f"read of {address:#x}", [answer], mask)
            self.coverage.hit("read is refused", word is None)
            return
        self.sources["aw"].send([address | prot])
        self.sources["w"].send([write | strobe << 32])
        enabled = self.reference.enable
        self.coverage.hit("register written in work", self.reference.works and not enabled)
        good = self.reference.write(address, write, strobe)
        self.expected_resets += good and address == Register.CONTROL and write >> 1 & 1
        answer = OKAY if good else SLVERR
        self.sinks["b"].expect(f"write of {write:#x} to {address:#x}, strobe {strobe:#x}", [answer])
        access = (
            REGISTERS[Register(address)].access if address in Register.__members__.values() else "nothing"
        )
        self.coverage.hit(f"write to {access} while {'enabled' if enabled else 'disabled'}", strobe == WHOLE)
        self.coverage.hit("write of some bytes", strobe != WHOLE)

    async def read(self, address: int) -> None:
        """Reads and compares."""
        self.ask(address)
        await self.drain()

    async def write(self, address: int, word: int, strobe: int = WHOLE) -> None:
        """Writes, and compares all outputs."""
        self.ask(address, word, strobe)
        await self.drain()
        self.compare()

    def compare(self) -> None:
        """Compares the outputs."""
        for name, register in VALUES.items():
            found, want = self.number(f"values__{name}"), self.reference.values[register]
            if found != want:
                raise StreamError(f"{name} is {found:#x}, not {want:#x}")
        if self.number("enable") != self.reference.enable:
            raise StreamError(f"enable is {self.number('enable')}")

    async def events(self, bits: int) -> None:
        """Events for one cycle."""
        self.dut.events.value = bits
        await self.step()
        self.dut.events.value = 0
        self.reference.values[Register.IRQ] |= bits

    async def finish(self) -> None:
        """Also counts the resets."""
        await super().finish()
        if self.resets != self.expected_resets:
            raise StreamError(f"{self.resets} resets instead of {self.expected_resets}")


class OtherMasterBench(RegistersBench):
    """Leaves the port to cocotbext-axi's manager."""

    inputs, outputs = (), ()

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed)
        self.master: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        for log in (self.master.write_if.log, self.master.read_if.log):
            log.setLevel("WARNING")

    async def access(self, event: Any) -> Any:
        """What an access that was begun ends with."""
        while not event.is_set():
            await self.step()
        return event.data


def make(dut: Any, config: Config, seed: str) -> RegistersBench:
    """Bench of one case."""
    return RegistersBench(dut, config, seed)


def make_other(dut: Any, config: Config, seed: str) -> OtherMasterBench:
    """Bench of one case on cocotbext-axi's manager."""
    return OtherMasterBench(dut, config, seed)


def addresses() -> list[int]:
    """All registers, and addresses beside them."""
    known = [register.value for register in Register]
    return [*known, *(value + step for value in known for step in (1, 2, 3)), 0xFFC, 0x100, 0x800, 0x0F0]


@case(make)
async def reset_values(bench: RegistersBench) -> None:
    """Every address of the port, right after a reset."""
    for address in range(0, 1 << 12, 4 if scaled(4) > 3 else 16):
        await bench.read(address)


@case(make, enabled=(0, 1))
async def every_register(bench: RegistersBench, enabled: int) -> None:
    """A write to every register, and to the addresses beside them; then all are read."""
    bench.stall()
    await bench.write(Register.CONTROL, enabled)
    for address in addresses():
        if address != Register.CONTROL:
            await bench.write(address, bench.random.getrandbits(32))
    for address in addresses():
        await bench.read(address)
    for word in (WORD, 0):
        await bench.write(Register.CONTROL, 0)
        for address in addresses():
            if address != Register.CONTROL:
                await bench.write(address, word)
                await bench.read(address)


@case(make)
async def some_bytes(bench: RegistersBench) -> None:
    """A write that is not of all four bytes changes nothing, whatever it is to."""
    bench.stall()
    for strobe in range(WHOLE):
        for register in (Register.JOB_BASE, Register.CONTROL, Register.IRQ, Register.JOB_TAIL, Register.ID):
            await bench.events(1)
            await bench.write(register, bench.random.getrandbits(32), strobe)
            await bench.read(register)


@case(make)
async def random(bench: RegistersBench) -> None:
    """Accesses of all kinds, with states and counters that change."""
    for _ in range(scaled(600, 100)):
        if bench.random.random() < 0.1:
            bench.stall()
            for name, register in STATES.items():
                word = bench.random.getrandbits(REGISTERS[register].bits)
                bench.reference.values[register] = word
                getattr(bench.dut, f"states__{name}").value = word
            bench.count({name: bench.random.getrandbits(1) for name in COUNTS})
            await bench.steps(bench.random.randrange(20))
            bench.count({})
            await bench.steps(2)
        if bench.random.random() < 0.3:
            await bench.events(bench.random.getrandbits(2))
        # The registers that matter most more often.
        address = bench.random.choice(
            [*addresses(), *[Register.CONTROL, Register.IRQ, Register.IRQ_MASK] * 8]
        )
        if bench.random.random() < 0.5:
            await bench.read(address)
        else:
            strobe = WHOLE if bench.random.random() < 0.9 else bench.random.getrandbits(4)
            await bench.write(address, bench.random.getrandbits(bench.random.choice([2, 32])), strobe)
        await bench.step()
        pending = bench.reference.values[Register.IRQ] & bench.reference.values[Register.IRQ_MASK]
        if bench.number("irq") != (pending != 0):
            raise StreamError(f"irq is {bench.number('irq')}")
        bench.coverage.hit("interrupt is masked", bench.reference.values[Register.IRQ] and not pending)
        bench.coverage.hit("interrupt", pending)


@case(make)
async def event_while_cleared(bench: RegistersBench) -> None:
    """An event in any cycle round that in which its bit is cleared: only those before it are gone."""
    bench.stall("none")
    await bench.write(Register.IRQ_MASK, 3)

    async def clear(event: int | None) -> int:
        """Clears bit 0, with another event in that cycle from the access on; returns when `irq` fell."""
        await bench.events(1)
        await bench.steps(3)
        bench.ask(Register.IRQ, 1)
        fell = 0
        for cycle in range(2 * LATENCY):
            if cycle == event:
                await bench.events(1)
            else:
                await bench.step()
            fell = fell or (not bench.number("irq") and cycle)
        return fell

    # After the edge of cycle `fell` - 1 the bit was 0, and `irq` followed.
    cleared = await clear(None) - 1
    for event in range(2 * LATENCY - 2):
        await clear(event)
        bench.reference.values[Register.IRQ] = int(event >= cleared)
        bench.coverage.hit("event in the cycle that clears it", event == cleared)
        await bench.read(Register.IRQ)
        await bench.write(Register.IRQ, 3)


@case(make)
async def counters(bench: RegistersBench) -> None:
    """Every counter counts its own events, and CYCLES the cycles."""
    bench.stall("none")
    for name in COUNTS:
        bench.count({name: 1})
        await bench.steps(bench.random.randint(1, 30))
        bench.count({})
        await bench.steps(2)
    for register in bench.reference.counters:
        await bench.read(register)
    seen: list[tuple[int, int]] = []
    note = bench.sinks["r"].on_word
    bench.sinks["r"].on_word = lambda word: seen.append((word & WORD, bench.cycle))
    for _ in range(6):
        bench.ask(Register.CYCLES)
        await bench.drain()
        await bench.steps(bench.random.randrange(40))
    bench.sinks["r"].on_word = note
    for (before, then), (after, now) in pairwise(seen):
        if after - before != now - then:
            raise StreamError(f"CYCLES counted {after - before} in {now - then} cycles")
    if not 0 <= seen[0][1] - bench.began - seen[0][0] <= LATENCY:
        raise StreamError(f"CYCLES is {seen[0][0]} after {seen[0][1] - bench.began} cycles")


@case(make)
async def soft_reset(bench: RegistersBench) -> None:
    """CONTROL.reset clears the rings and `enable`, which may be written with it, and nothing else."""
    for word in (2, 3):
        bench.stall()
        await bench.write(Register.CONTROL, 0)
        for register in (Register.JOB_BASE, Register.JOB_TAIL, Register.END_HEAD, Register.IRQ_MASK):
            await bench.write(register, bench.random.getrandbits(32) | 1)
        await bench.events(3)
        await bench.write(Register.CONTROL, 1)
        await bench.write(Register.CONTROL, word)
        for register in Register:
            if register != Register.CYCLES:
                await bench.read(register)
        bench.coverage.hit("reset with enable", word == 3)


@case(make)
async def address_and_data(bench: RegistersBench) -> None:
    """A write's address comes before its data, with it, or after it."""
    bench.stall("none")
    for first, then in (("aw", "w"), ("w", "aw")):
        for gap in range(12):
            word = bench.random.getrandbits(32)
            bench.ask(Register.JOB_BASE, word)
            late: Source = bench.sources[then]
            held = late.queue.copy()
            late.queue.clear()
            await bench.steps(gap)
            if bench.sinks["b"].received != bench.sinks["b"].asked - 1:
                raise StreamError(f"an answer without {then}")
            late.send(held)
            await bench.drain()
            bench.compare()
            bench.coverage.hit(f"{first} comes first", gap > 2)


@case(make)
async def reads_and_writes_in_turn(bench: RegistersBench) -> None:
    """Neither keeps the other waiting for longer than an access."""
    bench.stall("none")
    for word in range(12):
        bench.ask(Register.JOB_SIZE)
        bench.ask(Register.IRQ_MASK, word)
    await bench.drain()
    if any(before == after for before, after in pairwise(bench.answers)):
        raise StreamError(f"answers came as {' '.join(bench.answers)}")


@case(make)
async def latency(bench: RegistersBench) -> None:
    """An answer comes as soon as the docstring says."""
    bench.stall("none")
    for write in (None, 5):
        bench.ask(Register.JOB_SIZE, write)
        source, sink = (
            bench.sources["ar" if write is None else "aw"],
            bench.sinks["r" if write is None else "b"],
        )
        while source.queue:
            await bench.step()
        taken = bench.cycle - 1
        await bench.drain()
        if sink.first_seen - taken != LATENCY:
            raise StreamError(f"{sink.name} came after {sink.first_seen - taken} cycles, not {LATENCY}")


@case(make)
async def reset(bench: RegistersBench) -> None:
    """Reset in the middle of an access; afterwards all is as at the start."""
    for _ in range(scaled(10, 4)):
        bench.stall()
        await bench.write(Register.JOB_SIZE, 9)
        bench.ask(Register.JOB_BASE, 77)
        bench.ask(Register.JOB_SIZE)
        await bench.steps(bench.random.randint(1, 12))
        bench.coverage.hit("reset in the middle of an access")
        await bench.reset_in_work()
        bench.compare()
    for register in Register:
        await bench.read(register)


@case(make)
async def ready_and_valid(bench: RegistersBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(20):
        bench.ask(Register.JOB_BASE)
        bench.ask(Register.END_BASE, bench.random.getrandbits(32))
    await bench.check_ready_is_not_seen_by_valid(300)


@case(make_other)
async def other_master(bench: OtherMasterBench) -> None:
    """The same registers for cocotbext-axi's AXI4-Lite manager."""
    for register in Register:
        word = bench.random.getrandbits(32) & ~1
        good = bench.reference.write(register, word, WHOLE)
        bench.expected_resets += register == Register.CONTROL and word >> 1 & 1
        written = await bench.access(bench.master.init_write(register, word.to_bytes(4, "little")))
        if written.resp != (OKAY if good else SLVERR):
            raise StreamError(f"write to {register.name}: {written}")
    for register in Register:
        found = await bench.access(bench.master.init_read(register, 4))
        if register != Register.CYCLES and int.from_bytes(found.data, "little") != bench.reference.read(
            register
        ):
            raise StreamError(f"{register.name}: {found}")
    some = await bench.access(bench.master.init_write(Register.JOB_BASE, b"\1\2"))
    if some.resp != SLVERR:
        raise StreamError(f"write of two bytes: {some}")
    bench.compare()
