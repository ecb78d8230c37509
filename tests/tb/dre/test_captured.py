"""The DRE's Verilog in cocotb on keys, values and scores of the shipped checkpoint, bit for bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tb.test_regress import share_simulators
from vrex.model.commands import Descriptor, Opcode, Register
from vrex.model.config import Config, preset
from vrex.model.dre.kvpu import VALID
from vrex.sw.driver.command_interface import Batch, CommandInterface, CommandReport, Results
from vrex.sw.driver.dre import MemoryLayout
from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.retrieval.policies import memory_tables
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.stream import Stream
from vrex.sw.videollm.videollm import VideoLLM
from vrex.tb import regress
from vrex.tb.dre.captured import Capture
from vrex.tb.dre.kvpu import Command
from vrex.tb.regress import Job

SEED = 7
TOKENS = 400
"""Capacity of a table."""


class Recorder(GoldenTransport[Batch, Results, CommandReport]):
    """The golden model, which remembers what it was asked."""

    def __init__(self, config: Config, layout: MemoryLayout) -> None:
        super().__init__(CommandInterface(config, layout.new_memory()))
        self.commands: list[Command] = []

    def submit(self, batch: Batch) -> Results:
        self.commands += batch
        return super().submit(batch)


def capture(frames: int, layers: tuple[int, ...], scope: str) -> Capture:
    """What a stream of the shipped checkpoint asks of a DRE for some of its layers."""
    model, config = VideoLLM.load(), preset("tiny")
    knobs, shape = ResvSettings(window=2, scope=scope), Shape.of(model.config)
    assert memory_tables.fitted(config, knobs, shape) == config
    layout = memory_tables.lay_out(config, knobs, shape, memory_tables.capacity_for(TOKENS, config))
    transport = Recorder(config, layout)
    video = make(SEED, frames)
    policy = Resv(knobs, shape, memory_tables.MemoryTables(knobs, shape, transport, layout))
    questions = [(question.time, question.text) for question in video.questions]
    for _ in Stream(model, policy).run(video.frames, questions):
        pass
    policy.report()
    per_layer = len(layout.addresses) // shape.layers
    kept = [layer * per_layer + table for layer in layers for table in range(per_layer)]
    numbers = {layout.addresses[table]: number for number, table in enumerate(kept)}

    def numbered(descriptor: Descriptor) -> Descriptor | None:
        if descriptor.opcode == Opcode.SETREG:
            # The bench has windows of its own.
            return descriptor if Register(descriptor.count) in VALID else None
        known = descriptor.opcode != Opcode.GETREG and descriptor.address in numbers
        return replace(descriptor, address=numbers[descriptor.address]) if known else None

    commands = [(made, payload) for command, payload in transport.commands if (made := numbered(command))]
    header = layout.headers[0]
    heads = [layout.headers[table].heads for table in kept]
    return Capture(heads, header.cap_clusters, header.cap_segments, header.ring_segments, commands)


@pytest.mark.parametrize(
    ("frames", "layers", "scope"),
    [
        (5, (0,), "layer"),
        *(pytest.param(20, (0, 3, 7), scope, marks=pytest.mark.slow) for scope in ("layer", "head")),
    ],
)
def test_the_dre_on_a_captured_stream(
    frames: int, layers: tuple[int, ...], scope: str, tmp_path: Path
) -> None:
    made = capture(frames, layers, scope)
    opcodes = [descriptor.opcode for descriptor, _ in made.commands]
    assert opcodes.count(Opcode.APPEND) >= opcodes.count(Opcode.RETRIEVE) >= (frames - 3) * len(made.heads)
    path = tmp_path / "captured.npz"
    made.save(path)
    output = share_simulators(tmp_path)
    (result,) = regress.run([Job("dre", "tiny", "verilator", seed=1, captured=path)], output, processes=1)
    assert regress.report([result], output, check_coverage=False) == 0
    assert len(result.cases) == 2


def test_a_capture_survives_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    commands = [(Descriptor(Opcode.APPEND, tag=i, address=i), rng.bytes(8 * i)) for i in range(4)]
    made = Capture([1, 2], 3, 4, 0, commands)
    made.save(tmp_path / "capture.npz")
    assert Capture.load(tmp_path / "capture.npz") == made
