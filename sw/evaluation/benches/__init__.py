"""Measurements against other implementations."""
