"""Counters in a netlist's simulation: how often each net changes, and for how many cycles some are high.

Nets are looked at once a cycle, just before the clock's rising edge, when everything is settled. So what a
net does within a cycle, its glitches, is not counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrex.errors import UserError

FILE = "toggles.txt"
"""What a simulation leaves in the folder that it runs in."""

WIDTH = 512
"""Nets of one counter's instance: simulators print no numbers of any width."""

# Counts are kept by their bits: plane k holds bit k of the counts of all nets of the instance.
# One module for all instances of a width: the simulator compiles it once.
MODEL = f"""module vrex_counter(clk, number, levels, nets); /* verilator no_inline_module */
  parameter WIDTH = 1;
  input clk, levels;
  input [31:0] number;
  input [WIDTH-1:0] nets;
  bit [WIDTH-1:0] seen, carry, higher;
  bit [WIDTH-1:0] planes [0:31];
  bit [63:0] cycles;
  integer k, file;
  initial begin
    cycles = 0;
    for (k = 0; k < 32; k = k + 1) planes[k] = 0;
  end
  always @(posedge clk) begin
    carry = levels ? nets : cycles == 0 ? 0 : nets ^ seen;
    seen = nets;
    cycles = cycles + 1;
    for (k = 0; k < 32 && carry != 0; k = k + 1) begin
      higher = planes[k] & carry;
      planes[k] = planes[k] ^ carry;
      carry = higher;
    end
  end
  final begin
    file = $fopen("{FILE}", "a");
    for (k = 0; k < 32; k = k + 1) $fdisplay(file, "%0d %0d %h", number, cycles, planes[k]);
    $fclose(file);
  end
endmodule
"""


@dataclass(frozen=True)
class Activity:
    """What a simulation counted.

    Attributes:
        cycles: of the clock.
        toggles: changes of each net.
        high: of some nets: at how many clock edges it was high.
    """

    cycles: int
    toggles: dict[int, int]
    high: dict[int, int]


def counters(clock: str, nets: Sequence[int], levels: Sequence[int]) -> Iterator[str]:
    """Instances of `MODEL` in a netlist whose nets are called n1, n2, ...

    Args:
        clock: name of its clock.
        nets: whose changes are counted.
        levels: whose high cycles are counted.
    """
    for number, (bits, of_levels) in enumerate(_groups(nets, levels)):
        vector = ", ".join(f"n{bit}" for bit in reversed(bits))
        pins = f".clk({clock}), .number(32'd{number}), .levels(1'b{int(of_levels)}), .nets({{{vector}}})"
        yield f"  vrex_counter #(.WIDTH({len(bits)})) counter_{number}({pins});"


def read(folder: Path, nets: Sequence[int], levels: Sequence[int]) -> Activity:
    """What the counters of a simulation wrote.

    Args:
        folder: in which it ran.
        nets, levels: as of `counters`.

    Raises:
        UserError: they wrote nothing, or not all: the simulation did not end.
    """
    path = folder / FILE
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    planes: dict[int, list[int]] = {}
    cycles = 0
    for line in lines:
        group, seen, plane = line.split()
        planes.setdefault(int(group), []).append(int(plane, 16))
        cycles = int(seen)
    changes: dict[int, int] = {}
    high: dict[int, int] = {}
    for number, (bits, of_levels) in enumerate(_groups(nets, levels)):
        found = planes.get(number, [])
        if len(found) != 32:
            raise UserError(f"the simulation in {folder} left no counts of its nets; see sim.log there")
        counts = high if of_levels else changes
        for place, bit in enumerate(bits):
            counts[bit] = sum((plane >> place & 1) << k for k, plane in enumerate(found))
    return Activity(cycles, changes, high)


def _groups(nets: Iterable[int], levels: Iterable[int]) -> Iterator[tuple[list[int], bool]]:
    """The nets of each instance, and whether it counts high cycles."""
    for bits, of_levels in ((list(nets), False), (list(levels), True)):
        for at in range(0, len(bits), WIDTH):
            yield bits[at : at + WIDTH], of_levels
