"""KVPU: the prediction unit at its command interface, HCU and WTU behind one command stream."""

from collections.abc import Callable

import numpy as np

from vrex.model import commands
from vrex.model.commands import CommandError, Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre import hcu, wtu

Result = tuple[bytes, int]
"""Result bytes and the completion's `detail`."""

RESET = {
    Register.TH_HD: 7,
    Register.TH_R: 19661,
    Register.TRANSFORM: wtu.Transform.RAW,
    Register.SELECTION: wtu.Selection.EXACT,
    Register.SCALE: 0,
}
"""Register values after reset: the paper's N_hp-independent setting (Th_hd 7, Th_r 0.3, raw scores)."""


def scale_to_register(scale: wtu.Scale) -> int:
    """SCALE register of a scale."""
    return scale.mantissa | (scale.exponent & 0xFF) << 16


def scale_from_register(value: int) -> wtu.Scale:
    """Inverse of `scale_to_register`."""
    exponent = value >> 16 & 0xFF
    return wtu.Scale(value & 0xFFFF, exponent - 256 if exponent >= 128 else exponent)


def _valid_scale(value: int) -> bool:
    return value < 1 << 24 and (value & 0xFFFF == 0 or value & 0x8000 != 0)


VALID: dict[Register, Callable[[int], bool]] = {
    Register.TH_HD: lambda value: value < 256,
    Register.TH_R: lambda value: value < 1 << wtu.TH_R_BITS,
    Register.TRANSFORM: lambda value: value in list(wtu.Transform),
    Register.SELECTION: lambda value: value in list(wtu.Selection),
    Register.SCALE: _valid_scale,
}
"""Writable registers and the values they take."""

COUNTERS = (
    Register.HCU_BUSY,
    Register.HCU_WAIT_IN,
    Register.HCU_WAIT_OUT,
    Register.WTU_BUSY,
    Register.WTU_WAIT_IN,
    Register.WTU_WAIT_OUT,
    Register.WTU_ROWS,
    Register.WTU_SEARCH,
    Register.WTU_WORDS,
    Register.WTU_EXAMINED,
)
"""Registers that count."""


class RegisterFile:
    """What SETREG writes and GETREG reads.

    Attributes:
        values: of the writable registers and of the counters that the model keeps; others read 0, for the
            model has no clock.
    """

    def __init__(
        self,
        reset: dict[Register, int],
        valid: dict[Register, Callable[[int], bool]],
        counters: tuple[Register, ...],
    ) -> None:
        self.values = {register: int(value) for register, value in reset.items()}
        self._valid, self._counters = valid, counters

    def set(self, command: Descriptor) -> None:
        """Executes SETREG."""
        if command.count not in list(self._valid):
            raise CommandError(Status.BAD_REGISTER)
        register = Register(command.count)
        if not self._valid[register](command.param):
            raise CommandError(Status.BAD_VALUE)
        check_length(command, 0)
        self.values[register] = command.param

    def get(self, command: Descriptor) -> int:
        """Executes GETREG."""
        if command.count not in (*self._valid, *self._counters):
            raise CommandError(Status.BAD_REGISTER)
        check_length(command, 0)
        return self.values.get(Register(command.count), 0)

    def rule(self, config: Config) -> wtu.Rule:
        """The selection rule."""
        return wtu.Rule(
            th_r=self.values[Register.TH_R],
            transform=wtu.Transform(self.values[Register.TRANSFORM]),
            selection=wtu.Selection(self.values[Register.SELECTION]),
            buckets=config.wtu.buckets,
            scale=scale_from_register(self.values[Register.SCALE]),
        )


class Kvpu:
    """Golden KVPU. Cycle counters read 0: the model has no clock."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.registers = RegisterFile(RESET, VALID, COUNTERS)

    def execute(self, command: Descriptor, payload: bytes) -> tuple[Completion, bytes]:
        """Runs one command.

        Args:
            command: descriptor.
            payload: its data, `command.length` bytes rounded up to whole beats.
        """
        try:
            result, detail = self._dispatch(command, payload)
        except CommandError as error:
            return Completion(command.tag, error.status), b""
        return Completion(command.tag, Status.OK, size=len(result), detail=detail), result

    def _dispatch(self, command: Descriptor, payload: bytes) -> Result:
        operations: dict[int, Callable[[Descriptor, bytes], Result]] = {
            Opcode.SETREG: self._setreg,
            Opcode.GETREG: self._getreg,
            Opcode.CLUSTER: self._cluster,
            Opcode.SELECT: self._select,
        }
        if command.opcode not in operations:
            raise CommandError(Status.BAD_OPCODE)
        return operations[command.opcode](command, payload)

    def _setreg(self, command: Descriptor, payload: bytes) -> Result:
        self.registers.set(command)
        return b"", 0

    def _getreg(self, command: Descriptor, payload: bytes) -> Result:
        return b"", self.registers.get(command)

    def _cluster(self, command: Descriptor, payload: bytes) -> Result:
        config = self.config
        if not 1 <= command.count <= config.hcu.chunk_tokens:
            raise CommandError(Status.BAD_COUNT)
        check_length(command, commands.cluster_length(config, command.count, command.clusters))
        split = config.beats(command.count, config.hcu.hash_bits) * config.bus_bytes
        tokens = commands.bytes_to_hashes(config, payload[:split], command.count)
        clusters = commands.bytes_to_hashes(config, payload[split:], command.clusters)
        try:
            result = hcu.cluster(tokens, clusters, self.registers.values[Register.TH_HD])
        except hcu.TableFullError:
            raise CommandError(Status.TABLE_FULL) from None
        return commands.pack_clustering(config, result), int(result.opened.sum())

    def _select(self, command: Descriptor, payload: bytes) -> Result:
        config, clusters = self.config, command.clusters
        n_heads = command.kv_heads.bit_count()
        if command.count == 0 or n_heads == 0:
            raise CommandError(Status.BAD_COUNT)
        if clusters > config.wtu.mask_clusters:
            raise CommandError(Status.CAPACITY)
        check_length(command, commands.select_length(config, command.count, clusters, command.kv_heads))
        scores, counts = commands.select_payload(config, payload, n_heads * command.count, clusters)
        chosen = wtu.select(scores, counts, self.registers.rule(config))
        masks = np.any(chosen.rows.reshape(n_heads, command.count, clusters), axis=1)
        return commands.pack_masks(config, list(masks)), chosen.degenerate


def check_length(command: Descriptor, expected: int) -> None:
    """Raises CommandError(BAD_LENGTH) unless the payload has this length."""
    if command.length != expected:
        raise CommandError(Status.BAD_LENGTH)
