"""A system: compute engines, memory, link, where the KV cache is offloaded to, and power."""

from dataclasses import dataclass
from pathlib import Path

from vrex.errors import UserError
from vrex.sw.perf.description.sections import build, find, number, read_toml, whole, word

GPU, ACCELERATOR = "gpu", "v-rex"
SSD, HOST = "ssd", "host"


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What multiplies.

    Attributes:
        kind: `gpu`, or `v-rex`: cores of this project's RTL, whose cycles come from the calibration.
        peak_tflops: dense BF16.
        cores, clock_mhz: of an accelerator; a GPU's multiprocessors and clock.
        roofline_share: share of the roofline that a GPU's kernels reach, in bandwidth and arithmetic; 1 for
            an accelerator, whose shares follow from its cycles and from its memory's timing.
        launch_us: time from one dependent kernel to the next; 0 for an accelerator.
    """

    kind: str = word(GPU, ACCELERATOR)
    peak_tflops: float = number()
    cores: int = whole()
    clock_mhz: float = number()
    roofline_share: float = number(most=1)
    launch_us: float = number(zero=True)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The accelerator's own memory.

    Attributes:
        part: name of the DRAM in `data/parts`, or a file.
        channels: of that part's width.
        capacity_gb: 10^9 bytes.
    """

    part: str = word()
    channels: int = whole()
    capacity_gb: float = number()


@dataclass(frozen=True, kw_only=True)
class Link:
    """PCI Express to what the KV cache is offloaded to.

    Attributes:
        generation, lanes: of PCIe.
        max_payload: bytes of a packet.
    """

    generation: int = whole(most=6)
    lanes: int = whole(most=32)
    max_payload: int = whole(most=4096)


@dataclass(frozen=True, kw_only=True)
class Offload:
    """Behind the link.

    Attributes:
        kind: `ssd`, or `host`: memory of a host.
        part: name in `data/parts`, or a file.
        channels: of a host's memory; of an SSD 1, whose channels are in its part.
        capacity_gb: 10^9 bytes.
    """

    kind: str = word(SSD, HOST)
    part: str = word()
    channels: int = whole()
    capacity_gb: float = number()


@dataclass(frozen=True, kw_only=True)
class Power:
    """Power and energy.

    Attributes:
        board_w: nameplate.
        compute_w: engines while they work; of a GPU its board with its memory.
        idle_w: of engines, or of a GPU's board, while they wait.
        dram_pj_bit: of a bit read or written in the accelerator's memory; 0 where `compute_w` holds it.
        lane_w: of a PCIe lane that transfers.
        offload_w: SSD or host memory while it delivers.
    """

    board_w: float = number()
    compute_w: float = number()
    idle_w: float = number(zero=True)
    dram_pj_bit: float = number(zero=True)
    lane_w: float = number(zero=True)
    offload_w: float = number(zero=True)


@dataclass(frozen=True, kw_only=True)
class System:
    """A whole system, as its file describes it.

    Attributes:
        title: as tables name it.
        area_mm2: of the chip.
    """

    title: str = word()
    area_mm2: float = number()
    compute: Compute
    memory: Memory
    link: Link
    offload: Offload
    power: Power


def load_system(chosen: str | Path) -> System:
    """A system by its name or file.

    Raises:
        UserError: there is none, or its file breaks a rule; the sentence names file and field.
    """
    path = find("systems", str(chosen), "system")
    system = build(System, read_toml(path), path)
    check_system(system, path)
    return system


def check_system(system: System, path: Path) -> None:
    """Sees that the fields of a system go together.

    Args:
        system: whose fields are each right.
        path: of the file they stand in, for the message.

    Raises:
        UserError: they don't.
    """
    if system.offload.kind == SSD and system.offload.channels != 1:
        raise UserError(
            f"{path}: field offload.channels = {system.offload.channels} is not 1; an SSD's are in its part"
        )
    if system.link.max_payload & (system.link.max_payload - 1) or system.link.max_payload < 128:
        raise UserError(
            f"{path}: field link.max_payload = {system.link.max_payload} is no power of two from 128; "
            "correct it"
        )
