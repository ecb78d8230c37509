"""Mapped netlists: models of their cells, Verilog to simulate them, and what they take in power."""
