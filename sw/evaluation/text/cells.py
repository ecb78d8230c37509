"""One cell: a policy at a point, reading one document and asked for its needles."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.text.corpus import Asked, Corpus, Document, cut, hide
from vrex.sw.evaluation.text.gguf import TextModel
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.base import FRAME, TEXT
from vrex.sw.retrieval.policies.calibration import Calibration, calibrate_decoder
from vrex.sw.videollm.cache import KVCache

BLOCK_CHUNKS = 2
"""Chunks of a bootstrap block: intervals resample whole blocks, since neighbouring tokens are dependent."""
CALIBRATION_TOKENS = 1024


@dataclass(frozen=True)
class Passage:
    """A document and how it is read.

    Attributes:
        text: digest of the corpus.
        index: which document of it; also the seed of its needles.
        tokens: of prose.
        needles: how many are hidden.
        chunk: tokens that enter at once.
    """

    text: str
    index: int
    tokens: int
    needles: int
    chunk: int


@dataclass(frozen=True)
class TextCell:
    """A passage under a policy."""

    point: Point
    passage: Passage

    def key(self) -> dict[str, Any]:
        """What tells it from other cells, for JSON."""
        return {**self.point.key(), **asdict(self.passage)}


class Reader:
    """A model that runs cells.

    Args:
        model: the language model.
        corpus: where the documents come from.
        calibration: file that holds the calibration of policies that need one; made when there is none.
    """

    def __init__(self, model: TextModel, corpus: Corpus, calibration: Path) -> None:
        self.model, self._corpus = model, corpus
        self._calibration_path = calibration

    def document(self, passage: Passage) -> Document:
        """The document of a passage.

        Raises:
            UserError: the text is too short, or has too few paragraphs for the needles.
        """
        encode = self.model.encode
        prose = cut(self._corpus, encode, passage.tokens, passage.index + 1)[-1]
        return hide(prose, passage.needles, passage.index, encode, self.model.tokenizer.decode)

    def run(self, cell: TextCell) -> dict[str, Any]:
        """Reads the document chunk by chunk and is then asked for each needle.

        Returns:
            The cell's `key`; `surprise` and `counted`, for each block of `BLOCK_CHUNKS` chunks the sum of
            -ln p over its prose and the number of its tokens; `items`, one for each needle: `key`, `depth`,
            `expected`, `given`, `right`, `digits` (of the value, each predicted after the true ones before
            it, how many right); `ratio_read`, `ratio_ask`; `fetched` tokens, `bytes` of their K and V, and
            `metadata_bytes`, all as the policy's report has them; `tokens_per_cluster`, `rows` that selected
            and `degenerate_rows` of them.

        Raises:
            UserError: the policy can't go on, or a calibration can't be used.
        """
        passage = cell.passage
        document = self.document(passage)
        calibration = cell.point.calibration(
            self._calibration_path, self.model, lambda: self._calibrate(passage.chunk)
        )
        policy = cell.point.new_policy(self.model.shape(passage.chunk), calibration)
        cache = self.model.decoder.new_cache()
        surprise = self._read(document, passage.chunk, cache, policy)
        items = [self._ask(asked, cache, policy) for asked in document.asked]
        size = BLOCK_CHUNKS * passage.chunk
        starts = np.arange(0, len(surprise), size)
        # The first token is predicted by nothing; surprise[i] is that of token i + 1.
        counted = document.prose[1:]
        report = policy.report()
        return {
            **cell.key(),
            "surprise": np.add.reduceat(surprise * counted, starts).round(6).tolist(),
            "counted": np.add.reduceat(counted.astype(int), starts).tolist(),
            "items": items,
            "ratio_read": report["ratio"]["frame"],
            "ratio_ask": report["ratio"]["text"],
            "fetched": report["fetched"]["tokens"],
            "bytes": report["fetched"]["bytes"],
            "metadata_bytes": report["fetched"]["metadata_bytes"],
            "tokens_per_cluster": report["tokens_per_cluster"],
            "rows": report["rows"],
            "degenerate_rows": report["degenerate_rows"],
        }

    def _read(self, document: Document, chunk: int, cache: KVCache, policy: Reporting) -> np.ndarray:
        """-ln p of every token but the first, float64 [tokens - 1]."""
        decoder, ids = self.model.decoder, document.ids
        surprise = []
        for start in range(0, len(ids), chunk):
            hidden = decoder.forward(decoder.embeddings[ids[start : start + chunk]], cache, FRAME, policy)
            following = ids[start + 1 : start + 1 + chunk]
            surprise.append(_surprise(decoder.logits(hidden[: len(following)]), following))
        return np.concatenate(surprise)

    def _ask(self, asked: Asked, cache: KVCache, policy: Reporting) -> dict[str, Any]:
        """The question as one chunk, then the true value token by token, whatever the model says."""
        decoder, given = self.model.decoder, []
        hidden = decoder.forward(decoder.embeddings[asked.question], cache, TEXT, policy)
        for token in asked.answer:
            given.append(int(decoder.logits(hidden[-1:])[0].argmax()))
            hidden = decoder.forward(decoder.embeddings[[token]], cache, TEXT, policy)
        matches = [a == b for a, b in zip(given, asked.answer, strict=True)]
        return {
            "key": asked.key,
            "depth": round(asked.depth, 4),
            "expected": asked.value,
            "given": self.model.tokenizer.decode(given).strip(),
            "right": all(matches),
            # The first token is the space before the value.
            "digits": sum(matches[1:]),
        }

    def _calibrate(self, chunk: int) -> Calibration:
        """Reads the beginning of the corpus's text for calibration."""
        model = self.model
        ids = model.encode(self._corpus.calibration)[:CALIBRATION_TOKENS]

        def read(policy: Any) -> None:
            cache = model.decoder.new_cache()
            for start in range(0, len(ids), chunk):
                x = model.decoder.embeddings[ids[start : start + chunk]]
                model.decoder.forward(x, cache, FRAME, policy)

        return calibrate_decoder(model.decoder, read)


def _surprise(logits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """-ln p of ids [n] by logits [n, vocabulary], float64 [n]."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    surprise: np.ndarray = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids)), ids]
    return surprise
