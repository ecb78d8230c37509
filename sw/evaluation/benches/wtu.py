"""What the WTU takes for one row: cycles from its last score to its last bit, and clusters examined.

Rows as long as the hardware's memories come from the keys of single tokens, which no table has clustered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vrex.model import commands
from vrex.model.commands import Descriptor, Opcode, Register
from vrex.model.dre.registers import scale_to_register
from vrex.model.dre.wtu import Rule
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree
from vrex.sw.driver.command_interface import Batch, CommandTransport
from vrex.sw.driver.transport import DriverError
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.ranking import grouped
from vrex.sw.videollm.procstream.procvideo import make
from vrex.sw.videollm.stream import Stream
from vrex.sw.videollm.videollm import VideoLLM

COUNTERS = (Register.WTU_SEARCH, Register.WTU_EXAMINED, Register.WTU_WORDS)
BATCH_ROWS = 64


@dataclass(frozen=True)
class Searched:
    """Figures of rows, in their order, int64 [rows].

    Attributes:
        cycles: from the row's last score to its last bit in the bitmask.
        examined: clusters from the top one to the last of the bin, or bucket, of the crossing.
        words: words that went through the lanes after the first pass.
    """

    cycles: np.ndarray
    examined: np.ndarray
    words: np.ndarray


def search(transport: CommandTransport, scores: np.ndarray, counts: np.ndarray, rule: Rule) -> Searched:
    """Selects by every row alone and reads the unit's counters in between.

    Args:
        transport: to an accelerator with a clock.
        scores: BF16 bits, uint16 [rows, n], n at most `row_clusters`.
        counts: token counts, integers [n].
        rule: registers; its `buckets` are the hardware's.

    Raises:
        DriverError: the accelerator refused a command.
    """
    values = {
        Register.TH_R: rule.th_r,
        Register.TRANSFORM: int(rule.transform),
        Register.SELECTION: int(rule.selection),
        Register.SCALE: scale_to_register(rule.scale),
    }
    _submit(transport, [(Descriptor(Opcode.SETREG, count=r, param=v), b"") for r, v in values.items()])
    reads: Batch = [(Descriptor(Opcode.GETREG, count=register), b"") for register in COUNTERS]
    readings = [_submit(transport, reads)]
    for first in range(0, len(scores), BATCH_ROWS):
        batch: Batch = []
        for row in scores[first : first + BATCH_ROWS]:
            batch += [commands.select_command(transport.config, row[None, None], counts, tag=0), *reads]
        details = np.array(_submit(transport, batch)).reshape(-1, 1 + len(COUNTERS))
        readings += details[:, 1:].tolist()
    cycles, examined, words = np.mod(np.diff(np.array(readings, dtype=np.int64), axis=0), 1 << 32).T
    return Searched(cycles, examined, words)


def _submit(transport: CommandTransport, batch: Batch) -> list[int]:
    """Runs a batch; returns the completions' details."""
    completions = [outcome[0] for outcome in transport.submit(batch)]
    for (command, _), completion in zip(batch, completions, strict=True):
        if completion.status:
            raise DriverError(f"the accelerator refused {command} with status {completion.status}")
    return [completion.detail for completion in completions]


class _Recorder:
    """A policy that attends to everything and keeps the scores of the first tokens after the sinks."""

    name = "recorder"

    def __init__(self, lengths: Sequence[int], sinks: int, every: int) -> None:
        self.rows: dict[int, list[np.ndarray]] = {n: [] for n in lengths}
        self._sinks, self._every, self._chunks = sinks, every, 0

    def select(self, chunk: Chunk) -> None:
        """All of the past (see `Policy.select`)."""
        self._chunks += chunk.layer == 0
        for n, rows in self.rows.items():
            if n + self._sinks <= chunk.start < 2 * n and self._chunks % self._every == 0:
                keys = arith.to_bf16(chunk.keys[:, self._sinks : self._sinks + n])
                queries = grouped(arith.to_bf16(chunk.q), len(keys))
                rows += [mac_tree.dot_bf16(*pair) for pair in zip(queries, keys, strict=True)]


def captured_rows(
    model: VideoLLM, lengths: Sequence[int], *, video: int = 1, sinks: int = 4, every: int = 8
) -> dict[int, np.ndarray]:
    """Scores of a video's queries on the keys of its first tokens after the sinks.

    Args:
        model: the video LLM.
        lengths: of the rows.
        video: ProcStream seed.
        sinks: first tokens, left out.
        every: takes one chunk in so many.

    Returns:
        For each length n the rows of all layers and heads, BF16 bits uint16 [rows, n].
    """
    recorder = _Recorder(lengths, sinks, every)
    film = make(video, frames=2 + -(-(max(lengths) + max(lengths) // 4) // model.config.frame_tokens))
    for _ in Stream(model, recorder).run(film.frames, [(q.time, q.text) for q in film.questions]):
        pass
    return {n: np.concatenate(rows) for n, rows in recorder.rows.items()}
