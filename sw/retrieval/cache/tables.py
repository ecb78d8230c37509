"""Tables of policy `resv` with keys and values in device, host and file tiers: `vrex run --cache`.

The HC tables (hashes, means, counts, tokens) are the metadata that every selection reads; they stay in host
memory. A chunk is journaled when its last layer has taken it in, so a crash loses at most the chunk in
progress.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.dre.hctable import HCTable
from vrex.sw.driver.command_interface import CommandTransport
from vrex.sw.retrieval.cache.journal import Journal
from vrex.sw.retrieval.cache.records import Records
from vrex.sw.retrieval.cache.segments import Run, SegmentFile
from vrex.sw.retrieval.cache.tiers import Budgets, Tiers, Traffic, room
from vrex.sw.retrieval.policies.base import FRAME, Chunk, Delivered
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.resident import Resident, bf16_of
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import Selection

KNOBS = ("th_hd", "n_hp", "scope", "sinks", "window", "cluster_first", "seed")
"""Settings that decide what the tables hold."""


def journal_of(path: Path) -> Path:
    """Where the journal of a cache file is."""
    return path.with_name(path.name + ".journal")


class StoredTables:
    """HC tables in memory, keys and values in device memory, host memory and a file.

    Attributes:
        tokens: that have passed all layers, those of an earlier process included.
        tabled: of these, [sinks, tabled) are in the tables.
        frames: frames among the chunks.
        stage: of the last chunk, `frame` or `text`; None before the first.
        attended: per KV head the tokens that were delivered last, int64 ascending.
        lost_bytes: of a chunk that was not whole when the file was opened.
    """

    def __init__(
        self,
        settings: ResvSettings,
        shape: Shape,
        transport: CommandTransport,
        path: Path,
        budgets: Budgets,
        *,
        model: str,
        bits: int = 16,
        sequence: int = 0,
    ) -> None:
        """Opens the file where an earlier process left it, or begins it.

        Args:
            settings: knobs.
            shape: the decoder's dimensions.
            transport: the accelerator.
            path: of the file; its journal is beside it.
            budgets: memory for keys and values.
            model: identifies the weights, such as `Decoder.fingerprint`.
            bits: of a value in the file (`vrex.sw.retrieval.cache.records.BITS`); in memory it is BF16.
            sequence: stream id in the commands.

        Raises:
            UserError: the file is damaged, another model's, another version's or in use, a budget is too
                small, or the system refuses.
            DriverError: the accelerator refused or did not answer.
        """
        self._shape, self._sinks = shape, settings.sinks
        self._host = HostTables(settings, shape, transport, sequence)
        self._tables = [table for layer in self._host.layers for table in layer]
        records = Records(self._tables[0].group.size, shape.head_dim, bits)
        identity = {
            "model": model,
            "layers": shape.layers,
            "KV heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "bits": bits,
            **{knob: getattr(settings, knob) for knob in KNOBS},
        }
        # Means of another rounding may not go on in the same file.
        if transport.config.mean.dithered:
            identity["means"] = transport.config.mean.rounding
        words = self._tables[0].hc.hashes.shape[1]
        # The window, and behind it at most two chunks: the last one's tokens leave with the next.
        resident = settings.sinks + (settings.window + 2) * shape.step_tokens
        # Before there is a file.
        room(budgets, len(self._tables) * 2 * int(np.prod(records.shape)), resident)
        self._file = SegmentFile(path, identity, records, words)
        self._journal = Journal(journal_of(path))
        self._journaled = Traffic()
        try:
            self._tiers = Tiers(records, len(self._tables), settings.sinks, budgets, resident, self._file)
            self._resident = [Resident(settings.sinks, shape) for _ in range(shape.layers)]
            self._chunk: list[np.ndarray] = []
            self.attended: list[np.ndarray] = []
            self.tokens, self.tabled, self.frames, self.lost_bytes = 0, settings.sinks, 0, 0
            self.stage: str | None = None
            if self._begins():
                self._journal.begin(self._base())
            else:
                self._reopen()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the files, which keep all complete chunks."""
        self._journal.close()
        self._file.close()

    def select(self, wanted: list[tuple[int, np.ndarray, int]]) -> list[Selection]:
        """See `Tables.select`."""
        return self._host.select(wanted)

    def choose(self, chunk: Chunk, selection: Selection, sinks: int) -> Delivered:
        """Keys and values to attend to, per KV head, fetched from their tiers (see `Tables.choose`).

        Raises:
            UserError: the file is damaged.
        """
        self.attended = self._host.choose(chunk, selection, sinks)
        kv: list[np.ndarray] = []
        for number, heads in self._of(chunk.layer):
            wanted = selection.tokens[heads]
            union = np.unique(np.concatenate(wanted))
            fetched = self._tiers.fetch(number, union)
            kv += [fetched[np.searchsorted(union, ids), :, i] for i, ids in enumerate(wanted)]
        return self._resident[chunk.layer].around(kv, sinks, selection.tabled, chunk.start)

    def add(self, chunk: Chunk, first: int, last: int) -> None:
        """Takes the chunk into the window and tokens from there into the tables (see `Tables.add`).

        Raises:
            DriverError: the accelerator refused or did not answer, or a table is full.
            UserError: the system refuses to write; the file keeps all chunks before this one.
            ValueError: the cache is not in BF16.
        """
        kv = bf16_of(chunk)
        if chunk.layer == 0:
            self._chunk = []
            self._free_host(last - first)
        self._take(chunk.layer, kv, first, last)
        self._chunk.append(kv)
        if chunk.layer == self._shape.layers - 1:
            self._finish(chunk.start + kv.shape[2], last, chunk.stage)
            meta = {"first": first, "last": last, "stage": chunk.stage}
            self._write_journal(_packed(meta, np.stack(self._chunk)))

    def report(self) -> dict[str, Any]:
        """See `Tables.report`; and `cache`.

        Returns:
            As there, and in `cache`:
                tiers: tokens (each counted once an HC table), bytes and seconds that attention read from
                    `device`, `host` and `file`, and that were `written` to the file and to the `journal`.
                file_bytes, segments: of the file; `journal_bytes`: of the journal.
                metadata_bytes: memory of the HC tables and of the places of tokens, besides the budgets.
        """
        tiers = {name: traffic.to_dict() for name, traffic in self._tiers.traffic.items()}
        tables = sum(_table_bytes(table.hc) for table in self._tables)
        return {
            **self._host.report(),
            "cache": {
                "tiers": {**tiers, "journal": self._journaled.to_dict()},
                "file_bytes": self._file.end,
                "segments": self._file.segments,
                "journal_bytes": self._journal.end,
                "metadata_bytes": tables + self._tiers.metadata_bytes(),
            },
        }

    def _of(self, layer: int) -> list[tuple[int, slice]]:
        """Number and KV heads of each of a layer's tables."""
        tables = self._host.layers[layer]
        return [(layer * len(tables) + i, table.group.heads) for i, table in enumerate(tables)]

    def _free_host(self, tokens: int) -> None:
        """Moves host memory to the file if so many tokens don't fit; between two chunks only."""
        if self._tiers.free >= tokens:
            return
        self._tiers.check_free(tokens)
        self._tiers.flush([table.hc for table in self._tables])
        with self._journaled:
            self._journal.begin(self._base())
            self._journaled.count(0, self._journal.end)

    def _take(self, layer: int, kv: np.ndarray, first: int, last: int) -> None:
        """A layer's part of a chunk, uint16 [2, KV heads, rows, head_dim]; tokens first..last-1 leave."""
        resident = self._resident[layer]
        resident.add(kv, first)
        if first < last:
            leaving = resident.read(first, last)
            self._host.take(layer, leaving[0], np.arange(first, last))
            for number, heads in self._of(layer):
                self._tiers.add(number, first, leaving[:, heads].transpose(2, 0, 1, 3))

    def _finish(self, tokens: int, tabled: int, stage: str) -> None:
        """All layers have taken a chunk in."""
        self._tiers.advance(max(tabled, self._sinks))
        self.tokens, self.tabled, self.stage = tokens, tabled, stage
        self.frames += stage == FRAME

    def _write_journal(self, record: bytes) -> None:
        with self._journaled:
            self._journal.append(record)
            self._journaled.count(0, len(record))

    def _base(self) -> bytes:
        """A journal's first record: the file's length, and what of the past is not in the file."""
        filed = self._tiers.filed
        meta = {
            "segment_bytes": self._file.end,
            "filed": filed,
            "tokens": self.tokens,
            "frames": self.frames,
            "stage": self.stage,
        }
        sinks = min(self._sinks, self.tokens)
        kv = [
            np.concatenate([layer.read(0, sinks), layer.read(filed, max(filed, self.tokens))], axis=2)
            for layer in self._resident
        ]
        return _packed(meta, np.stack(kv))

    def _begins(self) -> bool:
        """Whether the file is new, or was left before its journal began."""
        if self._journal.path.exists():
            return False
        if self._file.is_empty:
            return True
        raise UserError(
            f"the cache {self._file.path} has no journal {self._journal.path}; put it back, or delete the "
            "cache to begin anew"
        )

    def _reopen(self) -> None:
        """The state as of the last whole chunk."""
        (base, *chunks), self.lost_bytes = self._journal.read()
        meta, kv = _unpacked(base, self._shape)
        self._tiers.advance(meta["filed"])
        self._restore(list(self._file.scan(meta["segment_bytes"])))
        self._tiers.filed = meta["filed"]
        for layer, part in zip(self._resident, kv, strict=True):
            layer.add(part, meta["filed"])
        self.tokens, self.tabled, self.stage = meta["tokens"], meta["filed"], meta["stage"]
        self.frames = meta["frames"]
        for record in chunks:
            meta, kv = _unpacked(record, self._shape)
            if self._tiers.free < meta["last"] - meta["first"]:
                raise UserError(
                    f"the cache {self._file.path} was written with more bytes of host memory; allow as many"
                )
            for index, part in enumerate(kv):
                self._take(index, part, meta["first"], meta["last"])
            self._finish(self.tokens + kv.shape[3], meta["last"], meta["stage"])

    def _restore(self, runs: list[tuple[Run, np.ndarray]]) -> None:
        """HC tables and places of all tokens in the file."""
        for number, table in enumerate(self._tables):
            mine = [(run, rows) for run, rows in runs if run.table == number]
            if not mine:
                continue
            clusters = max(int(run.clusters.max()) for run, _ in mine) + 1
            hashes = np.zeros((clusters, mine[0][0].hashes.shape[1]), dtype=np.uint32)
            means = np.zeros((clusters, mine[0][0].means.shape[1]), dtype=np.uint16)
            for run, rows in mine:
                hashes[run.clusters], means[run.clusters] = run.hashes, run.means
                self._tiers.restore(number, run.tokens, rows)
            tokens = np.concatenate([run.tokens for run, _ in mine])
            owners = np.concatenate([np.repeat(run.clusters, run.counts) for run, _ in mine])
            order = np.argsort(tokens)
            table.hc.restore(hashes, means, tokens[order], owners[order])
            table.refresh(np.arange(clusters))


def _table_bytes(table: HCTable) -> int:
    """Of an HC table's content."""
    arrays = (table.hashes, table.counts, table.means, table.token_ids, table.token_cluster)
    return sum(array.nbytes for array in arrays)


def _packed(meta: dict[str, Any], kv: np.ndarray) -> bytes:
    """A record of the journal; kv is uint16 [layers, 2, KV heads, tokens, head_dim]."""
    text = json.dumps(meta).encode()
    return len(text).to_bytes(4, "little") + text + kv.astype("<u2", copy=False).tobytes()


def _unpacked(record: bytes, shape: Shape) -> tuple[dict[str, Any], np.ndarray]:
    """Inverse of `_packed`."""
    end = 4 + int.from_bytes(record[:4], "little")
    kv = np.frombuffer(record, dtype="<u2", offset=end)
    return json.loads(record[4:end]), kv.reshape(shape.layers, 2, shape.kv_heads, -1, shape.head_dim)
