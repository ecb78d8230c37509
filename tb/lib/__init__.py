"""What every testbench builds on: streams, memory, stimuli, coverage; the bench of the AXI4 master."""
