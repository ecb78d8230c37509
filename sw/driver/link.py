"""Registers, tags and error handling that the engines of the command units share."""

from collections.abc import Sequence

from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import MAX_CLUSTERS
from vrex.model.dre.registers import scale_to_register
from vrex.model.dre.wtu import Rule
from vrex.model.lib.memory import Window
from vrex.sw.driver.command_interface import Batch, CommandTransport, Results, describe
from vrex.sw.driver.transport import DriverError

TAGS = 1 << 16

TIMEOUT = 1 << 16
"""Cycles that memory has for an answer: 82 us at 800 MHz."""


class Link:
    """One accelerator's registers and commands; nothing else may write the registers."""

    def __init__(self, transport: CommandTransport) -> None:
        self.transport = transport
        self.config = transport.config
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
        self._set(
            {
                Register.TH_HD: th_hd,
                Register.TH_R: rule.th_r,
                Register.TRANSFORM: int(rule.transform),
                Register.SELECTION: int(rule.selection),
                Register.SCALE: scale_to_register(rule.scale),
            }
        )

    def read_register(self, register: Register) -> int:
        """A register's or counter's value, 32 bits."""
        return self.read_registers([register])[register]

    def read_registers(self, registers: Sequence[Register]) -> dict[Register, int]:
        """Values of several registers or counters, 32 bits each."""
        batch: Batch = [
            (Descriptor(Opcode.GETREG, self._next_tag(), count=register), b"") for register in registers
        ]
        outcomes = self._submit(batch)
        return {
            register: outcome.completion.detail for register, outcome in zip(registers, outcomes, strict=True)
        }

    def _next_tag(self) -> int:
        tag, self._tag = self._tag, (self._tag + 1) % TAGS
        return tag

    def _set(self, wanted: dict[Register, int]) -> None:
        """Sets registers for all later commands."""
        self._write_registers(wanted)
        self._wanted = self._wanted | wanted

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

    def _set_windows(self, device: Window, host: Window) -> None:
        """Sets where a unit with a memory may go, and how long it waits there."""
        self._set(
            {
                Register.DEVICE_BASE: device.base,
                Register.DEVICE_PAGES: device.pages,
                Register.HOST_BASE: host.base,
                Register.HOST_PAGES: host.pages,
                Register.TIMEOUT: TIMEOUT,
            }
        )

    def _submit(self, batch: Batch) -> Results:
        # Writes only after an error, when the registers may have been reset.
        self._write_registers(self._wanted)
        return self._send(batch)

    def _send(self, batch: Batch) -> Results:
        """Submits, and raises `DriverError` for the first completion that is not OK."""
        try:
            results = self.transport.submit(batch)
            for (command, _), outcome in zip(batch, results, strict=True):
                self._check(command, outcome.completion)
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
        """What a status other than OK means, in one sentence."""
        match completion.status:
            case Status.CAPACITY:
                name, longest = self.config.name, self.config.wtu.mask_clusters
                return (
                    f"layer {command.layer} has {command.clusters} clusters, but preset {name}'s WTU holds "
                    f"rows of {longest}; raise th_hd or take a larger preset"
                )
            case Status.TABLE_FULL:
                return (
                    f"the HC table of layer {command.layer} would need more than {MAX_CLUSTERS} clusters; "
                    "raise th_hd or shorten the video"
                )
            case Status.BAD_VALUE if command.opcode == Opcode.SETREG:
                return (
                    f"register {Register(command.count).name} can't hold {command.param}; "
                    "see vrex.model.commands.Register for its range"
                )
        status = Status(completion.status).name if completion.status in list(Status) else completion.status
        return (
            f"the accelerator refused {describe(command)} with status {status}; "
            "compare it with the table of commands in vrex.model.commands"
        )
