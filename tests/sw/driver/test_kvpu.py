"""The engine above the golden transport: equal to the units' models, faults as sentences."""

import dataclasses

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.commands import Completion, Opcode, Register
from vrex.model.config import Config, preset
from vrex.model.dre import hcu, wtu
from vrex.model.dre.kvpu import RESET
from vrex.sw.driver import DriverError, KvpuEngine, SelectRequest
from vrex.sw.driver.command_interface import Batch, CommandInterface, CommandReport, Results
from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.driver.link import TAGS

SEED = 5
RULE = wtu.Rule(th_r=20_000, transform=wtu.Transform.SHIFT)


class Recorder(GoldenTransport[Batch, Results, CommandReport]):
    """The golden transport, with a memory and faults to plant."""

    def __init__(self, config: Config) -> None:
        super().__init__(CommandInterface(config))
        self.batches: list[Batch] = []
        self.hang = False
        self.tag_offset = 0
        self.status: int | None = None

    def submit(self, batch: Batch) -> Results:
        self.batches.append(batch)
        if self.hang:
            self.hang = False
            self.reset()
            raise DriverError("no completion")
        return [
            outcome._replace(completion=self._fault(outcome.completion)) for outcome in super().submit(batch)
        ]

    def _fault(self, completion: Completion) -> Completion:
        status = completion.status if self.status is None else self.status
        return dataclasses.replace(completion, tag=completion.tag + self.tag_offset, status=status)

    @property
    def registers_written(self) -> list[int]:
        return [
            command.count for batch in self.batches for command, _ in batch if command.opcode == Opcode.SETREG
        ]


@pytest.fixture
def transport() -> Recorder:
    return Recorder(preset("tiny"))


def random_hashes(n: int, seed: int = SEED) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 32, (n, 1), dtype=np.uint32)


def random_scores(heads: int, rows: int, clusters: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0x3C00, 0x4400, (heads, rows, clusters)).astype(np.uint16)


def test_cluster_equals_the_model(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(RULE, th_hd=14)
    tokens, clusters = random_hashes(9), random_hashes(70, seed=6)
    expected = hcu.cluster(tokens, clusters, 14)
    result = engine.cluster(tokens, clusters, layer=3)
    for field in ("cluster", "distance", "opened"):
        assert np.array_equal(getattr(result, field), getattr(expected, field))


def test_select_equals_the_model_in_one_batch(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(RULE, th_hd=5)
    counts = [np.arange(1, 31), np.arange(1, 6)]
    requests = [
        SelectRequest(random_scores(2, 3, 30), counts[0], layer=1),
        SelectRequest(random_scores(1, 4, 5), counts[1], layer=2, kv_heads=0b100),
    ]
    before = len(transport.batches)
    masks = engine.select(requests)
    assert len(transport.batches) == before + 1
    for request, mask in zip(requests, masks, strict=True):
        heads, rows, n = request.scores.shape
        chosen = wtu.select(request.scores.reshape(-1, n), request.counts, RULE).rows
        assert np.array_equal(mask, chosen.reshape(heads, rows, n).any(axis=1))


def test_rows_add_up(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(wtu.Rule(th_r=100), th_hd=5)
    negative = np.full((1, 3, 4), 0xBF80, dtype=np.uint16)
    engine.select([SelectRequest(negative, np.ones(4), 0), SelectRequest(negative, np.ones(4), 1)])
    engine.select([SelectRequest(negative ^ 0x8000, np.ones(4), 0)])
    assert (engine.rows, engine.degenerate) == (9, 6)


def test_registers_are_sent_only_when_they_change(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(RULE, th_hd=5)
    assert sorted(transport.registers_written) == sorted(RESET)
    engine.set_rule(RULE, th_hd=5)
    engine.set_rule(RULE, th_hd=6)
    assert transport.registers_written[len(RESET) :] == [Register.TH_HD]
    assert engine.read_register(Register.TH_HD) == 6


def test_registers_come_back_after_a_time_out(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(RULE, th_hd=0)
    same = np.zeros((2, 1), dtype=np.uint32)
    transport.hang = True
    with pytest.raises(DriverError, match="no completion"):
        engine.cluster(same, same)
    # With the reset value of TH_HD, 7, these tokens would join.
    assert list(engine.cluster(same, same).opened) == [True, True]


def test_a_bad_rule_leaves_the_old_one(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(RULE, th_hd=0)
    with pytest.raises(UserError, match="register TH_HD can't hold 256"):
        engine.set_rule(RULE, th_hd=256)
    engine.cluster(random_hashes(1), random_hashes(1))
    assert engine.read_register(Register.TH_HD) == 0


def test_capacity_names_layer_clusters_and_preset(transport: Recorder) -> None:
    clusters = transport.config.wtu.mask_clusters + 1
    request = SelectRequest(random_scores(1, 1, clusters), np.ones(clusters), layer=3)
    says = f"layer 3 has {clusters} clusters, but preset tiny's WTU holds rows of {clusters - 1}"
    with pytest.raises(DriverError, match=says):
        KvpuEngine(transport).select([request])


def test_full_table_names_the_layer(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(RULE, th_hd=0)
    with pytest.raises(DriverError, match="layer 6 would need more than 65535 clusters"):
        engine.cluster(random_hashes(1), random_hashes(65_535), layer=6)


def test_other_statuses_are_named(transport: Recorder) -> None:
    with pytest.raises(DriverError, match=r"refused CLUSTER .*17.* with status BAD_COUNT"):
        KvpuEngine(transport).cluster(random_hashes(17), random_hashes(1))


def test_unknown_status_is_shown(transport: Recorder) -> None:
    transport.status = 77
    with pytest.raises(DriverError, match="status 77"):
        KvpuEngine(transport).cluster(random_hashes(1), random_hashes(1))


def test_wrong_tag_is_an_error(transport: Recorder) -> None:
    transport.tag_offset = 1
    with pytest.raises(DriverError, match="out of step"):
        KvpuEngine(transport).cluster(random_hashes(1), random_hashes(1))


def test_the_next_command_works_after_a_fault(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    with pytest.raises(DriverError):
        engine.cluster(random_hashes(17), random_hashes(1))
    assert len(engine.cluster(random_hashes(16), random_hashes(1)).cluster) == 16


def test_tags_roll_over(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine._tag = TAGS - 1
    engine.cluster(random_hashes(1), random_hashes(1))
    engine.cluster(random_hashes(1), random_hashes(1))
    assert [batch[0][0].tag for batch in transport.batches] == [TAGS - 1, 0]


def test_counts_calls(transport: Recorder) -> None:
    engine = KvpuEngine(transport)
    engine.set_rule(RULE, th_hd=5)
    engine.cluster(random_hashes(1), random_hashes(1))
    engine.select([SelectRequest(random_scores(2, 3, 30), np.ones(30), layer=1)] * 2)
    assert transport.report.to_dict() == {
        "cycles": 0,
        "calls": 3,
        "compared": 0,
        "mismatches": 0,
        "units": {"hcu": 0, "wtu": 0},
    }
