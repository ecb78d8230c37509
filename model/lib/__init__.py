"""Arithmetic and memory, as the units see them."""
