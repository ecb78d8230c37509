"""The cache of frame embeddings."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.evaluation.embeddings import EmbeddingCache
from vrex.sw.videollm.checkpoint import model_digest
from vrex.sw.videollm.videollm import VideoLLM

FRAMES = np.random.default_rng(5).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)


class CountingModel:
    """Its embedding of a frame is its mean; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def embed_frame(self, frame: np.ndarray) -> np.ndarray:
        self.calls += 1
        return np.full((2, 5), frame.mean(), dtype=np.float32)


def cache(folder: Path, model: Any, digest: str = "a") -> EmbeddingCache:
    return EmbeddingCache(cast(VideoLLM, model), digest, folder)


def test_frames_are_embedded_once(tmp_path: Path) -> None:
    model = CountingModel()
    first = cache(tmp_path, model).embed(FRAMES)
    again = cache(tmp_path, model).embed(FRAMES)
    assert model.calls == 3
    assert first.shape == (3, 2, 5)
    assert first.dtype == again.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first[:, 0, 0], FRAMES.mean(axis=(1, 2, 3)), rtol=1e-6)


def test_other_frames_and_other_models_are_kept_apart(tmp_path: Path) -> None:
    model = CountingModel()
    cache(tmp_path, model).embed(FRAMES)
    changed = FRAMES.copy()
    changed[2, 3, 3, 2] ^= 1
    for frames, digest in ((changed, "a"), (FRAMES[:2], "a"), (FRAMES, "b")):
        before = model.calls
        cache(tmp_path, model, digest).embed(frames)
        assert model.calls == before + len(frames)


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    model = CountingModel()
    first = cache(tmp_path, model).embed(FRAMES)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-7])
    np.testing.assert_array_equal(cache(tmp_path, model).embed(FRAMES), first)
    assert model.calls == 6


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="VREX_CACHE"):
        cache(tmp_path / "file" / "folder", CountingModel()).embed(FRAMES)


def test_the_digest_knows_every_file_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = model_digest(tmp_path)
    (tmp_path / "README.md").write_text("about it")
    assert model_digest(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert model_digest(tmp_path) != first
