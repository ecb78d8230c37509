"""Models of the ECP5's cells: the small ones proved equal to Yosys's, the others compared with integers."""

import re
from itertools import product
from pathlib import Path
from random import Random

import pytest

from vrex.errors import UserError
from vrex.hw.tools.gates.ecp5_models import MODELS
from vrex.hw.tools.synth import tools

FLIP_FLOPS = [
    f'.CLKMUX("{clock}"), .CEMUX("{enable}"), .LSRMUX("{forced}"), .SRMODE("{mode}"), .REGSET("{value}")'
    for clock in ("CLK", "INV")
    for enable, forced, value in (("1", "LSR", "RESET"), ("CE", "LSR", "SET"), ("INV", "INV", "RESET"))
    for mode in ("LSR_OVER_CE", "ASYNC")
]
SMALL = {
    "LUT4": ("A, B, C, D", "Z", [f".INIT(16'h{init})" for init in ("8000", "cafe", "6996")]),
    "PFUMX": ("ALUT, BLUT, C0", "Z", [""]),
    "L6MUX21": ("D0, D1, SD", "Z", [""]),
    "CCU2C": (
        "CIN, A0, B0, C0, D0, A1, B1, C1, D1",
        "S0, S1, COUT",
        [
            f'.INIT0(16\'h{first}), .INIT1(16\'h{second}), .INJECT1_0("{a}"), .INJECT1_1("{b}")'
            for first, second in (("96aa", "5aaa"), ("c35a", "1234"))
            for a, b in (("NO", "NO"), ("YES", "NO"), ("NO", "YES"))
        ],
    ),
    "TRELLIS_FF": ("CLK, LSR, CE, DI", "Q", FLIP_FLOPS),
    "TRELLIS_DPR16X4": (
        "[3:0] DI, WAD, RAD, input WRE, WCK",
        "[3:0] DO",
        [
            f'.WCKMUX("{clock}"), .WREMUX("{enable}"), .INITVAL(64\'h0123456789abcdef)'
            for clock, enable in (("WCK", "WRE"), ("INV", "INV"))
        ],
    ),
}
"""Inputs, outputs, and parameters to prove each with."""


def _prove(kind: str, model: str, folder: Path) -> None:
    """Raises UserError unless the model equals Yosys's, for six steps of all inputs, clocks too."""
    inputs, outputs, given = SMALL[kind]
    pins = re.findall(r"[A-Z]\w*", f"{inputs} {outputs}")
    links = ", ".join(f".{pin}({pin})" for pin in pins)
    text = model.replace(f"module {kind}(", f"module own_{kind}(")
    lines = [
        "read_verilog -D NO_INCLUDES +/lattice/common_sim.vh +/lattice/ccu2c_sim.vh",
        "read_verilog all.v",
    ]
    lines += ["setattr -mod -unset top *", "hierarchy", "proc"]
    for number, values in enumerate(given):
        for side, name in (("gold", kind), ("gate", f"own_{kind}")):
            text += f"module {side}{number}(input {inputs}, output {outputs});\n"
            text += f"  {name} #({values}) cell(" if values else f"  {name} cell("
            text += f"{links});\nendmodule\n"
        lines += [
            f"flatten gold{number} gate{number}",
            f"memory gold{number} gate{number}",
            f"miter -equiv -flatten -make_assert -ignore_gold_x gold{number} gate{number} miter{number}",
            f"clk2fflogic miter{number}",
            f"sat -verify -prove-asserts -seq 6 miter{number}",
        ]
    (folder / "all.v").write_text(text)
    tools.yosys("\n".join([*lines, ""]), folder)


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_cell_is_that_of_yosys(kind: str, tmp_path: Path) -> None:
    _prove(kind, MODELS[kind], tmp_path)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("LUT4", "{D, C, B, A}", "{C, D, B, A}"),
        ("CCU2C", "on1 ? middle", "on1 ? CIN"),
        ("TRELLIS_FF", "else if (enable) Q", "else Q"),
        ("TRELLIS_DPR16X4", "words[RAD]", "words[WAD]"),
    ],
)
def test_the_proof_finds_a_wrong_model(kind: str, right: str, wrong: str, tmp_path: Path) -> None:
    assert right in MODELS[kind]
    with pytest.raises(UserError, match="proof did fail"):
        _prove(kind, MODELS[kind].replace(right, wrong), tmp_path)


EXTREMES = (0, 1, -1, (1 << 17) - 1, -(1 << 17))


def test_products_are_those_of_integers(tmp_path: Path) -> None:
    """All four kinds of signs, extremes and random words."""
    random = Random(1)
    pairs = [
        *product(EXTREMES, repeat=2),
        *((random.getrandbits(18), random.getrandbits(18)) for _ in range(8)),
    ]
    wanted, commands = [], []
    for (a, b), signs in product(pairs, range(4)):
        values = {}
        for name, value, signed in (("A", a, signs & 1), ("B", b, signs >> 1)):
            bits = value & (1 << 18) - 1
            values[name] = bits - (bits >> 17 << 18) if signed else bits
            sets = [f"-set {name}{bit} {bits >> bit & 1}" for bit in range(18)]
            commands.append(" ".join([*sets, f"-set SIGNED{name} {signed}"]))
        wanted.append(f"{values['A'] * values['B'] & (1 << 36) - 1:036b}")
    sets = [" ".join(two) for two in zip(commands[::2], commands[1::2], strict=True)]
    shows = " ".join(f"-show P{bit}" for bit in reversed(range(36)))
    script = "".join(f"tee -q -a out.txt eval {each} {shows}\n" for each in sets)
    (tmp_path / "model.v").write_text(MODELS["MULT18X18D"])
    tools.yosys(f"read_verilog model.v\nproc\nopt\ncd MULT18X18D\n{script}", tmp_path)
    shown = re.findall(r"\\P(\d+) = 1'([01])", (tmp_path / "out.txt").read_text())
    seen = ["".join(bit for _, bit in shown[at : at + 36]) for at in range(0, len(shown), 36)]
    assert shown[0][0] == "35"
    assert seen == wanted
