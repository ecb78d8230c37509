"""Mutation testing of the hardware: small faults in its sources, each of which a testbench must see."""
