"""A random decoder on the golden core: against software, the policy's tables, and attention in float64."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.commands import Opcode as DreOpcode
from vrex.model.config import Config, LxeConfig, preset
from vrex.model.core.core import _Run
from vrex.model.core.instructions import Control, Engine, Opcode, Port, pack_program
from vrex.model.core.program import Address, CoreProgram
from vrex.model.dre.kvstore import Table
from vrex.model.lib import arith
from vrex.model.lib.memory import PAGE
from vrex.sw import driver
from vrex.sw.driver.core_golden import GoldenCoreTransport
from vrex.sw.driver.dre import Capacity, DreEngine, Retrieved
from vrex.sw.driver.top_golden import GoldenTopTransport
from vrex.sw.driver.transport import DriverError
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.memory_tables import MemoryTables, lay_out
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.cache import KVCache
from vrex.sw.videollm.chip import Chip, check_settings
from vrex.sw.videollm.chip_attention import Attention, Tiles
from vrex.sw.videollm.chip_decoder import ChipDecoder, ChipSequence
from vrex.sw.videollm.chip_job import RESERVED, Parameters
from vrex.sw.videollm.chip_layout import ChipLayout, ChipShape
from vrex.sw.videollm.chip_program import ChipProgram, set_up_dre
from vrex.sw.videollm.chip_tables import TableSteps
from vrex.sw.videollm.config import TextConfig
from vrex.sw.videollm.decoder import Decoder
from vrex.sw.videollm.offload import LayerPrograms

TEXT = TextConfig(
    vocab_size=16,
    hidden_size=48,
    intermediate_size=208,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    rope_theta=10000.0,
    eps=1e-5,
    tied=True,
    bos=1,
    eos=(2,),
)
STEP_TOKENS = 6
SHAPE = Shape(TEXT.layers, TEXT.heads, TEXT.kv_heads, TEXT.head_dim, STEP_TOKENS - 1)
SETTINGS = ResvSettings(sinks=4, window=2, th_r=0.5)
CAPACITY = Capacity(clusters=300, segments=300, ring=64)


class RandomTensors:
    """Tensors of any shape; a name gives the same one each time."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng(list(name.encode()))
        if len(shape) == 1:
            return arith.round_bf16(rng.uniform(0.5, 1.5, shape).astype(np.float32))
        return arith.round_bf16((rng.standard_normal(shape) * shape[1] ** -0.5).astype(np.float32))


def accelerator(settings: ResvSettings = SETTINGS, text: TextConfig = TEXT) -> Config:
    config = preset("small").with_hash_bits(settings.n_hp)
    return config.with_heads(text.kv_heads, text.head_dim)


def open_chip(
    settings: ResvSettings = SETTINGS,
    text: TextConfig = TEXT,
    *,
    config: Config | None = None,
    capacity: Capacity = CAPACITY,
    sequences: int = 1,
    team: int = 1,
) -> tuple[ChipDecoder, Chip]:
    decoder = ChipDecoder(RandomTensors(), text)
    config = replace(config or accelerator(settings, text), cores=max(team, config.cores if config else 1))
    shape = ChipShape(config, text, settings, STEP_TOKENS, capacity, 400, sequences, team)
    check_settings(shape)
    layout = ChipLayout(shape)
    kind = GoldenTopTransport if config.cores > 1 else GoldenCoreTransport
    return decoder, decoder.put_on(layout, kind(config, layout.new_memory()))


def _no_prediction(_: int) -> np.ndarray:
    raise AssertionError("predict same asks for no other layer's queries")


def software_policy(settings: ResvSettings, config: Config) -> Resv:
    layout = lay_out(config, settings, SHAPE, CAPACITY)
    transport = driver.open_transport("golden", config, False, layout.new_memory())
    return Resv(settings, SHAPE, MemoryTables(settings, SHAPE, transport, layout))


def chunks(rng: np.random.Generator, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Embeddings that resemble one another, so that keys cluster."""
    common = rng.standard_normal((3, TEXT.hidden_size))
    for rows in sizes:
        noise = 0.3 * rng.standard_normal((rows, TEXT.hidden_size))
        yield (common[rng.integers(0, 3, rows)] + noise).astype(np.float32)


@pytest.fixture(autouse=True)
def _queues_never_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for instructions that come later must fit the queue of its engine, else a core hangs."""
    hand_out = _Run._hand_out

    def checked(run: _Run, *args: object) -> None:
        hand_out(run, *args)  # type: ignore[arg-type]
        for engine in Engine:
            assert len(run._queues[engine]) <= run._config.core.queue, engine

    monkeypatch.setattr(_Run, "_hand_out", checked)


SIZES = (9, 6, 1, 6, 40, 6, 1, 1, 6, 20, 6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (SETTINGS, TEXT),
        (replace(SETTINGS, scope="head", rule="exp", selection="bucket"), TEXT),
        (replace(SETTINGS, sinks=0, window=0), TEXT),
        (replace(SETTINGS, sinks=12, window=1, n_hp=24), replace(TEXT, qk_norm=True, layers=3)),
        (replace(SETTINGS, n_hp=64), replace(TEXT, kv_heads=4)),
        (replace(SETTINGS, mean_bits=8), replace(TEXT, kv_heads=4)),
        (replace(SETTINGS, mean_bits=4, scope="head"), TEXT),
    ],
    ids=["default", "head", "nothing-resident", "qk-norm", "one-query-head", "means-8", "means-4"],
)
def test_a_chip_is_near_software(settings: ResvSettings, text: TextConfig) -> None:
    """Chunks of one token, of more than an APPEND and more than the DPE takes; the tables end up as large."""
    decoder, chip = open_chip(settings, text)
    shape = Shape(text.layers, text.heads, text.kv_heads, text.head_dim, STEP_TOKENS - 1)
    config = chip.layout.shape.config
    layout = lay_out(config, settings, shape, CAPACITY)
    transport = driver.open_transport("golden", config, False, layout.new_memory())
    policy = Resv(settings, shape, MemoryTables(settings, shape, transport, layout))
    software, sequence = Decoder(RandomTensors(), text), ChipSequence(chip, 0, shape)
    caches = decoder.new_cache(), software.new_cache()
    errors = []
    for x in chunks(np.random.default_rng(5), SIZES):
        result = decoder.forward(x, caches[0], "frame", sequence)
        expected = software.forward(x, caches[1], "frame", policy)
        errors.append(np.abs(result - expected).max() / np.abs(expected).max())
    # A cluster or a bitmask that differs by rounding moves an output; most are the same.
    assert np.median(errors) < 0.02
    assert max(errors) < 0.25
    report, plain = sequence.report(), policy.report()
    assert report["rows"] == plain["rows"] > 0
    assert report["dre"]["tokens"] == plain["dre"]["tokens"] > 50
    assert abs(report["clusters"] - plain["clusters"]) <= 0.05 * plain["clusters"]
    assert report["ratio"]["frame"] == pytest.approx(plain["ratio"]["frame"], abs=0.05)
    assert report["fetched"]["metadata_bytes"] == pytest.approx(plain["fetched"]["metadata_bytes"], rel=0.1)
    assert report["core"]["nan_jobs"] == 0


def test_a_sequence_takes_over_the_past_of_another_chip() -> None:
    """What comes next is as if the chip had seen it itself, and the other one stays as it is."""
    (_, chip), (_, other) = open_chip(), open_chip()
    sequence, taken = ChipSequence(chip, 0, SHAPE), ChipSequence(other, 0, SHAPE)
    *past, x, y = chunks(np.random.default_rng(8), (9, 6, 30, 6, 6))
    for chunk in past:
        sequence.run(chunk, "frame")
    taken.take_over(sequence)
    assert np.array_equal(taken.run(x, "frame"), sequence.run(x, "frame"))
    assert np.array_equal(taken.run(y, "frame"), sequence.run(y, "frame"))
    assert taken.start == sequence.start == sum(map(len, past)) + 12
    assert taken.chip.counts(0).clusters.sum() == chip.counts(0).clusters.sum() > 0


@pytest.mark.parametrize(
    "changes",
    [{"capacity": replace(CAPACITY, clusters=CAPACITY.clusters + 100)}, {"text": replace(TEXT, kv_heads=4)}],
    ids=["capacity", "heads"],
)
def test_a_past_of_another_layout_is_refused(changes: dict[str, Any]) -> None:
    _, chip = open_chip()
    _, other = open_chip(**changes)
    with pytest.raises(ValueError, match="laid out in another way"):
        ChipSequence(other, 0, SHAPE).take_over(ChipSequence(chip, 0, SHAPE))


@pytest.mark.parametrize("mean_bits", [16, 8, 4])
def test_tables_and_bitmasks_are_the_policys(mean_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the bits of the core's queries, keys and values, the policy's tables hold and select the same."""
    text, settings = replace(TEXT, layers=1), replace(SETTINGS, mean_bits=mean_bits)
    decoder, chip = open_chip(settings, text)
    shape = replace(SHAPE, layers=1)
    sequence, cache = ChipSequence(chip, 0, shape), decoder.new_cache()
    config, layout = chip.layout.shape.config, chip.layout
    tables_layout = lay_out(config, settings, shape, CAPACITY)
    transport = driver.open_transport("golden", config, False, tables_layout.new_memory())
    tables = MemoryTables(settings, shape, transport, tables_layout)
    policy = Resv(settings, shape, tables)
    programs = LayerPrograms(RandomTensors(), text, 0, driver.open_lxe("golden", config))
    selected: list[np.ndarray] = []
    retrieve = DreEngine.retrieve

    def recorded(*args: object, **kwargs: object) -> list[Retrieved]:
        answers = retrieve(*args, **kwargs)  # type: ignore[arg-type]
        selected.extend(answer.masks for answer in answers)
        return answers

    monkeypatch.setattr(DreEngine, "retrieve", recorded)
    ring = layout.page("state") * PAGE + layout.state["ring"]
    compared = 0
    for x in chunks(np.random.default_rng(7), (9, *[6] * 12)):
        start, selected[:] = sequence.start, []
        decoder.forward(x, cache, "frame", sequence)
        q, k, v = programs.project(x, decoder._rotation(start, len(x)))
        # The chunk's keys and values in the window are those of the layer's own programs.
        first = max(start, SETTINGS.sinks)
        saved = np.frombuffer(
            chip.memory.read(
                ring + first * layout.shape.token_bytes, (start + len(x) - first) * layout.shape.token_bytes
            ),
            dtype="<u2",
        ).reshape(-1, text.kv_heads, 2, text.head_dim)
        expected = arith.to_bf16(np.stack([k, v])).transpose(2, 1, 0, 3)
        np.testing.assert_array_equal(saved, expected[first - start :])
        policy.select(Chunk(0, "frame", start, q, k, v, k[:, :0], _no_prediction, q, k))
        if selected:
            clusters = selected[0].shape[1]
            size = config.beats(clusters, 1) * config.bus_bytes
            masks = layout.page("state") * PAGE + layout.state["masks"]
            for head, mask in enumerate(selected[0]):
                data = chip.memory.read(masks + head * layout.shape.mask_pitch, size)
                bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")[:clusters]
                np.testing.assert_array_equal(bits.astype(bool), mask)
                compared += not mask.all()
    assert compared > 5
    tables.report()
    mine = Table(config, chip.memory, layout.table_address(0, 0, 0))
    other = tables._engine.table(0)
    assert mine.header.tokens == other.header.tokens > 50
    copy = ("codes", "scales") if mean_bits < 16 else ()
    for name in ("hashes", "counts", "means", "map", "score_means", *copy):
        np.testing.assert_array_equal(getattr(mine, name)(), getattr(other, name)())
    assert mine.header.mean_bits == mean_bits


def test_two_sequences_in_turn_are_what_each_is_alone() -> None:
    rng = np.random.default_rng(11)
    streams = [list(chunks(rng, SIZES[:8])) for _ in range(2)]
    alone = []
    for stream in streams:
        decoder, chip = open_chip()
        cache, sequence = decoder.new_cache(), ChipSequence(chip, 0, SHAPE)
        alone.append([decoder.forward(x, cache, "frame", sequence) for x in stream])
    decoder, chip = open_chip(sequences=2)
    caches = [decoder.new_cache() for _ in range(2)]
    sequences = [ChipSequence(chip, number, SHAPE) for number in range(2)]
    for step, both in enumerate(zip(*streams, strict=True)):
        for number, x in enumerate(both):
            result = decoder.forward(x, caches[number], "frame", sequences[number])
            np.testing.assert_array_equal(result, alone[number][step])
    # Degenerate rows of the one are not counted for the other.
    assert sum(s.report()["degenerate_rows"] for s in sequences) == chip.degenerate(1)


@pytest.mark.parametrize(
    ("settings", "text", "team"),
    [
        (replace(SETTINGS, scope="head"), TEXT, 2),
        (replace(SETTINGS, scope="head", sinks=12, window=1), replace(TEXT, qk_norm=True, layers=3), 2),
        (replace(SETTINGS, scope="head"), replace(TEXT, hidden_size=64, heads=8, kv_heads=4), 4),
    ],
    ids=["two", "qk-norm", "four"],
)
def test_a_team_computes_what_one_core_does(settings: ResvSettings, text: TextConfig, team: int) -> None:
    """Bit for bit where each KV head has a table of its own: only who computes a column is another."""
    shape = Shape(text.layers, text.heads, text.kv_heads, text.head_dim, STEP_TOKENS - 1)
    (_, alone), (_, chip) = open_chip(settings, text), open_chip(settings, text, team=team)
    one, many = ChipSequence(alone, 0, shape), ChipSequence(chip, 0, shape)
    for x in chunks(np.random.default_rng(5), SIZES):
        assert np.array_equal(many.run(x, "frame"), one.run(x, "frame"))
        assert np.array_equal(chip.delivered(0), alone.delivered(0))
    found, expected = many.report(), one.report()
    for key in ("ratio", "fetched", "clusters", "clusters_per_layer", "rows", "degenerate_rows", "dre"):
        assert found[key] == expected[key], key
    assert found["core"]["jobs"] == team * expected["core"]["jobs"]


def test_a_table_of_a_layer_is_one_of_each_core_of_a_team() -> None:
    """Of two cores with a KV head each it is what a table of each head is on one core."""
    (_, alone), (_, chip) = open_chip(replace(SETTINGS, scope="head")), open_chip(team=2)
    one, many = ChipSequence(alone, 0, SHAPE), ChipSequence(chip, 0, SHAPE)
    for x in chunks(np.random.default_rng(5), SIZES):
        assert np.array_equal(many.run(x, "frame"), one.run(x, "frame"))
    assert np.array_equal(chip.counts(0).clusters, alone.counts(0).clusters)
    assert chip.counts(0).clusters.shape == (TEXT.layers, 2)


def test_what_a_core_of_a_team_leaves_for_others_is_in_memory_before_they_meet() -> None:
    """A golden core writes at once, so only the program shows that the Verilog's waits for it."""
    _, chip = open_chip(team=2)
    code = ChipProgram(chip.layout, chip.layout.pool(), 6).compile()
    meets = [number for number, instruction in enumerate(code) if instruction.opcode == Opcode.BARRIER]
    assert len(meets) == 4
    for number in meets:
        before = code[number - 1]
        assert before.opcode == Opcode.WAIT
        assert isinstance(before.body, Control)
        assert before.body.immediate & Engine.SAVE


def test_a_team_whose_core_fails_says_why_and_is_broken() -> None:
    _, chip = open_chip(team=2)
    sequence = ChipSequence(chip, 0, SHAPE)
    x, *_ = chunks(np.random.default_rng(6), (6,))
    sequence.run(x, "frame")
    # A table that claims to have no room.
    header = chip.layout.table_plan(1, 0, 0).header
    chip.memory.write(chip.layout.table_address(1, 0, 0), replace(header, cap_clusters=0).pack())

    def run_on() -> None:
        for _ in range(12):
            sequence.run(x, "frame")

    with pytest.raises(DriverError, match="the DRE could not execute"):
        run_on()
    with pytest.raises(DriverError, match="an earlier error left the past of sequence 0 undefined"):
        sequence.run(x, "frame")


@pytest.mark.parametrize(
    ("text", "team", "says"),
    [
        (TEXT, 4, "4 cores can't share 2 KV heads evenly; choose"),
        (
            replace(TEXT, intermediate_size=TEXT.intermediate_size + 4),
            2,
            "columns of intermediate_size evenly in",
        ),
        (replace(TEXT, kv_heads=3, heads=6, hidden_size=192, intermediate_size=192), 3, "a power of two"),
    ],
)
def test_what_a_team_cannot_share(text: TextConfig, team: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_chip(text=text, team=team)


def test_sequences_on_several_cores_are_what_each_is_alone() -> None:
    """Three on two cores, all of a step at once; each core's degenerate rows are its own."""
    rng = np.random.default_rng(11)
    streams = [list(chunks(rng, SIZES[:6])) for _ in range(3)]
    alone, degenerate = [], []
    for stream in streams:
        decoder, chip = open_chip()
        sequence = ChipSequence(chip, 0, SHAPE)
        alone.append(run_all(decoder, decoder.new_cache(), sequence, stream))
        degenerate.append(sequence.report()["degenerate_rows"])
    decoder, chip = open_chip(config=replace(accelerator(), cores=2), sequences=3)
    caches = [decoder.new_cache() for _ in streams]
    sequences = [ChipSequence(chip, number, SHAPE) for number in range(3)]
    for step, together in enumerate(zip(*streams, strict=True)):
        results = decoder.forward_together(list(zip(together, caches, sequences, strict=True)))
        for number, result in enumerate(results):
            np.testing.assert_array_equal(result, alone[number][step])
    assert [sequence.report()["degenerate_rows"] for sequence in sequences] == degenerate
    assert [engine.counters()["jobs"] for engine in chip.engine.engines] == [12, 6]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"one chunk of a sequence at a time, not sequences \[1, 1\]"):
        decoder.forward_together([(streams[1][0], caches[1], sequences[1])] * 2)


def test_a_full_table_is_a_sentence_and_the_other_sequence_goes_on() -> None:
    stream = list(chunks(np.random.default_rng(13), SIZES))
    decoder, chip = open_chip()
    cache, sequence = decoder.new_cache(), ChipSequence(chip, 0, SHAPE)
    alone = run_all(decoder, cache, sequence, stream[:5])
    # Different tokens in the first sequence fill its tables; those of the second one fit.
    fullest = int(chip.counts(0).clusters.max())
    capacity = replace(CAPACITY, clusters=fullest)
    decoder, chip = open_chip(capacity=capacity, sequences=2)
    caches = [decoder.new_cache() for _ in range(2)]
    sequences = [ChipSequence(chip, number, SHAPE) for number in range(2)]
    noise = np.random.default_rng(17).standard_normal((40, TEXT.hidden_size)).astype(np.float32)
    with pytest.raises(
        DriverError, match="an HC table has no room for another cluster; raise table_clusters"
    ):
        run_all(decoder, caches[0], sequences[0], [noise + n for n in range(8)])
    with pytest.raises(DriverError, match="an earlier error left the past of sequence 0 undefined"):
        decoder.forward(noise, caches[0], "frame", sequences[0])
    for x, expected in zip(stream, alone, strict=False):
        np.testing.assert_array_equal(decoder.forward(x, caches[1], "frame", sequences[1]), expected)
    assert sequences[1].report()["degenerate_rows"] == sequence.report()["degenerate_rows"]


def run_all(
    decoder: ChipDecoder, cache: KVCache, sequence: ChipSequence, stream: list[np.ndarray]
) -> list[np.ndarray]:
    return [decoder.forward(x, cache, "frame", sequence) for x in stream]


def float64_attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray, causal: int) -> np.ndarray:
    """Softmax attention; q [rows of all query heads, dim], of which `causal` rows see each other in order."""
    scores = q.astype(np.float64) @ keys.T.astype(np.float64) * q.shape[1] ** -0.5
    own = np.triu(np.full((causal, causal), -np.inf), 1)
    scores[:, -causal:] += np.tile(own, (len(q) // causal, 1))
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True) @ values.astype(np.float64)


@pytest.mark.parametrize("name", ["small", "ulx3s"])
def test_attention_over_fifty_times_the_memory(name: str) -> None:
    """Keys and values of one KV head in window and table, each fifty times the LXE's memory."""
    config = preset(name).with_heads(TEXT.kv_heads, TEXT.head_dim)
    config = replace(config, lxe=LxeConfig(memory_kib=8, banks=2))
    rows, dim, heads = 3, TEXT.head_dim, TEXT.kv_heads
    tokens = 50 * 8 * 1024 // (4 * dim)
    text = replace(TEXT, layers=1)
    settings = ResvSettings(sinks=70, window=-(-tokens // STEP_TOKENS))
    capacity = Capacity(clusters=16, segments=2 * tokens // config.kvmu.segment_tokens, ring=64)
    shape = ChipShape(config, text, settings, STEP_TOKENS, capacity, 4 * tokens)
    layout = ChipLayout(shape)
    transport = GoldenCoreTransport(config, layout.new_memory())
    chip = Chip(layout, transport)
    chip.clear(0)
    rng = np.random.default_rng(3)
    past = arith.to_bf16(rng.standard_normal((2, 2 * tokens, heads, 2, dim)).astype(np.float32))[0]
    windowed, tabled = past[:tokens], past[tokens:]
    sinks, kept = windowed[: settings.sinks], windowed[settings.sinks :]
    # The window begins near the end of its ring, so that it goes round.
    first = shape.ring_tokens - 100
    state = layout.page("state") * PAGE
    ring = np.zeros((shape.ring_tokens, heads, 2, dim), dtype="<u2")
    ring[(first + np.arange(len(kept))) % shape.ring_tokens] = kept
    chip.memory.write(state + layout.state["ring"], ring.tobytes())
    chip.memory.write(state + layout.state["sinks"], sinks.astype("<u2").tobytes())
    append_all(chip, tabled)
    clusters = chip.header(0, 0, 0).clusters
    masks = np.zeros((heads, layout.shape.mask_pitch), dtype=np.uint8)
    masks[:, : -(-clusters // 8)] = np.packbits(np.ones(clusters, dtype=bool), bitorder="little")
    chip.memory.write(state + layout.state["masks"], masks.tobytes())
    q = arith.to_bf16(rng.standard_normal((TEXT.heads * rows, dim)).astype(np.float32))
    own = arith.to_bf16(rng.standard_normal((rows, heads, 2, dim)).astype(np.float32))
    result = attend_on(
        chip, q, own, (layout.page("state"), layout.page("tables"), 0, 0, len(sinks), first, len(kept))
    )
    assert chip.delivered(0).tolist() == [[tokens, tokens]]
    group = TEXT.heads // heads
    for head in range(heads):
        keys, values = (
            arith.from_bf16(np.concatenate([past[:, head, part], own[:, head, part]])) for part in range(2)
        )
        part = slice(head * group * rows, (head + 1) * group * rows)
        expected = float64_attention(arith.from_bf16(q[part]), keys, values, rows)
        assert np.abs(result[part] - expected).max() < 2**-8 * np.abs(expected).max()


def append_all(chip: Chip, kv: np.ndarray) -> None:
    """Tokens [n, KV heads, 2, head_dim] enter the table in chunks of one hash each, so in few clusters."""
    config, address = chip.layout.shape.config, chip.layout.table_address(0, 0, 0)
    chunk = config.hcu.chunk_tokens
    p = CoreProgram(config, chip.layout.pool(), RESERVED)
    set_up_dre(p, chip.layout)
    for first in range(0, len(kv), chunk):
        part = kv[first : first + chunk].astype("<u2").tobytes()
        hashes = np.full(
            len(kv[first : first + chunk]), [0, 0xFFFF, 0xFFFFFFFF][first // chunk % 3], dtype="<u4"
        )
        payload = (hashes.tobytes() + bytes(-4 * len(hashes) % config.bus_bytes)) + part
        p.stream(Address(p.pool.add(payload)), len(payload), Port.DRE)
        p.dre(
            DreOpcode.APPEND,
            Address(address),
            kv_heads=3,
            count=len(hashes),
            length=len(payload),
        )
        p.move(Port.DRE, Port.NONE, bytes=4 * len(hashes))
    p.end()
    code = p.pool.add(pack_program(p.assemble()))
    for at, data in p.pool.take():
        chip.memory.write(at, data)
    chip.engine.run(code)


def attend_on(chip: Chip, q: np.ndarray, own: np.ndarray, parameters: tuple[int, ...]) -> np.ndarray:
    """Attention of one layer, float32 [rows of all query heads, head_dim]."""
    layout, rows = chip.layout, len(own)
    p = CoreProgram(layout.shape.config, layout.pool(), RESERVED)
    p.release(Parameters.input)
    tiles = Tiles.allocate(p, layout, rows)
    queries, kv = p.load(q), p.load(own.reshape(rows, -1))
    attention = Attention(p, layout, queries, kv, tiles)
    attention.resident()
    TableSteps(p, layout, queries).deliver(attention)
    output = Address(layout.page("io") * PAGE)
    dim, count = q.shape[1], len(q) // TEXT.heads
    targets = [p.tensor(count, dim) for _ in range(TEXT.heads)]
    attention.finish(targets)
    for target in targets:
        p.move(Port.LXE, Port.MEMORY, output, bytes=2 * dim, pitch=2 * dim, rows=count)
        p.store(target)
        output += 2 * dim * count
    p.end()
    code = p.pool.add(pack_program(p.assemble()))
    for at, data in p.pool.take():
        chip.memory.write(at, data)
    chip.engine.run(code, parameters=parameters)
    bits = np.frombuffer(chip.memory.read(layout.page("io") * PAGE, q.nbytes), dtype="<u2")
    return arith.from_bf16(bits).reshape(q.shape)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cluster_first": True}, "--offload chip clusters tokens after a chunk's selection"),
        ({"predict": "next"}, "not with predict next"),
        ({"predict": "reuse"}, "not with predict reuse"),
    ],
)
def test_settings_that_the_programs_can_not_do(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        open_chip(replace(SETTINGS, **change))  # type: ignore[arg-type]


def test_mistakes_are_sentences() -> None:
    config = accelerator()
    with pytest.raises(UserError, match="takes hashes of 32, 64, 128 bits, not 16"):
        open_chip(replace(SETTINGS, n_hp=16), config=replace(config, hcu=replace(config.hcu, hash_bits=16)))
    wide = replace(
        config, bus_bits=128, dpe=replace(config.dpe, trees=8, inputs=8), vpe=replace(config.vpe, lanes=8)
    )
    with pytest.raises(UserError, match="16 values of 4 bits are 8 bytes, and a beat is 16; raise mean_bits"):
        open_chip(replace(SETTINGS, mean_bits=4), config=wide)
    with pytest.raises(UserError, match="preset small makes no core for this model"):
        open_chip(config=replace(config, dpe=replace(config.dpe, inputs=64)))
    decoder, chip = open_chip(config=replace(config, lxe=LxeConfig(memory_kib=16, banks=2)))
    cache, sequence = decoder.new_cache(), ChipSequence(chip, 0, SHAPE)
    x = np.zeros((100, TEXT.hidden_size), dtype=np.float32)
    with pytest.raises(UserError, match="the core can't take 100 tokens at once"):
        decoder.forward(x, cache, "text", sequence)
    with pytest.raises(UserError, match="room for 400 tokens of a video"):
        decoder.forward(np.zeros((513, TEXT.hidden_size), dtype=np.float32), cache, "text", sequence)
    with pytest.raises(ValueError, match="takes a ChipSequence"):
        decoder.forward(x, cache, "text", software_policy(SETTINGS, config))
    with pytest.raises(ValueError, match="the chip has sequences 0 to 0, not 1"):
        ChipSequence(chip, 1, SHAPE)
