"""A core, or several, with the weights of a decoder that it runs by itself: `--offload chip`.

Weights are put into the core's memory once; then a chunk is a job: the host writes its embeddings, rings the
bell, and reads what the last layer made of them. Keys and values, tables and selections stay in that memory.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.core.instructions import SMALL_ROWS, Status, pack_program
from vrex.model.core.program import Register
from vrex.model.dre.kvstore import HEADER, Header
from vrex.model.lib.memory import PAGE
from vrex.sw.driver.core import (
    REGISTER_BYTES,
    CoreEngine,
    CoreSetting,
    CoreTransport,
    JobEngine,
    JobError,
)
from vrex.sw.driver.top import TopDriver
from vrex.sw.videollm.chip_figures import TableCounts
from vrex.sw.videollm.chip_job import RESERVED, Parameters, Step
from vrex.sw.videollm.chip_layout import MAX_ROWS, RING_BITS, RING_PAGES, ChipLayout, ChipShape
from vrex.sw.videollm.chip_program import ChipProgram


def check_settings(shape: ChipShape) -> None:
    """What the programs can't do.

    Raises:
        UserError: the settings or the decoder ask for it.
    """
    settings, config = shape.settings, shape.config
    if settings.cluster_first:
        raise UserError(
            "--offload chip clusters tokens after a chunk's selection, but cluster_first wants it before; "
            "leave --paper or cluster_first out, or choose --offload dre"
        )
    if settings.predict != "same":
        raise UserError(
            f"--offload chip selects with a layer's own queries, not with predict {settings.predict}; "
            "choose predict same, or --offload dre"
        )
    row = shape.text.head_dim * settings.mean_bits // 8
    if row % config.bus_bytes:
        raise UserError(
            f"--offload chip reads a head's mean in whole beats of the bus, but {shape.text.head_dim} values "
            f"of {settings.mean_bits} bits are {row} bytes, and a beat is {config.bus_bytes}; raise "
            "mean_bits, or lower bus_bits"
        )
    if shape.team > 1:
        _check_team(shape)
    if shape.hash_bytes not in SMALL_ROWS:
        raise UserError(
            f"--offload chip takes hashes of {', '.join(str(8 * size) for size in SMALL_ROWS)} bits, not "
            f"{config.hcu.hash_bits}; set hcu.hash_bits or n_hp"
        )
    try:
        config.check_core()
    except ValueError as error:
        raise UserError(f"preset {config.name} makes no core for this model: {error}") from error


def _check_team(shape: ChipShape) -> None:
    """Whether a layer falls into equal shares.

    Raises:
        UserError: it does not.
    """
    team, text, config = shape.team, shape.text, shape.config
    # Lines of the residual stream, FP32, and bus beats of the others, BF16.
    sizes = {
        "KV heads": (text.kv_heads, 1),
        "columns of hidden_size": (text.hidden_size, config.dpe.inputs // 2),
        "columns of intermediate_size": (text.intermediate_size, config.bus_bytes // 2),
    }
    for what, (size, unit) in sizes.items():
        if size % (team * unit):
            parts = "" if unit == 1 else f" in parts of {unit}"
            raise UserError(
                f"{team} cores can't share {size} {what} evenly{parts}; choose a number of cores that can"
            )
    if team & (team - 1) or team != shape.config.cores:
        raise UserError(f"a team of {team} cores must be all of the chip, and a power of two; set cores")


@dataclass(frozen=True)
class Work:
    """A chunk on its way through the layers.

    Attributes:
        posted: the jobs of all cores that have a share in it, as the engine knows them.
        output: page of its result.
        shape: of that.
    """

    posted: list[Any]
    output: int
    shape: tuple[int, ...]


class Chip:
    """A core, or several on one memory, with a decoder's weights in it.

    A sequence always has the same core, or all of them, if they are a team (`ChipShape`).

    Attributes:
        layout: of its memory.
        engine: of the core, or the driver of the cores.
        memory: what they reach.
        predict: whether jobs select clusters (see `ChipProgram`).
    """

    def __init__(self, layout: ChipLayout, transport: CoreTransport) -> None:
        """Enables the core; `write_weights` must follow.

        Raises:
            DriverError: it does not answer.
        """
        self.layout = layout
        settings = [self.setting(core) for core in range(layout.shape.config.cores)]
        self.engine: JobEngine = (
            TopDriver(transport, settings) if len(settings) > 1 else CoreEngine(transport, settings[0])
        )
        self.memory = transport.memory
        self._pool = layout.pool()
        for share in range(layout.shape.sequences * layout.shape.team):
            words = np.array([*layout.member(share % layout.shape.team).values()], dtype="<u4")
            at = layout.page("io", share) * PAGE + layout.io["member"]
            self.memory.write(at, words.tobytes())
        self._programs: dict[tuple[int, bool], int] = {}
        self.predict = True
        # Of each core.
        self._degenerate = [0] * len(settings)
        self.nan_jobs = 0

    def setting(self, core: int = 0) -> CoreSetting:
        """What a core is set to."""
        layout = self.layout
        return CoreSetting(
            jobs=layout.page("jobs") + core * RING_PAGES["jobs"],
            ends=layout.page("ends") + core * RING_PAGES["ends"],
            ring_bits=RING_BITS,
            device=layout.device,
            host=layout.host,
            sequences=layout.shape.sequences,
        )

    def _cores_of(self, sequence: int) -> list[int]:
        """Cores that have the shares of a sequence, in their order."""
        cores, team = len(self._degenerate), self.layout.shape.team
        return list(range(team)) if team > 1 else [sequence % cores]

    def write(self, page: int, data: bytes) -> None:
        """Writes memory from a page on."""
        self.memory.write(page * PAGE, data)

    def clear(self, sequence: int) -> None:
        """Writes the empty tables of a sequence."""
        shape = self.layout.shape
        for share in shape.shares(sequence):
            for layer in range(shape.text.layers):
                for table in range(shape.tables):
                    header = self.layout.table_plan(share, layer, table).header
                    self.memory.write(self.layout.table_address(share, layer, table), header.pack())

    def run(self, sequence: int, step: Step, x: np.ndarray) -> np.ndarray:
        """Takes a chunk through all layers: `begin` and `finish`."""
        return self.finish(self.begin(sequence, step, x))

    def begin(self, sequence: int, step: Step, x: np.ndarray) -> Work:
        """Gives the sequence's cores a chunk to take through all layers.

        Args:
            sequence: video stream, none of whose chunks is in work.
            step: what the chunk does to its past.
            x: float32 [rows, hidden_size].

        Raises:
            DriverError: the core has as many jobs as it takes.
            UserError: the chunk is too long.
        """
        layout, shares = self.layout, self.layout.shape.shares(sequence)
        io, program = layout.page("io", shares[0]), self._program(len(x))
        pitch = layout.shape.row_pitch
        rows = np.zeros((len(x), pitch // 4), dtype="<f4")
        rows[:, : x.shape[1]] = x
        self.write(io, rows.tobytes())
        posted = [
            self._post(core, program, sequence, self._parameters(share, step, io))
            for share, core in zip(shares, self._cores_of(sequence), strict=True)
        ]
        return Work(posted, io + layout.io["output"] // PAGE, x.shape)

    def _post(self, core: int, program: int, sequence: int, parameters: tuple[int, ...]) -> Any:
        """A job for a core of the chip, or for the only one."""
        if isinstance(self.engine, TopDriver):
            return self.engine.post(program, sequence=sequence, parameters=parameters, core=core)
        return self.engine.post(program, sequence=sequence, parameters=parameters)

    def _parameters(self, share: int, step: Step, io: int) -> tuple[int, ...]:
        """Registers of the job for a share of a chunk whose embeddings are at a page."""
        layout = self.layout
        values = {
            Parameters.state: layout.page("state", share),
            Parameters.tables: layout.page("tables", share),
            Parameters.position: step.start,
            Parameters.sink_rows: step.sink_rows,
            Parameters.sinks: step.sinks,
            Parameters.window_first: step.tabled,
            Parameters.window: step.window,
            Parameters.retire: step.retire,
            Parameters.input: io,
            Parameters.output: layout.page("io", share) + layout.io["output"] // PAGE,
            Parameters.weights: layout.page("weights", share % layout.shape.team),
        }
        return tuple(values[Register(number)] for number in range(RESERVED))

    def finish(self, work: Work) -> np.ndarray:
        """Waits for the oldest chunk of its cores, which must be this one.

        Returns:
            float32 [rows, hidden_size]: the last layer's output.

        Raises:
            DriverError: the core could not execute it, or did not answer.
        """
        failures: list[JobError] = []
        for posted in work.posted:
            try:
                self.nan_jobs += self.engine.collect(posted).nan
            except JobError as failure:
                failures.append(failure)
        if failures:
            # Where one core fails, those that wait for it are stalled.
            raise min(failures, key=lambda failure: failure.end.status == Status.STALLED)
        rows, columns = work.shape
        data = self.memory.read(work.output * PAGE, rows * self.layout.shape.row_pitch)
        return np.frombuffer(data, dtype="<f4").reshape(rows, -1)[:, :columns].astype(np.float32)

    def prepare(self, rows: int) -> None:
        """Puts the program for chunks of so many rows into memory, if it is not there.

        Raises:
            UserError: see `run`.
        """
        self._program(rows)

    def delivered(self, sequence: int) -> np.ndarray:
        """Tokens that each layer's KV heads were delivered by the last job, int [layers, KV heads]."""
        layout, shape = self.layout, self.layout.shape
        step, layers, found = layout.state.pages * PAGE, range(shape.text.layers), []
        for share in shape.shares(sequence):
            first = layout.page("state", share) * PAGE + layout.state["delivered"]
            words = [self.memory.read(first + layer * step, 4 * shape.part.kv_heads) for layer in layers]
            found.append(np.frombuffer(b"".join(words), dtype="<u4").reshape(len(layers), -1))
        return np.concatenate(found, axis=1).astype(np.int64)

    def masks(self, sequence: int) -> dict[int, bytes]:
        """Bitmasks of each layer that the last job has left, by their address."""
        layout, shape = self.layout, self.layout.shape
        size = shape.part.kv_heads * shape.mask_pitch
        places = [
            (layout.page("state", share) + layer * layout.state.pages) * PAGE + layout.state["masks"]
            for share in shape.shares(sequence)
            for layer in range(shape.text.layers)
        ]
        return {place: self.memory.read(place, size) for place in places}

    def degenerate(self, share: int) -> int:
        """Degenerate rows of scores since the DRE's last reset, as the last job of a share found them."""
        at = self.layout.page("io", share) * PAGE + self.layout.io["degenerate"]
        return int.from_bytes(self.memory.read(at, 4), "little")

    def header(self, share: int, layer: int, table: int) -> Header:
        """Of an HC table as it is now."""
        at = self.layout.table_address(share, layer, table)
        return Header.unpack(self.memory.read(at, HEADER.size) + bytes(8))

    def counts(self, sequence: int) -> TableCounts:
        """What the headers of a sequence's tables say."""
        shape = self.layout.shape
        found = [
            [
                self.header(share, layer, table)
                for share in shape.shares(sequence)
                for table in range(shape.tables)
            ]
            for layer in range(shape.text.layers)
        ]
        return TableCounts(
            *(
                np.array([[getattr(header, name) for header in row] for row in found], dtype=np.int64)
                for name in ("clusters", "segments", "tokens")
            )
        )

    def new_degenerate(self, sequence: int) -> int:
        """Degenerate rows of scores that the last jobs of a sequence's cores have added."""
        added = 0
        for share, core in zip(self.layout.shape.shares(sequence), self._cores_of(sequence), strict=True):
            before, self._degenerate[core] = self._degenerate[core], self.degenerate(share)
            added += self._degenerate[core] - before
        return added

    def forget(self, sequence: int) -> None:
        """A job of a sequence failed, so its cores' DREs were reset."""
        for core in self._cores_of(sequence):
            self._degenerate[core] = 0

    def report(self) -> dict[str, Any]:
        """See `ChipSequence.report`."""
        counters, traffic = self.engine.counters(), self.engine.traffic
        # A team works at the same time.
        cycles = counters["busy"] // self.layout.shape.team
        calls = {
            "calls": traffic.jobs,
            "cycles": cycles,
            **self.engine.transport.report.to_dict(),
            "units": {},
        }
        return {
            "rtl": calls,
            "core": {
                "preset": self.layout.shape.config.name,
                "jobs": traffic.jobs,
                "instructions": counters["instructions"],
                "nan_jobs": self.nan_jobs,
                "counters": counters,
            },
            "host": {"register_bytes": REGISTER_BYTES * traffic.registers, "ring_bytes": traffic.ring_bytes},
        }

    def _program(self, rows: int) -> int:
        """Address of the program for chunks of so many rows."""
        key = rows, self.predict
        if key not in self._programs:
            if rows > MAX_ROWS:
                raise UserError(
                    f"a chunk has {rows} tokens, but --offload chip takes {MAX_ROWS}; ask in fewer words"
                )
            try:
                code = ChipProgram(self.layout, self._pool, rows, self.predict).compile()
                self._programs[key] = self._pool.add(pack_program(code))
            except ValueError as error:
                raise UserError(
                    f"the core can't take {rows} tokens at once ({error}); "
                    "ask in fewer words, or choose another --preset"
                ) from error
            for address, data in self._pool.take():
                self.memory.write(address, data)
        return self._programs[key]
