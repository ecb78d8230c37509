"""HCU inside an Amaranth design of your own: a detector of scene changes.

The hash-bits of a frame's tokens go in; the HCU clusters them against the frames before; a frame whose tokens
open many clusters shows something new. The design keeps the founders' hash-bits in a memory of its own and
streams them into the HCU with the next frame. It is simulated with Amaranth's simulator, compared with the
golden model, and written as Verilog.

    python examples/hcu_in_amaranth.py [OUT.v]

It needs amaranth, numpy and, for the Verilog, extra `sim`. It ends with exit code 1 if a decision is wrong.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from vrex.hw.dre.hcu import Hcu
from vrex.hw.tools.export import to_rtlil, to_verilog
from vrex.model.config import HcuConfig
from vrex.model.dre import hcu as golden

BUS_BITS = 64
TH_HD = 5
"""A token joins a cluster that differs from it in fewer bits."""
CONFIG = HcuConfig(lanes=4, hash_bits=32, chunk_tokens=16, tile_clusters=64)


class SceneDetector(wiring.Component):
    """Counts the clusters that each frame opens.

    Args:
        config: of the HCU; a hash fits into a beat.
        tokens: of a frame, a whole number of beats.
        limit: a frame that opens more clusters than that is a new scene.

    Members:
        i: the hash-bits of a frame's tokens, a beat of `BUS_BITS` at a time.
        o: bit 0: new scene; the rest: clusters that the frame opened.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, config: HcuConfig, *, tokens: int, limit: int) -> None:
        self.config, self.tokens, self.limit = config, tokens, limit
        super().__init__({"i": In(stream.Signature(BUS_BITS)), "o": Out(stream.Signature(10))})

    def elaborate(self, platform: Any) -> Module:
        """The HCU, a memory of founders, a memory of the frame's beats, and a state machine around them."""
        m = Module()
        m.submodules.hcu = hcu = Hcu(self.config, bus_bits=BUS_BITS)
        width, depth = self.config.hash_bits, self.config.tile_clusters
        per_beat = BUS_BITS // width
        beats = self.tokens // per_beat

        # The tokens pass on to the HCU and stay here, since those that open a cluster become its founders.
        frame: Memory = Memory(shape=BUS_BITS, depth=beats, init=[])
        m.submodules.frame = frame
        founders: Memory = Memory(shape=BUS_BITS, depth=depth // per_beat, init=[])
        m.submodules.founders = founders
        frame_write, frame_read = frame.write_port(), frame.read_port(domain="comb")
        founder_write = founders.write_port(granularity=width)
        founder_read = founders.read_port(domain="comb")
        clusters, beat, token = Signal(range(depth + 1)), Signal(range(depth)), Signal(range(self.tokens + 1))
        opened = hcu.dout.payload.opened

        m.d.comb += [
            hcu.cmd.payload.tokens.eq(self.tokens),
            hcu.cmd.payload.clusters.eq(clusters),
            hcu.cmd.payload.th_hd.eq(TH_HD),
            frame_write.addr.eq(beat),
            frame_write.data.eq(self.i.payload),
            frame_read.addr.eq(token // per_beat),
            founder_read.addr.eq(beat),
            founder_write.addr.eq(clusters // per_beat),
            founder_write.data.eq(frame_read.data.word_select(token % per_beat, width).replicate(per_beat)),
        ]
        with m.FSM():
            with m.State("COMMAND"):
                m.d.comb += hcu.cmd.valid.eq(1)
                m.d.sync += [beat.eq(0), token.eq(0)]
                with m.If(hcu.cmd.ready):
                    m.next = "TOKENS"
            with m.State("TOKENS"):
                m.d.comb += [
                    hcu.din.payload.eq(self.i.payload),
                    hcu.din.valid.eq(self.i.valid),
                    self.i.ready.eq(hcu.din.ready),
                    frame_write.en.eq(self.i.valid & self.i.ready),
                ]
                with m.If(self.i.valid & self.i.ready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(beat == beats - 1):
                        m.d.sync += beat.eq(0)
                        m.next = "FOUNDERS"
            with m.State("FOUNDERS"):
                m.d.comb += hcu.din.payload.eq(founder_read.data)
                with m.If(beat * per_beat >= clusters):
                    m.next = "DECISIONS"
                with m.Else():
                    m.d.comb += hcu.din.valid.eq(1)
                    with m.If(hcu.din.ready):
                        m.d.sync += beat.eq(beat + 1)
            with m.State("DECISIONS"):
                # A full memory takes no more founders; a real design would drop old ones.
                m.d.comb += hcu.dout.ready.eq(1)
                with m.If(hcu.dout.valid):
                    m.d.sync += token.eq(token + 1)
                    with m.If(opened & (clusters < depth)):
                        m.d.comb += founder_write.en.eq(1 << (clusters % per_beat))
                        m.d.sync += clusters.eq(clusters + 1)
                    with m.If(token == self.tokens - 1):
                        m.next = "DONE"
            with m.State("DONE"):
                count = hcu.done.payload.opened
                m.d.comb += [
                    self.o.payload.eq((count << 1) | (count > self.limit)),
                    self.o.valid.eq(hcu.done.valid),
                    hcu.done.ready.eq(self.o.ready),
                ]
                with m.If(hcu.done.valid & hcu.done.ready):
                    m.next = "COMMAND"
        return m


def frames(rng: np.random.Generator, tokens: int) -> list[np.ndarray]:
    """Hash-bits of ten frames, uint32 [tokens, 1]: a new scene at frames 0 and 5, an object at frame 3."""
    made: list[np.ndarray] = []
    scene = np.zeros((tokens, 1), dtype=np.uint32)
    for index in range(10):
        if index in (0, 5):
            scene = rng.integers(0, 1 << 32, (tokens, 1), dtype=np.uint32)
        if index == 3:
            scene[:2] = rng.integers(0, 1 << 32, (2, 1), dtype=np.uint32)
        noise = np.uint32(1) << rng.integers(0, 32, (tokens, 1), dtype=np.uint32)
        made.append(scene ^ noise)
    return made


def expected(chunks: list[np.ndarray]) -> list[int]:
    """Clusters that each frame opens, by the golden model."""
    table = np.zeros((0, 1), dtype=np.uint32)
    counts = []
    for tokens in chunks:
        opened = golden.cluster(tokens, table, TH_HD).opened
        table = np.concatenate([table, tokens[opened]])
        counts.append(int(opened.sum()))
    return counts


def simulate(design: SceneDetector, chunks: list[np.ndarray]) -> list[tuple[int, bool]]:
    """Clusters that each frame opened, and whether it is a new scene, by Amaranth's simulator."""
    results: list[tuple[int, bool]] = []

    async def send(ctx: Any) -> None:
        for tokens in chunks:
            for beat in tokens.ravel().view("<u8"):
                ctx.set(design.i.payload, int(beat))
                ctx.set(design.i.valid, 1)
                await ctx.tick().until(design.i.ready)
                ctx.set(design.i.valid, 0)

    async def receive(ctx: Any) -> None:
        ctx.set(design.o.ready, 1)
        for _ in chunks:
            (word,) = await ctx.tick().sample(design.o.payload).until(design.o.valid)
            results.append((word >> 1, bool(word & 1)))

    simulator = Simulator(design)
    simulator.add_clock(1e-8)
    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.run()
    return results


def main() -> int:
    """Simulates, compares and writes the Verilog."""
    design = SceneDetector(CONFIG, tokens=8, limit=4)
    chunks = frames(np.random.default_rng(1), design.tokens)
    results = simulate(design, chunks)
    for index, (count, new) in enumerate(results):
        print(
            f"frame {index}: {count} of {design.tokens} tokens opened a cluster{', new scene' if new else ''}"
        )
    if [count for count, _ in results] != expected(chunks):
        print(f"the golden model says {expected(chunks)}", file=sys.stderr)
        return 1
    if len(sys.argv) > 1:
        text = to_verilog(to_rtlil(design, "scene_detector"), "Scene detector around an HCU.")
        Path(sys.argv[1]).write_text(text)
        print(f"{sys.argv[1]}: {text.count(chr(10))} lines of Verilog")
    print("every count equals the golden model's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
