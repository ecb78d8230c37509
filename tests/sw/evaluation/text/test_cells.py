"""Reading and asking, against one pass of the whole text through transformers."""

from pathlib import Path
from typing import Any

import pytest

from tests.sw import gguf_files
from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.text.cells import Passage, Reader, TextCell
from vrex.sw.evaluation.text.corpus import DIGITS, Corpus
from vrex.sw.evaluation.text.gguf import TextModel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CORPUS = Corpus("x", "A thin thing.\n\nThe rest of the story, then.\n\n" * 12, "Some other text. " * 20)
PASSAGE = Passage(CORPUS.digest, 1, 150, 3, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    gguf_files.write(folder / "model.gguf", 5)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> TextModel:
    return TextModel.load(folder / "model.gguf")


@pytest.fixture
def reader(model: TextModel, tmp_path: Path) -> Reader:
    return Reader(model, CORPUS, tmp_path / "calibration.npz")


def _run(reader: Reader, policy: str, passage: Passage = PASSAGE, **knobs: Any) -> dict[str, Any]:
    return reader.run(TextCell(Point.of(policy, knobs), passage))


def test_full_is_transformers(reader: Reader, folder: Path) -> None:
    """Surprise of the prose and greedy digits, from logits of one pass over everything."""
    document = reader.document(PASSAGE)
    ids = document.ids.tolist()
    starts = []
    for asked in document.asked:
        ids += asked.question
        starts.append(len(ids))
        ids += asked.answer
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.float32
    )
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids])).logits[0]
    result = _run(reader, "full")
    n = len(document.ids)
    surprise = -torch.log_softmax(logits.double(), -1)[range(n - 1), ids[1:n]].numpy()
    for block, start in enumerate(range(0, n - 1, 32)):
        kept = document.prose[1:][start : start + 32]
        assert result["counted"][block] == kept.sum()
        # The cache holds BF16.
        expected = surprise[start : start + 32][kept].sum()
        assert result["surprise"][block] == pytest.approx(expected, rel=5e-3, abs=1e-2)
    assert len(result["surprise"]) == -(-(n - 1) // 32)
    assert sum(result["counted"]) == PASSAGE.tokens - int(document.prose[0])
    for asked, start, item in zip(document.asked, starts, result["items"], strict=True):
        best = logits[start - 1 : start - 1 + len(asked.answer)].argmax(-1).tolist()
        assert item["given"] == reader.model.tokenizer.decode(best).strip()
        matches = [a == b for a, b in zip(best, asked.answer, strict=True)]
        assert (item["right"], item["digits"]) == (all(matches), sum(matches[1:]))
        assert (item["key"], item["expected"]) == (asked.key, asked.value)
    assert len(document.asked[0].answer) == 1 + DIGITS
    assert (result["ratio_read"], result["ratio_ask"], result["bytes"]) == (1.0, 1.0, 0)


def test_the_chunk_does_not_matter_to_full(reader: Reader) -> None:
    first = _run(reader, "full")
    other = _run(reader, "full", Passage(CORPUS.digest, 1, 150, 3, 32))
    assert sum(first["surprise"]) == pytest.approx(sum(other["surprise"]), rel=2e-3)
    assert sum(first["counted"]) == sum(other["counted"])


def test_policies_between_nothing_and_all(reader: Reader) -> None:
    """All of the past, all but nothing of it, and the ratios that say so."""
    full = sum(_run(reader, "full")["surprise"])
    everything = _run(reader, "resv", rule="shift", th_r=0.9999, window=1)
    assert everything["ratio_read"] > 0.99
    assert sum(everything["surprise"]) == pytest.approx(full, rel=1e-3)
    assert everything["tokens_per_cluster"] >= 1
    assert everything["rows"] > everything["degenerate_rows"] == 0
    assert 0 < _run(reader, "resv", window=1)["degenerate_rows"] < everything["rows"]
    little = _run(reader, "streaming-llm", sinks=0, window=0)
    assert little["ratio_read"] == 0
    assert sum(little["surprise"]) != pytest.approx(full, rel=1e-3)


@pytest.mark.parametrize(
    "policy", ["rekv", "quest", "topk", "resv-bits", "resv-nocluster", "infinigen-p", "oaken"]
)
def test_other_policies_fetch(reader: Reader, policy: str) -> None:
    knobs: dict[str, Any] = {"window": 1} if policy in ("rekv", "resv-bits", "resv-nocluster") else {}
    result = _run(reader, policy, **knobs)
    assert result["fetched"] > 0
    assert result["bytes"] > 0
    assert result["metadata_bytes"] > 0
    assert 0 < result["ratio_read"] <= 1


def test_a_calibration_is_made_once(reader: Reader, tmp_path: Path) -> None:
    first = _run(reader, "oaken")
    path = tmp_path / "calibration.npz"
    written = path.stat().st_mtime_ns
    assert _run(reader, "oaken") == first
    assert path.stat().st_mtime_ns == written
