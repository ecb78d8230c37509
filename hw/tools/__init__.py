"""Generates Verilog, builds simulators and measures area and timing."""
