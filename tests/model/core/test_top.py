"""The golden chip: who ends which jobs, and when."""

from dataclasses import replace

import pytest

from vrex.model.config import preset
from vrex.model.core.core import Job, Limits
from vrex.model.core.instructions import Engine, Function, Status, pack_program
from vrex.model.core.program import Address, CoreProgram, Pool, Register
from vrex.model.core.top import Top, complete, core_address, cores_word, port_of
from vrex.model.lib.memory import PAGE, Memory, Window

WINDOW = Window(8, 32)
PROGRAM, DATA = 10 * PAGE, 20 * PAGE
CONFIG = replace(preset("small"), cores=4, ports=2)


def top() -> Top:
    chip = Top(CONFIG, Memory(WINDOW, Window(0, 0)), Limits(device=WINDOW))
    p = CoreProgram(CONFIG, Pool(30 * PAGE, PAGE), 12)
    p.compute(Function.ADD, Register(0), Register(0), 1)
    p.write(Address(DATA, bytes=Register(1)), Register(0))
    p.end()
    chip.memory.write(PROGRAM, pack_program(p.assemble()))
    return chip


def job(core: int, tag: int) -> Job:
    return Job(program=PROGRAM, tag=tag, parameters=(100 * tag, 4 * core))


def test_cores_share_one_memory_and_none_works_before_it_is_enabled() -> None:
    chip = top()
    for core in range(4):
        chip.post(core, job(core, core))
    assert chip.work() == []
    chip.enable = [True, False, True, True]
    assert [(core, end.tag) for core, end in chip.work()] == [(0, 0), (2, 2), (3, 3)]
    words = [int.from_bytes(chip.memory.read(DATA + 4 * core, 4), "little") for core in range(4)]
    assert words == [1, 0, 201, 301]
    chip.post(1, job(1, 7))
    chip.enable[1] = True
    assert [(core, end.tag) for core, end in chip.work()] == [(1, 1), (1, 7)]
    assert chip.memory.read(DATA + 4, 4) == (701).to_bytes(4, "little")


def test_a_reset_forgets_the_jobs_of_one_core() -> None:
    chip = top()
    chip.enable = [True] * 4
    for core in range(4):
        chip.post(core, job(core, core))
    before = chip.cores[2]
    chip.reset(2)
    assert chip.cores[2] is not before
    assert [core for core, _ in chip.work()] == [0, 1, 3]


def test_cores_may_have_limits_of_their_own() -> None:
    limits = [Limits(device=Window(8 + core, 1)) for core in range(4)]
    chip = Top(CONFIG, Memory(WINDOW, Window(0, 0)), limits)
    assert [core.limits for core in chip.cores] == limits
    with pytest.raises(ValueError, match="there are 4 cores and limits of 3"):
        Top(CONFIG, Memory(WINDOW, Window(0, 0)), limits[:3])


def exchange(cores: int, rounds: int) -> CoreProgram:
    """Each core writes a word, meets the others, and adds what its neighbour has written; so many times.

    r0: its first word. r1: offset of its own word. r2: of its neighbour's. What it has in the end it writes
    again, behind another BARRIER.
    """
    p = CoreProgram(CONFIG, Pool(30 * PAGE, PAGE), 3)
    mine, place, other = (Register(n) for n in range(3))
    with p.registers(1) as [word]:
        for number in range(rounds):
            # What is written next must not meet what a neighbour still reads.
            at = DATA + 256 * (number % 2)
            p.write(Address(at, bytes=place), mine)
            p.wait(Engine.RESULT)
            p.barrier(cores)
            p.read(word, Address(at, bytes=other))
            p.compute(Function.ADD, mine, mine, word)
        p.barrier(cores)
        p.write(Address(DATA, bytes=place), mine)
    p.end()
    return p


def neighbours(core: int, cores: int) -> tuple[int, int, int]:
    """Parameters of `exchange`: the next core of a group is the neighbour."""
    first = core // cores * cores
    return core + 1, 4 * core, 4 * (first + (core - first + 1) % cores)


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_cores_meet_at_a_barrier(cores: int) -> None:
    chip = top()
    chip.enable = [True] * 4
    chip.memory.write(PROGRAM, pack_program(exchange(cores, 5).assemble()))
    ends = []
    for core in (2, 0, 3, 1):
        chip.post(core, Job(program=PROGRAM, tag=core, parameters=neighbours(core, cores)))
        ends += chip.work()
    assert sorted((core, end.status) for core, end in ends) == [(core, Status.OK) for core in range(4)]
    expected = [core + 1 for core in range(4)]
    for _ in range(5):
        expected = [value + expected[neighbours(core, cores)[2] // 4] for core, value in enumerate(expected)]
    found = [int.from_bytes(chip.memory.read(DATA + 4 * core, 4), "little") for core in range(4)]
    assert found == expected


def test_a_core_that_waits_for_one_without_a_job_stays_in_work() -> None:
    chip = top()
    chip.enable = [True] * 4
    chip.memory.write(PROGRAM, pack_program(exchange(2, 1).assemble()))
    chip.post(2, Job(program=PROGRAM, tag=5, parameters=neighbours(2, 2)))
    assert chip.work() == []
    end = chip.stall(2)
    assert (end.status, end.tag, end.index) == (Status.STALLED, 5, 2)
    # The next jobs of both meet.
    for core in (2, 3):
        chip.post(core, Job(program=PROGRAM, parameters=neighbours(core, 2)))
    assert [end.status for _, end in chip.work()] == [Status.OK, Status.OK]


@pytest.mark.parametrize("cores", [0, 3, 128, 1 << 31])
def test_a_barrier_of_no_power_of_two_is_refused(cores: int) -> None:
    chip = top()
    chip.enable = [True] * 4
    chip.memory.write(PROGRAM, pack_program(exchange(cores, 1).assemble()))
    chip.post(0, Job(program=PROGRAM))
    ((_, end),) = chip.work()
    assert (end.status, end.index) == (Status.BAD_INSTRUCTION, 2)


def test_groups_are_complete_when_all_wait_for_as_many() -> None:
    assert complete([2, 2, 0, 2]) == [0]
    assert complete([4, 4, 4, 4]) == [0]
    assert complete([2, 2, 2, 2]) == [0, 2]
    assert complete([4, 2, 4, 4]) == []
    # Of four cores no eight, and of six no four from the fifth on.
    assert complete([8, 8, 8, 8]) == []
    assert complete([4, 4, 4, 4, 4, 4]) == [0]


def test_a_core_that_is_alone_finds_nobody() -> None:
    chip = top()
    chip.memory.write(PROGRAM, pack_program(exchange(4, 1).assemble()))
    assert chip.cores[0].run(Job(program=PROGRAM)).status == Status.STALLED


def test_addresses_and_ports() -> None:
    assert [core_address(core, 0x2C) for core in (0, 1, 47)] == [0x102C, 0x202C, 0x3002C]
    assert [port_of(core, 2) for core in range(4)] == [0, 1, 0, 1]
    assert cores_word(CONFIG) == 0x0002_0004


@pytest.mark.parametrize(("cores", "ports"), [(3, 2), (65, 1), (1, 2)])
def test_what_makes_no_chip(cores: int, ports: int) -> None:
    with pytest.raises(ValueError, match="cores must be a multiple of ports, at most 64"):
        replace(CONFIG, cores=cores, ports=ports).check_top()
