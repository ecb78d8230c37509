"""HASH and SCORE: hash-bits of keys and scores of clusters, in the golden arithmetic or on an LXE."""

from typing import Protocol

import numpy as np

from vrex.model.dre import hashing
from vrex.model.dre.hashing import WORD_BITS
from vrex.model.lxe import mac_tree, vpe
from vrex.model.lxe.program import Program
from vrex.sw.driver.lxe import LxeEngine


class Products(Protocol):
    """Where the products are computed; the results are the same everywhere."""

    def hashes(self, keys: np.ndarray, planes: np.ndarray, hash_bits: int) -> np.ndarray:
        """Hash words, uint32 [n, words], of keys [n, dim] (see `vrex.model.dre.hashing.hash_keys`)."""
        ...

    def scores(self, q: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Queries [rows, dim] times clusters [C, dim], all BF16 bits: uint16 [rows, C]."""
        ...


class GoldenProducts:
    """In the golden arithmetic (see `Products`)."""

    def hashes(self, keys: np.ndarray, planes: np.ndarray, hash_bits: int) -> np.ndarray:
        """See `Products`."""
        return hashing.hash_keys(keys, planes, hash_bits)

    def scores(self, q: np.ndarray, means: np.ndarray) -> np.ndarray:
        """See `Products`."""
        return mac_tree.dot_bf16(q, means)


class LxeProducts:
    """On an LXE, as programs (see `Products`)."""

    def __init__(self, lxe: LxeEngine) -> None:
        self.lxe = lxe

    def hashes(self, keys: np.ndarray, planes: np.ndarray, hash_bits: int) -> np.ndarray:
        """See `Products`: GEMM to FP32, then SIGN."""
        program = Program(self.lxe.config)
        projections = program.tensor(len(keys), len(planes), bf16=False)
        program.gemm(program.load(keys), planes, projections)
        words = program.tensor(len(keys), -(-len(planes) // WORD_BITS), bf16=False)
        program.store(program.vector(vpe.Function.SIGN, words, projections))
        [found] = self.lxe.run(program).results
        result = np.zeros((len(keys), -(-hash_bits // WORD_BITS)), dtype=np.uint32)
        result[:, : found.shape[1]] = found.view(np.uint32)
        return result

    def scores(self, q: np.ndarray, means: np.ndarray) -> np.ndarray:
        """See `Products`: GEMM to BF16, as many clusters at a time as fit into memory."""
        step = max(1, len(means))
        while _score_lines(self.lxe, q, step) > self.lxe.config.lines:
            step = -(-step // 2)
        parts = [self._scores(q, means[first : first + step]) for first in range(0, len(means), step)]
        return np.concatenate([np.zeros((len(q), 0), dtype=np.uint16), *parts], axis=1)

    def _scores(self, q: np.ndarray, means: np.ndarray) -> np.ndarray:
        program = Program(self.lxe.config)
        program.store(program.gemm(program.load(q), means, program.tensor(len(q), len(means))))
        return self.lxe.run(program).results[0]


def _score_lines(lxe: LxeEngine, q: np.ndarray, clusters: int) -> int:
    """Lines of the LXE's memory that a SCORE of this many clusters takes."""
    program = Program(lxe.config)
    return len(q) * (program.row_lines(q.shape[1]) + program.row_lines(clusters))
