"""Verilog of the memories that stay macros in a netlist of standard cells."""

from typing import Any

from vrex.errors import UserError

PLAIN = ("RD_WIDE_CONTINUATION", "WR_WIDE_CONTINUATION", "OFFSET")
"""Parameters of Yosys's `$mem_v2` that are 0 here."""

DROPPED = ("RD_CLK", "WR_CLK", "RD_ARST")
"""Its pins that a model does not have."""


def macro_model(name: str, cell: dict[str, Any]) -> str:
    """A module with the pins of a memory in Yosys's JSON, but for one clock `CLK` and no asynchronous reset.

    A word is read at the clock's edge, before what is written there, or with it where the memory says so;
    where its value would not matter (`no_rw_check`) it is unknown. Nothing has an initial value.

    Args:
        name: of the module.
        cell: of type `$mem_v2`.

    Raises:
        UserError: the memory has ports that no macro has.
    """
    has = {key: number(value) for key, value in cell["parameters"].items() if key not in ("MEMID", "INIT")}
    reads, writes = has["RD_PORTS"], has["WR_PORTS"]
    clocked = (1 << reads) - 1, (1 << writes) - 1
    edges = [(has[f"{kind}_CLK_ENABLE"], has[f"{kind}_CLK_POLARITY"]) for kind in ("RD", "WR")]
    resets = set(cell["connections"]["RD_ARST"]) - {"0"}
    one_clock = len(set(_clocks(cell))) == 1
    rising = all(seen == (every, every) for seen, every in zip(edges, clocked, strict=True))
    if any(has[key] for key in PLAIN) or not rising or resets or not one_clock:
        raise UserError(f"memory {name} has ports of a kind that can't be simulated; choose another unit")
    width, bits = has["WIDTH"], has["ABITS"]
    pins = {"RD_ADDR": reads * bits, "RD_EN": reads, "RD_SRST": reads}
    pins |= {"WR_ADDR": writes * bits, "WR_DATA": writes * width, "WR_EN": writes * width}
    lines = [f"module {name}(CLK, {', '.join(pins)}, RD_DATA);", "  input CLK;"]
    lines += [f"  input [{size - 1}:0] {pin};" for pin, size in pins.items()]
    lines += [f"  output reg [{reads * width - 1}:0] RD_DATA;"]
    lines += [
        f"  reg [{width - 1}:0] words [0:{has['SIZE'] - 1}];",
        "  integer i;",
        "  always @(posedge CLK) begin",
    ]
    for port in range(reads):
        lines += _read(port, has, cell["parameters"].get("RD_SRST_VALUE", "0"))
    for port in range(writes):
        address, data = f"WR_ADDR[{port * bits} +: {bits}]", f"WR_DATA[{port * width} + i]"
        enable = f"WR_EN[{port * width} + i]"
        lines += [
            f"    for (i = 0; i < {width}; i = i + 1)",
            f"      if ({enable}) words[{address}][i] <= {data};",
        ]
    return "\n".join([*lines, "  end", "endmodule", ""])


def number(value: int | str) -> int:
    """A parameter in Yosys's JSON; unknown bits count as 0."""
    return value if isinstance(value, int) else int(value.replace("x", "0") or "0", 2)


def pins_of(cell: dict[str, Any]) -> dict[str, list[int | str]]:
    """The pins of a model's instance and their nets.

    Args:
        cell: as of `macro_model`.
    """
    left = {pin: bits for pin, bits in cell["connections"].items() if pin not in DROPPED}
    return {"CLK": _clocks(cell)[:1], **left}


def _clocks(cell: dict[str, Any]) -> list[int | str]:
    """The nets of a memory's clocks, one a port."""
    return [*cell["connections"]["RD_CLK"], *cell["connections"]["WR_CLK"]]


def _read(port: int, has: dict[str, int], reset: int | str) -> list[str]:
    """What one read port does at the edge."""
    width, bits, writes = has["WIDTH"], has["ABITS"], has["WR_PORTS"]
    data, address = f"RD_DATA[{port * width} +: {width}]", f"RD_ADDR[{port * bits} +: {bits}]"
    lines = [f"    if (RD_EN[{port}]) begin", f"      {data} <= words[{address}];"]
    for other in range(writes):
        mask = 1 << (port * writes + other)
        through, unknown = (has[f"RD_{kind}_MASK"] & mask for kind in ("TRANSPARENCY", "COLLISION_X"))
        if through or unknown:
            value = f"WR_DATA[{other * width} + i]" if through else "1'bx"
            lines += [
                f"      if ({address} == WR_ADDR[{other * bits} +: {bits}])",
                f"        for (i = 0; i < {width}; i = i + 1)",
                f"          if (WR_EN[{other * width} + i]) RD_DATA[{port * width} + i] <= {value};",
            ]
    lines.append("    end")
    after = (number(reset) >> port * width) & (1 << width) - 1
    enabled = f" && RD_EN[{port}]" if has["RD_CE_OVER_SRST"] >> port & 1 else ""
    return [*lines, f"    if (RD_SRST[{port}]{enabled}) {data} <= {width}'b{after:0{width}b};"]
