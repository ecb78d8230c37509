"""The serial link between host and accelerator: frames, and both ends as executable specifications."""

SCHEME = "serial:"
"""What stands before a port's name where an accelerator is named."""

BAUD = 2_000_000
"""Bits a second on the line, where nothing else is said: 25 cycles of the 50 MHz of boards with a PLL, and a
rate that FTDI's chips make exactly."""
