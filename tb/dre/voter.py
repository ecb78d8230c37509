"""Testbench of the voter: results, statuses and registers bit for bit against `vrex.model.dre.voter`."""

import dataclasses
from typing import Any

from vrex.hw.dre.codes.codes import CodeSelect
from vrex.model import commands
from vrex.model.commands import (
    VOTE_PARAM,
    VOTE_ROWS,
    Completion,
    Descriptor,
    Opcode,
    Register,
    Status,
    VoteRows,
)
from vrex.model.config import Config
from vrex.model.dre.registers import VOTER_REGISTERS, counters, scale_to_register
from vrex.model.dre.voter import Voter
from vrex.tb.dre.codes import Draws
from vrex.tb.dre.kvpu import CYCLES_MASK, DETAIL_MASK
from vrex.tb.lib.bench import Bench, beats, case, scaled
from vrex.tb.lib.counters import Command
from vrex.tb.lib.streams import StreamError

COMMAND_CYCLES = 7
"""Published cycles of a VOTE besides those of the unit of codes."""

OWN = (Opcode.SETREG, Opcode.GETREG, Opcode.VOTE)
COUNTERS = counters(VOTER_REGISTERS)


class VoterBench(Bench):
    """Drives descriptors and payloads and expects what the model returns.

    Attributes:
        model: golden voter, in step with the design.
        draws: stimuli of the bench of `codes`.
        ends: completions so far.
        waited: cycles so far in which `din` or `dout` waited for the other side.
    """

    unit = "voter"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "cpl"))
        self.model = Voter(config)
        self.draws = Draws(config, self.rng, self.random)
        self.ends: list[Completion] = []
        self.waited = {"din": 0, "dout": 0}
        self.sinks["cpl"].on_word = self._completed

    async def reset(self) -> None:
        """Resets design and model."""
        await super().reset()
        self.model = Voter(self.config)

    def _count(self) -> None:
        """Counts what the counters of a voter that refuses nothing must have counted, outside resets."""
        if self.resetting:
            return
        for name, waits in (("din", ("ready", "valid")), ("dout", ("valid", "ready"))):
            there, missing = (self.number(f"{name}__{part}") for part in waits)
            self.waited[name] += there and not missing

    def _completed(self, word: int) -> None:
        self.ends.append(Completion.unpack(word.to_bytes(16, "little")))

    def send(self, command: Command) -> None:
        """Queues one command and its expectations."""
        descriptor, payload = command
        payload = commands.to_beats(self.config, payload)
        completion, result = self.model.execute(descriptor, payload)
        self.sources["cmd"].send(beats(descriptor.pack(), 32))
        self.sources["din"].send(beats(payload, self.config.bus_bytes))
        what, dout = f"{descriptor}", self.sinks["dout"]
        dout.expect(what, beats(result, self.config.bus_bytes))
        # The model has no clock: cycles and counters are checked in cases of their own.
        mask = (1 << 128) - 1 & ~CYCLES_MASK
        if descriptor.opcode == Opcode.GETREG and descriptor.count in COUNTERS:
            mask &= ~DETAIL_MASK
            self.coverage.hit("counter read", completion.status == Status.OK)
        self.sinks["cpl"].expect(what, beats(completion.pack(), 16), mask, after=(dout, dout.asked))
        name = Opcode(descriptor.opcode).name if descriptor.opcode in OWN else "reserved opcode"
        self.coverage.hit(f"{name} ends with {Status(completion.status).name}")

    def tag(self) -> dict[str, int]:
        """Fields that do not change what a command does."""
        bits = self.random.getrandbits
        return {"tag": bits(16), "sequence": bits(16), "layer": bits(16)}

    def vote(self, tokens: int, rows: int, residents: int, wanted: int | None = None) -> Command:
        """A good VOTE."""
        draws = self.draws
        seen = VoteRows(draws.components(rows), draws.scales(rows), draws.residents(rows, residents))
        count = self.random.choice([0, 1, tokens // 2, tokens, 65535]) if wanted is None else wanted
        head = self.random.randrange(32)
        return commands.vote_command(
            self.config, draws.coded(tokens), seen, count, kv_head=head, **self.tag()
        )

    def write(self, register: int, value: int, length: int = 0) -> Command:
        """SETREG, good or not."""
        command = Descriptor(Opcode.SETREG, count=register, param=value, length=length, **self.tag())
        return command, self.rng.bytes(length)

    def read(self, register: int, length: int = 0) -> Command:
        """GETREG, good or not."""
        command = Descriptor(Opcode.GETREG, count=register, length=length, **self.tag())
        return command, self.rng.bytes(length)

    def good(self) -> Command:
        """A random good command."""
        kind = self.random.choice(["vote", "vote", "vote", "write", "read"])
        if kind == "write":
            return self.write(Register.SCALE, scale_to_register(self.draws.rule()))
        if kind == "read":
            return self.read(self.random.choice(VOTER_REGISTERS))
        below = self.random.randrange
        return self.vote(1 + below(60), 1 + below(4), below(12))

    def faults(self) -> list[Command]:
        """A command for everything that is refused."""
        unit, size = self.config.codes, self.config.bus_bytes
        command, payload = self.vote(5, 2, 3)

        def spoiled(length: int | None = None, **changed: int) -> Command:
            size_of = command.length if length is None else length
            data = payload[:size_of] + self.rng.bytes(max(0, size_of - len(payload)))
            return dataclasses.replace(command, length=size_of, **changed), data

        many = VOTE_PARAM.to_int({"residents": unit.residents + 1, "wanted": 1})
        return [
            spoiled(count=0),
            spoiled(count=VOTE_ROWS + 1),
            spoiled(count=VOTE_ROWS + 3),
            spoiled(clusters=0),
            spoiled(kv_heads=0),
            spoiled(kv_heads=3),
            spoiled(clusters=unit.tokens + 1),
            spoiled(param=many),
            spoiled(length=0),
            spoiled(length=command.length + size),
            spoiled(length=command.length - 1),
            spoiled(count=3),
            self.write(Register.SCALE, 1),
            self.write(Register.SCALE, 0, length=4),
            self.write(Register.TH_HD, 1),
            self.write(Register.VOTE_BUSY, 0),
            self.read(Register.TH_HD),
            self.read(Register.SCALE, length=size),
            *(spoiled(opcode=opcode) for opcode in (0, Opcode.CLUSTER, Opcode.SELECT, Opcode.FETCH, 9, 255)),
        ]


def make(dut: Any, config: Config, seed: str) -> VoterBench:
    """Bench of one case."""
    return VoterBench(dut, config, seed)


@case(make)
async def faults(bench: VoterBench) -> None:
    """Everything that is refused, each followed by a good command."""
    for fault in bench.faults():
        bench.stall()
        bench.send(fault)
        bench.send(bench.good())
        await bench.drain()


@case(make)
async def back_to_back(bench: VoterBench) -> None:
    """Faults and good commands in a random order, without waiting."""
    queue = [*bench.faults(), *(bench.good() for _ in range(scaled(20, 4)))]
    bench.random.shuffle(queue)
    bench.stall()
    for command in queue:
        bench.send(command)
    await bench.drain()


@case(make, round=range(scaled(4, 1)))
async def random(bench: VoterBench, round: int) -> None:
    """Random good commands back to back, under scales that change."""
    for _ in range(scaled(25, 5)):
        bench.stall()
        bench.send(bench.good())
        if bench.random.random() < 0.3:
            await bench.drain()


@case(make)
async def as_much_as_fits(bench: VoterBench) -> None:
    """Tokens and residents up to the unit's own."""
    unit = bench.config.codes
    bench.stall("light")
    bench.send(bench.vote(unit.tokens, 1, unit.residents, unit.tokens // 2))
    await bench.drain()


@case(make)
async def counts(bench: VoterBench) -> None:
    """Cycles of a command, and those that are counted, when nothing waits."""
    bench.stall("none")
    tokens, rows, residents = 50, 3, 7
    for _ in range(2):
        bench.send(bench.vote(tokens, rows, residents))
        await bench.drain()
        bench.send(bench.read(Register.VOTE_BUSY))
        await bench.drain()
    config = bench.config
    own = CodeSelect.cycles(config.codes, tokens, rows, residents, bus_bits=config.bus_bits)
    for number, (vote, busy) in enumerate(zip(bench.ends[::2], bench.ends[1::2], strict=True), 1):
        if vote.cycles != own + COMMAND_CYCLES:
            raise StreamError(f"a VOTE took {vote.cycles} cycles, published {own + COMMAND_CYCLES}")
        if busy.detail != number * own:
            raise StreamError(f"{busy.detail} busy cycles were counted, not {number * own}")


@case(make)
async def waits(bench: VoterBench) -> None:
    """Cycles that wait for payload and for the taker of the bitmask are counted, each and no other."""
    for profile in ("heavy", "bursts", "lazy"):
        bench.stall(profile)
        for _ in range(2):
            bench.send(bench.vote(60, 2, 9, 20))
        await bench.drain()
        for name, register in (("din", Register.VOTE_WAIT_IN), ("dout", Register.VOTE_WAIT_OUT)):
            bench.send(bench.read(register))
            await bench.drain()
            counted, waited = bench.ends[-1].detail, bench.waited[name]
            if counted != waited or not waited:
                raise StreamError(f"{register.name} counted {counted} cycles, {name} waited for {waited}")


@case(make)
async def reset(bench: VoterBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    for _ in range(scaled(10, 3)):
        bench.stall()
        bench.send(bench.write(Register.SCALE, 0x8000))
        bench.send(bench.vote(20, 2, 3))
        await bench.steps(bench.random.randrange(1, 400))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["cpl"].expected)
        await bench.reset_in_work()
    bench.send(bench.vote(20, 2, 3, 10))


@case(make)
async def ready_and_valid(bench: VoterBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(3):
        bench.send(bench.vote(20, 2, 3))
    await bench.check_ready_is_not_seen_by_valid(scaled(2000, 400))
