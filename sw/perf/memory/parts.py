"""Memory parts: one channel of a DRAM, or a drive, by their timing parameters."""

from dataclasses import dataclass

from vrex.errors import UserError
from vrex.sw.perf.description.sections import build, find, number, read_toml, whole, word


@dataclass(frozen=True, kw_only=True)
class Dram:
    """One channel of a DRAM; times in ns.

    Attributes:
        title: as tables name it.
        rate_mts: transfers/us of a pin.
        channel_bits: data pins of the channel.
        burst_length: transfers of a burst.
        bank_groups, banks_per_group, row_bytes: of the channel's one rank.
        t_rcd, t_rp, t_ras, t_cl: activate to read, precharge, activate to precharge, read to data.
        t_rrd_s, t_rrd_l, t_faw: between activates of different and of the same bank groups, of any five.
        t_ccd_s, t_ccd_l: between reads in different and in the same bank groups.
        t_rtp: read to precharge.
        t_rfc, t_refi: duration and interval of refreshes of all banks.
        interleave_bytes: in a channel before the next one follows.
        group_bytes: in a channel before the next bank group follows.
        queue: reads among which the controller chooses.
    """

    title: str = word()
    rate_mts: float = number()
    channel_bits: int = whole()
    burst_length: int = whole()
    bank_groups: int = whole()
    banks_per_group: int = whole()
    row_bytes: int = whole()
    t_rcd: float = number()
    t_rp: float = number()
    t_ras: float = number()
    t_cl: float = number()
    t_rrd_s: float = number()
    t_rrd_l: float = number()
    t_faw: float = number()
    t_ccd_s: float = number()
    t_ccd_l: float = number()
    t_rtp: float = number()
    t_rfc: float = number()
    t_refi: float = number()
    interleave_bytes: int = whole()
    group_bytes: int = whole()
    queue: int = whole()

    @property
    def burst_bytes(self) -> int:
        """Bytes of one read."""
        return self.channel_bits * self.burst_length // 8

    @property
    def burst_ns(self) -> float:
        """Time of one read on the data pins."""
        return self.burst_length / self.rate_mts * 1e3

    @property
    def peak(self) -> float:
        """Bytes/s of the data pins."""
        return self.channel_bits / 8 * self.rate_mts * 1e6


@dataclass(frozen=True, kw_only=True)
class Flash:
    """An NVMe drive, as far as reads are concerned.

    Attributes:
        title: as tables name it.
        channels, dies_per_channel, planes: of flash; a die reads one page of each plane at once, if they lie
            side by side.
        page_bytes: of flash.
        read_us: a page's read time.
        channel_mts: transfers/us of a channel one byte wide.
        command_us: of commands and addresses, a transfer on the channel.
        queue: NVMe commands in flight.
        sector_bytes: least that a command transfers.
    """

    title: str = word()
    channels: int = whole()
    dies_per_channel: int = whole()
    planes: int = whole()
    page_bytes: int = whole()
    read_us: float = number()
    channel_mts: float = number()
    command_us: float = number(zero=True)
    queue: int = whole()
    sector_bytes: int = whole()


def load_dram(chosen: str) -> Dram:
    """A DRAM by name or file.

    Raises:
        UserError: there is none, or a field is wrong.
    """
    path = find("parts", chosen, "memory part")
    part = build(Dram, read_toml(path), path)
    for name, unit in (("interleave_bytes", part.burst_bytes), ("group_bytes", part.burst_bytes)):
        if getattr(part, name) % unit:
            raise UserError(
                f"{path}: field {name} = {getattr(part, name)} is no multiple of a burst's {unit} bytes"
            )
    if part.row_bytes % part.group_bytes:
        raise UserError(
            f"{path}: field group_bytes = {part.group_bytes} does not divide row_bytes; correct it"
        )
    return part


def load_flash(chosen: str) -> Flash:
    """A drive by name or file.

    Raises:
        UserError: there is none, or a field is wrong.
    """
    path = find("parts", chosen, "memory part")
    part = build(Flash, read_toml(path), path)
    if part.page_bytes % part.sector_bytes:
        raise UserError(
            f"{path}: field sector_bytes = {part.sector_bytes} does not divide page_bytes; correct it"
        )
    return part
