"""The DRE's simulated Verilog behind the driver; the first run builds a simulator of preset `tiny`."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import pytest

from vrex.model import commands
from vrex.model.commands import Descriptor, Opcode, Register, Status
from vrex.model.config import preset
from vrex.model.dre import wtu
from vrex.model.dre.kvstore import Table
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.sw.driver import Capacity, DreEngine, DriverError, MemoryLayout
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import Batch, CommandInterface
from vrex.sw.driver.dre import AppendRequest, FetchRequest, RetrieveRequest
from vrex.sw.driver.rtl import RtlTransport

CONFIG = preset("tiny")
SEED = 31
HEADS, HEAD_DIM = CONFIG.kvmu.kv_heads, CONFIG.kvmu.head_dim
CHUNK = CONFIG.hcu.chunk_tokens
CAPACITY = Capacity(clusters=120, segments=160, ring=2 * CHUNK)


def tokens(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of which few bits differ, and keys and values of any bits, uint16 [2, heads, n, head_dim]."""
    hashes = np.uint32(1) << rng.integers(0, 10, (n, 1)).astype(np.uint32)
    other = np.uint32(1) << rng.integers(10, 32, (n, 1)).astype(np.uint32)
    kv = rng.integers(0, 1 << 16, (2, HEADS, n, HEAD_DIM)).astype(np.uint16)
    return (hashes | other) * np.uint32(3), kv


def scores(rng: np.random.Generator, clusters: int) -> np.ndarray:
    """Two rows a KV head, of any bits."""
    return rng.integers(0, 1 << 16, (HEADS, 2, clusters)).astype(np.uint16)


def append(rng: np.random.Generator, address: int) -> tuple[Descriptor, bytes]:
    hashes, kv = tokens(rng, int(rng.integers(1, CHUNK + 1)))
    payload = commands.to_beats(CONFIG, commands.hashes_to_bytes(CONFIG, hashes))
    payload += kv.transpose(2, 1, 0, 3).tobytes()
    mask = (1 << HEADS) - 1
    return (
        Descriptor(Opcode.APPEND, 1, kv_heads=mask, count=len(hashes), address=address, length=len(payload)),
        payload,
    )


def retrieve(rng: np.random.Generator, address: int, clusters: int) -> tuple[Descriptor, bytes]:
    heads = int(rng.integers(1, 1 << HEADS))
    rows = scores(rng, clusters)[: heads.bit_count()].reshape(-1, clusters)
    payload = commands.retrieve_payload(CONFIG, rows)
    command = Descriptor(
        Opcode.RETRIEVE,
        2,
        kv_heads=heads,
        count=2,
        clusters=clusters,
        address=address,
        length=len(payload),
        param=int(rng.random() < 0.3),
    )
    return command, payload


def fetch(rng: np.random.Generator, address: int, clusters: int) -> tuple[Descriptor, bytes]:
    heads = int(rng.integers(1, 1 << HEADS))
    # Now and then one that the table does not have.
    named = clusters + int(rng.random() < 0.2)
    masks = rng.random((heads.bit_count(), named)) < rng.choice([0.1, 0.5, 1.0])
    payload = commands.pack_masks(CONFIG, list(masks))
    return (
        Descriptor(Opcode.FETCH, 3, kv_heads=heads, clusters=named, address=address, length=len(payload)),
        payload,
    )


def spoiled(rng: np.random.Generator, command: tuple[Descriptor, bytes]) -> tuple[Descriptor, bytes]:
    """The command with one field wrong."""
    descriptor, payload = command
    wrong = [
        {"opcode": int(rng.choice([0, 3, 9, 200]))},
        {"count": 0} if descriptor.opcode != Opcode.FETCH else {"kv_heads": 0},
        {"kv_heads": 1 << HEADS | 1},
        {"length": descriptor.length - CONFIG.bus_bytes},
        {"address": descriptor.address + 64},
        {"address": 16 * PAGE},
    ][rng.integers(6)]
    made = dataclasses.replace(descriptor, **wrong)
    return made, payload[: made.length]


def batches(rng: np.random.Generator, memory: Memory, layout: MemoryLayout, n: int) -> Iterator[Batch]:
    """APPENDs to both tables, then what reads them as they are; each may be a malformed one."""
    for _ in range(n):
        changing = [append(rng, int(rng.choice(layout.addresses))) for _ in range(rng.integers(1, 4))]
        register = (Descriptor(Opcode.SETREG, count=Register.TH_HD, param=int(rng.integers(1, 5))), b"")
        yield [register, *(spoiled(rng, c) if rng.random() < 0.2 else c for c in changing)]
        reading: Batch = []
        for address in layout.addresses:
            clusters = Table(CONFIG, memory, address).header.clusters
            for make in (retrieve, fetch, fetch):
                if clusters:
                    command = make(rng, address, clusters)
                    reading.append(spoiled(rng, command) if rng.random() < 0.2 else command)
        order = rng.permutation(len(reading))
        yield [*(reading[i] for i in order), (Descriptor(Opcode.GETREG, count=Register.DEGENERATE_ROWS), b"")]


@pytest.mark.parametrize(("stall", "latency", "rounds"), [(0.0, 16, 40), (0.3, 40, 30), (0.0, 0, 30)])
def test_random_commands_equal_the_golden_model(stall: float, latency: int, rounds: int) -> None:
    print(f"seed {SEED}, stall {stall}, latency {latency}")
    rng = np.random.default_rng([SEED, latency])
    layout = MemoryLayout.of(CONFIG, 2, HEADS, CAPACITY)
    rtl = RtlTransport(
        CommandInterface(CONFIG, layout.new_memory()),
        stall=stall,
        seed=SEED,
        latency=latency,
        cycle_limit=200_000,
    )
    checked = CheckedCommands(rtl)
    DreEngine(checked, layout).set_rule(wtu.Rule(th_r=20_000), 3)
    assert checked.memory is not None
    statuses = set()
    for batch in batches(rng, checked.memory, layout, rounds):
        statuses |= {outcome.completion.status for outcome in checked.submit(batch)}
    checked.close()
    assert checked.report.mismatches == 0, checked.records[:1]
    assert checked.report.compared > 100 * rounds / 8
    # Which of the malformed commands are drawn is chance; that several are is not.
    assert Status.OK in statuses
    assert len(statuses) > 4


def filled(transport: RtlTransport | CheckedCommands, layout: MemoryLayout, chunks: int) -> DreEngine:
    rng = np.random.default_rng(SEED)
    engine = DreEngine(transport, layout)
    engine.set_rule(wtu.Rule(th_r=20_000), 3)
    for _ in range(chunks):
        hashes, kv = tokens(rng, CHUNK)
        engine.append([AppendRequest(0, 0, hashes, kv)])
    return engine


def test_old_segments_come_from_the_host_window() -> None:
    layout = MemoryLayout.of(CONFIG, 1, HEADS, CAPACITY)
    engine = filled(RtlTransport(CommandInterface(CONFIG, layout.new_memory())), layout, 6)
    table = engine.table(0)
    assert table.header.first_resident(CHUNK) > 0
    everything = np.ones((HEADS, table.header.clusters), dtype=bool)
    before = engine.counters()
    [kv] = engine.fetch([FetchRequest(0, 0, everything)])
    after = engine.counters()
    tokens_put = 6 * CHUNK * HEADS
    assert len(kv) == tokens_put
    assert (after["kv_beats"] - before["kv_beats"]) * CONFIG.bus_bytes == kv.nbytes
    assert 0 < after["kv_host_beats"] - before["kv_host_beats"] < after["kv_beats"] - before["kv_beats"]
    assert after["read_bursts"] > before["read_bursts"]


def test_memory_that_is_not_there_is_a_bus_error() -> None:
    layout = MemoryLayout.of(CONFIG, 1, HEADS, CAPACITY)
    less = Memory(layout.device, Window(layout.host.base, 0))
    with pytest.raises(DriverError, match=r"memory answered .* with a bus error"):
        filled(RtlTransport(CommandInterface(CONFIG, less)), layout, 6)


def test_a_memory_that_does_not_answer_in_time() -> None:
    layout = MemoryLayout.of(CONFIG, 1, HEADS, CAPACITY)
    with pytest.raises(DriverError, match=r"memory did not answer APPEND .* within 65536 cycles"):
        filled(RtlTransport(CommandInterface(CONFIG, layout.new_memory()), latency=70_000), layout, 1)


def test_a_hang_names_the_command_and_the_next_one_works() -> None:
    layout = MemoryLayout.of(CONFIG, 1, HEADS, CAPACITY)
    rtl = RtlTransport(CommandInterface(CONFIG, layout.new_memory()), cycle_limit=60)
    with pytest.raises(DriverError, match=r"no completion of APPEND .* after 60 cycles"):
        filled(rtl, layout, 1)
    rtl.cycle_limit = 200_000
    assert filled(rtl, layout, 1).table(0).header.tokens == CHUNK


def wrong_mean(verilog: str) -> str:
    """Plants a fault in a lane of the mean: an adder of its last stage, the sum's, subtracts."""
    found = re.search(r"module vrex_dre\w*mean_lane_0_sum\(.*?endmodule", verilog, re.DOTALL)
    assert found
    broken, changes = re.subn(r" \+ ", " - ", found[0])
    assert changes
    return verilog.replace(found[0], broken)


def test_a_planted_fault_shows_in_memory() -> None:
    layout = MemoryLayout.of(CONFIG, 1, HEADS, CAPACITY)
    rtl = RtlTransport(CommandInterface(CONFIG, layout.new_memory()), mutate=wrong_mean, cycle_limit=200_000)
    checked = CheckedCommands(rtl)
    engine = filled(checked, layout, 4)
    assert checked.report.mismatches > 0
    assert {record.command.opcode for record in checked.records} == {Opcode.APPEND}
    # What goes on is the golden model's.
    other = MemoryLayout.of(CONFIG, 1, HEADS, CAPACITY)
    right = filled(RtlTransport(CommandInterface(CONFIG, other.new_memory())), other, 4)
    request = RetrieveRequest(0, 0, scores(np.random.default_rng(1), engine.table(0).header.clusters))
    [got], [wanted] = engine.retrieve([request]), right.retrieve([request])
    np.testing.assert_array_equal(got.masks, wanted.masks)
    np.testing.assert_array_equal(engine.table(0).means(), right.table(0).means())
    assert engine.table(0).header == right.table(0).header
