from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st

from vrex.model.dre import hcu


def reference(tokens: list[int], clusters: list[int], th_hd: int) -> list[tuple[int, int, bool]]:
    """Token by token on Python integers: (cluster, distance, opened)."""
    table, decisions = list(clusters), []
    for token in tokens:
        nearest, best = 0, 255
        for index, founder in enumerate(table):
            distance = bin(token ^ founder).count("1")
            if distance < best:
                nearest, best = index, distance
        opened = not (table and best < th_hd)
        if opened:
            nearest = len(table)
            table.append(token)
        decisions.append((nearest, best, opened))
    return decisions


def words(values: list[int], n_words: int) -> np.ndarray:
    rows = [[value >> 32 * i & 0xFFFFFFFF for i in range(n_words)] for value in values]
    return np.array(rows, dtype=np.uint32).reshape(len(values), n_words)


def decide(
    tokens: list[int], clusters: list[int], th_hd: int, n_words: int = 1
) -> list[tuple[int, int, bool]]:
    result = hcu.cluster(words(tokens, n_words), words(clusters, n_words), th_hd)
    columns = result.cluster.tolist(), result.distance.tolist(), result.opened.tolist()
    return list(zip(*columns, strict=True))


def test_equals_token_by_token_reference(prove: Callable[..., None]) -> None:
    def check(seed: int, n: int, existing: int, th_hd: int, n_words: int, flips: int) -> None:
        rng = np.random.default_rng(seed)
        width = 32 * n_words
        bases = [int.from_bytes(rng.bytes(width // 8), "little") for _ in range(3)]

        def near() -> int:
            """Close to one of three bases, so that joins, ties and openings all happen."""
            value = bases[rng.integers(3)]
            for bit in rng.integers(0, width, rng.integers(0, flips + 1)):
                value ^= 1 << int(bit)
            return value

        tokens, clusters = [near() for _ in range(n)], [near() for _ in range(existing)]
        assert decide(tokens, clusters, th_hd, n_words) == reference(tokens, clusters, th_hd)

    prove(
        check,
        examples=250,
        seed=st.integers(0, 1 << 32),
        n=st.integers(0, 40),
        existing=st.integers(0, 60),
        th_hd=st.one_of(st.integers(0, 12), st.sampled_from([0, 32, 33, 128, 255])),
        n_words=st.sampled_from([1, 2, 4]),
        flips=st.integers(0, 10),
    )


def test_small_alphabet_exhausts_ties(prove: Callable[..., None]) -> None:
    hashes = st.lists(st.integers(0, 15), max_size=12)

    def check(tokens: list[int], clusters: list[int], th_hd: int) -> None:
        assert decide(tokens, clusters, th_hd) == reference(tokens, clusters, th_hd)

    prove(check, examples=300, tokens=hashes, clusters=hashes, th_hd=st.integers(0, 5))


def test_closed_clusters_are_left_out_and_the_others_keep_their_indices(prove: Callable[..., None]) -> None:
    def check(tokens: list[int], clusters: list[tuple[int, bool]], th_hd: int) -> None:
        marks = np.array([closed for _, closed in clusters], dtype=bool)
        result = hcu.cluster(words(tokens, 1), words([c for c, _ in clusters], 1), th_hd, marks)
        still_open = [index for index, (_, closed) in enumerate(clusters) if not closed]
        names = still_open + list(range(len(clusters), len(clusters) + len(tokens)))
        expected = reference(tokens, [clusters[index][0] for index in still_open], th_hd)
        got = zip(result.cluster.tolist(), result.distance.tolist(), result.opened.tolist(), strict=True)
        assert list(got) == [(names[index], distance, opened) for index, distance, opened in expected]

    marked = st.lists(st.tuples(st.integers(0, 15), st.booleans()), max_size=12)
    tokens, th_hd = st.lists(st.integers(0, 15), max_size=12), st.sampled_from([0, 1, 2, 3, 4, 5, 255])
    prove(check, examples=300, tokens=tokens, clusters=marked, th_hd=th_hd)


def test_lowest_index_wins_a_tie() -> None:
    assert decide([0b11], [0b01, 0b10, 0b01], 7) == [(0, 1, False)]
    assert decide([0b11], [0b1111, 0b10, 0b01], 7) == [(1, 1, False)]


def test_existing_cluster_wins_a_tie_with_one_opened_in_this_chunk() -> None:
    """Token 0 opens cluster 1 at distance 1 from token 1, as is cluster 0."""
    assert decide([0b1100, 0b1000], [0b1010], 2) == [(1, 2, True), (0, 1, False)]


def test_joins_a_cluster_opened_earlier_in_the_chunk() -> None:
    assert decide([5, 5, 4], [], 1) == [(0, 255, True), (0, 0, False), (1, 1, True)]


def test_cluster_keeps_the_hash_of_its_founder() -> None:
    """0b01 joins 0b00; 0b11 is 1 away from that member but 2 from the founder."""
    assert decide([0b00, 0b01, 0b11], [], 2) == [(0, 255, True), (0, 1, False), (1, 2, True)]


def test_threshold_is_strict() -> None:
    assert decide([0b111], [0], 3) == [(1, 3, True)]
    assert decide([0b111], [0], 4) == [(0, 3, False)]


def test_th_hd_0_opens_a_cluster_for_every_token() -> None:
    assert decide([9, 9, 9], [9], 0) == [(1, 0, True), (2, 0, True), (3, 0, True)]


def test_th_hd_255_joins_whatever_there_is_but_not_nothing() -> None:
    ones = (1 << 128) - 1
    assert decide([ones], [0], 255, 4) == [(0, 128, False)]
    assert decide([ones, 0], [], 255, 4) == [(0, 255, True), (0, 128, False)]


def test_no_tokens() -> None:
    assert decide([], [1, 2], 7) == []


def test_table_takes_65535_clusters_and_no_more() -> None:
    full = np.zeros((65_534, 1), dtype=np.uint32)
    far = np.array([[0xFFFFFFFF]], dtype=np.uint32)
    assert hcu.cluster(far, full, 7).cluster.tolist() == [65_534]
    with pytest.raises(hcu.TableFullError):
        hcu.cluster(np.array([[0xFFFFFFFF], [0xFFFF0000]], dtype=np.uint32), full, 7)


def test_full_table_still_takes_members() -> None:
    full = np.zeros((65_535, 1), dtype=np.uint32)
    assert hcu.cluster(np.array([[1]], dtype=np.uint32), full, 7).cluster.tolist() == [0]


def test_arguments_stay_as_they_were_and_the_result_repeats() -> None:
    rng = np.random.default_rng(3)
    tokens, clusters = (rng.integers(0, 256, (n, 2), dtype=np.uint32) for n in (20, 30))
    before = tokens.copy(), clusters.copy()
    first, second = (hcu.cluster(tokens, clusters, 3) for _ in range(2))
    for name in ("cluster", "distance", "opened"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(tokens, before[0])
    np.testing.assert_array_equal(clusters, before[1])


def test_one_chunk_equals_two_with_the_table_kept_between() -> None:
    """The meaning is token by token, so it does not depend on where a chunk is cut."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 1 << 10, (30, 1), dtype=np.uint32)
    table = rng.integers(0, 1 << 10, (20, 1), dtype=np.uint32)
    whole = hcu.cluster(tokens, table, 3)
    for cut in (1, 7, 29):
        head = hcu.cluster(tokens[:cut], table, 3)
        tail = hcu.cluster(tokens[cut:], np.concatenate([table, tokens[:cut][head.opened]]), 3)
        np.testing.assert_array_equal(np.concatenate([head.cluster, tail.cluster]), whole.cluster)
        np.testing.assert_array_equal(np.concatenate([head.distance, tail.distance]), whole.distance)


def test_hamming_against_string_count() -> None:
    rng = np.random.default_rng(9)
    a, b = (rng.integers(0, 1 << 32, (n, 4), dtype=np.uint32) for n in (5, 6))
    expected = [
        [sum(bin(int(x) ^ int(y)).count("1") for x, y in zip(p, q, strict=True)) for q in b] for p in a
    ]
    np.testing.assert_array_equal(hcu.hamming(a, b), expected)
