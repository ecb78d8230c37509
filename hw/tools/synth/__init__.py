"""Area and timing of the hardware units, as Yosys, nextpnr and a table of standard cells see them."""
