"""Boards: what stands around a design on each, from the clock to the memory's pins."""
