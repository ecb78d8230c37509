"""The golden chip: who ends which jobs, and when."""

from dataclasses import replace

import pytest

from vrex.model.config import preset
from vrex.model.core.core import Job, Limits
from vrex.model.core.instructions import Function, pack_program
from vrex.model.core.program import Address, CoreProgram, Pool, Register
from vrex.model.core.top import Top, core_address, cores_word, port_of
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


def test_addresses_and_ports() -> None:
    assert [core_address(core, 0x2C) for core in (0, 1, 47)] == [0x102C, 0x202C, 0x3002C]
    assert [port_of(core, 2) for core in range(4)] == [0, 1, 0, 1]
    assert cores_word(CONFIG) == 0x0002_0004


@pytest.mark.parametrize(("cores", "ports"), [(3, 2), (65, 1), (1, 2)])
def test_what_makes_no_chip(cores: int, ports: int) -> None:
    with pytest.raises(ValueError, match="cores must be a multiple of ports, at most 64"):
        replace(CONFIG, cores=cores, ports=ports).check_top()
