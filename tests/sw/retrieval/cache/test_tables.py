"""Policy resv with its keys and values in three tiers: the same choices as in memory, crashes, damage."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sw.tape import KNOBS, SHAPE, SMALL, Tape, on_host
from vrex.errors import UserError
from vrex.model.lib import arith
from vrex.sw.driver import open_transport
from vrex.sw.retrieval.cache import journal, segments
from vrex.sw.retrieval.cache.tables import StoredTables, journal_of
from vrex.sw.retrieval.cache.tiers import LEAST_TOKENS, Budgets
from vrex.sw.retrieval.policies.base import Delivered
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape

TOKEN = 4 * SHAPE.head_dim * SHAPE.kv_heads * SHAPE.layers
"""Bytes of a token in all layers."""


def open_tables(path: Path, knobs: ResvSettings, **other: Any) -> StoredTables:
    """With as little memory as there may be."""
    resident = knobs.sinks + (knobs.window + 2) * SHAPE.step_tokens
    budgets = other.pop("budgets", Budgets((resident + LEAST_TOKENS) * TOKEN, LEAST_TOKENS * TOKEN))
    transport = open_transport("golden", SMALL.with_hash_bits(knobs.n_hp))
    return StoredTables(knobs, SHAPE, transport, path, budgets, **{"model": "m", **other})


def stored(tables: StoredTables, knobs: ResvSettings) -> Resv:
    past = (tables.tokens, tables.tabled)
    return Resv(knobs, SHAPE, tables, past)


def play(policy: Resv, tape: Tape, first: int = 0, last: int | None = None) -> list[Any]:
    """What the policy delivers for chunks first..last-1."""
    starts = np.cumsum([0, *tape.sizes])
    choices = [
        policy.select(tape.chunk(layer, int(starts[i]), tape.sizes[i]))
        for i in range(first, len(tape.sizes) if last is None else last)
        for layer in range(SHAPE.layers)
    ]
    return [choice.kv for choice in choices if isinstance(choice, Delivered)]


def same(a: list[Any], b: list[Any]) -> bool:
    pairs = [(x, y) for left, right in zip(a, b, strict=True) for x, y in zip(left, right, strict=True)]
    return all(np.array_equal(x, y) for x, y in pairs)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=4, max_size=20), knobs=KNOBS, cut=st.integers(0, 19))
def test_delivers_what_the_unbounded_cache_holds(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], knobs: ResvSettings, cut: int
) -> None:
    """Also when another process goes on after a while."""
    tape = Tape(sizes, seed=sum(sizes))
    path = tmp_path_factory.mktemp("cache") / "kv"
    cut = min(cut, len(sizes))
    tables = open_tables(path, knobs)
    first = play(stored(tables, knobs), tape, last=cut)
    tables.close()
    tables = open_tables(path, knobs)
    assert (tables.tokens, tables.lost_bytes) == (sum(sizes[:cut]), 0)
    policy = stored(tables, knobs)
    got = first + play(policy, tape, first=cut)
    for (chunk, tokens), delivered in zip(tape.play(on_host(knobs), False), got, strict=True):
        for head, (kv, wanted) in enumerate(zip(delivered, tokens, strict=True)):
            np.testing.assert_array_equal(kv[0], tape.k[chunk.layer][head, wanted])
            np.testing.assert_array_equal(kv[1], tape.v[chunk.layer][head, wanted])
    json.dumps(policy.report(), allow_nan=False)
    tables.close()


LONG = [20] * 30
PLAIN = ResvSettings(sinks=2, window=1, th_hd=9, th_r=0.6)


def test_all_tiers_are_read_and_counted(tmp_path: Path) -> None:
    tables = open_tables(tmp_path / "kv", PLAIN)
    policy = stored(tables, PLAIN)
    delivered = play(policy, Tape(LONG, seed=1))
    report = policy.report()
    tiers = report["cache"]["tiers"]
    assert all(tiers[name]["bytes"] > 0 for name in ("device", "host", "file", "written", "journal"))
    read = sum(tiers[name]["tokens"] for name in ("device", "host", "file"))
    # Of the tokens that KV heads get, those that both heads of a table get are read once.
    assert report["fetched"]["tokens"] / 2 <= read <= report["fetched"]["tokens"]
    assert sum(kv.shape[1] for heads in delivered for kv in heads) > read
    per_token = 4 * SHAPE.head_dim * SHAPE.kv_heads
    assert tiers["written"]["bytes"] == tiers["written"]["tokens"] * per_token
    assert report["cache"]["file_bytes"] == (tmp_path / "kv").stat().st_size
    assert report["cache"]["journal_bytes"] == journal_of(tmp_path / "kv").stat().st_size
    tables.close()


def test_a_journal_stays_as_small_as_host_memory(tmp_path: Path) -> None:
    tables = open_tables(tmp_path / "kv", PLAIN)
    play(stored(tables, PLAIN), Tape(LONG, seed=1))
    # Host memory, sinks, the window, and the chunks whose tokens have not left it.
    assert tables.report()["cache"]["journal_bytes"] <= (LEAST_TOKENS + 2 + 3 + 2 * 20) * TOKEN + 4096
    tables.close()


def test_four_bits_keep_the_selection_and_come_close(tmp_path: Path) -> None:
    tape, results = Tape(LONG, seed=2), {}
    for bits in (16, 4):
        tables = open_tables(tmp_path / f"{bits}", PLAIN, bits=bits)
        policy = stored(tables, PLAIN)
        results[bits] = play(policy, tape), policy.report()
        tables.close()
    (exact, plain), (close, small) = results[16], results[4]
    assert small["ratio"] == plain["ratio"]
    assert small["clusters"] == plain["clusters"]
    # 64 values in 4 groups.
    written = [report["cache"]["tiers"]["written"]["bytes"] for report in (small, plain)]
    assert written[0] * 128 == written[1] * (32 + 8)
    pairs = [pair for a, b in zip(exact, close, strict=True) for pair in zip(a, b, strict=True)]
    errors = [np.abs(x - y).max(initial=0) for x, y in pairs]
    # Half a step of the largest group: its maximum over 7, and the scale's rounding.
    assert 0 < max(errors) <= max(np.abs(tape.k).max(), np.abs(tape.v).max()) / 7 * 0.51


@pytest.mark.parametrize("at", range(0, 4000, 331))
def test_a_journal_cut_anywhere_reopens_at_a_whole_chunk(tmp_path: Path, at: int) -> None:
    tape, path = Tape(LONG, seed=3), tmp_path / "kv"
    tables = open_tables(path, PLAIN)
    whole = play(stored(tables, PLAIN), tape)
    tables.close()
    size = journal_of(path).stat().st_size
    os.truncate(journal_of(path), size - at)
    tables = open_tables(path, PLAIN)
    # The last record is longer than what is cut off.
    chunks = len(LONG) - (at > 0)
    assert tables.tokens == 20 * chunks
    assert (tables.lost_bytes > 0) == (at > 0)
    assert same(play(stored(tables, PLAIN), tape, first=chunks), whole[SHAPE.layers * chunks :])
    tables.close()


def test_a_flush_that_did_not_finish_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has grown, but the journal does not know."""
    tape, path = Tape(LONG, seed=4), tmp_path / "kv"
    tables = open_tables(path, PLAIN)
    policy = stored(tables, PLAIN)
    before = len(play(policy, tape, last=3))

    def fail(self: journal.Journal, record: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "begin", fail)
    with pytest.raises(KeyboardInterrupt):
        play(policy, tape, first=3)
    monkeypatch.undo()
    grown = path.stat().st_size
    tables.close()
    tables = open_tables(path, PLAIN)
    assert path.stat().st_size < grown
    chunks = tables.tokens // 20
    assert chunks >= 3
    assert before == 3 * SHAPE.layers
    wanted = tape.play(on_host(PLAIN), False)[SHAPE.layers * chunks :]
    for (chunk, tokens), heads in zip(wanted, play(stored(tables, PLAIN), tape, first=chunks), strict=True):
        for head, ids in enumerate(tokens):
            np.testing.assert_array_equal(heads[head][0], tape.k[chunk.layer][head, ids])
    tables.close()


@pytest.mark.parametrize("where", [0.05, 0.5, 0.9])
def test_a_flipped_byte_in_the_file_is_found(tmp_path: Path, where: float) -> None:
    path = tmp_path / "kv"
    tables = open_tables(path, PLAIN)
    play(stored(tables, PLAIN), Tape(LONG, seed=5))
    tables.close()
    data = bytearray(path.read_bytes())
    used = np.flatnonzero(np.frombuffer(bytes(data), dtype=np.uint8))
    at = int(used[int(where * len(used))])
    data[at] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged: .* is not what was written"):
        open_tables(path, PLAIN)
    data[at] ^= 0x10
    path.write_bytes(data)
    open_tables(path, PLAIN).close()


def test_a_byte_that_flips_meanwhile_is_found_at_the_first_read(tmp_path: Path) -> None:
    path, tape = tmp_path / "kv", Tape(LONG, seed=5)
    tables = open_tables(path, PLAIN)
    policy = stored(tables, PLAIN)
    play(policy, tape, last=8)
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data)):
        data[at] ^= 0xFF
    with path.open("r+b") as file:
        file.write(data)
    with pytest.raises(UserError, match=r"segment [0-9]+ at byte [0-9,]+ is not what was written"):
        play(policy, tape, first=8)
    tables.close()


@pytest.mark.parametrize("writer", [segments, journal])
def test_a_full_disk_ends_the_stream_and_keeps_the_frames(
    tmp_path: Path, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tape = tmp_path / "kv", Tape(LONG, seed=6)
    tables = open_tables(path, PLAIN)
    policy = stored(tables, PLAIN)
    play(policy, tape, last=2)
    write, left = os.pwrite, 3 * 20 * TOKEN + 777

    def limited(fd: int, data: Any, at: int) -> int:
        nonlocal left
        if fd in (tables._file._fd if writer is segments else tables._journal._fd,):
            if left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[:left]
            left -= len(data)
        return write(fd, data, at)

    monkeypatch.setattr(os, "pwrite", limited)
    name = path.name if writer is segments else journal_of(path).name
    with pytest.raises(UserError, match=f"cannot write .*/{name}: No space left on device; the cache keeps"):
        play(policy, tape, first=2)
    monkeypatch.undo()
    tables.close()
    tables = open_tables(path, PLAIN)
    assert tables.lost_bytes == 0
    chunks = tables.tokens // 20
    assert 2 <= chunks < len(LONG)
    wanted = tape.play(on_host(PLAIN), False)[SHAPE.layers * chunks :]
    for (chunk, tokens), heads in zip(wanted, play(stored(tables, PLAIN), tape, first=chunks), strict=True):
        for head, ids in enumerate(tokens):
            np.testing.assert_array_equal(heads[head][1], tape.v[chunk.layer][head, ids])
    tables.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "n"}, "is another stream's: its model is m, not n"),
        ({"bits": 4}, "is another stream's: its bits is 16, not 4"),
    ],
)
def test_another_streams_file(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    open_tables(tmp_path / "kv", PLAIN).close()
    with pytest.raises(UserError, match=message):
        open_tables(tmp_path / "kv", PLAIN, **change)
    with pytest.raises(UserError, match="its th_hd is 9, not 3"):
        open_tables(tmp_path / "kv", ResvSettings(sinks=2, window=1, th_hd=3))


def test_files_that_are_no_caches(tmp_path: Path) -> None:
    path = tmp_path / "kv"
    path.write_bytes(b"A text file that is long enough for a header.")
    with pytest.raises(UserError, match="is no cache of vrex"):
        open_tables(path, PLAIN)
    path.write_bytes(segments._HEADER.pack(segments.MAGIC, 99, 0, 0))
    with pytest.raises(UserError, match="is of format 99, but this vrex reads 2"):
        open_tables(path, PLAIN)
    with pytest.raises(UserError, match="cannot open the cache"):
        open_tables(tmp_path / "no" / "kv", PLAIN)


def test_a_file_in_use_cut_off_or_without_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "kv"
    tables = open_tables(path, PLAIN)
    with pytest.raises(UserError, match="in use by another process"):
        open_tables(path, PLAIN)
    play(stored(tables, PLAIN), Tape(LONG, seed=7))
    tables.close()
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match=r"is cut off: it has [0-9,]+ bytes of"):
        open_tables(path, PLAIN)
    journal_of(path).unlink()
    with pytest.raises(UserError, match="has no journal"):
        open_tables(path, PLAIN)


def test_a_file_without_a_journal_that_was_never_written_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "kv"
    open_tables(path, PLAIN).close()
    journal_of(path).unlink()
    tables = open_tables(path, PLAIN)
    assert (tables.tokens, tables.frames, tables.stage) == (0, 0, None)
    tables.close()


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        (Budgets(0, 1 << 20), "0 bytes of device memory are too few: sinks and window take"),
        (Budgets(1 << 20, 10), "10 bytes of host memory are too few; allow at least"),
    ],
)
def test_budgets_that_are_too_small(tmp_path: Path, budgets: Budgets, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_tables(tmp_path / "kv", PLAIN, budgets=budgets)
    assert not list(tmp_path.iterdir())


def test_means_of_another_rounding_do_not_go_on(tmp_path: Path) -> None:
    open_tables(tmp_path / "kv", PLAIN).close()
    config = SMALL.with_hash_bits(PLAIN.n_hp)
    dithered = replace(config, mean=replace(config.mean, rounding="dithered"))
    budgets = Budgets(1 << 20, 1 << 20)

    def open_dithered(path: Path) -> StoredTables:
        return StoredTables(PLAIN, SHAPE, open_transport("golden", dithered), path, budgets, model="m")

    with pytest.raises(UserError, match="its means is None, not dithered"):
        open_dithered(tmp_path / "kv")
    open_dithered(tmp_path / "other").close()
    with pytest.raises(UserError, match="its means is dithered, not None"):
        open_tables(tmp_path / "other", PLAIN)


def test_less_host_memory_than_before(tmp_path: Path) -> None:
    path = tmp_path / "kv"
    tables = open_tables(path, PLAIN, budgets=Budgets(1 << 20, 1 << 20))
    play(stored(tables, PLAIN), Tape(LONG, seed=7))
    tables.close()
    with pytest.raises(UserError, match="was written with more bytes of host memory; allow as many"):
        open_tables(path, PLAIN)


def test_a_chunk_larger_than_host_memory(tmp_path: Path) -> None:
    tables = open_tables(tmp_path / "kv", PLAIN)
    with pytest.raises(UserError, match="tokens leave the window at once, but host memory holds 64"):
        play(stored(tables, PLAIN), Tape([100, 100], seed=8))
    tables.close()


def test_a_wide_shape_round_trips_through_records() -> None:
    from vrex.sw.retrieval.cache.records import Records

    rng = np.random.default_rng(9)
    shape = Shape(1, 8, 3, 48, 2)
    kv = arith.to_bf16(rng.standard_normal((7, 2, shape.kv_heads, shape.head_dim)).astype(np.float32))
    records = Records(shape.kv_heads, shape.head_dim)
    np.testing.assert_array_equal(records.decode(records.encode(kv)), kv)
    assert records.encode(kv).shape == (7, records.size)
