"""The engine above a DRE: equal to the model, faults as sentences, and the check of its memory."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from vrex.model.commands import Completion, Opcode, Register, Status
from vrex.model.config import Config, HcuConfig, KvmuConfig, WtuConfig
from vrex.model.dre import hcu, wtu
from vrex.model.dre.kvstore import POISONED
from vrex.sw.driver import Capacity, DreEngine, DriverError, MemoryLayout, open_transport
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import Batch, CommandInterface, CommandReport, Outcome, Results
from vrex.sw.driver.dre import AppendRequest, FetchRequest, Retrieved, RetrieveRequest
from vrex.sw.driver.golden import GoldenTransport

CONFIG = Config(
    name="small",
    bus_bits=128,
    hcu=HcuConfig(lanes=4, chunk_tokens=8, tile_clusters=64),
    wtu=WtuConfig(lanes=4, row_clusters=256),
    kvmu=KvmuConfig(head_dim=16, kv_heads=2, segment_tokens=4),
)
HEADS = 2
CAPACITY = Capacity(clusters=100, segments=200, ring=16)
RULE = wtu.Rule(th_r=20_000, transform=wtu.Transform.SHIFT)
TH_HD = 5
Fault = Callable[["Breakable", Batch, Results], Results]


class Breakable(GoldenTransport[Batch, Results, CommandReport]):
    """A golden DRE that a test can break."""

    def __init__(self, layout: MemoryLayout) -> None:
        super().__init__(CommandInterface(CONFIG, layout.new_memory()))
        self.fault: Fault | None = None

    def submit(self, batch: Batch) -> Results:
        results = super().submit(batch)
        return self.fault(self, batch, results) if self.fault else results


def layout(tables: int = 2, capacity: Capacity = CAPACITY) -> MemoryLayout:
    return MemoryLayout.of(CONFIG, tables, HEADS, capacity)


def engine(capacity: Capacity = CAPACITY) -> tuple[DreEngine, Breakable]:
    made = layout(capacity=capacity)
    transport = Breakable(made)
    dre = DreEngine(transport, made)
    dre.set_rule(RULE, TH_HD)
    return dre, transport


def tokens(seed: int, n: int = 8, table: int = 0) -> AppendRequest:
    """Hashes near a few centres, so that tokens join."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).integers(0, 1 << 32, 12, dtype=np.uint32)
    hashes = rng.choice(centres, n) ^ (np.uint32(1) << rng.integers(0, 32, n, dtype=np.uint32))
    kv = rng.integers(0x3C00, 0x4400, (2, HEADS, n, CONFIG.kvmu.head_dim)).astype(np.uint16)
    return AppendRequest(table, layer=3 + table, hashes=hashes[:, None], kv=kv)


def scores(dre: DreEngine, seed: int, table: int = 0) -> RetrieveRequest:
    shape = (HEADS, 3, dre.table(table).header.clusters)
    drawn = np.random.default_rng(seed).integers(0x3C00, 0x4400, shape).astype(np.uint16)
    return RetrieveRequest(table, 3 + table, drawn)


def fill(dre: DreEngine, chunks: int = 6) -> list[AppendRequest]:
    requests = [tokens(seed) for seed in range(chunks)]
    for request in requests:
        dre.append([request])
    return requests


def test_append_clusters_as_the_model_does() -> None:
    dre, _ = engine()
    requests = fill(dre, 4)
    hashes, joined = np.zeros((0, 1), dtype=np.uint32), []
    for request in requests:
        expected = hcu.cluster(request.hashes, hashes, TH_HD)
        hashes = np.concatenate([hashes, request.hashes[expected.opened]])
        joined.append(expected.cluster)
    table = dre.table(0)
    np.testing.assert_array_equal(table.hashes(), hashes)
    np.testing.assert_array_equal(table.counts(), np.bincount(np.concatenate(joined)))
    assert dre.table(1).header.clusters == 0


def test_retrieve_selects_and_delivers_what_fetch_delivers() -> None:
    dre, _ = engine()
    requests = fill(dre)
    request = scores(dre, seed=1)
    [got] = dre.retrieve([request])
    counts = dre.table(0).counts()
    chosen = [wtu.select(rows, counts, RULE).rows.any(axis=0) for rows in request.scores]
    np.testing.assert_array_equal(got.masks, chosen)
    [fetched] = dre.fetch([FetchRequest(0, 3, got.masks)])
    np.testing.assert_array_equal(fetched, got.kv)
    # As sets: what was put in comes out, head by head.
    split = counts[got.masks[0]].sum()
    for head, part in enumerate((got.kv[:split], got.kv[split:])):
        put = np.concatenate([r.kv[:, head].transpose(1, 0, 2) for r in requests])
        known = {token.tobytes() for token in put}
        assert len(part) == counts[got.masks[head]].sum()
        assert {token.tobytes() for token in part} <= known


def test_tables_do_not_meet() -> None:
    dre, _ = engine()
    dre.append([tokens(1), tokens(2, table=1)])
    alone, _ = engine()
    alone.append([tokens(2, table=1)])
    everything = np.ones((HEADS, dre.table(1).header.clusters), dtype=bool)
    [got], [wanted] = (each.fetch([FetchRequest(1, 4, everything)]) for each in (dre, alone))
    np.testing.assert_array_equal(got, wanted)


def test_registers_come_back_after_a_fault() -> None:
    dre, transport = engine()
    transport.reset()
    with pytest.raises(DriverError, match="leaves the memory windows"):
        dre.append([tokens(1)])
    dre.append([tokens(1)])
    assert dre.read_register(Register.TH_HD) == TH_HD


@pytest.mark.parametrize(
    ("capacity", "says"),
    [
        ({"clusters": 9}, r"HC table of layer 3 has room for 9 clusters and is full; raise table_clusters"),
        ({"segments": 9}, r"KV store of layer 3 has room for 9 segments and is full; raise table_segments"),
    ],
)
def test_full_tables_say_what_to_raise(capacity: dict[str, int], says: str) -> None:
    dre, _ = engine(dataclasses.replace(CAPACITY, **capacity))
    with pytest.raises(DriverError, match=says):
        fill(dre)
    assert 0 < dre.table(0).header.clusters <= 9


STATUSES = {
    Status.CLUSTER_FULL: r"APPEND .*layer 3.* brings a cluster more tokens than the 65535 it can hold",
    Status.BUS_ERROR: r"memory answered APPEND .*layer 3.* with a bus error",
    Status.TIMEOUT: r"memory did not answer APPEND .*layer 3.* within 65536 cycles",
    Status.POISONED: r"left the table of layer 3 half written",
    Status.BAD_ADDRESS: r"APPEND .*layer 3.* works on a table that leaves the memory windows",
    Status.BAD_MASK: r"APPEND .*layer 3.* names a cluster that the table does not have",
    Status.CAPACITY: r"layer 3 has 0 clusters, but preset small's WTU holds rows of 65536",
    Status.BAD_COUNT: r"the accelerator refused APPEND .*layer 3.* with status BAD_COUNT",
}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_a_sentence(status: Status) -> None:
    dre, transport = engine()
    transport.fault = lambda _, batch, results: [
        outcome._replace(completion=Completion(outcome.completion.tag, status)) for outcome in results
    ]
    with pytest.raises(DriverError, match=STATUSES[status]) as raised:
        dre.append([tokens(1)])
    assert ";" in str(raised.value)
    assert not str(raised.value).endswith(".")


def test_a_poisoned_table_is_not_read() -> None:
    dre, transport = engine()
    header = dataclasses.replace(dre.table(0).header, flags=POISONED)
    transport.write(dre.layout.addresses[0], header.pack())
    with pytest.raises(DriverError, match=r"table 0 .* can't be read .status POISONED"):
        dre.table(0)


def test_an_engine_needs_memory() -> None:
    with pytest.raises(ValueError, match="needs a transport with a memory"):
        DreEngine(open_transport("golden", CONFIG), layout())
    with pytest.raises(ValueError, match="no memory"):
        GoldenTransport(CommandInterface(CONFIG)).write(0, b"")


def test_calls_are_counted_by_command() -> None:
    dre, transport = engine()
    fill(dre, 3)
    dre.retrieve([scores(dre, 1)])
    report = transport.report.to_dict()
    assert report["calls"] == 4
    assert report["units"] == {"append": 0, "retrieve": 0, "fetch": 0}
    assert dre.counters()["degenerate_rows"] == 0


def checked(fault: Fault | None = None) -> tuple[DreEngine, CheckedCommands]:
    made = layout()
    device = Breakable(made)
    transport = CheckedCommands(device)
    dre = DreEngine(transport, made)
    dre.set_rule(RULE, TH_HD)
    device.fault = fault
    return dre, transport


def play(dre: DreEngine) -> Retrieved:
    fill(dre, 3)
    return dre.retrieve([scores(dre, 1)])[0]


def test_equal_results_are_counted() -> None:
    dre, transport = checked()
    play(dre)
    # Three chunks of eight decisions and a table each; two bitmasks, and what they deliver.
    assert (transport.report.compared, transport.report.mismatches) == (3 * 9 + 3, 0)
    assert transport.records == []


def test_a_flipped_bit_of_kv_is_one_mismatch_and_stays_there() -> None:
    def fault(device: Breakable, batch: Batch, results: Results) -> Results:
        return [
            Outcome(o.completion, o.result, bytes([o.kv[0] ^ 1]) + o.kv[1:]) if o.kv else o for o in results
        ]

    dre, transport = checked(fault)
    got = play(dre)
    assert transport.report.mismatches == 1
    [record] = transport.records
    assert record.command.opcode == Opcode.RETRIEVE
    assert record.expected_memory != record.actual_memory
    np.testing.assert_array_equal(got.kv, play(engine()[0]).kv)


@pytest.mark.parametrize("array", ["means", "counts", "map"])
def test_a_wrong_byte_in_a_table_is_one_mismatch_and_is_put_right(array: str) -> None:
    """Only the first APPEND goes wrong; were it not put right, every later look would find it again."""

    def fault(device: Breakable, batch: Batch, results: Results) -> Results:
        if batch[0][0].opcode == Opcode.APPEND and not spoiled:
            spoiled.append(True)
            getattr(DreEngine.table(probe(device), 0), array)()[0] ^= 1
        return results

    spoiled: list[bool] = []
    dre, transport = checked(fault)
    play(dre)
    assert transport.report.mismatches == 1
    [record] = transport.records
    assert record.command.opcode == Opcode.APPEND
    assert len(record.expected_memory) == len(record.actual_memory) > 0


def probe(device: Breakable) -> DreEngine:
    """Looks at a device's tables without writing anything."""
    made = object.__new__(DreEngine)
    assert device.memory is not None
    made.config, made.memory, made.layout = CONFIG, device.memory, layout()
    return made


def test_a_failed_command_leaves_equal_tables() -> None:
    made = layout(capacity=dataclasses.replace(CAPACITY, clusters=9))
    transport = CheckedCommands(Breakable(made))
    dre = DreEngine(transport, made)
    dre.set_rule(RULE, TH_HD)
    with pytest.raises(DriverError, match="is full"):
        fill(dre)
    assert transport.report.mismatches == 0
