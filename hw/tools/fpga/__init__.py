"""Bitstreams: Yosys, nextpnr and the packers of the families, step by step."""
