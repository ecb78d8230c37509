"""One step of a streaming video LLM on a system: its tasks, its time, its energy."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from vrex.errors import UserError
from vrex.sw.perf.description.method import ALL, NONE, Method
from vrex.sw.perf.description.workload import BF16_BYTES, Workload
from vrex.sw.perf.simulation import events, software
from vrex.sw.perf.simulation.events import Record, Task
from vrex.sw.perf.simulation.machine import Machine

ENGINE, DRE, DRAM, LINK = "engine", "dre", "dram", "link"
KINDS = ("vision", "compute", "prediction", "fetch", "update")
"""Of tasks; where several are at work the first counts in a breakdown."""
BUFFERED_LAYERS = 2
"""Layers whose fetched K and V are in memory at once."""


class OutOfMemoryError(Exception):
    """The step needs more memory than the system has."""


@dataclass(frozen=True)
class Step:
    """A step's outcome.

    Attributes:
        log: of all tasks.
        dram_bytes, link_bytes: moved.
        flop: of products with weights, of attention and of the vision tower; selection's apart.
        selection_flop: of selection.
        energy: J by part: `compute`, `idle`, `dram`, `link`, `offload`.
    """

    log: list[Record]
    dram_bytes: float
    link_bytes: float
    flop: float
    selection_flop: float
    energy: dict[str, float]

    @cached_property
    def seconds(self) -> float:
        """From the first task to the last; updates of tables go on beside the next step and do not count."""
        return events.latency(self.log, KINDS[:-1])

    @cached_property
    def joules(self) -> float:
        """All parts."""
        return sum(self.energy.values())

    @cached_property
    def breakdown(self) -> dict[str, float]:
        """Seconds by kind."""
        return events.breakdown(self.log, KINDS)


class _Builder:
    """Tasks of a step in the making."""

    def __init__(self, machine: Machine, method: Method, work: Workload, ratios: Sequence[float]) -> None:
        self.machine, self.method, self.work, self.ratios = machine, method, work, ratios
        self.model = work.model
        self.tasks: list[Task] = []
        self.dram_bytes = self.link_bytes = self.flop = self.selection_flop = 0.0
        self.weight_bandwidth = machine.bandwidth()
        self.selects = method.predictor != "none" and method.ratio(work.text) < 1
        self.run_bytes = self._run_bytes()
        # Selected K and V lie together once they have been fetched; those that are resident lie in runs.
        resident_runs = self.run_bytes if self.selects and not method.offloaded else 0
        self.kv_bandwidth = machine.bandwidth(resident_runs)
        self.clusters = work.past / method.cluster_tokens if self.selects else 0.0
        # Layers that select as much cost as much.
        self._known_fetches: dict[float, tuple[float, float]] = {}
        self._known_layers: dict[float, tuple[float, float, float, float]] = {}

    def _run_bytes(self) -> int:
        """Bytes at contiguous addresses of what is selected; 0 where a layer is read as a whole."""
        method = self.method
        if not method.run_tokens or not self.selects:
            return 0
        per_token = self.model.kv_bytes(1, method.kv_bits) / (self.model.kv_heads if method.per_head else 1)
        return max(1, round(method.run_tokens * per_token))

    def add(self, name: str, kind: str, resource: str, seconds: float, after: Sequence[int] = ()) -> int:
        self.tasks.append(Task(name, kind, resource, seconds, tuple(after)))
        return len(self.tasks) - 1

    def read(self, name: str, kind: str, size: float, bandwidth: float, after: Sequence[int]) -> int:
        self.dram_bytes += size
        return self.add(name, kind, DRAM, size / bandwidth, after)

    def selected(self, layer: int) -> float:
        """Past tokens of one sequence that a layer attends to."""
        return self.work.past * (self.ratios[layer] if self.selects else 1.0)

    def vision(self) -> list[int]:
        tower = self.work.vision
        if tower is None:
            return []
        time = self.machine.vision(tower, self.work.batch)
        self.flop += tower.flop * self.work.batch
        weights = BF16_BYTES * tower.weights
        return [
            self.add("vision", "vision", ENGINE, time),
            self.read("vision weights", "vision", weights, self.weight_bandwidth, ()),
        ]

    @cached_property
    def _software(self) -> tuple[software.Selection, float]:
        """What selecting costs in software, a layer, and its seconds."""
        found = software.select(self.model, self.work, self.method)
        time = found.kernels * self.machine.system.compute.launch_us * 1e-6
        time += max(found.bytes / self.weight_bandwidth, self.machine.flop_seconds(found.flop))
        return found, time

    @cached_property
    def _engine(self) -> tuple[float, float, float, float, float]:
        """Of selecting in the DRE, a layer: flop, s of scores, B of tables, s of HCU and WTU, s of means."""
        machine, work, model = self.machine, self.work, self.model
        width, group = model.kv_heads * model.head_dim, work.tokens * model.heads // model.kv_heads
        scores = machine.gemm(software.PLANES * width, work.rows)
        scores += machine.gemm(self.clusters * width * work.batch, group)
        flop = 2 * width * (software.PLANES * work.rows + self.clusters * group * work.batch)
        table = work.batch * machine.table_bytes(model, self.method, self.clusters)
        time = machine.engine_seconds(model, work, self.clusters)
        return flop, scores, table, time, machine.update_seconds(model, work)

    def predict(self, layer: int, after: Sequence[int]) -> list[int]:
        """Selection for a layer: in software on the engine, or scores there and the rest in the DRE."""
        if not self.selects:
            return list(after)
        name = f"predict {layer}"
        if self.method.predictor != "dre":
            found, time = self._software
            self.selection_flop += found.flop
            self.dram_bytes += found.bytes
            return [self.add(name, "prediction", ENGINE, time, after)]
        flop, scores, table, time, _ = self._engine
        self.selection_flop += flop
        parts = [
            self.add(f"{name}: scores", "prediction", ENGINE, scores, after),
            self.read(f"{name}: table", "prediction", table, self.weight_bandwidth, after),
        ]
        return [self.add(f"{name}: HCU and WTU", "prediction", DRE, time, parts)]

    def _fetched(self, selected: float) -> tuple[float, float]:
        """Bytes and seconds on the link of so many past tokens of a layer."""
        if selected not in self._known_fetches:
            machine, bits = self.machine, self.method.kv_bits
            whole = self.work.batch * self.model.kv_bytes(self.work.past, bits)
            size = self.work.batch * self.model.kv_bytes(selected, bits)
            time = size / machine.link_rate(self.run_bytes)
            # Where runs are so short that all of the layer in sequence is faster, that is what is done.
            if self.run_bytes and whole / machine.link_rate() < time:
                size, time = whole, whole / machine.link_rate()
            self._known_fetches[selected] = size, time + machine.link_latency(self.run_bytes)
        return self._known_fetches[selected]

    def fetch(self, layer: int, after: Sequence[int]) -> list[int]:
        """What a layer attends to comes over the link, and is written into memory as it comes."""
        if not self.method.offloaded:
            return list(after)
        size, time = self._fetched(self.selected(layer))
        self.link_bytes += size
        return [
            self.add(f"fetch {layer}", "fetch", LINK, time, after),
            self.read(f"fetch {layer}: write", "fetch", size, self.weight_bandwidth, after),
        ]

    def _computed(self, attended: float) -> tuple[float, float, float, float]:
        """Of a decoder layer: flop, bytes, seconds of arithmetic, seconds of DRAM."""
        if attended not in self._known_layers:
            work, past = self.work, attended + self.work.tokens
            flop = 2.0 * self.model.layer_weights * work.rows
            flop += 4 * self.model.heads * self.model.head_dim * past * work.rows
            keys = work.batch * self.model.kv_bytes(past, self.method.kv_bits)
            weights = BF16_BYTES * self.model.layer_weights
            time = weights / self.weight_bandwidth + keys / self.kv_bandwidth
            arithmetic = self.machine.layer(self.model, work, attended)
            self._known_layers[attended] = flop, weights + keys, arithmetic, time
        return self._known_layers[attended]

    def compute(self, layer: int, after: Sequence[int]) -> list[int]:
        """A decoder layer: arithmetic beside the stream of its weights and of what it attends to."""
        flop, size, arithmetic, time = self._computed(self.selected(layer))
        self.flop += flop
        self.dram_bytes += size
        parts = [
            self.add(f"layer {layer}", "compute", ENGINE, arithmetic, after),
            self.add(f"layer {layer}: weights and KV", "compute", DRAM, time, after),
        ]
        if self.selects and self.method.predictor == "dre":
            self.add(f"layer {layer}: means", "update", DRE, self._engine[4], parts)
        return parts

    def head(self, after: Sequence[int]) -> None:
        """The output layer, for the last token of each sequence."""
        if self.work.text:
            values = self.model.head_weights
            self.flop += 2 * values * self.work.batch
            self.add("output layer", "compute", ENGINE, self.machine.gemm(values, self.work.batch), after)
            self.read("output layer: weights", "compute", BF16_BYTES * values, self.weight_bandwidth, after)

    def build(self) -> None:
        """All tasks, by the method's rule of overlap."""
        layers = range(self.model.layers)
        before = self.vision()
        if self.method.overlap == NONE:
            for layer in layers:
                before = self.compute(layer, self.fetch(layer, self.predict(layer, before)))
            self.head(before)
            return
        came = self.fetch(0, self.predict(0, before))
        for layer in layers:
            following: list[int] = []
            if layer + 1 < self.model.layers:
                chosen = self.predict(layer + 1, before)
                following = self.fetch(layer + 1, chosen)
                if self.method.overlap != ALL:
                    before = [*before, *chosen]
            before = self.compute(layer, [*before, *came])
            came = following
        self.head(before)


def memory_bytes(machine: Machine, method: Method, work: Workload) -> float:
    """What must lie in the accelerator's memory: weights, K and V or two layers of them, tables."""
    model = work.model
    size: float = model.weight_bytes
    size += BF16_BYTES * work.vision.weights if work.vision else 0
    past = work.batch * model.kv_bytes(work.past + work.tokens, method.kv_bits)
    if method.offloaded:
        size += BUFFERED_LAYERS * past * method.ratio(work.text)
    else:
        size += model.layers * past
    if method.predictor in ("dre", "resv"):
        clusters = work.past / method.cluster_tokens
        size += model.layers * work.batch * machine.table_bytes(model, method, clusters)
    if method.predictor == "infinigen":
        size += model.layers * software.PARTIAL * past / 2
    return size


def _check(machine: Machine, method: Method, work: Workload) -> None:
    needed, room = memory_bytes(machine, method, work), machine.system.memory.capacity_gb * 1e9
    if needed > room:
        raise OutOfMemoryError(f"needs {needed / 1e9:.1f} GB of {room / 1e9:.0f} GB")
    whole = work.model.layers * work.batch * work.model.kv_bytes(work.past, method.kv_bits)
    if method.offloaded and whole > machine.system.offload.capacity_gb * 1e9:
        raise OutOfMemoryError(f"offloads {whole / 1e9:.0f} GB, more than there is room for")


def _energy(machine: Machine, log: Sequence[Record], seconds: float, dram_bytes: float) -> dict[str, float]:
    """J by part; a GPU's board works while it computes or reads, an accelerator while it computes."""
    power = machine.system.power
    working = events.busy(log, (ENGINE, DRE) if machine.accelerated else (ENGINE, DRAM))
    linked = events.busy(log, (LINK,))
    return {
        "compute": power.compute_w * working,
        "idle": power.idle_w * max(0.0, seconds - working),
        "dram": dram_bytes * 8 * power.dram_pj_bit * 1e-12,
        "link": machine.system.link.lanes * power.lane_w * linked,
        "offload": power.offload_w * linked,
    }


def simulate(machine: Machine, method: Method, work: Workload, ratios: Sequence[float] | None = None) -> Step:
    """Simulates one step.

    Args:
        machine: the system.
        method: how it gets at its past.
        work: what enters.
        ratios: selected share of the past in each layer; None takes the method's for all.

    Raises:
        OutOfMemoryError: it does not fit.
        UserError: the system lacks what the method needs.
    """
    if method.predictor == "dre" and not machine.accelerated:
        raise UserError(
            f"method {method.title!r} needs a V-Rex, but system {machine.system.title!r} is a GPU; "
            "choose resv-gpu, or another system"
        )
    _check(machine, method, work)
    builder = _Builder(machine, method, work, ratios or [method.ratio(work.text)] * work.model.layers)
    builder.build()
    log = events.run(builder.tasks)
    seconds = events.latency(log, KINDS[:-1])
    return Step(
        log=log,
        dram_bytes=builder.dram_bytes,
        link_bytes=builder.link_bytes,
        flop=builder.flop,
        selection_flop=builder.selection_flop,
        energy=_energy(machine, log, seconds, builder.dram_bytes),
    )
