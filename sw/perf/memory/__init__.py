"""DRAM, flash and PCIe from the timing parameters of their standards."""
