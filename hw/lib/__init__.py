"""What every unit builds on: streams, floating point, AXI4 and registers."""
