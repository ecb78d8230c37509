"""A stream of tokens on a core, and the decoder that the video LLM sees there.

The sequence stands in the place of a policy, for the core selects by itself.
"""

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
from vrex.sw.videollm.chip import Chip
from vrex.sw.videollm.chip_figures import ChipFigures
from vrex.sw.videollm.chip_job import Step
from vrex.sw.videollm.chip_layout import MAX_ROWS, ChipLayout
from vrex.sw.videollm.chip_weights import layer_image, rotary_image
from vrex.sw.videollm.config import TextConfig
from vrex.sw.videollm.decoder import Decoder

ROTARY_ROWS = 4096
"""Rows of the rotary table that are computed at once."""


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
        """Takes a chunk through all layers (see `Decoder.forward`).

        Raises:
            DriverError: the core could not execute it, or did not answer.
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
        try:
            result = self.chip.run(self.number, step, x)
        except DriverError:
            self.chip.forget()
            self._broken = True
            raise
        self.start += rows
        self._tabled += step.retire
        self._figures.degenerate += self.chip.new_degenerate(self.number)
        self._figures.add(stage, step, rows, self.chip.delivered(self.number), self.chip.counts(self.number))
        return result

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

    def put_on(self, layout: ChipLayout, transport: CoreTransport) -> Chip:
        """Writes the weights to a core's memory.

        Raises:
            DriverError: the core does not answer.
            UserError: a tensor is missing or misshapen.
        """
        chip = Chip(layout, transport)
        for layer in range(self.config.layers):
            image = layer_image(self._tensors, layout, layer)
            chip.write(layout.page("weights") + layer * layout.weights.pages, image)
        positions = layout.shape.tokens + MAX_ROWS
        for first in range(0, positions, ROTARY_ROWS):
            rows = min(ROTARY_ROWS, positions - first)
            image = rotary_image(self._rotation, first, rows)
            chip.memory.write(layout.page("rotary") * PAGE + first * layout.rotary_pitch, image)
        return chip

    def forward(
        self, x: np.ndarray, cache: KVCache, stage: str = "frame", policy: Policy | None = None
    ) -> np.ndarray:
        """As `Decoder.forward`, with a `ChipSequence` as the policy; the cache only counts.

        Raises:
            DriverError: the core could not execute it, or did not answer.
            ValueError: another policy, or a cache that has seen other chunks.
        """
        if not isinstance(policy, ChipSequence) or cache.length != policy.start:
            raise ValueError("a decoder on a core takes a ChipSequence, and the cache that goes with it")
        result = policy.run(x, stage)
        for layer in cache.layers:
            layer.length += len(x)
        return result
