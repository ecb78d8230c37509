"""Weights of a decoder that nobody trained, for benches and self-tests."""

import zlib

import numpy as np

_SEED = 5


class RandomWeights:
    """Weights of layers of any shape: normal, so that rows keep their size; a norm's gains are 1."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Float32, the same whenever it is asked for (see `Tensors`)."""
        if len(shape) == 1:
            return np.ones(shape, dtype=np.float32)
        rng = np.random.default_rng([_SEED, zlib.crc32(name.encode())])
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)
