"""The shipped checkpoint against logits that transformers computed (tests/data)."""

import numpy as np
import pytest

from vrex.sw.videollm.videollm import VideoLLM

PLACEHOLDER, INTERVAL, CLOSE, OPEN = 3, 5, 6, 4
Reference = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def embeddings(shipped: VideoLLM, reference: Reference) -> np.ndarray:
    x = shipped.embed_text(reference["input_ids"].tolist())
    x[reference["input_ids"] == PLACEHOLDER] = np.concatenate(
        [shipped.embed_frame(frame) for frame in reference["frames"]]
    )
    return x


def chunk_starts(ids: np.ndarray) -> list[int]:
    """Where chunks begin as in streaming: after each frame, and after each word of an answer."""
    starts, answering = [0], False
    for i in range(1, len(ids)):
        if answering or (ids[i - 1] == PLACEHOLDER and ids[i] in (INTERVAL, CLOSE)):
            starts.append(i)
        answering = (answering or ids[i - 1] == 8) and ids[i] != OPEN
    return starts


def stream_logits(model: VideoLLM, x: np.ndarray, ids: np.ndarray, dtype: str) -> np.ndarray:
    cache = model.decoder.new_cache(dtype)
    chunks = np.split(x, chunk_starts(ids)[1:])
    assert len(chunks) > 64
    return np.concatenate([model.decoder.logits(model.decoder.forward(chunk, cache)) for chunk in chunks])


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-3), ("bfloat16", 0.5)])
def test_logits_and_labels(
    shipped: VideoLLM, reference: Reference, embeddings: np.ndarray, dtype: str, limit: float
) -> None:
    expected, labels = reference["logits"], reference["labels"]
    logits = stream_logits(shipped, embeddings, reference["input_ids"], dtype)[:, : expected.shape[1]]
    error = np.abs(logits - expected).max()
    print(f"{dtype} cache: max abs logit error {error:.3g}")
    assert error < limit
    asked = labels >= 0
    assert asked.sum() > 50
    np.testing.assert_array_equal(logits[asked].argmax(1), labels[asked])
