"""The simulated Verilog behind the driver; the first run builds simulators of preset `tiny`."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from vrex.model import commands
from vrex.model.commands import Descriptor, Opcode, Register, Status
from vrex.model.config import preset
from vrex.model.dre.wtu import Rule, Transform
from vrex.sw.driver import DriverError, KvpuEngine
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import Batch, CommandInterface
from vrex.sw.driver.rtl import RtlTransport

CONFIG = preset("tiny")
SEED = 21


def hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Few bits differ, so that ties and joins are common."""
    return np.uint32(1) << rng.integers(0, 6, (n, 1)).astype(np.uint32)


def random_command(rng: np.random.Generator, tag: int) -> tuple[Descriptor, bytes]:
    """A command that may as well be a malformed one."""
    kind = rng.integers(8)
    if kind < 3:
        tokens, clusters = hashes(rng, int(rng.integers(1, 17))), hashes(rng, int(rng.integers(0, 150)))
        return commands.cluster_command(CONFIG, tokens, clusters, tag=tag)
    if kind < 6:
        shape = (int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(0, 90)))
        scores = rng.integers(0, 1 << 16, shape).astype(np.uint16)
        return commands.select_command(CONFIG, scores, rng.integers(1, 99, shape[2]), tag=tag)
    if kind == 6:
        values = {Register.TH_HD: 300, Register.TH_R: 90_000, Register.TRANSFORM: 3, Register.SELECTION: 2}
        register = rng.choice(list(values))
        param = int(rng.integers(0, values[register] + 1))
        return Descriptor(Opcode.SETREG, tag, count=int(register), param=param), b""
    length = int(rng.integers(0, 5)) * CONFIG.bus_bytes
    faulty = Descriptor(
        int(rng.choice([0, 2, 3, 4, 9])),
        tag,
        kv_heads=int(rng.integers(3)),
        count=int(rng.integers(30)),
        clusters=int(rng.choice([5, CONFIG.wtu.mask_clusters + 1])),
        length=length,
    )
    return faulty, rng.bytes(length)


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_random_commands_equal_the_golden_model(stall: float) -> None:
    print(f"seed {SEED}, stall {stall}")
    rng = np.random.default_rng(SEED)
    checked = CheckedCommands(RtlTransport(CommandInterface(CONFIG), stall=stall, seed=SEED))
    statuses = set()
    for _ in range(20):
        batch: Batch = [random_command(rng, tag) for tag in range(rng.integers(1, 15))]
        statuses |= {outcome.completion.status for outcome in checked.submit(batch)}
    checked.close()
    assert checked.report.mismatches == 0, checked.records[:1]
    assert checked.report.compared > 300
    # A full table takes 65 535 clusters; the testbench of the KVPU has that one.
    assert statuses == {status for status in Status if status <= Status.CAPACITY}


def test_cycles_are_counted_by_unit() -> None:
    rtl = RtlTransport(CommandInterface(CONFIG))
    engine = KvpuEngine(rtl)
    rng = np.random.default_rng(SEED)
    engine.cluster(hashes(rng, 3), hashes(rng, 70))
    report = rtl.report.to_dict()
    assert report["calls"] == 1
    assert isinstance(report["units"], dict)
    assert report["units"]["hcu"] > 0 == report["units"]["wtu"]
    assert 0 < engine.read_register(Register.HCU_BUSY) <= report["units"]["hcu"]


def test_stalls_follow_their_seed() -> None:
    command = commands.cluster_command(CONFIG, *np.split(hashes(np.random.default_rng(1), 160), [9]), tag=1)
    cycles = []
    for seed in (1, 1, 2):
        rtl = RtlTransport(CommandInterface(CONFIG), stall=0.5, seed=seed)
        [outcome] = rtl.submit([command])
        cycles.append(outcome.completion.cycles)
    assert cycles[0] == cycles[1] != cycles[2]


def test_a_time_out_names_the_command_and_the_next_one_works() -> None:
    rtl = RtlTransport(CommandInterface(CONFIG), cycle_limit=30)
    engine = KvpuEngine(rtl)
    rng = np.random.default_rng(SEED)
    tokens, clusters = hashes(rng, 2), hashes(rng, 500)
    with pytest.raises(
        DriverError, match=r"no completion of CLUSTER \(.*layer 4.*500 clusters.* after 30 cycles"
    ):
        engine.cluster(tokens, clusters, layer=4)
    checked = CheckedCommands(rtl)
    rtl.cycle_limit = 100_000
    KvpuEngine(checked).cluster(tokens, clusters)
    assert (checked.report.compared, checked.report.mismatches) == (2, 0)


def test_closing_twice_is_fine() -> None:
    rtl = RtlTransport(CommandInterface(CONFIG))
    rtl.close()
    rtl.close()


def first_comes_last(verilog: str) -> str:
    """Plants a fault in the HCU: of equally near clusters the last one wins between lanes of a row."""
    first = verilog.index("module vrex_kvpu_hcu(")
    last = verilog.index("endmodule", first)
    name = r"\\?(?:count|nearer)\S*\s*(?:\[\d+:0\]\s*)?"
    broken, changes = re.subn(f"({name})< (?={name})", r"\1<= ", verilog[first:last])
    assert changes
    return verilog[:first] + broken + verilog[last:]


def low_is_high(verilog: str) -> str:
    """Plants a fault in the WTU: its search for the lowest and highest score compares the wrong way."""
    first = verilog.index("module vrex_kvpu_wtu_datapath_extremes")
    last = verilog.index("endmodule", first)
    broken = verilog[first:last].replace(" < ", " > ")
    assert broken != verilog[first:last]
    return verilog[:first] + broken + verilog[last:]


@pytest.mark.parametrize(("mutate", "opcode"), [(first_comes_last, 3), (low_is_high, 4)])
def test_a_planted_fault_is_found(mutate: Callable[[str], str], opcode: int) -> None:
    rng = np.random.default_rng(SEED)
    checked = CheckedCommands(RtlTransport(CommandInterface(CONFIG), mutate=mutate, cycle_limit=100_000))
    engine = KvpuEngine(checked)
    engine.set_rule(Rule(th_r=20_000, transform=Transform.SHIFT), th_hd=5)
    drawn = [random_command(rng, tag) for tag in range(150)]
    checked.submit([command for command in drawn if command[0].opcode > Opcode.GETREG])
    assert checked.report.mismatches > 0
    assert {record.command.opcode for record in checked.records} == {opcode}
    record = checked.records[0]
    assert record.replay(RtlTransport(CommandInterface(CONFIG)))[:2] != (record.actual, record.actual_result)
