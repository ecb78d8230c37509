"""The tools of each family: from RTLIL to cells, from cells to a placement, from a placement to a bitstream.

Files lie in a folder of their own, because the tools, WebAssembly, see no others.
"""

import base64
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.hw.fpga.families import ECP5, GOWIN, ICE40, XILINX7, Family
from vrex.hw.fpga.top import NAME
from vrex.hw.tools.synth import ecp5, multipliers, tools

ADVICE = "choose a smaller preset or a larger board"
"""What to do when a tool fails."""

RTLIL, NETLIST, REPORT = f"{NAME}.il", "mapped.json", "report.json"

_SYNTH = {
    ECP5.name: ecp5.SYNTH,
    ICE40.name: [f"synth_ice40 -dsp -top {NAME}"],
    GOWIN.name: [f"synth_gowin -top {NAME}"],
    XILINX7.name: [f"synth_xilinx -flatten -family xc7 -top {NAME}"],
}
"""Yosys's commands."""

_PLACE = ["--timing-allow-fail", "--report", REPORT]

Plan = Mapping[str, str]
"""Amaranth's files of a design, by name."""


_OWN_VERSION = re.compile(r'"(nextpnr-[\w-]+)" -- .*\(Version (\S+)\)')


@dataclass(frozen=True)
class OwnNextpnr:
    """A nextpnr of the machine's own.

    Attributes:
        program: the file.
        name, version: as it says.
    """

    program: Path
    name: str
    version: str


def own_nextpnr(program: Path, family: Family) -> OwnNextpnr:
    """Asks a program what it is.

    Raises:
        UserError: it is no nextpnr for this family, or can't be run.
    """
    said: list[str] = []
    tools.run_program(program, ["--version"], Path(), "name a nextpnr", said.append)
    found = next(filter(None, map(_OWN_VERSION.search, said)), None)
    wanted = family.packages[0].removeprefix("yowasp_").replace("_", "-")
    if found is None or not wanted.startswith(found[1]):
        raise UserError(f"{program} is no {wanted}, which this board needs")
    return OwnNextpnr(program, *found.groups())


class Toolchain:
    """What Yosys, nextpnr and a packer are told, and what they make.

    Args:
        family: of the FPGA.
        plan: files that Amaranth's platform has made.
        nextpnr: a program instead of the package's.
    """

    def __init__(self, family: Family, plan: Plan, nextpnr: OwnNextpnr | None = None) -> None:
        self.family, self.plan, self.nextpnr = family, plan, nextpnr
        commands = json.loads(plan[f"build_{NAME}.json"])["commands"]
        self._commands = {Path(command[0]).name.partition("-")[0]: command[1:] for command in commands}
        self._own = {} if nextpnr is None else {nextpnr.name: nextpnr.version}

    @property
    def versions(self) -> dict[str, str]:
        """Of all the tools, by name. A program of the machine's own is beside the package, which packs."""
        return tools.versions(tools.YOSYS, *self.family.packages) | self._own

    # -- cells -------------------------------------------------------------------------------------------

    @property
    def synth(self) -> str:
        """Yosys's commands."""
        return "\n".join(_SYNTH[self.family.name]).format(top=NAME)

    @property
    def map_depends(self) -> list[str]:
        """What the cells depend on, beside the design."""
        own = inspect.getsource(multipliers) if self.family is ECP5 else ""
        return [self.synth, own, *_versions([tools.YOSYS])]

    def map(self, folder: Path) -> dict[str, Any]:
        """Maps a design to the family's cells.

        Raises:
            UserError: Yosys failed.
        """
        source, read = (f"{NAME}.v", "read_verilog") if self.family is XILINX7 else (RTLIL, "read_rtlil")
        (folder / source).write_text(self.plan[source], encoding="utf-8")
        if self.family is ECP5:
            design = ecp5.mapped(NAME, f"{read} {source}", folder, ADVICE)
        else:
            tools.yosys(f"{read} {source}\n{self.synth}\nwrite_json {NETLIST}\n", folder, ADVICE)
            design = json.loads((folder / NETLIST).read_text(encoding="utf-8"))
        # Models of cells are no part of the design, and by far the most of the file.
        design["modules"] = {NAME: design["modules"][NAME]}
        return design

    # -- placement ---------------------------------------------------------------------------------------

    @property
    def device(self) -> list[str]:
        """Options that name the FPGA, as Amaranth has them."""
        words = list(self._commands["nextpnr"])
        at = words.index("--log") + 2
        words = words[at : words.index("--json")]
        if self.family is GOWIN:
            words[words.index("--family") :] = ["--vopt", f"family={words[-1]}"]
        return words

    @property
    def constraints(self) -> dict[str, str]:
        """Files of pins and clocks, by name."""
        endings = (".lpf", ".pcf", ".cst")
        return {name: text for name, text in self.plan.items() if name.endswith(endings)}

    def place_args(self, mhz: float) -> list[str]:
        """Options of nextpnr, but for the seed and what it writes."""
        (name,) = self.constraints
        kind = name.rpartition(".")[2]
        pins = ["--vopt", f"cst={name}"] if kind == "cst" else [f"--{kind}", name]
        return [*self.device, "--freq", f"{mhz:g}", *_PLACE, *pins, "--json", NETLIST]

    def place_depends(self, mhz: float, seed: int) -> list[str]:
        """What a placement depends on, beside the cells."""
        return [
            *self.place_args(mhz),
            str(seed),
            *self.constraints.values(),
            *_versions(self.family.packages),
            *(f"{name} {number}" for name, number in self._own.items()),
        ]

    def place(
        self,
        netlist: Mapping[str, Any],
        mhz: float,
        seed: int,
        folder: Path,
        watch: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Places and routes.

        Args:
            netlist: of `map`.
            mhz: clock that is wished.
            seed: of the placement.
            folder: for the tools' files.
            watch: called with each line that nextpnr prints: a placement of a full device takes hours.

        Returns:
            `placed`: what the packer takes; `report`: nextpnr's.

        Raises:
            UserError: nextpnr failed, for instance because the design does not fit.
        """
        (folder / NETLIST).write_text(json.dumps(netlist), encoding="utf-8")
        for name, text in self.constraints.items():
            (folder / name).write_text(text, encoding="utf-8")
        option, output = _PLACED[self.family.name]
        args = [*self.place_args(mhz), "--seed", str(seed), option, output]
        package = self.family.packages[0]
        if self.nextpnr is not None:
            tools.run_program(self.nextpnr.program, args, folder, ADVICE, watch)
        else:
            tools.run(package, f"run_{package.removeprefix('yowasp_')}", args, folder, ADVICE, watch)
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return {"placed": (folder / output).read_text(encoding="utf-8"), "report": report}

    # -- bitstream ---------------------------------------------------------------------------------------

    @property
    def pack_args(self) -> list[str]:
        """Options of the packer, but for its files."""
        if self.family is ECP5:
            return ["--compress"] if "--compress" in self._commands["ecppack"] else []
        if self.family is GOWIN:
            return [word for word in self._commands["gowin_pack"][:-1] if word not in ("-o", f"{NAME}.fs")]
        return []

    def pack(self, placed: str, folder: Path) -> str:
        """The bitstream of a placement, in Base64.

        Raises:
            UserError: the packer failed.
        """
        source, output = _PLACED[self.family.name][1], f"{NAME}.{self.family.ending}"
        (folder / source).write_text(placed, encoding="utf-8")
        package, function, files = {
            ECP5.name: (self.family.packages[0], "run_ecppack", ["--input", source, "--bit", output]),
            ICE40.name: (self.family.packages[0], "run_icepack", [source, output]),
            GOWIN.name: ("apycula", "gowin_pack.main", ["-o", output, source]),
        }[self.family.name]
        tools.run(package, function, [*self.pack_args, *files], folder, ADVICE)
        return base64.b64encode((folder / output).read_bytes()).decode()


_PLACED = {
    ECP5.name: ("--textcfg", f"{NAME}.config"),
    ICE40.name: ("--asc", f"{NAME}.asc"),
    GOWIN.name: ("--write", "placed.json"),
}
"""nextpnr's option for what the packer takes, and its file."""


def _versions(packages: Sequence[str]) -> list[str]:
    return [f"{name} {number}" for name, number in tools.versions(*packages).items()]
