"""The serial link between host and accelerator: frames, and both ends as executable specifications."""

SCHEME = "serial:"
"""What stands before a port's name where an accelerator is named."""

BAUD = 3_000_000
"""Bits a second on the line, where nothing else is said."""
