"""The calibration of InfiniGen's bases and Oaken's thresholds, and its file."""

import json
from pathlib import Path

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.retrieval.policies.calibration import Calibration, calibration_at, skew
from vrex.sw.videollm.calibration import calibrate
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.videollm import VideoLLM


def test_bases_are_orthogonal_and_keep_scores(calibration: Calibration) -> None:
    basis = calibration.basis.astype(float)
    identity = basis.swapaxes(2, 3) @ basis
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(64), identity.shape), atol=1e-6)
    rng = np.random.default_rng(1)
    q, k = rng.standard_normal((2, 50, 64))
    for head in basis.reshape(-1, 64, 64):
        np.testing.assert_allclose((q @ head) @ (k @ head).T, q @ k.T, atol=1e-4)


def test_columns_stand_in_the_order_of_their_weight() -> None:
    rng = np.random.default_rng(2)
    turn, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    q = rng.standard_normal((400, 8)) * [9, 0.1, 5, 1, 0.01, 3, 2, 0.5] @ turn.T
    k = rng.standard_normal((300, 8)) @ turn.T
    basis = skew(q.astype(np.float32), k.astype(np.float32)).astype(float)
    weight = np.linalg.norm(q @ basis, axis=0) * np.linalg.norm(k @ basis, axis=0)
    assert (np.diff(weight) <= 1e-3 * weight[0]).all()
    # The first column is the direction of the largest queries, the sign fixed.
    assert abs(basis[:, 0] @ turn[:, 0]) > 0.99
    assert basis[np.abs(basis).argmax(0), range(8)].min() > 0


def test_fewer_rows_than_columns_still_give_a_basis() -> None:
    rng = np.random.default_rng(3)
    basis = skew(rng.standard_normal((3, 8)).astype(np.float32), rng.standard_normal((2, 8)))
    np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-6)


def test_few_columns_carry_most_of_a_score(calibration: Calibration) -> None:
    """Kept columns are those of the largest magnitude, and hold more than their share of the queries."""
    kept = calibration.columns(2, 13)
    assert kept.shape == (2, 64, 13)
    share = np.sort(calibration.magnitude[2], axis=1)[:, -13:].sum(1) / calibration.magnitude[2].sum(1)
    assert (share > 0.3).all()


def test_the_same_arguments_give_the_same_result(shipped: VideoLLM) -> None:
    first, again = (calibrate(shipped, [make(3, 3)], seed=1) for _ in range(2))
    other = calibrate(shipped, [make(3, 3)], seed=2)
    for name in ("basis", "magnitude", "thresholds"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_file(calibration: Calibration, shipped: VideoLLM, tmp_path: Path) -> None:
    path = tmp_path / "run.calibration.npz"
    calibration.save(path)
    loaded = calibration_at(path, shipped, lambda: pytest.fail("measured anew"))
    assert (loaded.model, loaded.seed, loaded.frames) == (calibration.model, 5, (10,))
    for name in ("basis", "magnitude", "thresholds"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(calibration, name))
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprints_tell_weights_apart(shipped: VideoLLM) -> None:
    weights = shipped.decoder._layers[1].out
    before, kept = shipped.decoder.fingerprint(), weights[0, 0]
    weights[0, 0] += 1
    try:
        assert shipped.decoder.fingerprint() != before
    finally:
        weights[0, 0] = kept
    assert shipped.decoder.fingerprint() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "0"}, "is of another model; delete it"),
        ({"format": 99}, "is of format 99, this version reads 1; delete it"),
        ({"seed": None}, "is broken; delete it"),
    ],
)
def test_a_file_that_does_not_fit(
    calibration: Calibration, shipped: VideoLLM, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    path = tmp_path / "c.npz"
    calibration.save(path)
    with np.load(path) as data:
        arrays = dict(data)
    meta = json.loads(str(arrays["meta"])) | change
    arrays["meta"] = np.array(json.dumps({key: value for key, value in meta.items() if value is not None}))
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=says):
        Calibration.load(path, shipped)


def test_files_that_are_none(shipped: VideoLLM, calibration: Calibration, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Calibration.load(tmp_path / "missing.npz", shipped)
    (tmp_path / "text.npz").write_text("no archive")
    calibration.save(tmp_path / "half.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "half.npz").read_bytes()[:5000])
    for name in ("text.npz", "half.npz"):
        with pytest.raises(UserError, match="is broken; delete it"):
            Calibration.load(tmp_path / name, shipped)
    with pytest.raises(UserError, match="does not exist"):
        calibration.save(tmp_path / "no" / "c.npz")


def test_no_videos(shipped: VideoLLM) -> None:
    with pytest.raises(UserError, match="at least one video"):
        calibrate(shipped, [])
