"""Verilog of the cells of a Lattice ECP5, in the modes that Yosys and `multipliers.pack` use.

After Lattice's guides on memory (FPGA-TN-02204) and sysDSP (FPGA-TN-02205) and its library of primitives, no
delays. A parameter that a model does not have is a mode that it does not know, which stops the simulator's
build. Registers and memories start as the bitstream says.
"""

LUT4 = """module LUT4(input A, B, C, D, output Z);
  parameter [15:0] INIT = 0;
  assign Z = INIT[{D, C, B, A}];
endmodule
"""

PFUMX = """module PFUMX(input ALUT, BLUT, C0, output Z);
  assign Z = C0 ? ALUT : BLUT;
endmodule
"""

L6MUX21 = """module L6MUX21(input D0, D1, SD, output Z);
  assign Z = SD ? D1 : D0;
endmodule
"""

CCU2C = """module CCU2C(input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
  parameter [15:0] INIT0 = 0, INIT1 = 0;
  parameter INJECT1_0 = "YES", INJECT1_1 = "YES";
  // A half's LUT says whether the carry goes on; where it does not, the table of A and B alone makes one.
  wire on0 = INIT0[{D0, C0, B0, A0}], on1 = INIT1[{D1, C1, B1, A1}];
  wire made0 = INJECT1_0 == "NO" & INIT0[{2'b00, B0, A0}], made1 = INJECT1_1 == "NO" & INIT1[{2'b00, B1, A1}];
  wire middle = on0 ? CIN : made0;
  assign COUT = on1 ? middle : made1;
  assign S0 = on0 ^ (INJECT1_0 == "NO" & CIN), S1 = on1 ^ (INJECT1_1 == "NO" & middle);
endmodule
"""

TRELLIS_FF = """module TRELLIS_FF(input CLK, LSR, CE, DI, output reg Q);
  parameter CLKMUX = "CLK", CEMUX = "1", LSRMUX = "LSR", SRMODE = "LSR_OVER_CE", REGSET = "RESET";
  parameter GSR = "DISABLED";
  wire enable = CEMUX == "1" ? 1'b1 : CEMUX == "INV" ? ~CE : CE;
  wire forced = LSRMUX == "INV" ? ~LSR : LSR;
  initial Q = REGSET == "SET";
  generate
    if (SRMODE == "ASYNC") begin
      wire clock = CLKMUX == "INV" ? ~CLK : CLK;
      always @(posedge clock or posedge forced)
        if (forced) Q <= REGSET == "SET";
        else if (enable) Q <= DI;
    end else if (CLKMUX == "INV") begin
      always @(negedge CLK) if (forced) Q <= REGSET == "SET"; else if (enable) Q <= DI;
    end else begin
      always @(posedge CLK) if (forced) Q <= REGSET == "SET"; else if (enable) Q <= DI;
    end
  endgenerate
endmodule
"""

TRELLIS_DPR16X4 = """module TRELLIS_DPR16X4(input [3:0] DI, WAD, RAD, input WRE, WCK, output [3:0] DO);
  parameter WCKMUX = "WCK", WREMUX = "WRE";
  parameter [63:0] INITVAL = 0;
  reg [3:0] words [0:15];
  wire enable = WREMUX == "1" ? 1'b1 : WREMUX == "0" ? 1'b0 : WREMUX == "INV" ? ~WRE : WRE;
  integer i;
  initial for (i = 0; i < 16; i = i + 1) words[i] = INITVAL[4*i +: 4];
  generate
    if (WCKMUX == "INV") begin always @(negedge WCK) if (enable) words[WAD] <= DI; end
    else begin always @(posedge WCK) if (enable) words[WAD] <= DI; end
  endgenerate
  assign DO = words[RAD];
endmodule
"""


def _pins(name: str, count: int) -> str:
    """A vector of single pins, the highest first."""
    return ", ".join(f"{name}{bit}" for bit in reversed(range(count)))


MULT18X18D = f"""module MULT18X18D(
  input {_pins("A", 18)}, {_pins("B", 18)}, {_pins("C", 18)},
  input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CE0, RST0, output {_pins("P", 36)}
);
  parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0", GSR = "ENABLED";
  wire [35:0] a = {{{{18{{SIGNEDA & A17}}}}, {_pins("A", 18)}}};
  wire [35:0] b = {{{{18{{SIGNEDB & B17}}}}, {_pins("B", 18)}}};
  wire [35:0] product = a * b;
  reg [35:0] kept = 0;
  always @(posedge CLK0) if (RST0) kept <= 0; else if (CE0) kept <= product;
  assign {{{_pins("P", 36)}}} = REG_OUTPUT_CLK == "CLK0" ? kept : product;
endmodule
"""


def _port(own: str, other: str) -> str:
    """One of the two ports of a DP16KD: up to four bytes of 9 bits, or part of one."""
    return f"""
  localparam W{own} = DATA_WIDTH_{own}, BYTES{own} = W{own} < 18 ? 1 : W{own} / 9;
  wire clock{own} = CLK{own}MUX == "INV" ? ~CLK{own} : CLK{own};
  wire works{own} = CE{own} & ~|{{CS{own}2, CS{own}1, CS{own}0}};
  wire writes{own} = works{own} & WE{own};
  wire reset{own} = RST{own} & RESETMODE == "SYNC", cleared{own} = RST{own} & RESETMODE == "ASYNC";
  wire [10:0] first{own} = AD{own}[13:3] & ~(BYTES{own} - 1);
  wire [2:0] low{own} = W{own} < 9 ? AD{own}[2:0] & ~(W{own} - 1) : 0;
  wire [8:0] part{own} = (W{own} < 9 ? (1 << W{own}) - 1 : 511) << low{own};
  // What the port writes of a byte; a wide port's lowest address bits enable its bytes.
  function [8:0] written{own}(input [10:0] at);
    written{own} = writes{own} && (at & ~(BYTES{own} - 1)) == first{own}
      && (W{own} < 18 || AD{own}[at & BYTES{own} - 1]) ? part{own} : 0;
  endfunction
  always @(posedge clock{own})
    for (k{own} = 0; k{own} < BYTES{own}; k{own} = k{own} + 1)
      for (b{own} = 0; b{own} < 9; b{own} = b{own} + 1)
        if (written{own}(first{own} + k{own}) >> b{own} & 1)
          bytes[first{own} + k{own}][b{own}] <= DI{own}[9 * k{own} + b{own} - low{own}];
  always @(posedge clock{own} or posedge cleared{own})
    if (cleared{own}) DO{own} <= 0;
    else if (reset{own}) DO{own} <= 0;
    else if (works{own} && !(WE{own} && WRITEMODE_{own} == "NORMAL"))
      for (j{own} = 0; j{own} < BYTES{own}; j{own} = j{own} + 1) begin
        seen{own} = bytes[first{own} + j{own}];
        if (WRITEMODE_{own} == "WRITETHROUGH")
          seen{own} = seen{own} & ~written{own}(first{own} + j{own})
            | DI{own}[9 * j{own} +: 9] << low{own} & written{own}(first{own} + j{own});
        // What the other port writes now can't be relied on.
        for (c{own} = 0; c{own} < 9; c{own} = c{own} + 1)
          if (written{other}(first{own} + j{own}) >> c{own} & 1) seen{own}[c{own}] = 1'bx;
        DO{own}[9 * j{own} +: 9] <= (seen{own} & part{own}) >> low{own};
      end
"""


_INITVALS = [f"INITVAL_{block:02X}" for block in range(64)]

DP16KD = f"""module DP16KD(
  input {_pins("DIA", 18)}, {_pins("DIB", 18)}, {_pins("ADA", 14)}, {_pins("ADB", 14)},
  input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0, CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
  output {_pins("DOA", 18)}, {_pins("DOB", 18)}
);
  parameter integer DATA_WIDTH_A = 18, DATA_WIDTH_B = 18;
  parameter REGMODE_A = "NOREG", REGMODE_B = "NOREG", RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC";
  parameter CSDECODE_A = "0b000", CSDECODE_B = "0b000", WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL";
  parameter CLKAMUX = "CLKA", CLKBMUX = "CLKB", GSR = "DISABLED";
  parameter [319:0] {", ".join(f"{name} = 0" for name in _INITVALS)};
  wire [13:0] ADA = {{{_pins("ADA", 14)}}}, ADB = {{{_pins("ADB", 14)}}};
  // With 36 bits port A writes both ports' data and port B reads both ports' data.
  wire [35:0] DIA = {{{_pins("DIB", 18)}, {_pins("DIA", 18)}}}, DIB = {{{_pins("DIB", 18)}}};
  reg [35:0] DOA = 0, DOB = 0;
  assign {{{_pins("DOA", 18)}}} = DATA_WIDTH_B == 36 ? DOB[17:0] : DOA[17:0];
  assign {{{_pins("DOB", 18)}}} = DATA_WIDTH_B == 36 ? DOB[35:18] : DOB[17:0];
  reg [8:0] bytes [0:2047], seenA, seenB;
  integer i, kA, kB, bA, bB, jA, jB, cA, cB;
  localparam [20479:0] INIT = {{{", ".join(reversed(_INITVALS))}}};
  initial for (i = 0; i < 2048; i = i + 1) bytes[i] = INIT[20 * (i / 2) + 9 * (i % 2) +: 9];
{_port("A", "B")}{_port("B", "A")}
endmodule
"""

MODELS = {
    "LUT4": LUT4,
    "PFUMX": PFUMX,
    "L6MUX21": L6MUX21,
    "CCU2C": CCU2C,
    "TRELLIS_FF": TRELLIS_FF,
    "TRELLIS_DPR16X4": TRELLIS_DPR16X4,
    "MULT18X18D": MULT18X18D,
    "DP16KD": DP16KD,
}
"""Verilog by type of cell."""
