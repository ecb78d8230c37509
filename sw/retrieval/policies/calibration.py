"""What `infinigen` and `oaken` have to know of a model beforehand, measured on a few videos.

InfiniGen: for each layer and KV head, A is the right singular vectors of the sampled queries, its columns in
descending order of the product of the queries' singular value and the keys' norm along the column.
Oaken: for each layer, K before RoPE and V apart, the thresholds between outer, middle and inner values.
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from vrex.errors import UserError
from vrex.files import write_file
from vrex.sw.retrieval.policies.base import Chunk, Policy
from vrex.sw.retrieval.policies.shape import DecoderConfig
from vrex.text import from_json

FORMAT = 1
OUTER_SHARE = 0.04
INNER_SHARE = 0.06
ROWS_PER_CHUNK = 4


class Decoder(Protocol):
    """A language model; `vrex.sw.videollm.decoder.Decoder` is one."""

    @property
    def config(self) -> DecoderConfig:
        """Its dimensions."""
        ...

    def fingerprint(self) -> str:
        """Identifies its weights."""
        ...


class Model(Protocol):
    """What a calibration is of: a video LLM, or a language model alone."""

    @property
    def decoder(self) -> Decoder:
        """Its weights."""
        ...


@dataclass(frozen=True)
class Calibration:
    """Measured once for a model.

    Attributes:
        model: `Decoder.fingerprint` of the model.
        seed: of the choice of rows.
        frames: frames of each video watched; none where text was read.
        basis: float32 [layers, KV heads, head_dim, head_dim], orthogonal, columns in descending weight.
        magnitude: float32 [layers, KV heads, head_dim], sum of |q A| over the sampled queries.
        thresholds: float32 [layers, 2 (K, V), 3]: below the first or above the last is outer, of at most the
            second's magnitude is inner.
    """

    model: str
    seed: int
    frames: tuple[int, ...]
    basis: np.ndarray
    magnitude: np.ndarray
    thresholds: np.ndarray

    def columns(self, layer: int, count: int) -> np.ndarray:
        """The `count` columns of A with the largest magnitude, float32 [KV heads, head_dim, count]."""
        order = np.argsort(-self.magnitude[layer], axis=1, kind="stable")[:, None, :count]
        return np.take_along_axis(self.basis[layer], order, axis=2)

    def save(self, path: Path) -> None:
        """Writes an .npz file, whole or not at all.

        Raises:
            UserError: the system refuses.
        """
        meta = {"format": FORMAT, "model": self.model, "seed": self.seed, "frames": self.frames}
        content = io.BytesIO()
        np.savez(
            content,
            meta=np.array(json.dumps(meta)),
            basis=self.basis,
            magnitude=self.magnitude,
            thresholds=self.thresholds,
        )
        write_file(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, model: Model) -> "Calibration":
        """Reads what `save` wrote.

        Raises:
            UserError: the file is missing, broken, of another version or of another model.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                meta = from_json(str(data["meta"]))
                arrays = {name: data[name] for name in ("basis", "magnitude", "thresholds")}
            version, fingerprint = meta["format"], meta["model"]
            seed, frames = meta["seed"], tuple(meta["frames"])
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"calibration {path} cannot be read ({reason}); name another file") from error
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"calibration {path} is broken; delete it to calibrate anew") from error
        if version != FORMAT:
            raise UserError(
                f"calibration {path} is of format {version}, this version reads {FORMAT}; "
                "delete it to calibrate anew"
            )
        if fingerprint != model.decoder.fingerprint():
            raise UserError(f"calibration {path} is of another model; delete it to calibrate anew")
        return cls(fingerprint, seed, frames, **arrays)


@dataclass
class _Sample:
    """Some rows of every chunk of one layer, each [heads, rows, head_dim]."""

    q: list[np.ndarray] = field(default_factory=list)
    k: list[np.ndarray] = field(default_factory=list)
    unrotated_k: list[np.ndarray] = field(default_factory=list)
    v: list[np.ndarray] = field(default_factory=list)


class _Recorder:
    """A policy that attends to everything and keeps a sample."""

    name = "recorder"

    def __init__(self, layers: int, seed: int) -> None:
        self.samples = [_Sample() for _ in range(layers)]
        self._rng = np.random.default_rng(seed)

    def select(self, chunk: Chunk) -> None:
        """All of the past (see `Policy.select`)."""
        rows = chunk.q.shape[1]
        kept = self._rng.choice(rows, min(rows, ROWS_PER_CHUNK), replace=False)
        sample = self.samples[chunk.layer]
        for name in ("q", "k", "unrotated_k", "v"):
            getattr(sample, name).append(getattr(chunk, name)[:, kept])


def calibrate_decoder(
    decoder: Decoder, feed: Callable[[Policy], None], seed: int = 0, frames: tuple[int, ...] = ()
) -> Calibration:
    """Measures on whatever is fed; the same arguments give the same result.

    Args:
        decoder: the language model.
        feed: lets chunks pass through it under the policy that it is given.
        seed: of the choice of rows.
        frames: see `Calibration`.
    """
    recorder = _Recorder(decoder.config.layers, seed)
    feed(recorder)
    bases, magnitudes, thresholds = [], [], []
    for sample in recorder.samples:
        k = np.concatenate(sample.k, axis=1)
        q = np.concatenate(sample.q, axis=1).reshape(len(k), -1, k.shape[2])
        basis = np.stack([skew(*head) for head in zip(q, k, strict=True)])
        bases.append(basis)
        magnitudes.append(np.abs(q @ basis).sum(axis=1))
        stored = (np.concatenate(sample.unrotated_k, axis=1), np.concatenate(sample.v, axis=1))
        thresholds.append([split(values) for values in stored])
    return Calibration(
        model=decoder.fingerprint(),
        seed=seed,
        frames=frames,
        basis=np.stack(bases),
        magnitude=np.stack(magnitudes),
        thresholds=np.array(thresholds, dtype=np.float32),
    )


def calibration_at(path: Path, model: Model, make: Callable[[], Calibration]) -> Calibration:
    """The calibration kept in a file, which is made first if there is none.

    Args:
        path: of the file.
        model: what it must be of.
        make: measures it.

    Raises:
        UserError: the file is not of this model, or can't be read or written.
    """
    if path.exists():
        return Calibration.load(path, model)
    made = make()
    made.save(path)
    return made


def skew(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """InfiniGen's A, float32 [dim, dim], from sampled queries [m, dim] and keys [n, dim] of a head."""
    # float64: columns of tiny singular values must stay orthogonal as well.
    _, values, rows = np.linalg.svd(q.astype(np.float64), full_matrices=True)
    sizes = np.zeros(len(rows))
    sizes[: len(values)] = values
    weight = sizes * np.linalg.norm(k @ rows.T, axis=0)
    # A column's sign is arbitrary; the largest entry positive makes it the same everywhere.
    signs = np.sign(np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1))
    return (rows * signs)[np.argsort(-weight, kind="stable")].T.astype(np.float32)


def split(values: np.ndarray) -> tuple[float, float, float]:
    """Oaken's thresholds (outer below, inner magnitude, outer above) of sampled values, any shape."""
    low, high = np.quantile(values, [OUTER_SHARE / 2, 1 - OUTER_SHARE / 2])
    inner = float(np.quantile(np.abs(values), INNER_SHARE))
    return min(float(low), -inner), inner, max(float(high), inner)
