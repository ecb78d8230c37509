"""A decoder layer on the core in figures: cycles, against what arithmetic and memory need at least."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.config import CHUNK, Config
from vrex.model.core.instructions import Body, Move, Port
from vrex.model.core.registers import Register
from vrex.model.lib.memory import PAGE, Memory
from vrex.model.lxe import vpe
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.model.lxe.instructions import Opcode as LxeOpcode
from vrex.sw.driver.core import CoreEngine
from vrex.sw.driver.core_golden import GoldenCoreTransport
from vrex.sw.driver.core_rtl import RtlCoreTransport
from vrex.sw.driver.dre import Capacity
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.checkpoint import SHIPPED, Checkpoint, Tensors
from vrex.sw.videollm.chip import Chip, check_settings
from vrex.sw.videollm.chip_decoder import ChipDecoder, ChipSequence
from vrex.sw.videollm.chip_job import Step
from vrex.sw.videollm.chip_layout import ChipLayout, ChipShape
from vrex.sw.videollm.config import TextConfig, load_config
from vrex.sw.videollm.random_weights import RandomWeights

ROWS = (1, 11, 32)
PAST = (300, 4000)
FRAME_ROWS = 11
SCENES = 40
"""Embeddings lie around so many directions, so that keys cluster as those of a video do."""

SIZES = ("hidden_size", "intermediate_size", "heads", "kv_heads", "head_dim")
"""Of a layer whose shapes are given."""

NARROW = 256
"""Hidden and feed-forward size of the layer that makes the past of a random one."""

SLICE = 2000
"""Cycles of a slice of the picture."""

LANES = {
    "DPE": Register.DPE_BUSY,
    "VPE": Register.VPE_BUSY,
    "LXE": Register.LXE_BUSY,
    "DRE": Register.DRE_BUSY,
    "LOAD": Register.LOAD_BUSY,
    "FEED": Register.FEED_BUSY,
    "SAVE": Register.SAVE_BUSY,
}
"""Counters that the picture shows, by the name of the engine."""

HEAD = (
    "rows   past clusters delivered     cycles      bound  by      ratio    DPE    VPE    bus    DRE  added"
)
Progress = Callable[[str], None]
_SEED = 5


@dataclass
class Needs:
    """What a job needs at least, in cycles, as its instructions say.

    Attributes:
        dpe: rows that enter the trees.
        vpe: words that pass the lanes.
        weights: beats from memory to the LXE: weights, means or their codes and scales, sinks and window.
        kv: beats that the DRE delivers.
        other: beats between memory and the DRE's ports, and to memory.
    """

    config: Config
    dpe: int = 0
    vpe: int = 0
    weights: int = 0
    kv: int = 0
    other: int = 0

    def add(self, body: Body) -> None:
        """Takes in an instruction that an engine is given."""
        if isinstance(body, Move):
            beats = -(-body.bytes // self.config.bus_bytes) * body.rows
            if body.source == Port.KV:
                self.kv += beats
            elif body.source == Port.MEMORY and body.sink == Port.LXE:
                self.weights += beats
                if body.bits and body.rows:
                    self.weights += body.scale_beats(self.config.bus_bytes)[1]
            elif Port.MEMORY in (body.source, body.sink):
                self.other += beats
        elif isinstance(body, LxeInstruction) and body.opcode == LxeOpcode.GEMM:
            tiles = -(-body.length // self.config.dpe.trees) * -(-body.inner // CHUNK)
            self.dpe += tiles * body.rows * body.groups * self.config.dpe.beats
        elif isinstance(body, LxeInstruction) and body.opcode == LxeOpcode.VECTOR:
            words = -(-body.length // self.config.vpe.lanes)
            passes = vpe.PASSES.get(vpe.Function(body.function), 1)
            self.vpe += body.rows * body.groups * words * passes

    def to_dict(self) -> dict[str, int | str]:
        """By engine, their largest, and which it is."""
        needs = {"dpe": self.dpe, "vpe": self.vpe, "memory": self.weights + self.kv + self.other}
        top = max(needs, key=lambda name: needs[name])
        return {**needs, "weights": self.weights, "kv": self.kv, "bound": needs[top], "bound_by": top}


@dataclass(frozen=True)
class Layer:
    """A decoder layer with a past, on the golden core.

    Attributes:
        chip: whose memory holds the past.
        sequence: the stream.
        tokens: of the past.
        functions: simulate MAC trees and vector lanes as C++ functions, in the same cycles.
    """

    chip: Chip
    sequence: ChipSequence
    tokens: int
    functions: bool
    needs: list[Needs] = field(default_factory=list)


def shipped_text() -> TextConfig:
    """Shapes of one layer of the shipped checkpoint."""
    return dataclasses.replace(load_config(SHIPPED / "config.json").text, layers=1)


def layer_text(sizes: Sequence[int]) -> TextConfig:
    """Shapes of a layer, by hidden size, feed-forward size, query heads, KV heads and head_dim.

    Raises:
        UserError: that makes no layer.
    """
    given = ",".join(map(str, sizes))
    if len(sizes) != len(SIZES) or min(sizes) < 1:
        raise UserError(f"--layer {given}: give {', '.join(SIZES)}, each at least 1")
    sizes_by_name: dict[str, Any] = dict(zip(SIZES, sizes, strict=True))
    if sizes_by_name["heads"] % sizes_by_name["kv_heads"] or sizes_by_name["head_dim"] % 2:
        raise UserError(f"--layer {given}: KV heads must divide query heads, and 2 head_dim")
    return dataclasses.replace(shipped_text(), **sizes_by_name)


def layer_with_past(
    config: Config,
    text: TextConfig | None,
    tokens: int,
    rows: Sequence[int],
    settings: ResvSettings,
    functions: bool = False,
) -> Layer:
    """A decoder layer after a video of so many tokens.

    Args:
        config: accelerator.
        text: shapes of a layer with random weights; None is the first layer of the shipped checkpoint.
        tokens: of the past.
        rows: of the chunks that come.
        settings: of policy `resv`.
        functions: see `Layer`.

    Raises:
        UserError: the accelerator can't serve such a layer, or take so many rows of it.
    """
    weights = Checkpoint(SHIPPED) if text is None else RandomWeights()
    layer = _new_layer(config, text or shipped_text(), weights, tokens, settings, functions)
    for number in rows:
        layer.chip.prepare(number)
    if text is None:
        _watch(layer)
    else:
        # The golden core would need hours for the past of a large layer.
        least = dataclasses.replace(text, hidden_size=NARROW, intermediate_size=NARROW, heads=text.kv_heads)
        narrow = _new_layer(config, least, weights, tokens, settings, functions)
        _watch(narrow)
        layer.sequence.take_over(narrow.sequence)
    return layer


def _new_layer(
    config: Config, text: TextConfig, weights: Tensors, tokens: int, settings: ResvSettings, functions: bool
) -> Layer:
    """A layer without a past, with room for one of so many tokens."""
    shape = Shape(text.layers, text.heads, text.kv_heads, text.head_dim, FRAME_ROWS - 1)
    if config.cores > 1:
        raise UserError(
            f"vrex bench core measures one core, not the {config.cores} of preset {config.name}; set cores=1"
        )
    try:
        config = config.with_hash_bits(settings.n_hp).with_heads(text.kv_heads, text.head_dim)
        config.check_core()
    except ValueError as error:
        raise UserError(f"no core of preset {config.name} serves such a layer: {error}") from error
    room = tokens + 2 * FRAME_ROWS + max(ROWS)
    ring = 1 << (4 * config.hcu.chunk_tokens - 1).bit_length()
    capacity = Capacity(clusters=room, segments=room, ring=ring)
    chip_shape = ChipShape(config, text, settings, FRAME_ROWS, capacity, room)
    check_settings(chip_shape)
    layout = ChipLayout(chip_shape)
    needs: list[Needs] = []

    def observe(body: Body) -> None:
        if needs:
            needs[-1].add(body)

    transport = GoldenCoreTransport(config, layout.new_memory(), observe)
    chip = ChipDecoder(weights, text).put_on(layout, transport)
    return Layer(chip, ChipSequence(chip, 0, shape), tokens, functions, needs)


def _watch(layer: Layer) -> None:
    """Takes the video of the layer's past through it."""
    hidden = layer.chip.layout.shape.text.hidden_size
    rng = np.random.default_rng(_SEED)
    scenes = rng.standard_normal((SCENES, hidden))
    done = 0
    while done < layer.tokens:
        rows = min(FRAME_ROWS, layer.tokens - done)
        noise = 0.5 * rng.standard_normal((rows, hidden))
        layer.sequence.run((scenes[rng.integers(SCENES)] + noise).astype(np.float32), "frame")
        done += rows


def measure(layer: Layer, rows: int, trace: bool = False) -> dict[str, Any]:
    """A chunk of so many rows in the simulated Verilog, with prediction and without.

    Args:
        layer: with its past; it is as before afterwards.
        rows: of the chunk.
        trace: also return how busy each engine was in every slice.

    Returns:
        `rows`, `past`, `clusters`, `delivered` (tokens, all KV heads), `cycles`, `needs` (`Needs.to_dict`),
        `ratio` of cycles and bound, `counters` that the job has moved, `equal` (the result is the golden
        core's, both times), `added`: cycles that prediction adds to the same job with the same selection,
        `added_share` of all; and `trace`: by engine the busy share of each slice of about `SLICE` cycles.

    Raises:
        UserError: the simulator can't be built.
    """
    chip, sequence = layer.chip, layer.sequence
    rng = np.random.default_rng([_SEED, rows])
    x = rng.standard_normal((rows, chip.layout.shape.text.hidden_size)).astype(np.float32)
    step = sequence.next_step(rows)
    for chip.predict in (False, True):
        chip.prepare(rows)
    before = {window: chip.memory.read(window.start, window.pages * PAGE) for window in _windows(chip.memory)}
    layer.needs.append(Needs(chip.layout.shape.config))
    wanted = chip.run(sequence.number, step, x)
    needs = layer.needs.pop().to_dict()
    clusters = int(chip.counts(sequence.number).clusters.sum())
    delivered = int(chip.delivered(sequence.number).sum())
    masks = chip.masks(sequence.number)
    for window, content in before.items():
        chip.memory.write(window.start, content)
    runs = []
    for predict in (True, False):
        memory = Memory(chip.memory.device, chip.memory.host)
        transport = _Traced(chip.layout.shape.config, memory, layer.functions)
        for window, content in before.items():
            transport.memory.write(window.start, content)
        if not predict:
            for address, data in masks.items():
                transport.memory.write(address, data)
        runs.append(_job(layer, transport, step, x, predict, trace and predict))
    (got, moved), (same, less) = runs
    figures = {
        "rows": rows,
        "past": layer.tokens,
        "clusters": clusters,
        "delivered": delivered,
        "cycles": moved["busy"],
        "needs": needs,
        "ratio": moved["busy"] / int(needs["bound"]),
        "added": moved["busy"] - less["busy"],
        "added_share": (moved["busy"] - less["busy"]) / moved["busy"],
        "equal": bool(np.array_equal(got, wanted) and np.array_equal(same, wanted)),
        "counters": {name: value for name, value in moved.items() if name != "trace"},
    }
    return figures | ({"trace": moved["trace"]} if trace else {})


def _job(
    layer: Layer, transport: "_Traced", step: Step, x: np.ndarray, predict: bool, trace: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """The job on a simulated core: its result, and by how much its counters moved."""
    chip, golden = layer.chip, layer.chip.engine
    chip.engine, chip.memory = CoreEngine(transport, chip.setting()), transport.memory
    chip.predict = predict
    try:
        counted = chip.engine.counters()
        transport.start(trace)
        got = chip.run(layer.sequence.number, step, x)
        moved: dict[str, Any] = {
            name: value - counted[name] for name, value in chip.engine.counters().items()
        }
        return got, moved | ({"trace": transport.shares()} if trace else {})
    finally:
        chip.engine, chip.memory, chip.predict = golden, golden.memory, True
        transport.close()


def _windows(memory: Memory) -> Sequence[Any]:
    return [window for window in (memory.device, memory.host) if window.pages]


class _Traced(RtlCoreTransport):
    """A simulated core that notes its counters while it works."""

    def __init__(self, config: Config, memory: Memory, functions: bool) -> None:
        super().__init__(config, memory, functions=functions)
        self._samples: list[list[int]] = []
        self._traces = False

    def start(self, traces: bool) -> None:
        """Notes from now on, if it is to."""
        self._traces = traces

    def wait(self) -> None:
        """See `CoreTransport`."""
        while self._traces:
            self._samples.append(
                [self.read_register(register) for register in (Register.CYCLES, *LANES.values())]
            )
            if self.work(SLICE):
                return
        super().wait()

    def shares(self) -> dict[str, list[float]]:
        """Busy share of each engine in each slice."""
        steps = np.diff(np.array(self._samples, dtype=np.int64), axis=0)
        cycles = np.maximum(steps[:, 0], 1)
        return {name: (steps[:, n + 1] / cycles).clip(0, 1).tolist() for n, name in enumerate(LANES)}


def bench_core(
    config: Config,
    rows: Sequence[int] = ROWS,
    past: Sequence[int] = PAST,
    progress: Progress = lambda step: None,
    arithmetic: str = "rtl",
    text: TextConfig | None = None,
    settings: ResvSettings | None = None,
) -> dict[str, Any]:
    """Measures a decoder layer for several chunks and pasts.

    Args:
        config: accelerator.
        rows: of the chunks.
        past: tokens before them.
        progress: gets the name of each step before it begins.
        arithmetic: `rtl`, or `dpi`: MAC trees and vector lanes as C++ functions, in the same cycles.
        text: shapes of a layer with random weights; None is the first layer of the shipped checkpoint.
        settings: of policy `resv`; None for its defaults.

    Returns:
        `layer`: a list of what `measure` returns; `worst_ratio` of them; `conditions`.

    Raises:
        UserError: the simulator can't be built, or the accelerator can't serve such a layer.
    """
    points, settings, functions = [], settings or ResvSettings(), arithmetic == "dpi"
    traced = FRAME_ROWS if FRAME_ROWS in rows else rows[0]
    for tokens in past:
        progress(f"past of {tokens} tokens")
        layer = layer_with_past(config, text, tokens, rows, settings, functions)
        for number in rows:
            progress(f"{number} rows on {tokens} tokens")
            points.append(measure(layer, number, trace=number == traced))
    return {
        "layer": points,
        "worst_ratio": max(point["ratio"] for point in points),
        "conditions": {
            "preset": config.name,
            "bus_bits": config.bus_bits,
            "arithmetic": arithmetic,
            "settings": dataclasses.asdict(settings),
            "weights": "shipped" if text is None else "random",
            "text": dataclasses.asdict(text or shipped_text()),
            "seed": _SEED,
        },
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [HEAD]
    for point in figures["layer"]:
        needs, cycles, counters = point["needs"], point["cycles"], point["counters"]
        beats = counters["read_beats"] + counters["write_beats"]
        busy = (counters["dpe_busy"], counters["vpe_busy"], beats, counters["dre_busy"])
        shares = [*(count / cycles for count in busy), point["added_share"]]
        lines.append(
            f"{point['rows']:4} {point['past']:6} {point['clusters']:8} {point['delivered']:9} {cycles:10,} "
            f"{needs['bound']:10,}  {needs['bound_by']:6} {point['ratio']:6.3f}"
            + "".join(f"{100 * share:5.1f} %" for share in shares)
        )
    return "\n".join(lines)
