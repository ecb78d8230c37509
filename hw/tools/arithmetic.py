"""C++ functions in place of MAC trees and vector lanes in simulation: the same bits in the same cycles.

`replaced` takes the modules `vrex_mac_tree` and `vrex_vpe_lane` out of a unit's Verilog. Those that it puts
in keep the beats of a chunk, or what goes round in a lane, and call `arithmetic.cpp` by SystemVerilog's DPI:
a tree once a chunk, a lane in every cycle.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vrex.hw.lib.float32 import FP32
from vrex.hw.lxe.mac_tree import latencies
from vrex.hw.lxe.vpe import Vpe
from vrex.hw.lxe.vpe_lane import JOINS, OPCODE_BITS, SEQUENCES, TURN_BITS, Pass
from vrex.model.config import CHUNK, Config, DpeConfig
from vrex.model.lxe import vpe

SOURCE = Path(__file__).with_name("arithmetic.cpp")

TABLES = "arithmetic_tables.h"
"""Header that the source includes."""

OPTIMISE = "-O3"
EXACT = "-ffp-contract=off"
"""Options of the compiler for the source: it must not fuse a product and a sum by itself."""

MARK = 'import "DPI-C"'
"""In Verilog that calls the functions."""

_TREE = """
module vrex_mac_tree(clk, rst, a, b, i_valid, total, o, o_valid);
  import "DPI-C" pure function int unsigned vrex_{scheme}_sum
    (input bit [{chunk}-1:0] a, input bit [{chunk}-1:0] b, input int fraction_bits);
  import "DPI-C" pure function int unsigned vrex_add(input int unsigned a, input int unsigned b);
  input clk, rst, i_valid;
  input [{beat}-1:0] a, b;
  input [31:0] total;
  output reg [31:0] o = 0;
  output o_valid;
  // Bit k: a chunk's last beat came k + 1 cycles ago.
  reg [{latency}-1:0] valid = 0;
  // Sums on their way, and where they are written, added to the total, and given.
  reg [31:0] sums [0:63];
  reg [5:0] first = 0, middle = 0, last = 0;
{beats}
  reg complete;
  assign o_valid = valid[{latency}-1];
  always @(posedge clk) begin
    complete = i_valid && {ends};
    valid <= {{valid[{latency}-2:0], complete}};
    if (complete) begin
      sums[first] = vrex_{scheme}_sum({chunk_a}, {chunk_b}, {fraction_bits});
      first = first + 1;
    end
    if (valid[{total_latency}-1]) begin
      sums[middle] = vrex_add(total, sums[middle]);
      middle = middle + 1;
    end
    if (valid[{latency}-2]) begin
      o <= sums[last];
      last = last + 1;
    end
{keep}
    if (rst) begin
      valid <= 0;
      first = 0;
      middle = 0;
      last = 0;
{clear}
    end
  end
endmodule
"""

_LANE = """
module vrex_vpe_lane(clk, rst, opcode, turn, add, fold, stay, a, b, c, left, right, o);
  import "DPI-C" function void vrex_lane_pass
    (input int unsigned opcode, input int unsigned turn, input int unsigned flags, input int unsigned a,
     input int unsigned b, input int unsigned c, input int unsigned left, input int unsigned right,
     input bit [127:0] at, output bit [127:0] next);
  input clk, rst, add, fold, stay;
  input [{opcode}-1:0] opcode;
  input [{turn}-1:0] turn;
  input [31:0] a, b, c, left, right;
  output [31:0] o;
  // What goes round, the place that is written next, and the element that returns.
  reg [127:0] ring [0:{length}-1];
  reg [{place}-1:0] place = 0;
  reg [127:0] head = 0, next;
  assign o = head[31:0];
  always @(posedge clk) begin
    vrex_lane_pass({{28'd0, opcode}}, {{28'd0, turn}}, {{29'd0, stay, fold, add}}, a, b, c, left, right,
                   head, next);
    ring[place] = next;
    place = place == {length} - 1 ? 0 : place + 1;
    head <= ring[place];
  end
endmodule
"""


def replaced(verilog: str, config: Config) -> str:
    """A unit's Verilog whose trees and lanes are functions; it is compiled with `SOURCE` and `tables`.

    Raises:
        ValueError: it has neither.
    """
    modules = {"mac_tree": tree_verilog(config.dpe), "vpe_lane": lane_verilog(Vpe.ring_length(config.vpe))}
    added = []
    for name, text in modules.items():
        # The parts of a module have its name in front of theirs.
        pattern = rf"(?ms)^module vrex_{name}(_\w+)?\(.*?^endmodule\n"
        verilog, count = re.subn(pattern, "", verilog)
        if count:
            added.append(text)
    if not added:
        raise ValueError("the unit has neither MAC trees nor vector lanes")
    return verilog + "".join(added)


def tree_verilog(config: DpeConfig) -> str:
    """Module `vrex_mac_tree` (`vrex.hw.lxe.mac_tree.MacTree`) with functions."""
    total_latency, latency = latencies(config)
    beat, last = config.inputs * 16, config.beats - 1
    places = [*(f"_before[{i}]" for i in reversed(range(last)))]
    chunks = {name: _braces([name, *(name + place for place in places)]) for name in "ab"}
    several = {
        "beats": f"  // The beats of a chunk before the last one.\n  reg [{beat}-1:0] a_before [0:{last}-1], "
        f"b_before [0:{last}-1];\n  reg [{last.bit_length()}-1:0] beat = 0;",
        "ends": f"beat == {last}",
        "keep": f"    if (i_valid) begin\n      if (beat != {last}) begin\n        a_before[beat] = a;\n"
        "        b_before[beat] = b;\n      end\n      beat = beat + 1;\n    end",
        "clear": "      beat = 0;",
    }
    return _TREE.format(
        scheme=config.scheme,
        chunk=16 * CHUNK,
        beat=beat,
        total_latency=total_latency,
        latency=latency,
        fraction_bits=config.fraction_bits,
        chunk_a=chunks["a"],
        chunk_b=chunks["b"],
        **(several if last else {"beats": "", "ends": "1", "keep": "", "clear": ""}),
    )


def lane_verilog(length: int) -> str:
    """Module `vrex_vpe_lane` (`vrex.hw.lxe.vpe_lane.Lane`) of a ring so long, with functions."""
    return _LANE.format(length=length, place=length.bit_length(), opcode=OPCODE_BITS, turn=TURN_BITS)


def dependencies() -> str:
    """Everything that the functions depend on besides the compiler."""
    return "\0".join([SOURCE.read_text("utf-8"), tables(), OPTIMISE, EXACT])


def write_tables(folder: Path) -> None:
    """Writes the header that `SOURCE` includes into a folder of the compiler's."""
    (folder / TABLES).write_text(tables(), "utf-8")


def tables() -> str:
    """The header `TABLES`: passes by whether accumulators are joined, operation and turn; constants."""
    numbers = {"Bias": FP32.bias, "Lift": vpe.LIFT, "ExpBits": vpe.EXP_BITS, "SeedBits": vpe.SEED_BITS}
    words = {"ExpLimit": _bits(vpe.EXP_LIMIT), "Lifted": _bits(2.0**vpe.LIFT)}
    words |= {"Recip": vpe.Function.RECIP, "Rsqrt": vpe.Function.RSQRT}
    lists = {"ExpTable": vpe.EXP_TABLE, "RecipSeeds": vpe.RECIP_SEEDS, "RsqrtSeeds": vpe.RSQRT_SEEDS}
    lines = [f"constexpr int k{name} = {value};" for name, value in numbers.items()]
    lines += [f"constexpr uint32_t k{name} = {int(value)};" for name, value in words.items()]
    for name, values in lists.items():
        lines.append(f"constexpr uint32_t k{name}[{len(values)}] = {_braces(map(_bits, values))};")
    codes, turns = 1 << OPCODE_BITS, 1 << TURN_BITS
    passes = _braces(_braces(_passes_of(code, join) for code in range(codes)) for join in (False, True))
    lines.append(f"constexpr Pass kPasses[2][{codes}][{turns}] = {passes};")
    return "\n".join([*lines, ""])


def _passes_of(opcode: int, join: bool) -> str:
    """Initialiser of an operation's passes, the last one again for all turns beyond."""
    # An opcode that is no operation has the pass that lanes give it.
    steps = {int(code): steps for code, steps in SEQUENCES.items()}.get(opcode, (Pass(),))
    joins: dict[int, dict[str, Any]] = {int(code): dict(changes) for code, changes in JOINS.items()}
    steps = tuple(replace(step, **(joins.get(opcode, {}) if join else {})) for step in steps)
    turns = 1 << TURN_BITS
    return _braces(_pass([*steps, *[steps[-1]] * turns][turn]) for turn in range(turns))


def _pass(step: Pass) -> str:
    """Initialiser of a pass: `Pass` of `arithmetic.cpp`."""
    b_and_c = (step.b_is, step.c_is)
    fixed = [isinstance(value, float) for value in b_and_c]
    forms = [0 if isinstance(value, float) else value for value in b_and_c]
    constants = [_bits(value) if isinstance(value, float) else 0 for value in b_and_c]
    flags = [*fixed, step.lift, step.keep_v, step.keep_u]
    return _braces(map(int, [step.a, step.b, step.c, step.a_is, *forms, *flags, *constants]))


def _bits(value: float | np.floating) -> int:
    """Bits of an FP32 number."""
    return int(vpe.to_bits(value))


def _braces(items: Iterable[object]) -> str:
    return f"{{{', '.join(map(str, items))}}}"
