"""What a system's parts take for a piece of work, in seconds."""

from dataclasses import dataclass
from functools import cached_property

from vrex.sw.perf.description.method import Method
from vrex.sw.perf.description.system import ACCELERATOR, SSD, System
from vrex.sw.perf.description.workload import BF16_BYTES, Model, Vision, Workload
from vrex.sw.perf.memory import dram, pcie, ssd
from vrex.sw.perf.memory.parts import Dram, Flash, load_dram, load_flash
from vrex.sw.perf.simulation import calibration
from vrex.sw.perf.simulation.calibration import EDGE, Core

STREAM_BYTES = 1 << 17
"""Bytes of a command where a whole layer is read in sequence."""
HOST_LATENCY = 1e-6
"""Seconds from a read request to its data over PCIe and a host's memory; of the order that is published."""
PLANES = 32
"""Bits of a hash."""


@dataclass(frozen=True)
class Machine:
    """A system with its memories simulated: rates follow from timing parameters.

    Attributes:
        system: its description.
        core: of an accelerator.
    """

    system: System
    core: Core = EDGE

    @cached_property
    def accelerated(self) -> bool:
        """It is made of this project's cores."""
        return self.system.compute.kind == ACCELERATOR

    @cached_property
    def _part(self) -> Dram:
        return load_dram(self.system.memory.part)

    @cached_property
    def _flash(self) -> Flash:
        return load_flash(self.system.offload.part)

    @cached_property
    def peak_flops(self) -> float:
        """FLOP/s."""
        return self.system.compute.peak_tflops * 1e12

    @cached_property
    def peak_bandwidth(self) -> float:
        """Bytes/s of all data pins."""
        return self.system.memory.channels * self._part.peak

    def bandwidth(self, run_bytes: int = 0) -> float:
        """Bytes/s of the memory: in sequence, or in runs of so many contiguous bytes at random places."""
        pattern = dram.RANDOM if run_bytes else dram.SEQUENTIAL
        found = dram.bandwidth(self._part, self.system.memory.channels, run_bytes, pattern)
        return min(found, self.peak_bandwidth * self.system.compute.roofline_share)

    def link_rate(self, run_bytes: int = 0) -> float:
        """Bytes/s from where the cache is offloaded to: in sequence, or in runs at random places."""
        link, run = self.system.link, run_bytes or STREAM_BYTES
        if self.system.offload.kind == SSD:
            return ssd.rate(self._flash, link, run, sequential=not run_bytes)
        part = load_dram(self.system.offload.part)
        pattern = dram.RANDOM if run_bytes else dram.SEQUENTIAL
        host = dram.bandwidth(part, self.system.offload.channels, run_bytes, pattern)
        return min(pcie.read_rate(link, run), host)

    def link_latency(self, run_bytes: int = 0) -> float:
        """Seconds until a first run has come, beside the time that its bytes take."""
        if self.system.offload.kind == SSD:
            return self._flash.read_us * 1e-6
        return HOST_LATENCY

    def seconds(self, cycles: float) -> float:
        """Of so many cycles of all cores together."""
        return cycles / self.system.compute.cores / (self.system.compute.clock_mhz * 1e6)

    def flop_seconds(self, flop: float) -> float:
        """Of a GPU's kernel that is bound by arithmetic."""
        return flop / (self.peak_flops * self.system.compute.roofline_share)

    def gemm(self, values: float, rows: int) -> float:
        """A matrix product of so many weights and rows of activations, without its memory traffic."""
        if self.accelerated:
            return self.seconds(calibration.gemm_cycles(values, rows, self.core))
        return self.flop_seconds(2 * values * rows)

    def _vector(self, elements: float, functions: tuple[str, ...]) -> float:
        """Cycles of one core's vector engine."""
        return calibration.vector_cycles(elements, *functions, core=self.core)

    def layer(self, model: Model, work: Workload, attended: float) -> float:
        """A decoder layer's arithmetic on `attended` past tokens of each sequence."""
        past = attended + work.tokens
        values = 2 * past * model.head_dim * model.kv_heads * work.batch
        group = work.tokens * model.heads // model.kv_heads
        time = self.gemm(model.layer_weights, work.rows) + self.gemm(values, group)
        if self.accelerated:
            cycles = self._vector(model.heads * work.rows * past, calibration.SOFTMAX)
            cycles += self._vector(model.ffn * work.rows, calibration.SILU)
            cycles += 2 * self._vector(model.hidden * work.rows, calibration.NORM)
            time += self.seconds(cycles)
        return time

    def vision(self, vision: Vision, pictures: int) -> float:
        """A vision tower's arithmetic; products are tiled as a decoder's, for each picture by itself."""
        if not self.accelerated:
            return self.flop_seconds(vision.flop * pictures)
        scores = vision.heads * vision.tokens * vision.tokens
        per_head = 2 * vision.tokens * vision.hidden // vision.heads
        cycles = calibration.gemm_cycles(vision.weights, vision.tokens, self.core)
        cycles += vision.layers * vision.heads * calibration.gemm_cycles(per_head, vision.tokens, self.core)
        cycles += vision.layers * self._vector(scores, calibration.SOFTMAX)
        # GELU by its sigmoid form, as SiLU; the norms of a layer.
        cycles += vision.layers * self._vector(vision.tokens * vision.ffn, calibration.SILU)
        cycles += 2 * vision.layers * self._vector(vision.tokens * vision.hidden, calibration.NORM)
        return pictures * self.seconds(cycles)

    def table_bytes(self, model: Model, method: Method, clusters: float) -> float:
        """Bytes of a layer's cluster table that selection reads: means, hashes and counts."""
        values = model.kv_heads * model.head_dim
        scale = 0 if method.mean_bits == 16 else 2 * model.kv_heads
        return clusters * (values * method.mean_bits / 8 + scale + PLANES / 8 + BF16_BYTES)

    def engine_seconds(self, model: Model, work: Workload, clusters: float) -> float:
        """HCU and WTU of one layer: tables are dealt out to cores, and so are KV heads."""
        clock, cores = self.system.compute.clock_mhz * 1e6, self.system.compute.cores
        rows = work.tokens * model.heads // model.kv_heads
        hcu = -(-work.batch // cores) * calibration.hcu_cycles(work.tokens, clusters, self.core)
        heads = -(-work.batch * model.kv_heads // cores)
        return (hcu + heads * rows * calibration.wtu_row_cycles(clusters)) / clock

    def update_seconds(self, model: Model, work: Workload) -> float:
        """Running means of a chunk's tokens in one layer, by the cores' mean units."""
        heads = -(-work.batch * model.kv_heads // self.system.compute.cores)
        return (
            heads
            * calibration.mean_cycles(work.tokens, model.head_dim)
            / (self.system.compute.clock_mhz * 1e6)
        )
