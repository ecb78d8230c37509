"""Testbench of the DRE on commands that were captured from a stream of the video LLM.

They lie in a file of numpy's (`Capture`). What the design gives, and every byte of memory, is compared with
the golden engine as in `vrex.tb.dre.dre`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vrex.model.commands import Descriptor, Opcode, Status
from vrex.model.config import Config
from vrex.tb.dre.dre import DreBench
from vrex.tb.lib.bench import case, setup
from vrex.tb.lib.counters import Command


@dataclass(frozen=True)
class Capture:
    """Commands on tables that are empty at first.

    Attributes:
        heads: KV heads of each table.
        clusters, segments, ring: room of every table (`vrex.model.dre.kvstore.plan`).
        commands: SETREG, APPEND, RETRIEVE and FETCH in order; in `address` the number of the table.
    """

    heads: list[int]
    clusters: int
    segments: int
    ring: int
    commands: list[Command]

    def save(self, path: Path) -> None:
        """Writes a file."""
        descriptors = b"".join(descriptor.pack() for descriptor, _ in self.commands)
        payloads = b"".join(payload for _, payload in self.commands)
        np.savez(
            path,
            heads=self.heads,
            room=[self.clusters, self.segments, self.ring],
            descriptors=np.frombuffer(descriptors, dtype=np.uint8).reshape(-1, 32),
            lengths=[len(payload) for _, payload in self.commands],
            payloads=np.frombuffer(payloads, dtype=np.uint8),
        )

    @classmethod
    def load(cls, path: Path) -> "Capture":
        """Inverse of `save`."""
        with np.load(path) as file:
            parts = np.split(file["payloads"], np.cumsum(file["lengths"])[:-1])
            descriptors = [Descriptor.unpack(row.tobytes()) for row in file["descriptors"]]
            commands = [
                (descriptor, part.tobytes()) for descriptor, part in zip(descriptors, parts, strict=True)
            ]
            clusters, segments, ring = file["room"].tolist()
            return cls(file["heads"].tolist(), clusters, segments, ring, commands)


def make(dut: Any, config: Config, seed: str) -> DreBench:
    """Bench of one case."""
    return DreBench(dut, config, seed)


@case(make, stalls=["none", "light"])
async def captured(bench: DreBench, stalls: str) -> None:
    """All commands of the file, as fast as the engine takes them."""
    capture = Capture.load(Path(setup()["captured"]))
    bench.stall(stalls)
    room = {"cap_clusters": capture.clusters, "cap_segments": capture.segments}
    tables = [bench.table(heads, capture.ring, 16, **room) for heads in capture.heads]
    for descriptor, payload in capture.commands:
        on_table = descriptor.opcode != Opcode.SETREG
        address = tables[descriptor.address] if on_table else 0
        completion = bench.send((replace(descriptor, address=address), payload))
        assert completion.status == Status.OK, f"the model ends {descriptor} with {completion.status}"
    await bench.drain()
    bench.dut._log.info(f"{len(capture.commands)} commands in {bench.cycle} cycles")
