"""A stream of tokens on a core, and the decoder that the video LLM sees there.

The sequence stands in the place of a policy, for the core selects by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.lib.memory import PAGE
from vrex.sw.driver.core import CoreTransport
from vrex.sw.driver.transport import DriverError
from vrex.sw.retrieval.policies.base import Choice, Chunk, Policy
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.cache import KVCache
from vrex.sw.videollm.checkpoint import Tensors
from vrex.sw.videollm.chip import Chip, Work
from vrex.sw.videollm.chip_figures import ChipFigures
from vrex.sw.videollm.chip_job import Step
from vrex.sw.videollm.chip_layout import MAX_ROWS, ChipLayout
from vrex.sw.videollm.chip_weights import layer_image, rotary_image
from vrex.sw.videollm.config import TextConfig
from vrex.sw.videollm.decoder import Decoder

ROTARY_ROWS = 4096
"""Rows of the rotary table that are computed at once."""


@dataclass(frozen=True)
class Begun:
    """A chunk of a sequence that its core has in work.

    Attributes:
        step: what it does to the past.
        work: see `Chip.begin`.
    """

    step: Step
    work: Work


class ChipSequence:
    """One stream of tokens on a chip, in the place of a policy (see `Policy`).

    Attributes:
        settings: of policy `resv`.
        number: of the sequence.
        start: tokens that have passed the decoder.
    """

    name = Resv.name

    def __init__(self, chip: Chip, number: int, policy_shape: Shape) -> None:
        """An empty past.

        Raises:
            ValueError: the chip has fewer sequences.
        """
        shape = chip.layout.shape
        if not 0 <= number < shape.sequences:
            raise ValueError(f"the chip has sequences 0 to {shape.sequences - 1}, not {number}")
        self.settings, self.number, self.chip = shape.settings, number, chip
        self.start, self._tabled = 0, shape.settings.sinks
        self._broken = False
        self._figures = ChipFigures(shape, policy_shape)
        chip.clear(number)

    def select(self, chunk: Chunk) -> Choice:
        """A core chooses by itself.

        Raises:
            ValueError: always.
        """
        raise ValueError("a core selects by itself, so this policy serves no decoder but its own")

    def next_step(self, rows: int) -> Step:
        """What the next chunk does to the past, if it has so many rows."""
        shape = self.chip.layout.shape
        return Step.of(self.start, rows, self._tabled, shape.settings.sinks, shape.window)

    def run(self, x: np.ndarray, stage: str) -> np.ndarray:
        """Takes a chunk through all layers (see `Decoder.forward`): `begin` and `finish`."""
        return self.finish(self.begin(x), stage)

    def begin(self, x: np.ndarray) -> Begun:
        """Gives the sequence's core a chunk; `finish` must follow before the next one.

        Raises:
            DriverError: an earlier chunk has failed.
            UserError: there is no room for it.
        """
        shape, rows = self.chip.layout.shape, len(x)
        if self.start + rows > shape.tokens:
            raise UserError(
                f"the core's memory has room for {shape.tokens} tokens of a video and is full; "
                "raise table_clusters and table_segments, or shorten the video"
            )
        if self._broken:
            raise DriverError(
                f"an earlier error left the past of sequence {self.number} undefined; start it again"
            )
        step = self.next_step(rows)
        return Begun(step, self.chip.begin(self.number, step, x))

    def finish(self, begun: Begun, stage: str) -> np.ndarray:
        """Waits for a chunk, whose core has no older one.

        Raises:
            DriverError: the core could not execute it, or did not answer.
        """
        step, rows = begun.step, begun.work.shape[0]
        try:
            result = self.chip.finish(begun.work)
        except DriverError:
            self.chip.forget(self.number)
            self._broken = True
            raise
        self.start += rows
        self._tabled += step.retire
        self._figures.degenerate += self.chip.new_degenerate(self.number)
        self._figures.add(stage, step, rows, self.chip.delivered(self.number), self.chip.counts(self.number))
        return result

    def take_over(self, other: "ChipSequence") -> None:
        """Takes the past of a sequence on another chip, whose layers may have other widths and weights.

        Raises:
            ValueError: its layers, KV heads, settings or capacity are others, so its past lies elsewhere.
        """
        mine, its = (
            [window for share in layout.shape.shares(number) for window in layout.past(share)]
            for layout, number in ((self.chip.layout, self.number), (other.chip.layout, other.number))
        )
        sizes = [[window.pages for window in windows] for windows in (mine, its)]
        # Tables name their segments by page.
        if sizes[0] != sizes[1] or mine[2::3] != its[2::3]:
            raise ValueError("the past of the other sequence is laid out in another way")
        for to, source in zip(mine, its, strict=True):
            self.chip.write(to.base, other.chip.memory.read(source.start, source.pages * PAGE))
        self.start, self._tabled = other.start, other._tabled

    def report(self) -> dict[str, Any]:
        """As `Resv.report`; `dre` without counters, and of the chip `core` and `host`.

        Returns:
            core: `preset`, `jobs`, `instructions`, `nan_jobs` (with a result that is NaN), and `counters`.
            host: `register_bytes` and `ring_bytes` that crossed the register port and the rings so far, of
                all sequences.
        """
        return {**self._figures.report(), **self.chip.report()}


class ChipDecoder(Decoder):
    """A decoder whose layers run on a core; the host embeds, and chooses the last word.

    Args:
        checkpoint, config: as of `Decoder`.
        resident: as of `Decoder`; no layer's weights stay with the host all the same.

    Raises:
        UserError: as `Decoder`.
    """

    def __init__(self, checkpoint: Tensors, config: TextConfig, resident: bool = True) -> None:
        super().__init__(checkpoint, config, resident=False)
        self._tensors = checkpoint

    def put_on(
        self,
        layout: ChipLayout,
        transport: CoreTransport,
        step: Callable[[int], object] = lambda _: None,
    ) -> Chip:
        """Writes the weights to a core's memory.

        Args:
            layout: of that memory.
            transport: to the core.
            step: called with 1 after each layer of each core.

        Raises:
            DriverError: the core does not answer.
            UserError: a tensor is missing or misshapen.
        """
        chip = Chip(layout, transport)
        for core in range(layout.shape.team):
            for layer in range(self.config.layers):
                image = layer_image(self._tensors, layout, layer, core)
                chip.write(layout.page("weights", core) + layer * layout.weights.pages, image)
                step(1)
        positions = layout.shape.tokens + MAX_ROWS
        for first in range(0, positions, ROTARY_ROWS):
            rows = min(ROTARY_ROWS, positions - first)
            image = rotary_image(self._rotation, first, rows)
            chip.memory.write(layout.page("rotary") * PAGE + first * layout.rotary_pitch, image)
        return chip

    @staticmethod
    def forward_together(
        chunks: Sequence[tuple[np.ndarray, KVCache, ChipSequence]], stage: str = "frame"
    ) -> list[np.ndarray]:
        """As `forward` for one chunk of each of several sequences; those of different cores at the same time.

        Raises:
            DriverError: as `forward`; the chunks after the one that failed are lost with it.
            ValueError: a cache that has seen other chunks, or a sequence twice.
        """
        numbers = [sequence.number for _, _, sequence in chunks]
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"one chunk of a sequence at a time, not sequences {numbers}")
        for _, cache, sequence in chunks:
            _check_cache(cache, sequence)
        begun = [sequence.begin(x) for x, _, sequence in chunks]
        results = []
        for (x, cache, sequence), work in zip(chunks, begun, strict=True):
            results.append(sequence.finish(work, stage))
            _count(cache, x)
        return results

    def forward(
        self, x: np.ndarray, cache: KVCache, stage: str = "frame", policy: Policy | None = None
    ) -> np.ndarray:
        """As `Decoder.forward`, with a `ChipSequence` as the policy; the cache only counts.

        Raises:
            DriverError: the core could not execute it, or did not answer.
            ValueError: another policy, or a cache that has seen other chunks.
        """
        _check_cache(cache, policy)
        assert isinstance(policy, ChipSequence)
        result = policy.run(x, stage)
        _count(cache, x)
        return result


def _check_cache(cache: KVCache, policy: Policy | None) -> None:
    if not isinstance(policy, ChipSequence) or cache.length != policy.start:
        raise ValueError("a decoder on a core takes a ChipSequence, and the cache that goes with it")


def _count(cache: KVCache, x: np.ndarray) -> None:
    """A chunk has passed all layers."""
    for layer in cache.layers:
        layer.length += len(x)
