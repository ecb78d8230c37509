"""What a board says of itself, so that host and board are sure to mean the same accelerator."""

import hashlib
import json
from dataclasses import dataclass

from vrex.model.config import Config
from vrex.model.serial.frames import CAPABILITIES, VERSION, FrameError

UNITS = {"kvpu": 1, "dre": 2, "core": 3}
"""Numbers of the units in HELLO."""

_DRE = ("bus_bits", "hcu", "wtu", "kvmu", "mean")
PARTS = {
    "kvpu": ("bus_bits", "hcu", "wtu"),
    "dre": _DRE,
    "core": (*_DRE, "dpe", "vpe", "lxe", "core"),
}
"""What of a configuration each unit is made of."""

DIGEST_BYTES = 8


@dataclass(frozen=True)
class Capabilities:
    """What HELLO says: the fields of `CAPABILITIES`."""

    unit: int
    bus_bytes: int
    slots: int
    digest: int
    memory: int = 0
    version: int = VERSION

    def pack(self) -> bytes:
        """20 bytes."""
        return CAPABILITIES.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "Capabilities":
        """Inverse of `pack`; other versions may have more behind, or less, which counts as zeros.

        Raises:
            FrameError: too few bytes.
        """
        if len(data) < CAPABILITIES.size and data[:1] in (b"", bytes([VERSION])):
            raise FrameError(f"HELLO has {CAPABILITIES.size} bytes, not {len(data)}")
        return cls(**CAPABILITIES.unpack(data[: CAPABILITIES.size].ljust(CAPABILITIES.size, b"\0")))

    @property
    def unit_name(self) -> str:
        """The unit, for people."""
        names = {number: name for name, number in UNITS.items()}
        return names.get(self.unit, f"unit {self.unit}")


def digest(config: Config, unit: str) -> int:
    """First 64 bits of the SHA-256 of what a unit is made of; names don't count.

    Args:
        config: accelerator.
        unit: of `UNITS`.
    """
    described = config.to_dict()
    parts = {part: described[part] for part in PARTS[unit]}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:DIGEST_BYTES], "little")


def capabilities(config: Config, unit: str, slots: int, memory: int = 0) -> Capabilities:
    """Those of a board.

    Args:
        config: accelerator.
        unit: of `UNITS`.
        slots: frames that it buffers.
        memory: bytes of its memory.
    """
    return Capabilities(UNITS[unit], config.bus_bytes, slots, digest(config, unit), memory)
