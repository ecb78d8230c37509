"""Documents with needles: nothing of the prose is lost, and needles are where they are said to be."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sw import gguf_files
from vrex.errors import UserError
from vrex.sw.evaluation.text.corpus import DIGITS, KEYS, Corpus, cut, hide, python_topics, read_corpus

WORDS = ["\n", "\n\n", "a", "bc", " ", "1", "ä"]
"""A toy vocabulary: an id is a place in it, and beyond it a character."""


def _decode(ids: list[int]) -> str:
    return "".join(WORDS[i] if i < len(WORDS) else chr(i) for i in ids)


def _encode(text: str) -> list[int]:
    return [ord(c) for c in text]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, len(WORDS) - 1), min_size=30, max_size=120),
    st.integers(1, 6),
    st.integers(0, 2**32),
)
def test_prose_stays_and_needles_stand_where_they_say(prose: list[int], needles: int, seed: int) -> None:
    places = 2 + sum(_decode(prose[: i + 1]).endswith("\n\n") for i in range(len(prose) - 1))
    if places - 1 < needles:
        prose = [*prose, *([2, 1] * needles)]
    document = hide(prose, needles, seed, _encode, _decode)
    assert document.ids[document.prose].tolist() == prose
    assert len({asked.key for asked in document.asked}) == needles
    for asked in document.asked:
        assert asked.key in KEYS
        assert len(asked.value) == DIGITS
        needle = _decode(document.ids.tolist()).index(f"number for {asked.key} is {asked.value}. Remember")
        before = next(
            i for i in range(len(document.ids)) if len(_decode(document.ids[: i + 1].tolist())) > needle
        )
        assert document.prose[:before].sum() == round(asked.depth * len(prose))
        assert _decode(asked.question + asked.answer).endswith(f"number for {asked.key} is {asked.value}")
    # Needles break no paragraph: before each stands a blank line, or nothing.
    for place in np.flatnonzero(~document.prose[1:] & document.prose[:-1]):
        end = place + 1 == document.ids.size or document.prose[: place + 1].sum() == len(prose)
        assert end or _decode(document.ids[: place + 1].tolist()).endswith("\n\n")


def test_needles_go_from_the_beginning_to_the_end() -> None:
    prose = [2, 1] * 50
    document = hide(prose, 5, 0, _encode, _decode)
    depths = sorted(asked.depth for asked in document.asked)
    np.testing.assert_allclose(depths, [0, 0.25, 0.5, 0.75, 1], atol=0.02)
    assert hide(prose, 1, 0, _encode, _decode).asked[0].depth == 0.5


def test_seeds_tell_documents_apart() -> None:
    prose = [2, 1] * 50
    values = [{asked.value for asked in hide(prose, 4, seed, _encode, _decode).asked} for seed in range(4)]
    assert all(not a & b for a, b in itertools.combinations(values, 2))
    again = hide(prose, 4, 0, _encode, _decode)
    assert {asked.value for asked in again.asked} == values[0]


def test_too_few_paragraphs_are_named() -> None:
    with pytest.raises(UserError, match="2 places between paragraphs, too few for 3 needles"):
        hide([2] * 50, 3, 0, _encode, _decode)


def test_documents_follow_each_other() -> None:
    corpus = Corpus("x", "abcdefgh", "")
    assert cut(corpus, _encode, 3, 2) == [_encode("abc"), _encode("def")]
    with pytest.raises(UserError, match="x has 8 tokens, too few for 3 texts of 3"):
        cut(corpus, _encode, 3, 3)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0123456789" * 2)
    corpus = read_corpus(path)
    assert (corpus.name, corpus.text, corpus.calibration) == ("a.txt", "012345678901234567", "89")
    assert corpus.digest != Corpus("a.txt", "other", "").digest
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_corpus(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_corpus(tmp_path / "missing.txt")


def test_python_brings_enough_for_three_documents() -> None:
    pytest.importorskip("pydoc_data.topics")
    corpus = python_topics()
    assert len(corpus.text) > 3 * 4096 * 3
    assert corpus.calibration not in corpus.text


def test_a_python_without_its_pages_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="--text"):
        python_topics()


def test_the_vocabulary_of_the_small_model_has_every_key() -> None:
    """What the other tests' model reads are bytes, so any text will do."""
    assert set("".join(KEYS)) <= set(gguf_files.WORDS)
