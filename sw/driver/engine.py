"""The retrieval engine as the policies use it: arrays in, arrays out, faults as sentences."""

from dataclasses import dataclass

import numpy as np

from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import MAX_CLUSTERS
from vrex.model.hcu import Clustering
from vrex.model.kvpu import scale_to_register
from vrex.model.wtu import Rule
from vrex.sw.driver.transport import Batch, DriverError, Results, Transport, describe

TAGS = 1 << 16


@dataclass(frozen=True)
class SelectRequest:
    """Scores of one HC table.

    Attributes:
        scores: BF16 bits, uint16 [KV heads, rows, C], C >= 1.
        counts: token counts, integers [C], 1..65535.
        layer: decoder layer.
        kv_heads: mask with one bit per KV head of `scores`; None takes the lowest ones.
    """

    scores: np.ndarray
    counts: np.ndarray
    layer: int
    kv_heads: int | None = None


class Engine:
    """One accelerator's CLUSTER and SELECT. It must be the only one that writes the accelerator's registers.

    Attributes:
        rows: rows of scores selected so far.
        degenerate: those of rule `raw` with a sum <= 0; only their top cluster was taken.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.config = transport.config
        self.rows = self.degenerate = 0
        self._tag = 0
        self._registers: dict[Register, int] = {}
        self._wanted: dict[Register, int] = {}

    def set_rule(self, rule: Rule, th_hd: int) -> None:
        """Sets thresholds and selection rule for all later commands; what is set already is not sent again.

        Args:
            rule: selection rule; its `buckets` are the hardware's and can't be set.
            th_hd: Hamming threshold, 0..255.

        Raises:
            DriverError: a value that a register can't hold.
        """
        wanted = {
            Register.TH_HD: th_hd,
            Register.TH_R: rule.th_r,
            Register.TRANSFORM: int(rule.transform),
            Register.SELECTION: int(rule.selection),
            Register.SCALE: scale_to_register(rule.scale),
        }
        self._write_registers(wanted)
        self._wanted = wanted

    def cluster(
        self, tokens: np.ndarray, clusters: np.ndarray, *, sequence: int = 0, layer: int = 0
    ) -> Clustering:
        """Clusters tokens in order (see `vrex.model.hcu.cluster`).

        Args:
            tokens: hash words, uint32 [n, words], n <= chunk_tokens.
            clusters: hash words of the open clusters, uint32 [C, words].
            sequence, layer: whose they are.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        command = commands.cluster_command(
            self.config, tokens, clusters, tag=self._next_tag(), sequence=sequence, layer=layer
        )
        [(_, result)] = self._submit([command])
        return commands.unpack_clustering(result, len(tokens))

    def select(self, requests: list[SelectRequest], *, sequence: int = 0) -> list[np.ndarray]:
        """Selects clusters, all requests in one batch.

        Returns:
            For each request bool [KV heads, C]: clusters that any row of the head selects.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        batch = [
            commands.select_command(
                self.config,
                request.scores,
                request.counts,
                tag=self._next_tag(),
                sequence=sequence,
                layer=request.layer,
                kv_heads=request.kv_heads,
            )
            for request in requests
        ]
        results = self._submit(batch)
        self.rows += sum(request.scores.shape[0] * request.scores.shape[1] for request in requests)
        self.degenerate += sum(completion.detail for completion, _ in results)
        return [
            commands.unpack_masks(self.config, data, len(request.counts), len(request.scores))
            for request, (_, data) in zip(requests, results, strict=True)
        ]

    def read_register(self, register: Register) -> int:
        """A register's or counter's value, 32 bits."""
        [(completion, _)] = self._submit([(Descriptor(Opcode.GETREG, self._next_tag(), count=register), b"")])
        return completion.detail

    def _next_tag(self) -> int:
        tag, self._tag = self._tag, (self._tag + 1) % TAGS
        return tag

    def _write_registers(self, wanted: dict[Register, int]) -> None:
        changed = {r: value for r, value in wanted.items() if self._registers.get(r) != value}
        if not changed:
            return
        batch: Batch = [
            (Descriptor(Opcode.SETREG, self._next_tag(), count=register, param=value), b"")
            for register, value in changed.items()
        ]
        self._send(batch)
        self._registers.update(changed)

    def _submit(self, batch: Batch) -> Results:
        # Writes something only after a fault, when the registers may hold other values.
        self._write_registers(self._wanted)
        return self._send(batch)

    def _send(self, batch: Batch) -> Results:
        """Submits, and turns the first completion that is not OK into a sentence."""
        try:
            results = self.transport.submit(batch)
            for (command, _), (completion, _) in zip(batch, results, strict=True):
                self._check(command, completion)
        except DriverError:
            self._registers.clear()
            raise
        return results

    def _check(self, command: Descriptor, completion: Completion) -> None:
        if completion.tag != command.tag:
            raise DriverError(
                f"the accelerator answered {describe(command)} with the tag {completion.tag}: "
                "host and accelerator are out of step, so open it again"
            )
        if completion.status != Status.OK:
            raise DriverError(self._complaint(command, completion))

    def _complaint(self, command: Descriptor, completion: Completion) -> str:
        name = self.config.name
        match completion.status:
            case Status.CAPACITY:
                return (
                    f"layer {command.layer} has {command.clusters} clusters, but preset {name}'s WTU holds "
                    f"rows of {self.config.wtu.row_clusters}; raise th_hd or take a larger preset"
                )
            case Status.TABLE_FULL:
                return (
                    f"the HC table of layer {command.layer} would need more than {MAX_CLUSTERS} clusters; "
                    "raise th_hd or shorten the video"
                )
            case Status.BAD_VALUE:
                return (
                    f"register {Register(command.count).name} can't hold {command.param}; "
                    "see vrex.model.commands.Register for its range"
                )
        status = Status(completion.status).name if completion.status in list(Status) else completion.status
        return (
            f"the accelerator refused {describe(command)} with status {status}; "
            "compare it with the table of commands in vrex.model.commands"
        )
